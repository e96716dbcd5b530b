//! The life of a delivery: one event for one subscription.
//!
//! The row is the guarantee, the message a hint. Messages may come twice, late, in any order or never; functions may
//! die anywhere. What keeps one chain of attempts alive all the same are conditions on the row, and their order:
//!
//! 1. A task is [admitted](admit) by what the row says. The first attempt needs no row; each later one takes a lease on
//!    it, and a replay of a dead letter starts a new round.
//! 2. The attempt is made.
//! 3. Its outcome, with the time of the next attempt, is recorded on the condition that no one recorded this attempt
//!    before. Whoever loses sends nothing.
//! 4. Only then the next task is sent, or the dead letter. If no task ever is, the row says when it was due, and the sweep
//!    sends it.
//!
//! A message that comes twice is one message: who is done with it first takes it from the other. So a copy that loses, or
//! finds another one at work, is not done: its message comes again, until the row tells what came of the attempt. Should
//! the winner have died after the last attempt's record, the copy sends the dead letter.
//!
//! While a subscription waits for the consent of its endpoint's owner, its tasks are put off: instead of making the attempt
//! a task takes the lease for some minutes and is sent again for their end. The attempt keeps its number and nothing is
//! recorded; of several copies of a task one gets the lease, so that one is left. A first task has no row to lease, so it
//! puts one without attempts.
//!
//! A delivery is *held* while its subscription is paused, its rate spent or its circuit open: a status of its row, with the numbers
//! of the attempt that is to come, written on the condition of a lease, so that of several copies of a task one holds it
//! and none attempts it meanwhile. Its task ends there. Who holds a delivery first notes that the subscription holds some;
//! by that note the clock finds what is held and, once the cause is gone, releases it: the row is retrying again, due at
//! once, and its task is sent.
//!
//! The conditions are methods of [`Row`]; the deliveries table states the same ones as condition expressions.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::DeliveryId;
use crate::outcome::{Outcome, OutcomeClass, Verdict};
use crate::retry::{Pace, RetryPolicy};
use crate::time::UnixMillis;

/// Where a delivery stands. Not yet attempted: there is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Attempts failed, or were put off, and another one is to come.
    Retrying,
    /// Waits for its cause to go away, see [`HeldBy`].
    Held,
    /// A receiver accepted it.
    Delivered,
    /// Its attempts are used up, or the receiver refused it for good.
    Failed,
    /// Its subscription is no more.
    Cancelled,
}

impl Status {
    /// Its name, as in rows and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What the conditions read of a delivery's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// From 1; each replay starts another.
    pub round: u32,
    /// How many attempts of this round are recorded.
    pub attempt: u32,
    /// Where it stands.
    pub status: Status,
    /// When the next attempt is due; absent once it has ended.
    pub next_at: Option<UnixMillis>,
    /// Until when the next attempt belongs to the function that took the lease.
    pub lease_until: Option<UnixMillis>,
}

/// What a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// This attempt, both numbers from 1.
    Attempt {
        /// Of which round.
        round: u32,
        /// Its number in the round.
        attempt: u32,
    },
    /// A new round: a dead letter that was replayed, or a redelivery.
    NewRound {
        /// The round that it follows.
        after: u32,
        /// Whether that one need not have failed: what is under way is begun anew, what is delivered is delivered again.
        forced: bool,
    },
}

/// What a task may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Post, then put the row if it is absent.
    First,
    /// Take the lease, then post.
    Lease,
    /// Start the round that follows, under a lease, then post.
    NewRound,
    /// The attempt is recorded as the one that failed the delivery; its dead letter may not have been sent, so send it.
    /// (A second letter does no harm: a replay is conditional.)
    Letter {
        /// The round that failed.
        round: u32,
        /// Why.
        reason: FailReason,
    },
    /// Nothing yet, since another copy of it is at the attempt: come again, to see to what that leaves undone.
    Taken,
    /// Nothing: it was done, or others see to it.
    Drop,
}

/// Decides what a task may do from the row as it was read, which may be stale: the write that follows has its own
/// condition.
#[must_use]
pub fn admit(ask: Ask, row: Option<&Row>, fail_reason: Option<FailReason>, now: UnixMillis) -> Admission {
    match (ask, row) {
        (Ask::Attempt { round: 1, attempt: 1 }, None) => Admission::First,
        (Ask::Attempt { .. }, None) => Admission::Lease,
        (Ask::NewRound { .. }, None) => Admission::NewRound,
        (Ask::Attempt { round, attempt }, Some(row)) => {
            match (row.round, row.attempt).cmp(&(round, attempt - 1)) {
                Ordering::Equal if row.leasable(round, attempt, now) => Admission::Lease,
                Ordering::Equal if row.taken(round, attempt) => Admission::Taken,
                Ordering::Equal => Admission::Drop,
                // Ahead of what was read: the read is stale, the lease's condition will tell.
                Ordering::Less => Admission::Lease,
                Ordering::Greater => row.letter((round, attempt), fail_reason),
            }
        }
        (Ask::NewRound { after, forced }, Some(row)) => match row.round.cmp(&after) {
            Ordering::Equal if row.renewable(after, forced) => Admission::NewRound,
            Ordering::Equal => Admission::Drop,
            Ordering::Less => Admission::NewRound,
            // Its own function may have begun the round, and died.
            Ordering::Greater if row.taken(after + 1, 1) && row.leasable(after + 1, 1, now) => {
                Admission::Lease
            }
            Ordering::Greater if row.taken(after + 1, 1) => Admission::Taken,
            Ordering::Greater => row.letter((after + 1, 1), fail_reason),
        },
    }
}

impl Row {
    /// The condition of a lease for this attempt, to make it, to put it off or to hold it.
    #[must_use]
    pub fn leasable(&self, round: u32, attempt: u32, now: UnixMillis) -> bool {
        self.recordable(round, attempt) && self.lease_until.is_none_or(|until| until <= now)
    }

    /// Whether this attempt is being made under a lease, or was until its function died. A lease that ends when the attempt
    /// is due is that of one put off, which another task sees to.
    fn taken(&self, round: u32, attempt: u32) -> bool {
        self.recordable(round, attempt) && self.lease_until.is_some() && self.lease_until != self.next_at
    }

    /// The condition of releasing what is held before this attempt.
    #[must_use]
    pub fn releasable(&self, round: u32, attempt: u32) -> bool {
        self.status == Status::Held && self.round == round && self.attempt + 1 == attempt
    }

    /// The condition of recording this attempt.
    #[must_use]
    pub fn recordable(&self, round: u32, attempt: u32) -> bool {
        self.status == Status::Retrying && self.round == round && self.attempt + 1 == attempt
    }

    /// The condition of starting the round that follows `after`. Of the chain before it every task and every recording
    /// loses by its round.
    #[must_use]
    pub fn renewable(&self, after: u32, forced: bool) -> bool {
        let is_free = match self.status {
            Status::Failed => true,
            Status::Cancelled => false,
            Status::Retrying | Status::Held | Status::Delivered => forced,
        };
        is_free && self.round == after
    }

    /// Whether the task of the next attempt must be taken for lost.
    #[must_use]
    pub fn overdue(&self, now: UnixMillis, overdue: Duration) -> bool {
        let expected = self.next_at.max(self.lease_until);
        self.status == Status::Retrying && expected.is_some_and(|expected| expected + overdue <= now)
    }

    /// The letter that a task must see to which made this attempt, if the delivery failed by it.
    fn letter(&self, made: (u32, u32), fail_reason: Option<FailReason>) -> Admission {
        match fail_reason.filter(|reason| reason.leaves_letter()) {
            Some(reason) if self.status == Status::Failed && (self.round, self.attempt) == made => {
                Admission::Letter { round: self.round, reason }
            }
            _ => Admission::Drop,
        }
    }

    /// The attempt that comes next.
    #[must_use]
    pub fn next(&self) -> Ask {
        Ask::Attempt { round: self.round, attempt: self.attempt + 1 }
    }
}

/// Why a delivery is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldBy {
    /// Its subscription is paused.
    Pause,
    /// Its subscription's rate is spent for the minutes that slots are reserved for.
    Rate,
    /// Its receiver does not answer.
    Circuit,
}

impl HeldBy {
    /// Its name, as in rows and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Rate => "rate",
            Self::Circuit => "circuit",
        }
    }
}

/// Why a delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailReason {
    /// Every attempt of the policy was made.
    Exhausted,
    /// The receiver answered that it will not take it.
    Refused,
    /// When it was due, its subscription was disabled, or could no longer be confirmed: there is no dead letter of it.
    Disabled,
    /// Its event cannot be shown in the subscription's format: there is no dead letter of it, since a replay would end the
    /// same way.
    Unfit,
}

impl FailReason {
    /// Whether a dead letter tells of it.
    #[must_use]
    pub fn leaves_letter(self) -> bool {
        match self {
            Self::Exhausted | Self::Refused => true,
            Self::Disabled | Self::Unfit => false,
        }
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The delivery has ended well.
    Delivered,
    /// Another attempt.
    Retry {
        /// When.
        next_at: UnixMillis,
    },
    /// The delivery waits, without an attempt.
    Held(HeldBy),
    /// The delivery has failed.
    Failed(FailReason),
    /// The delivery's subscription is no more.
    Cancelled,
}

/// Decides what follows attempt number `attempt`, which ended `now` with `outcome`.
#[must_use]
pub fn decide(
    delivery: DeliveryId,
    (round, attempt): (u32, u32),
    outcome: Outcome,
    policy: &RetryPolicy,
    pace: &Pace,
    now: UnixMillis,
) -> Decision {
    match outcome.verdict() {
        Verdict::Delivered => Decision::Delivered,
        Verdict::Refused => Decision::Failed(FailReason::Refused),
        Verdict::Retry { not_before } => {
            let chance = delivery.spread(u64::from(round) << 32 | u64::from(attempt));
            match policy.wait(attempt, chance) {
                None => Decision::Failed(FailReason::Exhausted),
                Some(wait) => Decision::Retry { next_at: now + pace.scaled(wait).max(not_before) },
            }
        }
    }
}

impl Decision {
    /// Where the delivery stands then.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Delivered => Status::Delivered,
            Self::Retry { .. } => Status::Retrying,
            Self::Held(_) => Status::Held,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled => Status::Cancelled,
        }
    }

    /// When the next attempt is due, if there is one.
    #[must_use]
    pub fn next_at(self) -> Option<UnixMillis> {
        match self {
            Self::Retry { next_at } => Some(next_at),
            _ => None,
        }
    }
}

/// One attempt as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRecord {
    /// Of which round.
    pub round: u32,
    /// Its number in the round, from 1 without a gap.
    pub number: u32,
    /// When it began.
    pub at: UnixMillis,
    /// How long it took.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: OutcomeClass,
    /// The HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of the answer's body, if it was no success and said anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    fn row(round: u32, attempt: u32, status: Status) -> Row {
        Row { round, attempt, status, next_at: Some(UnixMillis(100)), lease_until: None }
    }

    #[test]
    fn what_a_task_may_do() {
        use Admission::{Drop, First, Lease, NewRound, Taken};
        let leased = Row { lease_until: Some(UnixMillis(500)), ..row(1, 1, Status::Retrying) };
        let put_off = Row { next_at: Some(UnixMillis(500)), ..leased.clone() };
        let begun = Row { lease_until: Some(UnixMillis(500)), ..row(2, 0, Status::Retrying) };
        let task = |round, attempt| Ask::Attempt { round, attempt };
        let replay = |after| Ask::NewRound { after, forced: false };
        let again = |after| Ask::NewRound { after, forced: true };
        let letter = |round| Admission::Letter { round, reason: FailReason::Exhausted };
        for (ask, row, now, admission) in [
            (task(1, 1), None, 0, First),
            (task(1, 2), None, 0, Lease),
            (task(1, 1), Some(row(1, 1, Status::Retrying)), 0, Drop),
            (task(1, 2), Some(row(1, 1, Status::Retrying)), 0, Lease),
            (task(1, 3), Some(row(1, 1, Status::Retrying)), 0, Lease),
            (task(1, 2), Some(leased.clone()), 499, Taken),
            (task(1, 1), Some(leased.clone()), 499, Drop),
            (task(1, 2), Some(leased), 500, Lease),
            (task(1, 2), Some(put_off), 499, Drop),
            (replay(1), Some(begun.clone()), 499, Taken),
            (again(1), Some(begun.clone()), 499, Taken),
            (replay(1), Some(begun.clone()), 500, Lease),
            (again(1), Some(begun), 500, Lease),
            (task(1, 1), Some(row(1, 1, Status::Delivered)), 0, Drop),
            (task(1, 2), Some(row(1, 1, Status::Delivered)), 0, Drop),
            (task(1, 2), Some(row(1, 1, Status::Held)), 0, Drop),
            (task(1, 2), Some(row(1, 1, Status::Cancelled)), 0, Drop),
            (task(1, 8), Some(row(1, 8, Status::Failed)), 0, letter(1)),
            (task(1, 7), Some(row(1, 8, Status::Failed)), 0, Drop),
            (task(1, 8), Some(row(2, 0, Status::Retrying)), 0, Drop),
            (again(1), Some(row(1, 1, Status::Delivered)), 0, NewRound),
            (again(1), Some(row(1, 2, Status::Retrying)), 0, NewRound),
            (again(1), Some(row(1, 2, Status::Held)), 0, NewRound),
            (again(1), Some(row(1, 1, Status::Cancelled)), 0, Drop),
            (again(1), Some(row(2, 1, Status::Delivered)), 0, Drop),
            (replay(1), Some(row(1, 8, Status::Failed)), 0, NewRound),
            (replay(1), Some(row(1, 1, Status::Delivered)), 0, Drop),
            (replay(1), Some(row(2, 8, Status::Failed)), 0, Drop),
            (replay(1), Some(row(2, 0, Status::Retrying)), 0, Drop),
            (replay(1), Some(row(2, 1, Status::Failed)), 0, letter(2)),
        ] {
            let reason =
                row.as_ref().filter(|row| row.status == Status::Failed).map(|_| FailReason::Exhausted);
            assert_eq!(admit(ask, row.as_ref(), reason, UnixMillis(now)), admission, "{ask:?} {row:?}");
        }
    }

    #[test]
    fn what_failed_as_its_subscription_was_disabled_leaves_no_letter() {
        let disabled = |round, attempt| Some(row(round, attempt, Status::Failed));
        for (ask, row, admission) in [
            // Before the first attempt, before a later one, before the first one of a replay.
            (Ask::Attempt { round: 1, attempt: 1 }, disabled(1, 0), Admission::Drop),
            (Ask::Attempt { round: 1, attempt: 3 }, disabled(1, 2), Admission::Drop),
            (Ask::Attempt { round: 1, attempt: 2 }, disabled(1, 2), Admission::Drop),
            (Ask::NewRound { after: 1, forced: false }, disabled(2, 0), Admission::Drop),
            // A redelivery, once it is enabled again.
            (Ask::NewRound { after: 2, forced: false }, disabled(2, 0), Admission::NewRound),
        ] {
            let reason = Some(FailReason::Disabled);
            assert_eq!(admit(ask, row.as_ref(), reason, UnixMillis(0)), admission, "{ask:?} {row:?}");
        }
    }

    #[test]
    fn what_follows_an_attempt() {
        let event = "acme/00000000000000000000000000000000".parse().unwrap();
        let delivery = DeliveryId::of(&event, "sub_00000000000000000000000000".parse().unwrap());
        let pace = Pace::new(1.0, Duration::from_mins(15)).unwrap();
        let follows = |attempt, outcome| {
            decide(delivery, (1, attempt), outcome, &RetryPolicy::default(), &pace, UnixMillis(0))
        };
        let answered =
            |status, secs| Outcome::Answered { status, retry_after: Some(Duration::from_secs(secs)) };
        assert_eq!(follows(1, answered(204, 0)), Decision::Delivered);
        assert_eq!(follows(8, answered(204, 0)), Decision::Delivered);
        assert_eq!(follows(1, answered(410, 0)), Decision::Failed(FailReason::Refused));
        assert_eq!(
            follows(8, Outcome::Unanswered(Failure::TimedOut)),
            Decision::Failed(FailReason::Exhausted)
        );
        assert_eq!(follows(1, answered(503, 77)), Decision::Retry { next_at: UnixMillis(77_000) });
        let Decision::Retry { next_at } = follows(1, answered(503, 1)) else { panic!() };
        assert!((4000..=6000).contains(&next_at.0), "the policy's wait is the least one");
    }

    #[test]
    fn what_is_overdue() {
        let grace = Duration::from_millis(10);
        assert!(!row(1, 1, Status::Retrying).overdue(UnixMillis(109), grace));
        assert!(row(1, 1, Status::Retrying).overdue(UnixMillis(110), grace));
        assert!(!row(1, 1, Status::Failed).overdue(UnixMillis(110), grace));
        let leased = Row { lease_until: Some(UnixMillis(200)), ..row(1, 1, Status::Retrying) };
        assert!(!leased.overdue(UnixMillis(209), grace) && leased.overdue(UnixMillis(210), grace));
    }
}
