//! Queues as SQS has them (standard): what is sent may come twice, late and in any order, comes again while nobody removes
//! it, and is set aside after a number of receives. And their pollers as Lambda has them.

use carillon_core::delivery::Ask;
use carillon_core::matching::Range;
use carillon_core::rate::Reserved;

use crate::rules::Rule;
use crate::sim::{Sim, Wake};
use crate::workers::deliver::{Lane, deliver};
use crate::workers::fanout::{Record, fan_out};
use crate::workers::{FUNCTION_TIMEOUT, VISIBILITY};
use crate::world::World;

/// How many messages a batch of the delivery queues has.
const BATCH: usize = 10;

/// How many batches at once a mapping begins with, and by how many more a minute it grows.
const BATCHES_FIRST: usize = 5;
const BATCHES_MORE: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QueueName {
    Delivery,
    Slow,
    Expansion,
    Letters,
    Crashed,
    FanoutFailures,
}

pub(crate) const QUEUES: usize = 6;

/// A task of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) delivery: usize,
    pub(crate) ask: Ask,
    pub(crate) slot: Option<Reserved>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    Task(Task),
    Expand {
        event: usize,
        range: Range,
    },
    /// What the stream's mapping gave up on.
    Unfanned {
        event: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) body: Body,
    pub(crate) visible_at: u64,
    pub(crate) receives: u32,
    /// The queue that it came from, of one that was set aside.
    pub(crate) from: QueueName,
}

/// A queue and its mapping.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: Vec<Message>,
    /// Batches under way.
    running: usize,
    /// How many there may be now, and ever.
    at_once: usize,
    at_once_max: usize,
    receives_max: u32,
}

impl Queue {
    pub(crate) fn new(at_once_max: usize, receives_max: u32) -> Self {
        let at_once = BATCHES_FIRST.min(at_once_max);
        Self { messages: Vec::new(), running: 0, at_once, at_once_max, receives_max }
    }

    /// Once a minute: more batches while messages wait, fewer while none do.
    pub(crate) fn scale(&mut self, now: u64) {
        let waits = self.messages.iter().any(|message| message.visible_at <= now);
        let first = BATCHES_FIRST.min(self.at_once_max);
        let more = self.at_once + BATCHES_MORE;
        self.at_once = if waits && self.running >= self.at_once { more.min(self.at_once_max) } else { first };
    }
}

impl World {
    pub(crate) fn queue(&mut self, name: QueueName) -> &mut Queue {
        &mut self.queues[name as usize]
    }

    /// Puts a message into a queue, held back for a delay.
    pub(crate) fn put(&mut self, name: QueueName, body: Body, delay_seconds: u16) {
        let visible_at = self.now + u64::from(delay_seconds) * 1000 + self.chance.below(30);
        self.put_at(name, name, body, visible_at);
        if self.chance.happens(self.faults.duplicates) {
            // The queue itself delivers it twice.
            let later = visible_at + self.chance.below(120_000);
            self.put_at(name, name, body, later);
        }
    }

    fn put_at(&mut self, name: QueueName, from: QueueName, body: Body, visible_at: u64) {
        self.messages_sent += 1;
        let id = self.messages_sent;
        self.queue(name).messages.push(Message { id, body, visible_at, receives: 0, from });
        self.wakes.push((visible_at, Wake::Pump(name)));
    }

    /// Some of the visible messages, in any order; those that came too often are set aside.
    fn receive(&mut self, name: QueueName) -> Vec<Message> {
        let (now, faults) = (self.now, self.faults);
        let queue = &self.queues[name as usize];
        if queue.running >= queue.at_once {
            return Vec::new();
        }
        let mut visible: Vec<usize> =
            (0..queue.messages.len()).filter(|place| queue.messages[*place].visible_at <= now).collect();
        let size = if name == QueueName::Expansion { 1 } else { BATCH };
        let mut batch = Vec::new();
        let mut aside = Vec::new();
        while batch.len() < size && !visible.is_empty() {
            let place = visible.swap_remove(self.chance.index(visible.len()));
            // A message that is not removed in time comes to another function while this one is at work.
            let early = self.chance.happens(faults.early);
            let invisible = if early { self.chance.below(20_000) } else { VISIBILITY };
            let queue = &mut self.queues[name as usize];
            let message = &mut queue.messages[place];
            message.receives += 1;
            if message.receives > queue.receives_max {
                aside.push(*message);
                continue;
            }
            message.visible_at = now + invisible;
            batch.push(*message);
            self.wakes.push((now + invisible, Wake::Pump(name)));
        }
        for message in aside {
            self.remove(name, message.id);
            self.set_aside(name, message.body);
        }
        if !batch.is_empty() {
            self.queue(name).running += 1;
        }
        batch
    }

    fn set_aside(&mut self, from: QueueName, body: Body) {
        if !self.keeps(Rule::CrashedTasksAreKept) {
            return;
        }
        self.report.set_aside += 1;
        let to = if from == QueueName::Expansion { QueueName::FanoutFailures } else { QueueName::Crashed };
        let now = self.now;
        self.put_at(to, from, body, now);
    }

    pub(crate) fn remove(&mut self, name: QueueName, id: u64) {
        self.queue(name).messages.retain(|message| message.id != id);
    }

    /// An operator moves what was set aside back to where it came from.
    pub(crate) fn move_back(&mut self, name: QueueName) {
        for message in std::mem::take(&mut self.queue(name).messages) {
            match message.body {
                // It is fanned out again by a job.
                Body::Unfanned { event } | Body::Expand { event, .. } => {
                    self.put(QueueName::Expansion, Body::Expand { event, range: Range::default() }, 0);
                }
                Body::Task(_) => self.put(message.from, message.body, 0),
            }
        }
    }
}

/// Starts as many batches as there are messages and places for.
pub(crate) fn pump(sim: &Sim, name: QueueName) {
    if matches!(name, QueueName::Letters | QueueName::Crashed | QueueName::FanoutFailures) {
        return;
    }
    loop {
        let batch = sim.world().receive(name);
        if batch.is_empty() {
            return;
        }
        sim.spawn(work_off(sim.clone(), name, batch));
    }
}

async fn work_off(sim: Sim, name: QueueName, batch: Vec<Message>) {
    let on_the_way = sim.world().chance.between(1, 20);
    sim.sleep(on_the_way).await;
    if !sim.world().keeps(Rule::MessageOutlastsItsWork) {
        for message in &batch {
            sim.world().remove(name, message.id);
        }
    }
    let failed = invoke(&sim, name, &batch).await;
    let mut world = sim.world();
    let now = world.now;
    world.queue(name).running -= 1;
    world.wakes.push((now, Wake::Pump(name)));
    let Some(failed) = failed else { return };
    let faults = world.faults;
    for message in batch {
        if !failed.contains(&message.id) && !world.chance.happens(faults.unremoved) {
            world.remove(name, message.id);
        }
    }
}

/// Which messages come again; `None`: all, since the function died.
async fn invoke(sim: &Sim, name: QueueName, batch: &[Message]) -> Option<Vec<u64>> {
    if name == QueueName::Expansion {
        let records: Vec<_> = batch.iter().filter_map(Record::of).collect();
        let unfinished = sim.invoke(FUNCTION_TIMEOUT, |run| fan_out(run, records)).await?;
        return Some(unfinished.into_iter().map(|place| batch[place].id).collect());
    }
    let lane = if name == QueueName::Slow { Lane::Slow } else { Lane::Delivery };
    let tasks = batch.iter().filter_map(|message| match message.body {
        Body::Task(task) => Some((message.id, task)),
        _ => None,
    });
    let tasks: Vec<_> = tasks.collect();
    sim.invoke(FUNCTION_TIMEOUT, |run| deliver(run, lane, tasks)).await
}
