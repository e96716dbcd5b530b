//! Virtual time: processes that sleep, functions that run, take their time for each call, and die.

use std::cell::{Cell, RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use carillon_core::time::UnixMillis;

use crate::queue::QueueName;
use crate::rules::Rule;
use crate::world::World;

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    /// A process goes on.
    Process(usize),
    /// The poller of a queue looks for messages.
    Pump(QueueName),
    /// Lambda ends a run.
    Deadline(usize),
}

/// Why a call came to nothing, as its caller sees it: it may have taken place all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undone;

type Body = Pin<Box<dyn Future<Output = ()>>>;

/// The world and all that goes on in it.
#[derive(Clone)]
pub(crate) struct Sim(Rc<Inner>);

struct Inner {
    world: RefCell<World>,
    agenda: RefCell<BinaryHeap<Reverse<(u64, u64, Wake)>>>,
    entries: Cell<u64>,
    processes: RefCell<Vec<Process>>,
    current: Cell<usize>,
}

struct Process {
    run: Option<usize>,
    body: Option<Body>,
}

/// What the world knows of a function's run.
pub(crate) struct RunState {
    pub(crate) alive: bool,
    processes: Vec<usize>,
    waiting: usize,
    /// After how many calls it dies.
    dies_after: Option<u64>,
}

impl Sim {
    pub(crate) fn new(world: World) -> Self {
        Self(Rc::new(Inner {
            world: RefCell::new(world),
            agenda: RefCell::default(),
            entries: Cell::new(0),
            processes: RefCell::default(),
            current: Cell::new(usize::MAX),
        }))
    }

    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.0.world.borrow_mut()
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.world.borrow().now
    }

    fn wake_at(&self, at: u64, wake: Wake) {
        let entry = self.0.entries.get();
        self.0.entries.set(entry + 1);
        self.0.agenda.borrow_mut().push(Reverse((at, entry, wake)));
    }

    /// Starts a process that belongs to no function.
    pub(crate) fn spawn(&self, body: impl Future<Output = ()> + 'static) {
        self.spawn_in(None, body);
    }

    fn spawn_in(&self, run: Option<usize>, body: impl Future<Output = ()> + 'static) -> usize {
        let mut processes = self.0.processes.borrow_mut();
        let number = processes.len();
        processes.push(Process { run, body: Some(Box::pin(body)) });
        if let Some(run) = run {
            self.world().runs[run].processes.push(number);
        }
        self.wake_at(self.now(), Wake::Process(number));
        number
    }

    /// Until `until`, or nothing is left to happen.
    pub(crate) fn run_until(&self, until: u64) {
        loop {
            let next = self.0.agenda.borrow().peek().copied();
            let Some(Reverse((at, _, wake))) = next.filter(|Reverse((at, ..))| *at <= until) else { break };
            self.0.agenda.borrow_mut().pop();
            let mut world = self.world();
            world.now = world.now.max(at);
            drop(world);
            match wake {
                Wake::Process(number) => self.poll(number),
                Wake::Pump(queue) => crate::queue::pump(self, queue),
                Wake::Deadline(run) => self.end(run),
            }
            self.settle_orders();
        }
        let mut world = self.world();
        world.now = world.now.max(until);
    }

    fn poll(&self, number: usize) {
        let Some(mut body) = self.0.processes.borrow_mut()[number].body.take() else { return };
        self.0.current.set(number);
        let is_over = body.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let run = self.0.processes.borrow()[number].run;
        if !is_over && run.is_none_or(|run| self.world().runs[run].alive) {
            self.0.processes.borrow_mut()[number].body = Some(body);
        }
    }

    /// What was asked for by what happened just now.
    fn settle_orders(&self) {
        let (wakes, kills) = {
            let mut world = self.world();
            if world.wakes.is_empty() && world.kills.is_empty() {
                return;
            }
            (std::mem::take(&mut world.wakes), std::mem::take(&mut world.kills))
        };
        for (at, wake) in wakes {
            self.wake_at(at, wake);
        }
        for run in kills {
            self.end(run);
        }
    }

    /// Drops all that goes on: it holds the simulation, which holds it.
    pub(crate) fn end_all(&self) {
        let processes = std::mem::take(&mut *self.0.processes.borrow_mut());
        drop(processes);
    }

    /// Ends a run, wherever it is.
    fn end(&self, run: usize) {
        let mut world = self.world();
        let state = &mut world.runs[run];
        if !std::mem::take(&mut state.alive) {
            return;
        }
        let (processes, waiting) = (std::mem::take(&mut state.processes), state.waiting);
        let now = world.now;
        drop(world);
        for process in processes {
            // Dropped outside of the borrow: what it holds may hold the simulation.
            let body = self.0.processes.borrow_mut()[process].body.take();
            drop(body);
        }
        self.wake_at(now, Wake::Process(waiting));
    }

    pub(crate) async fn sleep(&self, millis: u64) {
        let until = self.now() + millis;
        self.wake_at(until, Wake::Process(self.0.current.get()));
        self.reach(until).await;
    }

    pub(crate) async fn sleep_until(&self, until: u64) {
        self.sleep(until.saturating_sub(self.now())).await;
    }

    async fn reach(&self, until: u64) {
        poll_fn(|_| if self.now() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Runs a function, which may not take longer than `timeout`: what it answers, or nothing if it died.
    pub(crate) async fn invoke<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        timeout: u64,
        function: impl FnOnce(Run) -> F,
    ) -> Option<T> {
        let waiting = self.0.current.get();
        let run = {
            let mut world = self.world();
            let (number, deadline) = (world.runs.len(), world.now + timeout);
            let faults = world.faults;
            let dies_after =
                if world.chance.happens(faults.deaths) { Some(world.chance.below(30)) } else { None };
            world.runs.push(RunState { alive: true, processes: Vec::new(), waiting, dies_after });
            world.report.runs += 1;
            let skew = world.chance.below(faults.skew + 1);
            Run { sim: self.clone(), number, environment: 0, skew, deadline: UnixMillis(deadline) }
        };
        self.wake_at(run.deadline.0, Wake::Deadline(run.number));
        let answer = Rc::new(RefCell::new(None));
        let (number, body, answered) = (run.number, function(run), Rc::clone(&answer));
        let sim = self.clone();
        self.spawn_in(Some(number), async move {
            *answered.borrow_mut() = Some(body.await);
            sim.world().kills.push(number);
        });
        poll_fn(|_| if self.world().runs[number].alive { Poll::Pending } else { Poll::Ready(()) }).await;
        answer.take()
    }
}

/// A function's run, with a clock of its own.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) sim: Sim,
    pub(crate) number: usize,
    /// What it runs in, of a function that keeps something.
    pub(crate) environment: usize,
    /// How far its clock is ahead.
    pub(crate) skew: u64,
    /// When Lambda ends it.
    pub(crate) deadline: UnixMillis,
}

impl Run {
    /// What comes of a task whose attempt another copy has.
    pub(crate) fn taken(&self) -> Result<(), Undone> {
        if self.world().keeps(Rule::LoserComesAgain) { Err(Undone) } else { Ok(()) }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.sim.now() + self.skew)
    }

    /// The same run in this environment, with its clock.
    pub(crate) fn in_environment(self, environment: usize, skew: u64) -> Self {
        Self { environment, skew, ..self }
    }

    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.sim.world()
    }

    /// A call of a service: it takes its time, may be refused, and may take place without its answer arriving, in which
    /// case the SDK makes it once more. The run may die before it.
    pub(crate) async fn call<T>(&self, mut effect: impl FnMut(&mut World) -> T) -> Result<T, Undone> {
        let (latency, fate) = self.fate().await;
        self.sim.sleep(latency).await;
        match fate {
            Fate::Fine => Ok(effect(&mut self.world())),
            Fate::Refused => Err(Undone),
            Fate::Lost => {
                effect(&mut self.world());
                self.world().report.lost_answers += 1;
                let (latency, again) = self.fate().await;
                self.sim.sleep(latency + 50).await;
                if again == Fate::Refused { Err(Undone) } else { Ok(effect(&mut self.world())) }
            }
        }
    }

    async fn fate(&self) -> (u64, Fate) {
        let dies = {
            let mut world = self.world();
            let dies_after = &mut world.runs[self.number].dies_after;
            let dies = *dies_after == Some(0);
            *dies_after = dies_after.map(|calls| calls.saturating_sub(1));
            if dies {
                world.kills.push(self.number);
                world.report.deaths += 1;
            }
            dies
        };
        if dies {
            pending::<()>().await;
        }
        let mut world = self.world();
        let faults = world.faults;
        let latency = if world.chance.happens(faults.late) {
            world.chance.between(200, 3000)
        } else {
            world.chance.between(2, 30)
        };
        let fate = match world.chance.below(1000) {
            chance if chance < faults.refused => Fate::Refused,
            chance if chance < faults.refused + faults.lost => Fate::Lost,
            _ => Fate::Fine,
        };
        (latency, fate)
    }

    /// Lets several go on at once, and waits for all.
    pub(crate) async fn together<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        parts: Vec<F>,
    ) -> Vec<T> {
        let parent = self.sim.0.current.get();
        let left = Rc::new(Cell::new(parts.len()));
        let results: Rc<RefCell<Vec<Option<T>>>> =
            Rc::new(RefCell::new(parts.iter().map(|_| None).collect()));
        for (place, part) in parts.into_iter().enumerate() {
            let (sim, left, results) = (self.sim.clone(), Rc::clone(&left), Rc::clone(&results));
            self.sim.spawn_in(Some(self.number), async move {
                let result = part.await;
                results.borrow_mut()[place] = Some(result);
                left.set(left.get() - 1);
                if left.get() == 0 {
                    let now = sim.now();
                    sim.wake_at(now, Wake::Process(parent));
                }
            });
        }
        poll_fn(|_| if left.get() == 0 { Poll::Ready(()) } else { Poll::Pending }).await;
        results.take().into_iter().flatten().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Refused,
    Lost,
}
