//! What publishers are answered.

use axum::Json;
use axum::response::{IntoResponse, Response};
use carillon_core::event::Event;
use carillon_core::id::{EventDigest, EventId};
use carillon_core::time::UnixMillis;
use carillon_http::problem::{Document, Problem};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// How the submission of one event went.
#[derive(Clone, Debug)]
pub(crate) enum Submitted {
    /// It is an event now.
    Accepted { accepted_at: UnixMillis },
    /// It was one before.
    Duplicate { accepted_at: UnixMillis },
    /// It is none.
    Refused(Problem),
}

/// What the publisher knows an event by.
#[derive(Debug)]
pub(crate) struct Identity {
    id: String,
    source: String,
}

/// How the submission of one event went.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventResult)]
pub(crate) struct EventResult<'a> {
    /// The event's `id`; absent if none could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "0f3b8f6e-consumed")]
    id: Option<&'a str>,
    /// The event's `source`; absent if none could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "https://consents.aurora-bank.example/open-finance")]
    source: Option<&'a str>,
    /// What it is called here, now or before: `/v1/workspaces/{workspace}/events/{event}` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "evt_7v5rqm1x8y3tznc6hjfgpse4ab2k0w9d")]
    event_id: Option<EventId>,
    status: EventStatus,
    /// When it was accepted, now or before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime, example = "2026-11-20T13:06:51.018Z")]
    accepted_at: Option<String>,
    /// Why it was not accepted. Pointers are into the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Problem, required = false)]
    problem: Option<Document<'a>>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum EventStatus {
    /// It will be delivered.
    Accepted,
    /// It was accepted before; nothing more happens.
    Duplicate,
    /// Another event of its `source` and `id` was accepted before.
    Conflict,
    /// It must be corrected.
    Invalid,
    /// It could not be accepted at this moment: send it again.
    Failed,
}

/// How the submission of each event of a batch went, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub(crate) struct BatchResult<'a> {
    #[schema(max_items = 100)]
    results: Vec<EventResult<'a>>,
}

/// Of a single event its result, of a batch all results.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = PublishResult)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) enum PublishResult<'a> {
    Event(EventResult<'a>),
    Batch(BatchResult<'a>),
}

impl Submitted {
    /// Why it is no event, if it is none.
    pub(crate) fn refusal(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Accepted { .. } | Self::Duplicate { .. } => None,
        }
    }
}

impl Identity {
    pub(crate) fn of(event: &Event) -> Self {
        Self { id: event.id().to_owned(), source: event.source().to_owned() }
    }

    fn event_id(&self) -> EventId {
        EventDigest::of(&self.source, &self.id).into()
    }
}

/// The answer to a single event.
pub(crate) fn single(identity: &Identity, submitted: Submitted) -> Result<Response, Problem> {
    match submitted {
        Submitted::Refused(problem) => Err(problem),
        submitted => {
            let result = EventResult::of(Some(identity), &submitted);
            Ok((StatusCode::ACCEPTED, Json(result)).into_response())
        }
    }
}

/// The answer to a batch: 202 if every event was accepted, now or before; 207 if some were not; 503 if some could not be
/// at the moment: then the batch may be sent again as it is.
pub(crate) fn batch(results: &[(Option<Identity>, Submitted)]) -> Response {
    let refusals: Vec<_> = results.iter().filter_map(|(_, submitted)| submitted.refusal()).collect();
    let status = if refusals.is_empty() {
        StatusCode::ACCEPTED
    } else if refusals.contains(&&Problem::Unavailable) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::MULTI_STATUS
    };
    let results =
        results.iter().map(|(identity, submitted)| EventResult::of(identity.as_ref(), submitted)).collect();
    (status, Json(BatchResult { results })).into_response()
}

impl<'a> EventResult<'a> {
    fn of(identity: Option<&'a Identity>, submitted: &'a Submitted) -> Self {
        let (status, accepted_at, problem) = match submitted {
            Submitted::Accepted { accepted_at } => (EventStatus::Accepted, Some(accepted_at), None),
            Submitted::Duplicate { accepted_at } => (EventStatus::Duplicate, Some(accepted_at), None),
            Submitted::Refused(problem) => {
                let status = match problem {
                    Problem::EventConflict => EventStatus::Conflict,
                    Problem::Unavailable => EventStatus::Failed,
                    _ => EventStatus::Invalid,
                };
                (status, None, Some(problem.document(None)))
            }
        };
        Self {
            id: identity.map(|identity| identity.id.as_str()),
            source: identity.map(|identity| identity.source.as_str()),
            event_id: identity.filter(|_| accepted_at.is_some()).map(Identity::event_id),
            status,
            accepted_at: accepted_at.map(ToString::to_string),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::invalid::Invalid;
    use serde_json::json;

    use super::*;

    fn status(submitted: &[Submitted]) -> u16 {
        let results: Vec<_> = submitted.iter().map(|submitted| (None, submitted.clone())).collect();
        batch(&results).status().as_u16()
    }

    #[test]
    fn a_batchs_status_tells_whether_to_send_it_again() {
        let accepted = Submitted::Accepted { accepted_at: UnixMillis(0) };
        let duplicate = Submitted::Duplicate { accepted_at: UnixMillis(0) };
        let [conflict, unavailable] = [Problem::EventConflict, Problem::Unavailable].map(Submitted::Refused);
        assert_eq!(status(&[]), 202);
        assert_eq!(status(&[accepted.clone(), duplicate]), 202);
        assert_eq!(status(&[accepted.clone(), conflict.clone()]), 207);
        assert_eq!(status(&[accepted, conflict, unavailable]), 503);
    }

    #[test]
    fn an_event_that_is_none_is_told_with_its_problem() {
        let identity = Identity { id: "1".to_owned(), source: "/s".to_owned() };
        let refused = Submitted::Refused(Invalid::field("/type", "is no event type").into());
        let result = serde_json::to_value(EventResult::of(Some(&identity), &refused)).unwrap();
        assert_eq!((&result["id"], &result["status"]), (&json!("1"), &json!("invalid")));
        assert_eq!(result["problem"]["errors"][0]["pointer"], "/type");
        assert!(result.get("acceptedAt").is_none() && result.get("eventId").is_none());
    }

    #[test]
    fn an_event_is_told_with_its_id() {
        let identity = Identity { id: "1".to_owned(), source: "/s".to_owned() };
        let id = EventId::from(EventDigest::of("/s", "1")).to_string();
        let accepted_at = UnixMillis(0);
        for submitted in [Submitted::Accepted { accepted_at }, Submitted::Duplicate { accepted_at }] {
            let result = serde_json::to_value(EventResult::of(Some(&identity), &submitted)).unwrap();
            assert_eq!(result["eventId"], id.as_str());
        }
    }
}
