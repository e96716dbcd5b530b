//! The steps of `functions/deliver`: read, admit, pass the gate, claim, post, record, learn, send what follows.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use carillon_core::delivery::{Admission, Ask, Decision, FailReason, HeldBy, Status, admit, decide};
use carillon_core::health::{Health, Lesson};
use carillon_core::operational::FAILING_ATTEMPT;
use carillon_core::outcome::{Failure, Outcome, OutcomeClass};
use carillon_core::retry::Wait;
use carillon_core::time::UnixMillis;

use super::gate::{Near, Pass, passes, put_note};
use super::left;
use crate::checks::Kind;
use crate::queue::{Body, QueueName, Task};
use crate::rules::Rule;
use crate::sim::{Run, Undone};
use crate::tables::{Claim, Item, Write};
use crate::world::{SHARDS, Standing, State, Target, World};

const RECORDING_TIME: Duration = Duration::from_secs(2);
const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(500);
const PUT_OFF: Duration = Duration::from_mins(10);
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);
const SLOW_AFTER: u64 = 2000;
const LEARN_TRIES: usize = 4;

/// How long a subscription is taken to be as it was read.
const KEPT: Duration = Duration::from_secs(4);

/// How many quick answers bring a subscription back from the slow lane: fewer than there are, as runs are small.
const QUICK_ANSWERS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Delivery,
    Slow,
}

/// A subscription's state: as it was read for a batch, and as the batch's attempts have left it.
pub(crate) struct Seen {
    pub(crate) read: State,
    pub(crate) latest: RefCell<State>,
}

/// A task that may do something, with all that was read for it.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) task: Task,
    pub(crate) subscription: usize,
    pub(crate) lane: Lane,
    pub(crate) admission: Admission,
    numbers: (u32, u32),
    pub(crate) seen: Rc<Seen>,
    /// `None`: the subscription is no more.
    pub(crate) target: Option<Rc<Target>>,
    /// When the reading began, and when the row was read, by the world's clock.
    began_at: u64,
    read_at: u64,
}

enum FollowUp {
    Retry { task: Task, at: UnixMillis, lane: Lane },
    Letter(Task),
    SlowLane(Task),
    Later { task: Task, seconds: u16, lane: Lane },
}

/// Works off a batch: the messages that must come again.
pub(crate) async fn deliver(run: Run, lane: Lane, batch: Vec<(u64, Task)>) -> Vec<u64> {
    let run = warm(run);
    let all: Vec<_> = batch.iter().map(|(id, _)| *id).collect();
    let Ok(cases) = cases(&run, lane, &batch).await else { return all };
    let (ids, ready): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let passes = passes(&run, &ready).await;
    let running = ids.into_iter().zip(ready.into_iter().zip(passes)).map(|(id, (ready, pass))| {
        let run = run.clone();
        async move {
            let Ok(pass) = pass else { return Some(id) };
            let followed = match attempt(&run, ready, pass).await {
                Ok(Some(follow_up)) => follow(&run, follow_up).await,
                Ok(None) => Ok(()),
                Err(undone) => Err(undone),
            };
            followed.is_err().then_some(id)
        }
    });
    run.together(running.collect()).await.into_iter().flatten().collect()
}

/// The run in an environment that nobody uses, with its clock and what it keeps.
fn warm(run: Run) -> Run {
    let mut world = run.world();
    let is_free = |environment: &usize| !world.runs[world.environments[*environment].run].alive;
    let free: Vec<_> = (0..world.environments.len()).filter(is_free).collect();
    let number = if free.is_empty() {
        world.environments.push(crate::world::Environment { skew: run.skew, ..Default::default() });
        world.environments.len() - 1
    } else {
        let choice = world.chance.index(free.len());
        free[choice]
    };
    world.environments[number].run = run.number;
    let skew = world.environments[number].skew;
    drop(world);
    run.in_environment(number, skew)
}

/// What the tasks may do, by what was read for them in one call.
async fn cases(run: &Run, lane: Lane, batch: &[(u64, Task)]) -> Result<Vec<(u64, Ready)>, Undone> {
    let (began_at, read_at) = (run.sim.now(), run.now());
    run.call(|world| {
        let mut seen: Vec<(usize, Rc<Seen>)> = Vec::new();
        let cases = batch.iter().filter_map(|(id, task)| {
            let subscription = world.subscription_of(task.delivery);
            let target = target(world, run, subscription, read_at);
            let known = seen.iter().find(|(of, _)| *of == subscription).map(|(_, seen)| Rc::clone(seen));
            let seen = known.unwrap_or_else(|| {
                let state = world.states[subscription].clone();
                let state = Rc::new(Seen { read: state.clone(), latest: RefCell::new(state) });
                seen.push((subscription, Rc::clone(&state)));
                state
            });
            let admission = admission(world, *task, UnixMillis(world.now + run.skew));
            let numbers = match (admission, task.ask) {
                (Admission::Drop, _) => return None,
                (_, Ask::Attempt { round, attempt }) => (round, attempt),
                (_, Ask::NewRound { after, .. }) => (after + 1, 1),
            };
            let (task, read_at) = (*task, world.now);
            if matches!(admission, Admission::Letter { .. }) && !world.keeps(Rule::LetterIsSentAgain) {
                return None;
            }
            Some((
                *id,
                Ready { task, subscription, lane, admission, numbers, seen, target, began_at, read_at },
            ))
        });
        cases.collect()
    })
    .await
}

fn admission(world: &World, task: Task, now: UnixMillis) -> Admission {
    let item = world.rows[task.delivery].as_ref();
    let (row, reason) = (item.map(|Item { row, .. }| row), item.and_then(|item| item.reason));
    let admission = admit(task.ask, row, reason, now);
    match (admission, task.ask) {
        (
            Admission::Drop | Admission::Taken | Admission::Letter { .. },
            Ask::Attempt { round: 1, attempt: 1 },
        ) if !world.keeps(Rule::ReadDropsWhatIsDone) => Admission::First,
        (Admission::Drop, Ask::NewRound { after, .. })
            if !world.keeps(Rule::RoundFollowsFailure) && row.is_some_and(|row| row.round == after) =>
        {
            Admission::NewRound
        }
        (Admission::Drop | Admission::Taken | Admission::Letter { .. }, Ask::NewRound { .. })
            if !world.keeps(Rule::RoundFollowsItsOwn)
                && row.is_some_and(|row| row.status == Status::Failed) =>
        {
            Admission::NewRound
        }
        _ => admission,
    }
}

/// What a subscription is taken for: what the environment keeps of it, or what is read of it now.
fn target(world: &mut World, run: &Run, subscription: usize, read_at: UnixMillis) -> Option<Rc<Target>> {
    let is_fresh = world.keeps(Rule::TargetIsFresh);
    let kept = world.environments[run.environment].targets.get(&subscription);
    if let Some((_, target)) = kept.filter(|(kept_at, _)| !is_fresh || read_at.since(*kept_at) < KEPT) {
        return target.clone();
    }
    let stored = &world.subscriptions[subscription];
    let target = (!stored.is_deleted).then(|| Rc::clone(&stored.target));
    let targets = &mut world.environments[run.environment].targets;
    if target.as_ref().is_none_or(|target| target.is_active()) {
        targets.insert(subscription, (read_at, target.clone()));
    } else {
        targets.remove(&subscription);
    }
    target
}

/// Does what a task may do: what must be sent then.
async fn attempt(run: &Run, ready: Ready, pass: Pass) -> Result<Option<FollowUp>, Undone> {
    let (task, lane) = (ready.task, ready.lane);
    if ready.admission == Admission::Taken {
        return run.taken().map(|()| None);
    }
    let this = Attempt { run, ready: &ready, round: ready.numbers.0, number: ready.numbers.1 };
    let Some(target) = &ready.target else {
        this.cancel().await?;
        this.forget().await;
        return Ok(None);
    };
    if let Admission::Letter { round, .. } = ready.admission {
        this.tell().await?;
        return Ok(Some(FollowUp::Letter(letter(task, round))));
    }
    if target.is_awaited(run.now()) {
        return this.put_off().await;
    }
    let (slot, timeout, is_trial) = match pass {
        Pass::SlowLane => return Ok(Some(FollowUp::SlowLane(task))),
        Pass::Later { slot, seconds } => {
            return Ok(Some(FollowUp::Later { task: Task { slot: Some(slot), ..task }, seconds, lane }));
        }
        Pass::Held(by) => {
            this.hold(by).await?;
            return Ok(None);
        }
        Pass::Now { slot } => (slot, target.timeout, false),
        Pass::Trial { timeout } => (None, timeout.min(target.timeout), true),
    };
    if let Some(slot) = slot {
        slot.come(run).await;
    }
    ends(run, timeout)?;
    if this.claim(run.now(), run.deadline).await? == Claim::Lost {
        return run.taken().map(|()| None);
    }
    if slot.is_some_and(|slot| !slot.holds(run)) {
        return Ok(Some(this.give_back().await?));
    }
    if !target.is_active() && run.world().keeps(Rule::DisabledGetsNothing) {
        this.fail(FailReason::Disabled).await?;
        this.forget().await;
        return Ok(None);
    }
    this.make(target, slot, (timeout, is_trial)).await
}

/// The attempt that a task was admitted to.
struct Attempt<'a> {
    run: &'a Run,
    ready: &'a Ready,
    round: u32,
    number: u32,
}

impl Attempt<'_> {
    async fn make(
        &self,
        target: &Target,
        slot: Option<Near>,
        (timeout, is_trial): (Duration, bool),
    ) -> Result<Option<FollowUp>, Undone> {
        let run = self.run;
        let started = run.now();
        let until = ends(run, timeout)?;
        let Some(outcome) = self.post(until, slot, is_trial).await else {
            return Ok(Some(self.hand_over().await?));
        };
        if outcome == Outcome::Unanswered(Failure::TimedOut) && until.since(started) < timeout {
            return Err(Undone);
        }
        let ended = run.now();
        let decision = {
            let mut world = run.world();
            let id = world.id_of(self.ready.task.delivery);
            decide(id, (self.round, self.number), outcome, &target.policy, &world.pace, ended)
        };
        if !run.world().keeps(Rule::RecordComesBeforeSend)
            && let Some(follow_up) = self.follow_up(decision)
        {
            _ = follow(run, follow_up).await;
        }
        if self.record(true, decision).await? == Claim::Lost {
            let write = self.write();
            run.world().witness_loss(write, self.ready.admission, run.deadline);
            if run.world().keeps(Rule::LoserSendsNothing) {
                return run.taken().map(|()| None);
            }
        }
        let is_quick = outcome.status().is_some() && ended.since(started) < Duration::from_millis(SLOW_AFTER);
        if self.ready.lane == Lane::Slow && self.ready.seen.read.slow && is_quick {
            self.count_quick().await;
        }
        let fails = self.number == FAILING_ATTEMPT && decision.next_at().is_some();
        let told = fails || matches!(decision, Decision::Failed(_));
        self.learn(target, Lesson::of(outcome, ended, is_trial, told)).await;
        if fails {
            _ = self.tell().await;
        }
        if matches!(decision, Decision::Failed(_)) {
            self.tell().await?;
        }
        if !run.world().keeps(Rule::RecordComesBeforeSend) {
            return Ok(None);
        }
        Ok(self.follow_up(decision))
    }

    fn follow_up(&self, decision: Decision) -> Option<FollowUp> {
        match decision {
            Decision::Delivered | Decision::Cancelled | Decision::Held(_) => None,
            Decision::Failed(_) => Some(FollowUp::Letter(letter(self.ready.task, self.round))),
            Decision::Retry { next_at } => {
                let ask = Ask::Attempt { round: self.round, attempt: self.number + 1 };
                self.run.world().witness_send(self.ready.task.delivery, (self.round, self.number + 1));
                let task = Task { ask, slot: None, ..self.ready.task };
                Some(FollowUp::Retry { task, at: next_at, lane: self.ready.lane })
            }
        }
    }

    fn write(&self) -> Write {
        let (delivery, now) = (self.ready.task.delivery, self.run.now());
        Write { delivery, round: self.round, attempt: self.number, now, writer: 0 }
    }

    fn forced(&self) -> bool {
        matches!(self.ready.task.ask, Ask::NewRound { forced: true, .. })
    }

    async fn claim(&self, now: UnixMillis, until: UnixMillis) -> Result<Claim, Undone> {
        let write = Write { now, ..self.write() };
        match self.ready.admission {
            Admission::Lease if !self.run.world().keeps(Rule::LaterOnesLease) => Ok(Claim::Won),
            Admission::Lease => self.run.claim(write, |world, write| world.lease(write, until)).await,
            Admission::NewRound => self.start_round(write, until).await,
            Admission::First | Admission::Letter { .. } | Admission::Taken | Admission::Drop => {
                Ok(Claim::Won)
            }
        }
    }

    async fn start_round(&self, write: Write, until: UnixMillis) -> Result<Claim, Undone> {
        let forced = self.forced();
        self.run.claim(write, |world, write| world.start_round(write, forced, until)).await
    }

    async fn put_off(&self) -> Result<Option<FollowUp>, Undone> {
        let (run, write) = (self.run, self.write());
        let until = write.now + run.world().pace.scaled(PUT_OFF);
        let claim = match self.ready.admission {
            Admission::First => {
                let decision = Decision::Retry { next_at: until };
                run.claim(write, |world, write| world.record_first(write, false, decision)).await?
            }
            Admission::NewRound if self.start_round(write, write.now).await? == Claim::Lost => Claim::Lost,
            _ => run.claim(write, |world, write| world.put_off(write, until)).await?,
        };
        let ask = Ask::Attempt { round: self.round, attempt: self.number };
        let task = Task { ask, slot: None, ..self.ready.task };
        if claim == Claim::Lost {
            return run.taken().map(|()| None);
        }
        Ok(Some(FollowUp::Retry { task, at: until + CLOCKS_DIFFER, lane: self.ready.lane }))
    }

    async fn hold(&self, by: HeldBy) -> Result<(), Undone> {
        let (run, write) = (self.run, self.write());
        let claim = match self.ready.admission {
            Admission::First => {
                let decision = Decision::Held(by);
                run.claim(write, |world, write| world.record_first(write, false, decision)).await?
            }
            Admission::NewRound if self.start_round(write, write.now).await? == Claim::Lost => Claim::Lost,
            _ => run.claim(write, World::hold).await?,
        };
        if claim == Claim::Lost {
            return run.taken();
        }
        run.world().report.held += 1;
        if !run.world().keeps(Rule::NoteComesBeforeHold) {
            put_note(run, self.ready.subscription).await?;
        }
        Ok(())
    }

    async fn hand_over(&self) -> Result<FollowUp, Undone> {
        self.run.world().report.handed_over += 1;
        Ok(FollowUp::SlowLane(self.unclaimed().await?))
    }

    async fn give_back(&self) -> Result<FollowUp, Undone> {
        Ok(FollowUp::Later { task: self.unclaimed().await?, seconds: 0, lane: self.ready.lane })
    }

    async fn unclaimed(&self) -> Result<Task, Undone> {
        if self.ready.admission != Admission::First {
            self.run.claim(self.write(), World::give_back).await?;
        }
        let ask = Ask::Attempt { round: self.round, attempt: self.number };
        Ok(Task { ask, slot: None, ..self.ready.task })
    }

    async fn post(&self, until: UnixMillis, slot: Option<Near>, is_trial: bool) -> Option<Outcome> {
        let (run, started) = (self.run, self.run.sim.now());
        let kind = Kind {
            is_leased: matches!(self.ready.admission, Admission::Lease | Admission::NewRound),
            is_trial,
            slot: slot.map(|slot| slot.slot.at.0),
            began_at: self.ready.began_at,
            read_at: self.ready.read_at,
        };
        let write = self.write();
        let answer = run.world().begin_post(write, run.number, kind);
        let (time, way) = (left(until, run.now()), answer.after.unwrap_or(u64::MAX));
        let (ends, outcome) =
            if way <= time { (way, answer.outcome) } else { (time, Outcome::Unanswered(Failure::TimedOut)) };
        let outcome = self.wait(started, ends, is_trial).await.then_some(outcome);
        run.world().end_post(self.ready.task.delivery, run.number, (self.round, self.number));
        outcome
    }

    /// Waits for an answer, or the end of the time; whether it did not give up before.
    async fn wait(&self, started: u64, ends: u64, is_trial: bool) -> bool {
        let (sim, state) = (&self.run.sim, &self.ready.seen.read);
        if ends <= SLOW_AFTER {
            sim.sleep(ends).await;
            return true;
        }
        sim.sleep(SLOW_AFTER).await;
        if !state.slow || state.quick > 0 {
            let subscription = self.ready.subscription;
            let marked = self.run.call(|world| {
                let state = &mut world.states[subscription];
                (state.slow, state.quick) = (true, 0);
            });
            _ = marked.await;
        }
        if self.ready.lane == Lane::Slow || is_trial {
            sim.sleep_until(started + ends).await;
            return true;
        }
        false
    }

    async fn count_quick(&self) {
        let (subscription, quick) = (self.ready.subscription, self.ready.seen.read.quick + 1);
        let counted = self.run.call(|world| {
            let state = &mut world.states[subscription];
            (state.slow, state.quick) = (quick < QUICK_ANSWERS, quick);
        });
        _ = counted.await;
    }

    async fn record(&self, made: bool, decision: Decision) -> Result<Claim, Undone> {
        let (run, write) = (self.run, self.write());
        match self.ready.admission {
            Admission::First => {
                run.claim(write, |world, write| world.record_first(write, made, decision)).await
            }
            _ => run.claim(write, |world, write| world.record(write, made, decision)).await,
        }
    }

    async fn cancel(&self) -> Result<(), Undone> {
        if self.ready.admission != Admission::NewRound {
            self.record(false, Decision::Cancelled).await?;
        }
        Ok(())
    }

    async fn fail(&self, reason: FailReason) -> Result<(), Undone> {
        if self.record(false, Decision::Failed(reason)).await? == Claim::Lost {
            return self.run.taken();
        }
        Ok(())
    }

    /// Closes the circuit of a subscription that gets nothing any more.
    async fn forget(&self) {
        let latest = self.ready.seen.latest.borrow().clone();
        if latest.trial_at().is_none() {
            return;
        }
        let whose = (self.ready.subscription, 0);
        let written = self.run.call(|world| world.write_health(whose, &latest, &Health::default())).await;
        if let Ok(written) = written {
            *self.ready.seen.latest.borrow_mut() = written.unwrap_or_else(|other| other);
        }
    }

    async fn learn(&self, target: &Target, lesson: Lesson) {
        _ = self.try_to_learn(target, lesson).await;
        if lesson.outcome == OutcomeClass::Gone {
            self.give_up(target).await;
        }
    }

    async fn try_to_learn(&self, target: &Target, lesson: Lesson) -> Result<(), Undone> {
        let (run, whose) = (self.run, (self.ready.subscription, target.revision));
        let pace = run.world().pace;
        for _ in 0..LEARN_TRIES {
            let state = self.ready.seen.latest.borrow().clone();
            let before = state.health(target.revision);
            let after = before.after(lesson, &pace).unwrap_or_else(|| before.clone());
            if after.is_hopeless(lesson.ended, &pace) {
                self.give_up(target).await;
                return Ok(());
            }
            if state.keeps(&after, target.revision) {
                return Ok(());
            }
            let written = run.call(|world| world.write_health(whose, &state, &after)).await?;
            let is_written = written.is_ok();
            *self.ready.seen.latest.borrow_mut() = written.unwrap_or_else(|other| other);
            if is_written {
                let opened = before.circuit.is_none() && after.circuit.is_some();
                run.world().report.circuits += u64::from(opened);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Disables the subscription, unless it was changed since.
    async fn give_up(&self, target: &Target) {
        let (subscription, revision) = (self.ready.subscription, target.revision);
        let disabled = self.run.call(|world| {
            let stored = &world.subscriptions[subscription];
            if !stored.is_deleted && stored.target.revision == revision {
                world.change(subscription, Standing::Disabled);
            }
        });
        _ = disabled.await;
    }

    /// Tells the subscriber: an event like any other, so that nothing of it is looked at here.
    async fn tell(&self) -> Result<(), Undone> {
        self.run.call(|_| ()).await
    }
}

/// Sends what follows. An error: its message comes again.
async fn follow(run: &Run, follow_up: FollowUp) -> Result<(), Undone> {
    let queue = |lane| if lane == Lane::Slow { QueueName::Slow } else { QueueName::Delivery };
    let (queue, task, seconds) = match follow_up {
        FollowUp::Retry { task, at, lane } => {
            let now = run.now();
            let wait = run.world().pace.waits(now, at);
            match wait {
                Wait::InSchedule if run.world().keeps(Rule::LongWaitsAreScheduled) => {
                    let shard = run.world().event_of(task.delivery) % SHARDS;
                    let key = (shard, at, task.delivery);
                    _ = run.call(|world| _ = world.due.insert(key, task)).await;
                }
                Wait::InSchedule => _ = run.send(queue(lane), vec![(Body::Task(task), 900)]).await,
                Wait::InQueue { seconds } => {
                    _ = run.send(queue(lane), vec![(Body::Task(task), seconds)]).await;
                }
            }
            return Ok(());
        }
        FollowUp::Later { task, seconds, lane } => (queue(lane), task, seconds),
        FollowUp::SlowLane(task) => (QueueName::Slow, task, 0),
        FollowUp::Letter(task) => (QueueName::Letters, task, 0),
    };
    run.send(queue, vec![(Body::Task(task), seconds)]).await.remove(0)
}

fn letter(task: Task, round: u32) -> Task {
    Task { ask: Ask::NewRound { after: round, forced: false }, slot: None, ..task }
}

/// When an attempt that begins now must have ended, if there is time for one.
fn ends(run: &Run, timeout: Duration) -> Result<UnixMillis, Undone> {
    let now = run.now();
    let until = (now + timeout).min(run.deadline.minus(RECORDING_TIME));
    if until.since(now) < ATTEMPT_TIME_MIN { Err(Undone) } else { Ok(until) }
}
