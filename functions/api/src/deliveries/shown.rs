//! Deliveries as the API shows them.

use carillon_aws::deliveries::Delivery;
use carillon_core::akamai::EventState;
use carillon_core::delivery::{AttemptRecord, FailReason, HeldBy, Status};
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{DeliveryId, EventId, EventKey, SubscriptionId};
use carillon_core::outcome::OutcomeClass;
use carillon_core::pattern::EventType;
use carillon_core::time::{UnixMillis, rfc3339};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// One event for one subscription, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(crate) struct DeliveryShown {
    /// What `webhook-id` says of each of its attempts.
    #[schema(value_type = String, example = "dlv_4ab2k0w9d7v5rqm1x8y3tznc6hjfgpse")]
    id: DeliveryId,
    /// Whom it is for.
    #[schema(value_type = String, example = "sub_06h02h91rss6dfwpq1vvgwp3d8")]
    subscription: SubscriptionId,
    /// What it tells.
    event: EventOfDelivery,
    /// Where it stands.
    status: DeliveryStatus,
    /// Where it stands in the words of Akamai Identity Cloud's Webhooks v3, for clients that know those.
    #[schema(value_type = EventStateShown)]
    akamai_state: EventState,
    /// Why it has failed, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = FailReasonShown, required = false)]
    reason: Option<FailReason>,
    /// Why it is held, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = HeldByShown, required = false)]
    held_by: Option<HeldBy>,
    /// From 1; each redelivery starts another.
    #[schema(minimum = 1)]
    round: u32,
    /// When its next attempt is due, or was, if it is retrying.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_rfc3339")]
    #[schema(value_type = String, required = false, format = DateTime)]
    next_attempt_at: Option<UnixMillis>,
    /// Its attempts, the latest last. Of earlier rounds the last hundred are kept.
    attempts: Vec<Attempt>,
}

/// The event of a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeliveryEvent)]
pub(crate) struct EventOfDelivery {
    #[schema(value_type = String, example = "evt_7v5rqm1x8y3tznc6hjfgpse4ab2k0w9d")]
    id: EventId,
    #[schema(value_type = String, example = "consent:created")]
    r#type: EventType,
    /// When it was accepted.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    accepted_at: UnixMillis,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DeliveryStatus {
    /// No attempt was made of it yet.
    Pending,
    /// Attempts failed, or were put off, and another one is to come.
    Retrying,
    /// It waits, without attempts.
    Held,
    /// A receiver accepted it.
    Delivered,
    /// Its attempts are used up, or none can help.
    Failed,
    /// Its subscription is no more.
    Cancelled,
}

/// One request to the receiver.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeliveryAttempt)]
struct Attempt {
    /// Of which round.
    #[schema(minimum = 1)]
    round: u32,
    /// Its number in the round.
    #[schema(minimum = 1)]
    number: u32,
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: UnixMillis,
    /// How long it took, in milliseconds.
    duration_ms: u64,
    /// How it ended.
    #[schema(value_type = OutcomeShown)]
    outcome: OutcomeClass,
    /// The HTTP status, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = u16, example = 503)]
    status: Option<u16>,
    /// The begin of what the receiver answered, up to 1 KiB, if it did not accept the delivery: kept with the attempts of the
    /// present round, and shown unless the workspace says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String, max_length = 1024)]
    response: Option<String>,
}

/// The states that an event has in Akamai Identity Cloud's Webhooks v3, and which status has which:
///
/// - `awaiting-executing`: `pending`, or `retrying` or `held` before the first attempt of its round
/// - `executing`: `retrying`, while an attempt is under way. The first attempt of a first round is seen when it has ended
/// - `awaiting-retry`: `retrying` or `held` after an attempt that failed
/// - `success`: `delivered`
/// - `failure`: `failed` or `cancelled`
#[derive(ToSchema)]
#[schema(as = AkamaiState, rename_all = "kebab-case")]
#[expect(dead_code, reason = "describes EventState of the core, which knows no OpenAPI")]
enum EventStateShown {
    AwaitingExecuting,
    Executing,
    AwaitingRetry,
    Success,
    Failure,
}

/// Why a delivery failed: every attempt was made (`exhausted`); the receiver answered that it will not take it (`refused`);
/// its subscription was disabled when it was due (`disabled`); its event cannot be shown in the subscription's format
/// (`unfit`).
#[derive(ToSchema)]
#[schema(as = DeliveryFailReason, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes FailReason of the core, which knows no OpenAPI")]
enum FailReasonShown {
    Exhausted,
    Refused,
    Disabled,
    Unfit,
}

/// Why a delivery is held: its subscription is paused (`pause`), has used up its rate for the next minutes (`rate`), or its
/// receiver does not answer (`circuit`).
#[derive(ToSchema)]
#[schema(as = DeliveryHeldBy, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes HeldBy of the core, which knows no OpenAPI")]
enum HeldByShown {
    Pause,
    Rate,
    Circuit,
}

/// How an attempt ended. By status: 2xx (`delivered`), 3xx (`redirected`), 401 or 403 (`unauthorized`), 410 (`gone`), 413 or
/// 415 (`unacceptable`), 429 or 503 (`throttled`), 400 with the error code of a receiver of Security Event Tokens
/// (`rejected`), any other 4xx (`clientError`), anything else (`serverError`). Without an answer: `timedOut`; no connection
/// (`unreachable`); a connection that broke (`broken`); a refused certificate or TLS (`tls`); a host without an address
/// (`dns`) or with one that is not allowed (`blocked`); no token of the subscriber's own service (`token`).
#[derive(ToSchema)]
#[schema(as = AttemptOutcome, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes OutcomeClass of the core, which knows no OpenAPI")]
pub(super) enum OutcomeShown {
    Delivered,
    Redirected,
    Unauthorized,
    Gone,
    Unacceptable,
    Throttled,
    Rejected,
    ClientError,
    ServerError,
    TimedOut,
    Unreachable,
    Broken,
    Tls,
    Dns,
    Blocked,
    Token,
}

impl DeliveryShown {
    /// One that has a row, as it is `now`; with what its receiver answered, if that may be shown.
    pub(crate) fn of(delivery: &Delivery, with_responses: bool, now: UnixMillis) -> Self {
        let Delivery { row, event, subscription, .. } = delivery;
        let status = row.status;
        Self {
            id: DeliveryId::of(&event.key, *subscription),
            subscription: *subscription,
            event: EventOfDelivery::of(&event.key, &event.event_type, event.accepted_at),
            status: status.into(),
            akamai_state: EventState::of(Some(row), now),
            // What a row had before may still stand in it.
            reason: delivery.reason.filter(|_| status == Status::Failed),
            held_by: delivery.held_by.filter(|_| status == Status::Held),
            round: row.round,
            next_attempt_at: row.next_at.filter(|_| status == Status::Retrying),
            attempts: delivery.attempts.iter().map(|attempt| Attempt::of(attempt, with_responses)).collect(),
        }
    }

    /// One that has none yet.
    pub(crate) fn pending(event: &AcceptedEvent, subscription: SubscriptionId) -> Self {
        Self {
            id: DeliveryId::of(&event.key, subscription),
            subscription,
            event: EventOfDelivery::of(&event.key, &event.event_type, event.accepted_at),
            status: DeliveryStatus::Pending,
            akamai_state: EventState::AwaitingExecuting,
            reason: None,
            held_by: None,
            round: 1,
            next_attempt_at: None,
            attempts: Vec::new(),
        }
    }
}

impl EventOfDelivery {
    fn of(key: &EventKey, event_type: &EventType, accepted_at: UnixMillis) -> Self {
        Self { id: key.digest.into(), r#type: event_type.clone(), accepted_at }
    }
}

impl Attempt {
    fn of(record: &AttemptRecord, with_response: bool) -> Self {
        let AttemptRecord { round, number, at, duration_ms, outcome, status, response } = record;
        Self {
            round: *round,
            number: *number,
            at: *at,
            duration_ms: *duration_ms,
            outcome: *outcome,
            status: *status,
            response: response.clone().filter(|_| with_response),
        }
    }
}

impl From<Status> for DeliveryStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Retrying => Self::Retrying,
            Status::Held => Self::Held,
            Status::Delivered => Self::Delivered,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde passes fields so")]
fn optional_rfc3339<S: Serializer>(time: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use carillon_core::delivery::Row;
    use carillon_core::id::EventDigest;
    use carillon_core::task::EventRef;
    use serde_json::json;
    use utoipa::PartialSchema as _;

    use super::*;

    const THEN: UnixMillis = UnixMillis(1_795_339_800_000);

    pub(crate) fn delivery(status: Status) -> Delivery {
        let key = EventKey { workspace: "acme".parse().unwrap(), digest: EventDigest::of("/s", "1") };
        let event_type = "consent:created".parse().unwrap();
        let attempt = AttemptRecord {
            round: 1,
            number: 1,
            at: THEN,
            duration_ms: 12,
            outcome: OutcomeClass::ServerError,
            status: Some(500),
            response: Some("out of order".to_owned()),
        };
        Delivery {
            row: Row { round: 1, attempt: 1, status, next_at: Some(THEN), lease_until: None },
            reason: Some(FailReason::Exhausted),
            held_by: Some(HeldBy::Pause),
            attempts: vec![attempt],
            subscription: SubscriptionId::new(THEN, [7; 10]),
            event: EventRef { key, accepted_at: THEN, event_type, json: None, trace: None },
            expires_at: UnixMillis(u64::MAX),
        }
    }

    #[test]
    fn what_belongs_to_another_status_is_not_shown() {
        let shown = |status| serde_json::to_value(DeliveryShown::of(&delivery(status), true, THEN)).unwrap();
        for (status, state, has) in [
            (Status::Retrying, "awaiting-retry", "nextAttemptAt"),
            (Status::Held, "awaiting-retry", "heldBy"),
            (Status::Failed, "failure", "reason"),
            (Status::Delivered, "success", ""),
            (Status::Cancelled, "failure", ""),
        ] {
            let shown = shown(status);
            assert_eq!(shown["status"], status.name());
            assert_eq!(shown["akamaiState"], state);
            for member in ["nextAttemptAt", "heldBy", "reason"] {
                assert_eq!(shown.get(member).is_some(), member == has, "{member} of {shown}");
            }
        }
    }

    #[test]
    fn responses_are_shown_where_they_may_be() {
        let attempt = |with| {
            let shown = DeliveryShown::of(&delivery(Status::Failed), with, THEN);
            serde_json::to_value(shown).unwrap()["attempts"][0].take()
        };
        let without = json!({
            "round": 1, "number": 1, "at": "2026-11-22T09:30:00.000Z", "durationMs": 12, "outcome": "serverError",
            "status": 500,
        });
        assert_eq!(attempt(false), without);
        assert_eq!(attempt(true)["response"], "out of order");
    }

    #[test]
    fn every_outcome_and_cause_is_described() {
        let names = |schema: utoipa::openapi::RefOr<utoipa::openapi::Schema>| {
            serde_json::to_value(schema).unwrap()["enum"].take()
        };
        let read = |names: serde_json::Value| serde_json::from_value::<Vec<OutcomeClass>>(names).is_ok();
        assert!(read(names(OutcomeShown::schema())));
        assert!(serde_json::from_value::<Vec<FailReason>>(names(FailReasonShown::schema())).is_ok());
        assert!(serde_json::from_value::<Vec<HeldBy>>(names(HeldByShown::schema())).is_ok());
        assert!(serde_json::from_value::<Vec<EventState>>(names(EventStateShown::schema())).is_ok());
    }
}
