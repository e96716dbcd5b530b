//! One task: admit, pass the [gate](crate::gate), claim, post, record, learn, decide what follows; in this order, for the
//! reasons that [`carillon_core::delivery`] gives.

use std::sync::Arc;
use std::time::Duration;

use carillon_attempt::{ATTEMPT_TIME_MIN, Exchange, Prepared, Target, Unwritable, prepare};
use carillon_aws::deliveries::{Claim, Delivery, State};
use carillon_aws::error::AwsError;
use carillon_aws::metrics::Counter;
use carillon_aws::now;
use carillon_core::delivery::{Admission, Ask, AttemptRecord, Decision, FailReason, HeldBy, admit, decide};
use carillon_core::health::Lesson;
use carillon_core::id::DeliveryId;
use carillon_core::operational::{FAILING_ATTEMPT, News, Troubled};
use carillon_core::outcome::{Failure, Outcome, Reply};
use carillon_core::payload::{NoPayload, Payload};
use carillon_core::retry::QUEUE_DELAY_MAX;
use carillon_core::subscription::AttemptTimeout;
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;
use carillon_core::trace::Trace;
use serde::Serialize;

use crate::courier::Courier;
use crate::gate::{NoPass, Pass};
use crate::log::{self, Lines, Span};
use crate::receiver::{Receiver, Seen, forget};

/// How long Lambda lets the function run, by default: the template's `DeliverTimeoutSeconds`.
const FUNCTION_TIMEOUT: Duration = Duration::from_mins(1);

/// What of the function's time is kept to record the outcome and send what follows.
const RECORDING_TIME: Duration = Duration::from_secs(2);

/// How long an attempt is put off while its endpoint's owner is asked, before scaling. Short of what a queue holds back.
const PUT_OFF: Duration = Duration::from_mins(10);

/// How much later than that its task is sent: one that comes before the end of its lease, by another clock, is dropped.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// A receiver that has not answered by then is slow, and the attempt is begun anew in the slow lane. The first attempts at
/// one that hangs would hold all places of the usual lane for as long as their time-out lasts; one that would have answered
/// sees one request twice, when it is found to be slow.
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
    pub(crate) seen: Arc<Seen>,
    /// `None`: the subscription is no more.
    pub(crate) target: Option<Arc<Target>>,
    /// `None`: the event is no more.
    pub(crate) json: Option<String>,
}

/// A task that may do something.
pub(crate) struct Ready {
    pub(crate) task: DeliveryTask,
    pub(crate) lane: Lane,
    pub(crate) admission: Admission,
    /// The round and the attempt that it is for.
    numbers: (u32, u32),
    /// Those of earlier rounds, where it begins another one.
    attempts: Vec<AttemptRecord>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) target: Option<Arc<Target>>,
    json: Option<String>,
}

/// One invocation of the function.
pub(crate) struct Run {
    pub(crate) span: Span,
    pub(crate) time: Time,
    pub(crate) lines: Lines,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Lane {
    Delivery,
    Slow,
}

/// What must be sent once a task is done.
#[derive(Debug)]
pub(crate) enum FollowUp {
    /// The next attempt, or the same one if it was put off.
    Retry { task: DeliveryTask, at: UnixMillis, lane: Lane },
    /// The dead letter of a delivery that failed.
    Letter(DeliveryTask),
    /// The same attempt, for the slow lane.
    SlowLane(DeliveryTask),
    /// The same attempt, once these seconds are over.
    Later { task: DeliveryTask, seconds: u16, lane: Lane },
}

/// Why a task comes again: never the receiver's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undone {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error("there is not enough time left for an attempt")]
    Late,
    #[error("another copy of the task is at it, and may leave something undone")]
    Taken,
    #[error(transparent)]
    NoPayload(#[from] NoPayload),
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    #[error(transparent)]
    NoPass(#[from] NoPass),
}

/// The task, if it may do anything.
pub(crate) fn admitted(case: Case) -> Option<Ready> {
    let Case { task, lane, delivery, seen, target, json } = case;
    let row = delivery.as_ref().map(|delivery| &delivery.row);
    let admission = admit(task.ask, row, delivery.as_ref().and_then(|delivery| delivery.reason), now());
    let numbers = match (admission, task.ask) {
        (Admission::Drop, _) => return None,
        (_, Ask::Attempt { round, attempt }) => (round, attempt),
        (_, Ask::NewRound { after, .. }) => (after + 1, 1),
    };
    let attempts = match admission {
        Admission::NewRound => delivery.map(|delivery| delivery.attempts).unwrap_or_default(),
        _ => Vec::new(),
    };
    Some(Ready { task, lane, admission, numbers, attempts, seen, target, json })
}

/// Does what the task may do, and tells what must be sent then.
pub(crate) async fn attempt(
    courier: &Courier,
    ready: Ready,
    pass: Pass,
    run: &Run,
) -> Result<Option<FollowUp>, Undone> {
    let Ready { task, lane, admission, numbers: (round, number), attempts, seen, target, json } = ready;
    if admission == Admission::Taken {
        return Err(Undone::Taken);
    }
    let (delivery, time) = (task.delivery(), run.time);
    let this =
        Attempt { courier, run, task: &task, delivery, lane, admission, round, number, attempts: &attempts };
    let (Some(target), Some(json)) = (target, json) else {
        this.cancel().await?;
        forget(courier, task.subscription, &seen).await;
        return Ok(None);
    };
    let receiver = Receiver { courier, task: &task, target: &target };
    if let Admission::Letter { round, reason } = admission {
        receiver.tell(News::Exhausted(this.troubled(&json, None), reason)).await?;
        return Ok(Some(FollowUp::Letter(task.letter(round, reason))));
    }
    if target.is_awaited(now()) {
        return this.put_off().await;
    }
    let (slot, timeout, is_trial) = match pass {
        Pass::SlowLane => return Ok(Some(FollowUp::SlowLane(task))),
        Pass::Later { slot, seconds } => {
            return Ok(Some(FollowUp::Later { task: task.at_slot(slot), seconds, lane }));
        }
        Pass::Held(by) => {
            this.hold(by).await?;
            return Ok(None);
        }
        Pass::Now { slot } => (slot, target.timeout, false),
        Pass::Trial { timeout } => (None, timeout.min(target.timeout), true),
    };
    if let Some(slot) = slot {
        slot.come().await;
    }
    ends(now(), timeout, time.deadline)?;
    // What may have to be told of the event outlives its body; where the task has it, it is there anyway.
    let referred = task.event.json.is_none().then(|| json.clone());
    let event = task.event.json.as_deref().or(referred.as_deref()).unwrap_or_default();
    let payload = target.payload(&task, json);
    if !won(this.claim(now(), time.deadline).await?)? {
        return Ok(None);
    }
    if slot.is_some_and(|slot| !slot.holds()) {
        return Ok(Some(this.give_back().await?));
    }
    if !target.is_active() {
        this.fail(FailReason::Disabled).await?;
        forget(courier, task.subscription, &seen).await;
        return Ok(None);
    }
    let payload = match payload {
        Err(NoPayload::NoRevision) => {
            this.fail(FailReason::Unfit).await?;
            return Ok(None);
        }
        payload => payload?,
    };
    this.make(&receiver, &seen, (payload, event), (timeout, is_trial)).await
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
    run: &'a Run,
    task: &'a DeliveryTask,
    delivery: DeliveryId,
    lane: Lane,
    admission: Admission,
    round: u32,
    number: u32,
    /// Those of earlier rounds, where it begins another one.
    attempts: &'a [AttemptRecord],
}

impl Attempt<'_> {
    /// Makes it, now that it is claimed. `event`: the event as it is stored.
    async fn make(
        &self,
        receiver: &Receiver<'_>,
        seen: &Seen,
        (payload, event): (Payload, &str),
        (timeout, is_trial): (Duration, bool),
    ) -> Result<Option<FollowUp>, Undone> {
        let (courier, time, target, state) = (self.courier, self.run.time, receiver.target, &seen.read);
        let started = now();
        let until = ends(started, timeout, time.deadline)?;
        let prepared = prepare(self.task, target, payload, &courier.origin, started)?;
        let posting = Box::pin(self.post(prepared, target, until, (state, is_trial)));
        let Some(Reply { outcome, response }) = posting.await else {
            return Ok(Some(self.hand_over().await?));
        };
        if outcome == Outcome::Unanswered(Failure::TimedOut) && time.cuts(started, until, timeout) {
            return Err(Undone::Late);
        }
        let (ended, numbers) = (now(), (self.round, self.number));
        let policy = target.policy.as_ref().unwrap_or(&courier.policy);
        let decision = decide(self.delivery, numbers, outcome, policy, &courier.pace, ended);
        let record = AttemptRecord {
            round: self.round,
            number: self.number,
            at: started,
            duration_ms: millis(ended.since(started)),
            outcome: outcome.class(),
            status: outcome.status(),
            response,
        };
        self.tell(&record, decision);
        if !won(self.record(Some(&record), decision).await?)? {
            return Ok(None);
        }
        let is_quick = outcome.status().is_some() && ended.since(started) < SLOW_AFTER;
        if self.lane == Lane::Slow && state.slow && is_quick {
            self.mark(courier.deliveries.count_quick(self.task.subscription, state, ended)).await;
        }
        let fails = self.number == FAILING_ATTEMPT && decision.next_at().is_some();
        let told = fails || matches!(decision, Decision::Failed(_));
        receiver.learn(seen, Lesson::of(outcome, ended, is_trial, told)).await;
        let troubled = self.troubled(event, Some(&record));
        if fails && let Err(error) = receiver.tell(News::Failing(troubled)).await {
            tracing::error!(%error, delivery = %self.delivery, "its subscriber was not told that it fails");
        }
        if let Decision::Failed(reason) = decision {
            courier.metrics.count(Counter::DeliveriesFailed, 1);
            receiver.tell(News::Exhausted(troubled, reason)).await?;
        }
        Ok(self.follow_up(decision))
    }

    /// What a decision has sent.
    fn follow_up(&self, decision: Decision) -> Option<FollowUp> {
        match decision {
            Decision::Delivered | Decision::Cancelled | Decision::Held(_) => None,
            Decision::Failed(reason) => Some(FollowUp::Letter(self.task.letter(self.round, reason))),
            Decision::Retry { next_at } => {
                let next = Ask::Attempt { round: self.round, attempt: self.number + 1 };
                Some(FollowUp::Retry { task: self.task.asking(next), at: next_at, lane: self.lane })
            }
        }
    }

    /// Makes sure that no other copy of the task makes this attempt; the first one is guarded by its record alone.
    async fn claim(&self, now: UnixMillis, until: UnixMillis) -> Result<Claim, AwsError> {
        let deliveries = &self.courier.deliveries;
        let before = (self.round.saturating_sub(1), self.attempts);
        match self.admission {
            Admission::Lease => deliveries.lease(self.task, (self.round, self.number), now, until).await,
            Admission::NewRound => deliveries.start_round(self.task, before, now, until).await,
            Admission::First | Admission::Letter { .. } | Admission::Taken | Admission::Drop => {
                Ok(Claim::Won)
            }
        }
    }

    /// Puts the attempt off, since the endpoint's owner is asked whether it wants any.
    async fn put_off(&self) -> Result<Option<FollowUp>, Undone> {
        let Courier { deliveries, retention, pace, .. } = self.courier;
        let (now, numbers) = (now(), (self.round, self.number));
        let before = (self.round.saturating_sub(1), self.attempts);
        let until = now + pace.scaled(PUT_OFF);
        let claim = match self.admission {
            Admission::First => {
                let decision = Decision::Retry { next_at: until };
                deliveries.record_first(self.task, None, decision, *retention).await?
            }
            // Under a lease that ends at once, for the one that follows.
            Admission::NewRound => match deliveries.start_round(self.task, before, now, now).await? {
                Claim::Won => deliveries.put_off(self.task, numbers, now, until).await?,
                lost => lost,
            },
            _ => deliveries.put_off(self.task, numbers, now, until).await?,
        };
        if !won(claim)? {
            return Ok(None);
        }
        tracing::info!(delivery = %self.delivery, "put off: its endpoint's owner is asked");
        let next = Ask::Attempt { round: self.round, attempt: self.number };
        // By reference, so that it ends when the event does.
        let task = self.task.by_reference().asking(next);
        Ok(Some(FollowUp::Retry { task, at: until + CLOCKS_DIFFER, lane: self.lane }))
    }

    /// Holds the delivery, whose task is no longer needed then.
    async fn hold(&self, by: HeldBy) -> Result<(), Undone> {
        let Courier { deliveries, retention, metrics, holding, .. } = self.courier;
        // New rows are put together.
        let _turn = match self.admission {
            Admission::First => None,
            _ => Some(holding.lock().await),
        };
        let (now, numbers) = (now(), (self.round, self.number));
        let before = (self.round.saturating_sub(1), self.attempts);
        let claim = match self.admission {
            Admission::First => {
                deliveries.record_first(self.task, None, Decision::Held(by), *retention).await?
            }
            // Under a lease that ends at once, for the one that follows.
            Admission::NewRound => match deliveries.start_round(self.task, before, now, now).await? {
                Claim::Won => deliveries.hold(self.task, numbers, by, now).await?,
                lost => lost,
            },
            _ => deliveries.hold(self.task, numbers, by, now).await?,
        };
        if won(claim)? {
            metrics.held(by.name());
            tracing::info!(delivery = %self.delivery, by = by.name(), "held");
        }
        Ok(())
    }

    /// Leaves the attempt to the slow lane, where it is begun anew with all its time. It counts for nothing here.
    async fn hand_over(&self) -> Result<FollowUp, AwsError> {
        self.courier.metrics.count(Counter::HandedOver, 1);
        tracing::info!(delivery = %self.delivery, "handed over to the slow lane");
        Ok(FollowUp::SlowLane(self.unclaimed().await?))
    }

    /// Leaves the attempt to another slot, since its own went by while it was claimed.
    async fn give_back(&self) -> Result<FollowUp, AwsError> {
        tracing::info!(delivery = %self.delivery, "too late for its slot");
        Ok(FollowUp::Later { task: self.unclaimed().await?, seconds: 0, lane: self.lane })
    }

    /// The task of the same attempt, for which nobody has a lease any more.
    async fn unclaimed(&self) -> Result<DeliveryTask, AwsError> {
        if self.admission != Admission::First {
            // Should it be lost, the row has moved on, and the task that follows finds that.
            self.courier.deliveries.give_back(self.task, (self.round, self.number)).await?;
        }
        Ok(self.task.asking(Ask::Attempt { round: self.round, attempt: self.number }))
    }

    /// Posts. A receiver that lets the attempt wait is slow from then on. `None`: it is to be begun anew in the slow lane,
    /// since here it would take the place of others.
    async fn post(
        &self,
        prepared: Prepared,
        target: &Target,
        until: UnixMillis,
        (state, is_trial): (&State, bool),
    ) -> Option<Reply> {
        let Courier { sender, tokens, deliveries, .. } = self.courier;
        let subscription = self.task.subscription;
        let exchange = Exchange { sender, tokens, subscription, target, until };
        let posting = exchange.outcome(prepared);
        let watching = async {
            tokio::time::sleep(SLOW_AFTER).await;
            if !state.slow || state.quick > 0 {
                self.mark(deliveries.mark_slow(subscription, now())).await;
            }
            if self.lane == Lane::Slow || is_trial {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            reply = posting => Some(reply),
            () = watching => None,
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
        tracing::info!(delivery = %self.delivery, "cancelled: its subscription or its event is no more");
        if self.admission != Admission::NewRound {
            self.record(None, Decision::Cancelled).await?;
        }
        Ok(())
    }

    /// Fails a delivery that no attempt can be made of, now that it is claimed. There is no dead letter of it, or replays
    /// would come back for as long as that lasts.
    async fn fail(&self, reason: FailReason) -> Result<(), Undone> {
        tracing::info!(delivery = %self.delivery, ?reason, "failed without an attempt");
        won(self.record(None, Decision::Failed(reason)).await?)?;
        Ok(())
    }

    /// What its subscriber is told of it. `record`: the attempt that was made just now.
    fn troubled<'b>(&self, event: &'b str, record: Option<&AttemptRecord>) -> Troubled<'b> {
        Troubled {
            delivery: self.delivery,
            event,
            round: self.round,
            attempts: self.number,
            outcome: record.map(|record| record.outcome),
            status: record.and_then(|record| record.status),
        }
    }

    /// Counts it, and adds its line to the log.
    fn tell(&self, record: &AttemptRecord, decision: Decision) {
        let event = &self.task.event;
        let age_ms = millis(record.at.since(event.accepted_at));
        let is_fresh =
            self.admission == Admission::First && self.lane == Lane::Delivery && self.task.slot.is_none();
        self.courier.metrics.attempt(record.outcome, record.duration_ms, is_fresh.then_some(age_ms));
        let told = log::Attempt {
            workspace: &event.key.workspace,
            subscription: self.task.subscription,
            delivery: self.delivery,
            event: event.key.digest,
            r#type: &event.event_type,
            round: record.round,
            number: record.number,
            outcome: record.outcome,
            status: record.status,
            duration_ms: record.duration_ms,
            age_ms,
            lane: self.lane,
            trace: event.trace.as_ref().map(Trace::id),
            next_at: decision.next_at().as_ref().map(UnixMillis::to_string),
        };
        self.run.lines.add(&told, &self.run.span);
    }
}

/// Whether a task may go on after a conditional write: not where there is no row any more, and later where another copy of
/// it has the attempt.
fn won(claim: Claim) -> Result<bool, Undone> {
    match claim {
        Claim::Won => Ok(true),
        Claim::Gone => Ok(false),
        Claim::Lost => Err(Undone::Taken),
    }
}

/// When an attempt that begins `now` must have ended: by the subscription's own time-out, and while the function still
/// has time to record it.
fn ends(now: UnixMillis, timeout: Duration, deadline: UnixMillis) -> Result<UnixMillis, Undone> {
    let until = (now + timeout).min(deadline.minus(RECORDING_TIME));
    if until.since(now) < ATTEMPT_TIME_MIN { Err(Undone::Late) } else { Ok(until) }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
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
