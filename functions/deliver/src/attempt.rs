//! One task: admit, claim, post, record, decide what follows; in this order, for the reasons that
//! [`carillon_core::delivery`] gives.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_aws::deliveries::{Claim, Delivery, State};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::delivery::{Admission, Ask, AttemptRecord, Decision, admit, decide};
use carillon_core::outcome::Outcome;
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;
use carillon_sender::Post;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::courier::Courier;
use crate::targets::Target;

/// How long an attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// What of the function's time is kept to record the outcome and send what follows.
const RECORDING_TIME: Duration = Duration::from_secs(2);

/// With less time than this an attempt is not begun.
const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(500);

/// A receiver that has not answered by then is slow.
const SLOW_AFTER: Duration = Duration::from_secs(2);

const _: () = assert!(ATTEMPT_TIMEOUT.as_secs() > carillon_sender::CONNECT_TIMEOUT.as_secs());

/// Media type of an event in structured mode (CloudEvents HTTP protocol binding 1.0, section 3.2).
const STRUCTURED: HeaderValue = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

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

/// Which queue a task came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Delivery,
    Slow,
}

/// What must be sent once the outcome is recorded.
#[derive(Debug)]
pub(crate) enum FollowUp {
    /// The next attempt.
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
    #[error("a header cannot be written")]
    Header(#[from] http::header::InvalidHeaderValue),
}

/// Does what the task may do, and tells what must be sent then.
pub(crate) async fn attempt(
    courier: &Courier,
    case: Case,
    deadline: UnixMillis,
) -> Result<Option<FollowUp>, Undone> {
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
    timeout(now(), deadline)?;
    if this.claim(now(), deadline).await? == Claim::Lost {
        return Ok(None);
    }
    let started = now();
    let post = signed(&task, &target, json, started, timeout(started, deadline)?)?;
    let outcome = this.post(post, started, state).await;
    let ended = now();
    let decision = decide(task.delivery(), (round, number), outcome, &courier.policy, &courier.pace, ended);
    let record = AttemptRecord {
        round,
        number,
        at: started,
        duration_ms: u64::try_from(ended.since(started).as_millis()).unwrap_or(u64::MAX),
        outcome: outcome.class(),
        status: outcome.status(),
    };
    this.tell(&record, decision);
    if this.record(&record, decision).await? == Claim::Lost {
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

    /// Posts. A receiver that lets the attempt wait is slow from then on, while the attempt goes on waiting.
    async fn post(&self, post: Post<'_>, started: UnixMillis, state: State) -> Outcome {
        let posting = self.courier.sender.post(post, started);
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

    async fn record(&self, record: &AttemptRecord, decision: Decision) -> Result<Claim, AwsError> {
        let Courier { deliveries, retention, .. } = self.courier;
        match self.admission {
            Admission::First => deliveries.record_first(self.task, Some(record), decision, *retention).await,
            _ => deliveries.record(self.task, (self.round, self.number), Some(record), decision).await,
        }
    }

    /// Ends a delivery whose subscription or event is no more. A replay of one needs no end: it has failed before.
    async fn cancel(&self) -> Result<(), AwsError> {
        let Courier { deliveries, retention, .. } = self.courier;
        tracing::info!(delivery = %self.task.delivery(), "cancelled: its subscription or its event is no more");
        match self.admission {
            Admission::First => {
                deliveries.record_first(self.task, None, Decision::Cancelled, *retention).await?
            }
            Admission::Lease => {
                deliveries.record(self.task, (self.round, self.number), None, Decision::Cancelled).await?
            }
            Admission::NewRound | Admission::Letter { .. } | Admission::Drop => Claim::Lost,
        };
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

/// How long an attempt that begins now may take.
fn timeout(now: UnixMillis, deadline: UnixMillis) -> Result<Duration, Undone> {
    let timeout = ATTEMPT_TIMEOUT.min(deadline.minus(RECORDING_TIME).since(now));
    if timeout < ATTEMPT_TIME_MIN { Err(Undone::Late) } else { Ok(timeout) }
}

/// The request of an attempt: the event's bytes with the headers of Standard Webhooks 1.0.0, signed by every secret.
fn signed<'a>(
    task: &DeliveryTask,
    target: &'a Target,
    json: String,
    now: UnixMillis,
    timeout: Duration,
) -> Result<Post<'a>, Undone> {
    let body = Bytes::from(json);
    let (delivery, timestamp) = (task.delivery(), now.as_secs());
    let signatures: Vec<_> =
        target.secrets.iter().map(|secret| secret.sign(delivery, timestamp, &body)).collect();
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, STRUCTURED);
    headers.insert(WEBHOOK_ID, HeaderValue::from_str(&delivery.to_string())?);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_str(&signatures.join(" "))?);
    Ok(Post { endpoint: &target.endpoint, headers, body, timeout })
}
