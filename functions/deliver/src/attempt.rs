//! One task: admit, claim, post, record, decide what follows; in this order, for the reasons that
//! [`carillon_core::delivery`] gives.

use std::sync::Arc;
use std::time::Duration;

use carillon_aws::deliveries::{Claim, Delivery, State};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::delivery::{Admission, Ask, AttemptRecord, Decision, FailReason, admit, decide};
use carillon_core::outcome::{Failure, Outcome};
use carillon_core::payload::{Unreadable, payload};
use carillon_core::retry::QUEUE_DELAY_MAX;
use carillon_core::subscription::AttemptTimeout;
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;

use crate::courier::Courier;
use crate::exchange::Exchange;
use crate::request::{Prepared, Unwritable, prepare};
use crate::targets::Target;

/// How long Lambda lets the function run, by default: the template's `DeliverTimeoutSeconds`.
const FUNCTION_TIMEOUT: Duration = Duration::from_mins(1);

/// What of the function's time is kept to record the outcome and send what follows.
const RECORDING_TIME: Duration = Duration::from_secs(2);

/// With less time than this an attempt is not begun.
pub(crate) const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(500);

/// How long an attempt is put off while its endpoint's owner is asked, before scaling. Short of what a queue holds back.
const PUT_OFF: Duration = Duration::from_mins(10);

/// How much later than that its task is sent: one that comes before the end of its lease, by another clock, is dropped.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// A receiver that has not answered by then is slow.
const SLOW_AFTER: Duration = Duration::from_secs(2);

// The longest attempt fits into a run, and has time to make a connection.
const _: () = assert!(AttemptTimeout::SECONDS_MAX + RECORDING_TIME.as_secs() < FUNCTION_TIMEOUT.as_secs());
const _: () = assert!(AttemptTimeout::SECONDS_MAX > carillon_sender::CONNECT_TIMEOUT.as_secs());
// The shortest, a second, is always begun when there is time.
const _: () = assert!(ATTEMPT_TIME_MIN.as_millis() < 1000);
const _: () = assert!(PUT_OFF.as_secs() + CLOCKS_DIFFER.as_secs() <= QUEUE_DELAY_MAX.as_secs());

/// A task with all that was read for it.
pub(crate) struct Case {
    pub(crate) task: DeliveryTask,
    pub(crate) lane: Lane,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) state: State,
    /// `None`: the subscription is no more.
    pub(crate) target: Option<Arc<Target>>,
    /// `None`: the event is no more.
    pub(crate) json: Option<String>,
}

/// A run's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// When Lambda ends the function.
    pub(crate) deadline: UnixMillis,
    /// How long the run may take from its begin.
    pub(crate) whole: Duration,
}

/// Which queue a task came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Delivery,
    Slow,
}

/// What must be sent once the outcome is recorded.
#[derive(Debug)]
pub(crate) enum FollowUp {
    /// The next attempt, or the same one if it was put off.
    Retry { task: DeliveryTask, at: UnixMillis, lane: Lane },
    /// The dead letter of a delivery that failed.
    Letter(DeliveryTask),
    /// The same task, for the slow lane.
    SlowLane(DeliveryTask),
}

/// Why a task comes again: never the receiver's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undone {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error("there is not enough time left for an attempt")]
    Late,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
}

/// Does what the task may do, and tells what must be sent then.
pub(crate) async fn attempt(courier: &Courier, case: Case, time: Time) -> Result<Option<FollowUp>, Undone> {
    let deadline = time.deadline;
    let Case { task, lane, delivery, state, target, json } = case;
    let row = delivery.as_ref().map(|delivery| &delivery.row);
    let admission = admit(task.ask, row, delivery.as_ref().and_then(|delivery| delivery.reason), now());
    let (round, number) = match (admission, task.ask) {
        (Admission::Drop, _) => return Ok(None),
        (Admission::Letter { round, reason }, _) => {
            return Ok(Some(FollowUp::Letter(task.letter(round, reason))));
        }
        (_, Ask::Attempt { round, attempt }) => (round, attempt),
        (_, Ask::NewRound { after }) => (after + 1, 1),
    };
    if state.slow && lane == Lane::Delivery {
        return Ok(Some(FollowUp::SlowLane(task)));
    }
    let this = Attempt { courier, task: &task, admission, round, number };
    let (Some(target), Some(json)) = (target, json) else {
        this.cancel().await?;
        return Ok(None);
    };
    if target.is_awaited(now()) {
        return Ok(this.put_off(lane).await?);
    }
    ends(now(), target.timeout, deadline)?;
    let payload = payload(target.format, json, task.event.accepted_at)?;
    if this.claim(now(), deadline).await? == Claim::Lost {
        return Ok(None);
    }
    if !target.is_active() {
        this.disable().await?;
        return Ok(None);
    }
    let started = now();
    let until = ends(started, target.timeout, deadline)?;
    let prepared = prepare(task.delivery(), &target, payload, &courier.origin, started)?;
    let outcome = this.post(&prepared, &target, started, until, state).await;
    if outcome == Outcome::Unanswered(Failure::TimedOut) && time.cuts(started, until, target.timeout) {
        return Err(Undone::Late);
    }
    let ended = now();
    let policy = target.policy.as_ref().unwrap_or(&courier.policy);
    let decision = decide(task.delivery(), (round, number), outcome, policy, &courier.pace, ended);
    let record = AttemptRecord {
        round,
        number,
        at: started,
        duration_ms: u64::try_from(ended.since(started).as_millis()).unwrap_or(u64::MAX),
        outcome: outcome.class(),
        status: outcome.status(),
    };
    this.tell(&record, decision);
    if this.record(Some(&record), decision).await? == Claim::Lost {
        return Ok(None);
    }
    if lane == Lane::Slow && state.slow && outcome.status().is_some() && ended.since(started) < SLOW_AFTER {
        this.mark(courier.deliveries.count_quick(task.subscription, state, ended)).await;
    }
    Ok(match decision {
        Decision::Delivered | Decision::Cancelled => None,
        Decision::Failed(reason) => Some(FollowUp::Letter(task.letter(round, reason))),
        Decision::Retry { next_at } => {
            let next = task.asking(Ask::Attempt { round, attempt: number + 1 });
            Some(FollowUp::Retry { task: next, at: next_at, lane })
        }
    })
}

impl Time {
    /// Whether an attempt was cut short for no reason but that it began late in the run. A receiver whose own time-out no
    /// run can hold has what there is.
    fn cuts(self, started: UnixMillis, until: UnixMillis, timeout: Duration) -> bool {
        until.since(started) < timeout && timeout + RECORDING_TIME <= self.whole
    }
}

/// The attempt that a task was admitted to.
struct Attempt<'a> {
    courier: &'a Courier,
    task: &'a DeliveryTask,
    admission: Admission,
    round: u32,
    number: u32,
}

impl Attempt<'_> {
    /// Makes sure that no other copy of the task makes this attempt; the first one is guarded by its record alone.
    async fn claim(&self, now: UnixMillis, until: UnixMillis) -> Result<Claim, AwsError> {
        let deliveries = &self.courier.deliveries;
        match self.admission {
            Admission::Lease => deliveries.lease(self.task, (self.round, self.number), now, until).await,
            Admission::NewRound => deliveries.start_round(self.task, self.round - 1, now, until).await,
            Admission::First | Admission::Letter { .. } | Admission::Drop => Ok(Claim::Won),
        }
    }

    /// Puts the attempt off, since the endpoint's owner is asked whether it wants any. `None`: another copy of the task
    /// has the attempt.
    async fn put_off(&self, lane: Lane) -> Result<Option<FollowUp>, AwsError> {
        let Courier { deliveries, retention, pace, .. } = self.courier;
        let (now, numbers) = (now(), (self.round, self.number));
        let until = now + pace.scaled(PUT_OFF);
        let claim = match self.admission {
            Admission::First => {
                let decision = Decision::Retry { next_at: until };
                deliveries.record_first(self.task, None, decision, *retention).await?
            }
            // Under a lease that ends at once, for the one that follows.
            Admission::NewRound
                if deliveries.start_round(self.task, self.round - 1, now, now).await? == Claim::Lost =>
            {
                Claim::Lost
            }
            _ => deliveries.put_off(self.task, numbers, now, until).await?,
        };
        tracing::info!(delivery = %self.task.delivery(), ?claim, "put off: its endpoint's owner is asked");
        let next = Ask::Attempt { round: self.round, attempt: self.number };
        // By reference, so that it ends when the event does.
        let task = self.task.by_reference().asking(next);
        Ok((claim == Claim::Won).then_some(FollowUp::Retry { task, at: until + CLOCKS_DIFFER, lane }))
    }

    /// Posts. A receiver that lets the attempt wait is slow from then on, while the attempt goes on waiting.
    async fn post(
        &self,
        prepared: &Prepared,
        target: &Target,
        started: UnixMillis,
        until: UnixMillis,
        state: State,
    ) -> Outcome {
        let Courier { sender, tokens, .. } = self.courier;
        let exchange = Exchange { sender, tokens, subscription: self.task.subscription, target, until };
        let posting = exchange.outcome(prepared);
        let watching = async {
            tokio::time::sleep(SLOW_AFTER).await;
            if !state.slow {
                self.mark(self.courier.deliveries.mark_slow(self.task.subscription, started)).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            outcome = posting => outcome,
            never = watching => never,
        }
    }

    /// Writes the mark of a lane. It is a hint, so that nothing depends on its success.
    async fn mark(&self, writing: impl Future<Output = Result<(), AwsError>>) {
        if let Err(error) = writing.await {
            tracing::warn!(subscription = %self.task.subscription, %error, "the lane could not be written");
        }
    }

    /// Writes how it ended; without an attempt if none was made.
    async fn record(&self, record: Option<&AttemptRecord>, decision: Decision) -> Result<Claim, AwsError> {
        let Courier { deliveries, retention, .. } = self.courier;
        match self.admission {
            Admission::First => deliveries.record_first(self.task, record, decision, *retention).await,
            _ => deliveries.record(self.task, (self.round, self.number), record, decision).await,
        }
    }

    /// Ends a delivery whose subscription or event is no more. A replay of one needs no end: it has failed before.
    async fn cancel(&self) -> Result<(), AwsError> {
        tracing::info!(delivery = %self.task.delivery(), "cancelled: its subscription or its event is no more");
        if self.admission != Admission::NewRound {
            self.record(None, Decision::Cancelled).await?;
        }
        Ok(())
    }

    /// Fails a delivery whose subscription gets nothing, now that it is claimed. There is no dead letter of it, or
    /// replays would come back for as long as that lasts.
    async fn disable(&self) -> Result<(), AwsError> {
        tracing::info!(delivery = %self.task.delivery(), "failed: its subscription is disabled or was not confirmed");
        self.record(None, Decision::Failed(FailReason::Disabled)).await?;
        Ok(())
    }

    /// One line for each attempt: ids and what happened, no bodies and no secrets.
    fn tell(&self, record: &AttemptRecord, decision: Decision) {
        tracing::info!(
            workspace = %self.task.event.key.workspace,
            subscription = %self.task.subscription,
            delivery = %self.task.delivery(),
            event = %self.task.event.key.digest,
            r#type = %self.task.event.event_type,
            round = record.round,
            attempt = record.number,
            outcome = %record.outcome,
            status = record.status,
            duration_ms = record.duration_ms,
            age_ms = u64::try_from(record.at.since(self.task.event.accepted_at).as_millis()).unwrap_or(u64::MAX),
            next_at = decision.next_at().map(tracing::field::display),
            "attempt"
        );
    }
}

/// When an attempt that begins `now` must have ended: by the subscription's own time-out, and while the function still
/// has time to record it.
fn ends(now: UnixMillis, timeout: Duration, deadline: UnixMillis) -> Result<UnixMillis, Undone> {
    let until = (now + timeout).min(deadline.minus(RECORDING_TIME));
    if until.since(now) < ATTEMPT_TIME_MIN { Err(Undone::Late) } else { Ok(until) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_ends_with_its_own_time_or_the_functions() {
        let (now, timeout) = (UnixMillis(100_000), Duration::from_secs(15));
        let until = |deadline| ends(now, timeout, UnixMillis(deadline)).ok();
        assert_eq!(until(160_000), Some(UnixMillis(115_000)));
        assert_eq!(until(110_000), Some(UnixMillis(108_000)));
        assert_eq!(until(102_500), Some(UnixMillis(100_500)));
        assert_eq!(until(102_499), None);
    }

    #[test]
    fn an_attempt_is_cut_by_the_function_where_another_run_would_hold_it() {
        let (started, timeout) = (UnixMillis(100_000), Duration::from_secs(15));
        let cuts = |whole, until| {
            let time = Time { deadline: UnixMillis(120_000), whole: Duration::from_secs(whole) };
            time.cuts(started, UnixMillis(until), timeout)
        };
        assert!(cuts(60, 114_999));
        assert!(!cuts(60, 115_000), "it had its own time");
        assert!(cuts(17, 114_999));
        assert!(!cuts(16, 114_999), "no run has so much time");
    }

    #[test]
    fn the_template_gives_the_function_its_time() {
        let template = include_str!("../../../infra/template.yaml");
        let (_, parameter) = template.split_once("  DeliverTimeoutSeconds:\n").unwrap();
        let default = parameter.lines().find_map(|line| line.trim().strip_prefix("Default: ")).unwrap();
        assert_eq!(default.parse(), Ok(FUNCTION_TIMEOUT.as_secs()));
    }
}
