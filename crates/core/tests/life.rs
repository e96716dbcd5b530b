//! The life of one delivery under everything that queues and functions do to it: messages that come twice, late or out
//! of order, functions that die between any two steps, sends that fail, a sweep, replays, and a subscription that is
//! disabled, enabled, has to be confirmed or holds its deliveries at any moment.
//!
//! A worker here takes the same steps as the `deliver` function, one at a time, and the table checks the conditions of
//! [`Row`]. Each case is a list of choices; afterwards all faults stop, and what is promised must hold.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::HashMap;
use std::time::Duration;

use carillon_core::delivery::{Admission, Ask, Decision, FailReason, HeldBy, Row, Status, admit, decide};
use carillon_core::id::{DeliveryId, SubscriptionId};
use carillon_core::outcome::{Failure, Outcome};
use carillon_core::retry::{Pace, QUEUE_DELAY_MAX, RetryPolicy};
use carillon_core::time::UnixMillis;
use proptest::prelude::*;

const FUNCTION_TIMEOUT: Duration = Duration::from_mins(1);
const VISIBILITY: Duration = Duration::from_mins(3);

/// More steps than any case needs once its faults have stopped.
const STEPS_MAX: usize = 10_000;

/// How long an attempt is put off.
const PUT_OFF: Duration = Duration::from_mins(10);

/// How often the clock ticks.
const TICK: Duration = Duration::from_mins(1);

/// How long the note of held deliveries is kept once none is found: longer than a function runs.
const NOTE_KEPT: Duration = Duration::from_mins(10);

/// Whether the subscription gets anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Active,
    /// Its endpoint's owner is asked.
    Awaited,
    Disabled,
    /// Its circuit is open, or its rate spent.
    Holding,
}

struct World {
    now: UnixMillis,
    row: Option<Row>,
    reason: Option<FailReason>,
    queue: Vec<Message>,
    /// The rounds whose dead letters wait for a replay.
    letters: Vec<u32>,
    workers: Vec<Worker>,
    /// How often each attempt was recorded, and its next task sent by a worker.
    recorded: HashMap<(u32, u32), usize>,
    sent: HashMap<(u32, u32), usize>,
    posts_after_the_end: usize,
    standing: Standing,
    /// When a worker last noted that the subscription holds deliveries.
    noted_at: Option<UnixMillis>,
    policy: RetryPolicy,
    pace: Pace,
    delivery: DeliveryId,
}

#[derive(Clone, Debug)]
struct Message {
    ask: Ask,
    visible_at: UnixMillis,
}

/// A function at work on one message, with what it has read and done so far.
#[derive(Clone, Debug)]
struct Worker {
    ask: Ask,
    step: Step,
    /// What it has read of the subscription.
    standing: Standing,
    lease_until: UnixMillis,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read,
    Claim(Admission),
    Post {
        first: bool,
        numbers: (u32, u32),
    },
    /// Without an outcome: the subscription is disabled, so that no attempt was made.
    Record {
        first: bool,
        numbers: (u32, u32),
        outcome: Option<Outcome>,
    },
    Note(Admission),
    Hold(Admission),
    PutOff(Admission),
    SendAgain {
        numbers: (u32, u32),
        at: UnixMillis,
    },
    SendNext {
        numbers: (u32, u32),
        at: UnixMillis,
    },
    SendLetter {
        round: u32,
    },
    Acknowledge,
    /// Another copy has the attempt: the message stays in the queue.
    ComeAgain,
}

impl World {
    fn new() -> Self {
        let event = "acme/00000000000000000000000000000000".parse().unwrap();
        let first = Message { ask: Ask::Attempt { round: 1, attempt: 1 }, visible_at: UnixMillis(0) };
        Self {
            now: UnixMillis(1_000_000),
            row: None,
            reason: None,
            queue: vec![first],
            letters: Vec::new(),
            workers: Vec::new(),
            recorded: HashMap::new(),
            sent: HashMap::new(),
            posts_after_the_end: 0,
            standing: Standing::Active,
            noted_at: None,
            policy: RetryPolicy::default(),
            pace: Pace::new(1.0, QUEUE_DELAY_MAX).unwrap(),
            delivery: DeliveryId::of(&event, SubscriptionId::new(UnixMillis(0), [0; 10])),
        }
    }

    /// A function receives the message: it is invisible to others until its visibility ends.
    fn receive(&mut self, chosen: usize) {
        let now = self.now;
        let visible: Vec<_> = (0..self.queue.len()).filter(|n| self.queue[*n].visible_at <= now).collect();
        if let Some(&at) = visible.get(chosen % visible.len().max(1)) {
            self.queue[at].visible_at = now + VISIBILITY;
            self.workers.push(Worker {
                ask: self.queue[at].ask,
                step: Step::Read,
                standing: Standing::Active,
                lease_until: now + FUNCTION_TIMEOUT,
            });
        }
    }

    /// One step of a worker. `succeeds`: the receiver accepts. `lost`: a send fails, or a killed function never sends.
    fn advance(&mut self, chosen: usize, succeeds: bool, lost: bool) {
        if self.workers.is_empty() {
            return;
        }
        let at = chosen % self.workers.len();
        let mut worker = self.workers[at].clone();
        if self.now >= worker.lease_until {
            // Lambda ended it at its time-out.
            self.workers.remove(at);
            return;
        }
        worker.step = match worker.step {
            Step::Read => {
                worker.standing = self.standing;
                match admit(worker.ask, self.row.as_ref(), self.reason, self.now) {
                    Admission::Taken => Step::ComeAgain,
                    Admission::Drop => Step::Acknowledge,
                    Admission::Letter { round, .. } => Step::SendLetter { round },
                    admission if self.standing == Standing::Awaited => Step::PutOff(admission),
                    admission if self.standing == Standing::Holding => Step::Note(admission),
                    admission => Step::Claim(admission),
                }
            }
            Step::Note(admission) => {
                self.noted_at = Some(self.now);
                Step::Hold(admission)
            }
            Step::Hold(admission) => self.hold(&worker, admission),
            Step::PutOff(admission) => self.put_off(&worker, admission),
            Step::SendAgain { numbers: (round, attempt), at } => {
                if !lost {
                    self.queue.push(Message { ask: Ask::Attempt { round, attempt }, visible_at: at });
                }
                Step::Acknowledge
            }
            Step::Claim(admission) => match self.claim(&worker, admission) {
                Step::Post { first, numbers } if worker.standing == Standing::Disabled => {
                    Step::Record { first, numbers, outcome: None }
                }
                step => step,
            },
            Step::Post { first, numbers } => {
                let ended = self.row.as_ref().is_some_and(|row| row.status == Status::Delivered);
                self.posts_after_the_end += usize::from(ended && !first);
                let outcome = if succeeds {
                    Outcome::Answered { status: 204, retry_after: None }
                } else {
                    Outcome::Unanswered(Failure::TimedOut)
                };
                Step::Record { first, numbers, outcome: Some(outcome) }
            }
            Step::Record { first, numbers, outcome } => self.record(first, numbers, outcome),
            Step::SendNext { numbers: (round, attempt), at } => {
                if !lost {
                    let ask = Ask::Attempt { round, attempt: attempt + 1 };
                    self.queue.push(Message { ask, visible_at: at });
                    *self.sent.entry((round, attempt + 1)).or_default() += 1;
                }
                Step::Acknowledge
            }
            // A letter that cannot be sent leaves its message in the queue.
            Step::SendLetter { .. } if lost => {
                self.workers.remove(at);
                return;
            }
            Step::SendLetter { round } => {
                self.letters.push(round);
                Step::Acknowledge
            }
            Step::ComeAgain => {
                self.workers.remove(at);
                return;
            }
            Step::Acknowledge => {
                let done = self
                    .queue
                    .iter()
                    .position(|message| message.ask == worker.ask && message.visible_at > self.now);
                if let Some(done) = done {
                    self.queue.remove(done);
                }
                self.workers.remove(at);
                return;
            }
        };
        self.workers[at] = worker;
    }

    fn claim(&mut self, worker: &Worker, admission: Admission) -> Step {
        let (now, until) = (self.now, worker.lease_until);
        match (admission, worker.ask, self.row.as_mut()) {
            (Admission::First, _, _) => Step::Post { first: true, numbers: (1, 1) },
            (Admission::Lease, Ask::Attempt { round, attempt }, Some(row))
                if row.leasable(round, attempt, now) =>
            {
                row.lease_until = Some(until);
                Step::Post { first: false, numbers: (round, attempt) }
            }
            (Admission::NewRound, Ask::NewRound { after, forced }, Some(row))
                if row.renewable(after, forced) =>
            {
                let round = after + 1;
                *row = Row {
                    round,
                    attempt: 0,
                    status: Status::Retrying,
                    next_at: Some(now),
                    lease_until: Some(until),
                };
                self.reason = None;
                Step::Post { first: false, numbers: (round, 1) }
            }
            _ => Step::ComeAgain,
        }
    }

    /// Takes the lease for as long as the attempt is put off; a first one puts a row without attempts.
    fn put_off(&mut self, worker: &Worker, admission: Admission) -> Step {
        let until = self.now + PUT_OFF;
        let (numbers, lease_until) = match (self.claim(worker, admission), &self.row) {
            (Step::Post { first: true, .. }, Some(_)) => return Step::ComeAgain,
            (Step::Post { first: true, numbers }, None) => (numbers, None),
            (Step::Post { first: false, numbers }, _) => (numbers, Some(until)),
            (step, _) => return step,
        };
        let (round, attempt) = numbers;
        let status = Status::Retrying;
        self.row = Some(Row { round, attempt: attempt - 1, status, next_at: Some(until), lease_until });
        Step::SendAgain { numbers, at: until }
    }

    /// Holds the delivery on the condition of a lease; a first one puts a row without attempts.
    fn hold(&mut self, worker: &Worker, admission: Admission) -> Step {
        let numbers = match (self.claim(worker, admission), &self.row) {
            (Step::Post { first: true, .. }, Some(_)) => return Step::ComeAgain,
            (Step::Post { numbers, .. }, _) => numbers,
            (step, _) => return step,
        };
        let (round, attempt) = numbers;
        let status = Decision::Held(HeldBy::Circuit).status();
        self.row = Some(Row { round, attempt: attempt - 1, status, next_at: None, lease_until: None });
        Step::Acknowledge
    }

    /// The clock releases what is held without a cause; with `lost` it dies before it sends the task. It forgets a note
    /// that is old when nothing is held.
    fn release(&mut self, lost: bool) {
        let Some(noted_at) = self.noted_at else { return };
        let held = self.row.as_ref().is_some_and(|row| row.status == Status::Held);
        if !held && self.now.since(noted_at) >= NOTE_KEPT {
            self.noted_at = None;
        }
        let now = self.now;
        let Some(row) = self.row.as_mut().filter(|_| held && self.standing != Standing::Holding) else {
            return;
        };
        assert!(row.releasable(row.round, row.attempt + 1));
        *row = Row { status: Status::Retrying, next_at: Some(now), ..row.clone() };
        if !lost {
            self.queue.push(Message { ask: row.next(), visible_at: now });
        }
    }

    fn record(&mut self, first: bool, (round, attempt): (u32, u32), outcome: Option<Outcome>) -> Step {
        let holds = match &self.row {
            None => first,
            Some(row) => !first && row.recordable(round, attempt),
        };
        if !holds {
            return Step::ComeAgain;
        }
        let Some(outcome) = outcome else {
            self.reason = Some(FailReason::Disabled);
            let (status, made) = (Decision::Failed(FailReason::Disabled).status(), attempt - 1);
            self.row = Some(Row { round, attempt: made, status, next_at: None, lease_until: None });
            return Step::Acknowledge;
        };
        let decision = decide(self.delivery, (round, attempt), outcome, &self.policy, &self.pace, self.now);
        *self.recorded.entry((round, attempt)).or_default() += 1;
        self.row = Some(Row {
            round,
            attempt,
            status: decision.status(),
            next_at: decision.next_at(),
            lease_until: None,
        });
        match decision {
            Decision::Retry { next_at } => Step::SendNext { numbers: (round, attempt), at: next_at },
            Decision::Failed(reason) => {
                self.reason = Some(reason);
                Step::SendLetter { round }
            }
            Decision::Delivered | Decision::Cancelled | Decision::Held(_) => Step::Acknowledge,
        }
    }

    /// The sweep; with `lost` it dies between its note and its send.
    fn sweep(&mut self, lost: bool) {
        let (now, overdue) = (self.now, self.pace.overdue());
        if let Some(row) = self.row.as_mut().filter(|row| row.overdue(now, overdue)) {
            row.next_at = Some(now);
            if !lost {
                self.queue.push(Message { ask: row.next(), visible_at: now });
            }
        }
    }

    /// An operator replays a dead letter.
    fn replay(&mut self) {
        if let Some(after) = self.letters.pop() {
            self.queue.push(Message { ask: Ask::NewRound { after, forced: false }, visible_at: self.now });
        }
    }

    /// All faults have stopped: time goes on until nothing is left to do.
    fn settle(&mut self, succeeds: bool) {
        if self.standing == Standing::Awaited {
            // The owner consents, or it is too late for that.
            self.standing = if succeeds { Standing::Active } else { Standing::Disabled };
        }
        if self.standing == Standing::Holding {
            self.standing = Standing::Active;
        }
        for _ in 0..STEPS_MAX {
            if !self.workers.is_empty() {
                self.advance(0, succeeds, false);
            } else if self.queue.iter().any(|message| message.visible_at <= self.now) {
                self.receive(0);
            } else if let Some(next) = self.next_moment() {
                self.now = next;
                self.sweep(false);
                self.release(false);
            } else {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// When something happens next by itself: a message becomes visible, or the clock finds the row.
    fn next_moment(&self) -> Option<UnixMillis> {
        let message = self.queue.iter().map(|message| message.visible_at).min();
        let row = self.row.as_ref().filter(|row| row.status == Status::Retrying);
        let swept = row.and_then(|row| row.next_at.max(row.lease_until)).map(|at| at + self.pace.overdue());
        let held = self.row.as_ref().is_some_and(|row| row.status == Status::Held);
        let released = (held && self.noted_at.is_some()).then(|| self.now + TICK);
        message.into_iter().chain(swept).chain(released).min().map(|at| at.max(self.now))
    }

    fn choose(&mut self, choice: u8, detail: usize) {
        let odd = detail % 2 == 1;
        match choice % 13 {
            0 | 1 => self.receive(detail),
            2..=5 => self.advance(detail, false, false),
            6 => self.advance(detail, false, true),
            7 => self.advance(detail, odd, false),
            // A function dies; its messages come again when their visibility ends.
            8 if !self.workers.is_empty() => _ = self.workers.remove(detail % self.workers.len()),
            // The queue delivers a message a second time.
            9 if !self.queue.is_empty() => {
                let copy = Message { visible_at: self.now, ..self.queue[detail % self.queue.len()].clone() };
                self.queue.push(copy);
            }
            10 => {
                let next = if odd { self.next_moment() } else { None };
                self.now = next.unwrap_or(self.now + Duration::from_secs(20));
                self.sweep(detail.is_multiple_of(3));
                self.release(detail.is_multiple_of(5));
            }
            11 => self.replay(),
            12 => {
                use Standing::{Active, Awaited, Disabled, Holding};
                self.standing = [Active, Awaited, Disabled, Holding][detail % 4];
            }
            _ => {}
        }
    }
}

#[test]
fn what_is_put_off_does_not_multiply() {
    for replayed in [false, true] {
        let mut world = World::new();
        if replayed {
            world.settle(false);
            world.replay();
        }
        world.standing = Standing::Awaited;
        for _ in 0..3 {
            world.queue.push(Message { visible_at: world.now, ..world.queue[0].clone() });
        }
        let posted = world.recorded.len();
        for _ in 0..50 {
            while world.queue.iter().any(|message| message.visible_at <= world.now) {
                world.receive(0);
                while !world.workers.is_empty() {
                    world.advance(0, true, false);
                }
            }
            world.now = world.next_moment().expect("the chain lives");
            world.sweep(false);
        }
        assert_eq!((world.queue.len(), world.recorded.len()), (1, posted), "one chain, and no attempt");
        world.settle(true);
        assert_eq!(world.row.as_ref().map(|row| (row.status, row.attempt)), Some((Status::Delivered, 1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_one_chain_lives(
        choices in prop::collection::vec((any::<u8>(), 0_usize..64), 0..120),
        succeeds: bool,
    ) {
        let mut world = World::new();
        for (choice, detail) in choices {
            world.choose(choice, detail);
        }
        world.settle(succeeds);

        let row = world.row.as_ref().expect("a delivery that was enqueued is attempted");
        prop_assert!(matches!(row.status, Status::Delivered | Status::Failed), "{row:?}");
        prop_assert!(row.status == Status::Failed || succeeds || world.recorded.len() < 100);
        if row.status == Status::Failed {
            let disabled = world.reason == Some(FailReason::Disabled);
            prop_assert_eq!(
                world.letters.contains(&row.round),
                !disabled,
                "a failed delivery has its dead letter, unless its subscription is disabled"
            );
        }

        prop_assert!(world.recorded.values().all(|times| *times == 1), "an attempt was recorded twice: {:?}", world.recorded);
        prop_assert!(world.sent.values().all(|times| *times == 1), "a chain forked: {:?}", world.sent);
        for (round, attempt) in world.recorded.keys() {
            let before = (*round, attempt - 1);
            prop_assert!(*attempt == 1 || world.recorded.contains_key(&before), "attempts have a gap");
        }
        prop_assert_eq!(world.posts_after_the_end, 0, "a delivered event was posted again under a lease");
    }
}
