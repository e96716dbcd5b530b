//! Requests: a CloudEvent in structured or binary mode, or a batch (CloudEvents HTTP protocol binding 1.0, section 3).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use carillon_aws::metrics::Counter;
use carillon_core::event::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Event};
use carillon_core::invalid::Invalid;
use carillon_core::trace::{TRACEPARENT, TRACESTATE, Trace};
use carillon_http::body::media_type;
use carillon_http::problem::Problem;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use crate::accept::Publisher;
use crate::answer::{BatchResult, Identity, PublishResult, Submitted, batch, single};
use crate::check::Mode;
use crate::cloud_event::{CloudEvent, CloudEventBatch};
use crate::workspace::OpenWorkspace;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const HEADER_PREFIX: &str = "ce-";

/// Publish events
///
/// One CloudEvent in structured or binary mode, or a batch of up to 100, each checked and accepted for itself. What is
/// accepted will be delivered to the subscriptions that match it. To send an event again does no harm: `source` and `id`
/// are its identity, and a repetition is answered as a duplicate.
///
/// In binary mode the attributes are headers, `ce-` and the attribute's name, the values percent-encoded; the body is the
/// data, of any media type. Pointers into data are then pointers into the body.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/events",
    operation_id = "publishEvents",
    tag = "events",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("ce-specversion" = Option<String>, Header, description = "Binary mode: `1.0`", example = "1.0"),
        ("ce-id" = Option<String>, Header, description = "Binary mode: the event's `id`", example = "0f3b8f6e-consumed"),
        (
            "ce-source" = Option<String>, Header, description = "Binary mode: the event's `source`",
            example = "https://consents.aurora-bank.example/open-finance",
        ),
        ("ce-type" = Option<String>, Header, description = "Binary mode: the event's `type`", example = "consent:consumed"),
        (
            "ce-subject" = Option<String>, Header, description = "Binary mode: the event's `subject`",
            example = "urn:aurora:consent:7b1f0c92",
        ),
        (
            "ce-time" = Option<String>, Header, description = "Binary mode: the event's `time`",
            example = "2026-11-20T13:06:51.004Z",
        ),
        (
            "ce-dataschema" = Option<String>, Header, description = "Binary mode: the event's `dataschema`",
            example = "https://consents.aurora-bank.example/schemas/consumed.json",
        ),
        (
            "ce-audience" = Option<String>, Header, example = "lumen-budget",
            description = "Binary mode: the subscribers that the event is for. Further extension attributes likewise",
        ),
        (
            "traceparent" = Option<String>, Header, example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            description = "The trace of the request (W3C Trace Context): sent along with each delivery of its events, but \
                           those that name one of their own as an extension attribute",
        ),
        (
            "tracestate" = Option<String>, Header, example = "vendor=00f067aa0ba902b7",
            description = "What tracing systems add to `traceparent`",
        ),
    ),
    request_body(
        description = "An event, a batch of them, or in binary mode the data alone",
        content(
            (
                CloudEvent = "application/cloudevents+json",
                example = json!({
                    "specversion": "1.0",
                    "id": "0f3b8f6e-consumed",
                    "source": "https://consents.aurora-bank.example/open-finance",
                    "type": "consent:consumed",
                    "time": "2026-11-20T13:06:51.004Z",
                    "audience": "lumen-budget",
                    "datacontenttype": "application/json",
                    "data": {"consentId": "urn:aurora:consent:7b1f0c92", "consumedAt": "2026-11-20T13:06:51.004Z"},
                }),
            ),
            (
                CloudEventBatch = "application/cloudevents-batch+json",
                example = json!([
                    {
                        "specversion": "1.0",
                        "id": "0f3b8f6e-consumed",
                        "source": "https://consents.aurora-bank.example/open-finance",
                        "type": "consent:consumed",
                        "audience": "lumen-budget",
                        "data": {"consentId": "urn:aurora:consent:7b1f0c92", "consumedAt": "2026-11-20T13:06:51.004Z"},
                    },
                    {
                        "specversion": "1.0",
                        "id": "d57e0b33-consumed",
                        "source": "https://consents.aurora-bank.example/open-finance",
                        "type": "consent:consumed",
                        "audience": "lumen-budget, tally-loans",
                        "data": {"consentId": "urn:aurora:consent:19d3e6f4", "consumedAt": "2026-11-20T17:20:00.015Z"},
                    },
                ]),
            ),
            (
                serde_json::Value = "application/json",
                example = json!({"consentId": "urn:aurora:consent:7b1f0c92", "consumedAt": "2026-11-20T13:06:51.004Z"}),
            ),
        ),
    ),
    responses(
        (
            status = 202, description = "The event, or every event of the batch, is accepted, now or before",
            body = PublishResult<'_>,
            example = json!({
                "id": "0f3b8f6e-consumed",
                "source": "https://consents.aurora-bank.example/open-finance",
                "status": "accepted",
                "eventId": "evt_7v5rqm1x8y3tznc6hjfgpse4ab2k0w9d",
                "acceptedAt": "2026-11-20T13:06:51.018Z",
            }),
        ),
        (
            status = 207, description = "Some events of the batch are not accepted; the others are",
            body = BatchResult<'_>,
            example = json!({"results": [
                {
                    "id": "0f3b8f6e-consumed",
                    "source": "https://consents.aurora-bank.example/open-finance",
                    "status": "duplicate",
                    "acceptedAt": "2026-11-20T13:06:51.018Z",
                },
                {
                    "id": "d57e0b33-consumed",
                    "source": "https://consents.aurora-bank.example/open-finance",
                    "status": "invalid",
                    "problem": {
                        "type": "/problems/invalid",
                        "title": "The request has wrong fields",
                        "status": 400,
                        "detail": "/type is no event type of this workspace",
                        "errors": [{"pointer": "/type", "detail": "is no event type of this workspace"}],
                    },
                },
            ]}),
        ),
        (
            status = 400, content_type = "application/problem+json", body = Problem,
            description = "The event, or the batch as a whole, is not what it must be: not a CloudEvent, of a type that \
                           the workspace does not have, with data that its type does not allow, or without an audience \
                           where one is required",
        ),
        (
            status = 401, content_type = "application/problem+json", body = Problem,
            description = "There is no token, or not a valid one",
        ),
        (
            status = 403, content_type = "application/problem+json", body = Problem,
            description = "The token lacks a scope, or the client's role does not include publishing",
        ),
        (
            status = 404, content_type = "application/problem+json", body = Problem,
            description = "There is no such workspace, or not within the client's grants",
        ),
        (
            status = 409, content_type = "application/problem+json", body = Problem,
            description = "Another event of this `source` and `id` was accepted before, or the workspace is being deleted",
        ),
        (
            status = 413, content_type = "application/problem+json", body = Problem,
            description = "The event has more than 256 KiB as JSON, or the batch more than 100 events or 4 MiB",
        ),
        (
            status = 415, content_type = "application/problem+json", body = Problem,
            description = "The body is neither an event nor a batch, and there are no attributes in headers",
        ),
        (
            status = 503, description = "Some or all events could not be accepted at this moment. Send them again as they are",
            content((BatchResult<'_> = "application/json"), (Problem = "application/problem+json")),
        ),
    ),
    security(("oauth2" = ["carillon/publish"])),
    extensions(("x-carillon-roles" = json!(["owner", "publisher"]))),
)]
pub(crate) async fn publish(
    State(publisher): State<Arc<Publisher>>,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let answer = take(&publisher, &workspace, &headers, &body).await;
    // A batch that is refused as a whole counts as one.
    publisher.metrics.count(Counter::EventsRefused, usize::from(answer.is_err()));
    publisher.metrics.flush();
    answer
}

async fn take(
    publisher: &Publisher,
    workspace: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Problem> {
    let workspace = publisher.workspace(workspace).await?;
    let trace = trace(headers);
    let (event, mode) = match media_type(headers).as_deref() {
        Some(BATCH) => return take_batch(publisher, &workspace, trace.as_ref(), body).await,
        Some(STRUCTURED) => (Event::from_structured(text(body)?)?, Mode::Structured),
        _ if headers.keys().any(|name| name.as_str().starts_with(HEADER_PREFIX)) => {
            (read_binary(headers, body)?, Mode::Binary)
        }
        _ => {
            return Err(Problem::UnsupportedMediaType(
                "application/cloudevents+json, application/cloudevents-batch+json, or the attributes as ce- headers",
            ));
        }
    };
    publisher.metrics.batch(1);
    let identity = Identity::of(&event);
    single(&identity, publisher.accept(&workspace, event.traced(trace), mode).await)
}

async fn take_batch(
    publisher: &Publisher,
    workspace: &OpenWorkspace,
    trace: Option<&Trace>,
    body: &[u8],
) -> Result<Response, Problem> {
    let mut events = Vec::new();
    let mut read = Vec::new();
    for event in read_batch(body)? {
        read.push(event.as_ref().map(Identity::of).map_err(Clone::clone));
        events.extend(event.map(|event| event.traced(trace.cloned())));
    }
    publisher.metrics.batch(read.len());
    let mut submitted = publisher.accept_all(workspace, events).await.into_iter();
    let results: Vec<(Option<Identity>, Submitted)> = read
        .into_iter()
        .map(|read| match read {
            Ok(identity) => {
                (Some(identity), submitted.next().unwrap_or(Submitted::Refused(Problem::Unavailable)))
            }
            Err(problem) => (None, Submitted::Refused(problem)),
        })
        .collect();
    let refused = results.iter().filter(|(_, submitted)| submitted.refusal().is_some()).count();
    publisher.metrics.count(Counter::EventsRefused, refused);
    Ok(batch(&results))
}

fn read_batch(body: &[u8]) -> Result<Vec<Result<Event, Problem>>, Problem> {
    if body.len() > BATCH_BYTES_MAX {
        return Err(Problem::BatchTooLarge);
    }
    let elements: Vec<&RawValue> = serde_json::from_str(text(body)?)
        .map_err(|error| Invalid::field("", format!("must be a JSON array of CloudEvents: {error}")))?;
    if elements.len() > BATCH_EVENTS_MAX {
        return Err(Problem::BatchTooLarge);
    }
    Ok(elements
        .into_iter()
        .map(|element| Event::from_structured(element.get()).map_err(Problem::from))
        .collect())
}

fn read_binary(headers: &HeaderMap, body: &[u8]) -> Result<Event, Problem> {
    let attributes = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(HEADER_PREFIX)?, value.as_bytes())));
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str()).transpose();
    let content_type = content_type.map_err(|_| Invalid::field("header:content-type", "must be ASCII"))?;
    Ok(Event::from_binary(attributes, content_type, body)?)
}

/// The trace that the request belongs to. Where `traceparent` stands more than once, no one can tell which is meant; of
/// `tracestate` all are one (W3C Trace Context, sections 3.2.1 and 3.3.1).
fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states = headers.get_all(TRACESTATE).iter().map(|state| state.to_str().ok());
    let state = states.collect::<Option<Vec<_>>>().map(|states| states.join(","));
    Trace::read(parent.to_str().ok()?, state.as_deref())
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| Invalid::field("", format!("must be UTF-8: {error}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_a_request_is_named_once() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traced = |sent: &[(&'static str, &'static str)]| {
            let headers = sent.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            trace(&headers.collect())
        };
        assert_eq!(traced(&[]), None);
        assert_eq!(traced(&[("traceparent", PARENT)]), Trace::read(PARENT, None));
        assert_eq!(traced(&[("traceparent", PARENT), ("traceparent", PARENT)]), None);
        assert_eq!(traced(&[("traceparent", "nonsense"), ("tracestate", "a=1")]), None);
        let states = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
        assert_eq!(traced(&states), Trace::read(PARENT, Some("a=1,b=2")));
        assert_eq!(traced(&[("tracestate", "a=1")]), None);
    }
}
