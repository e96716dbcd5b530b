//! Requests: a CloudEvent in structured or binary mode, or a batch (CloudEvents HTTP protocol binding 1.0, section 3).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use carillon_core::event::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Event};
use carillon_core::id::WorkspaceId;
use carillon_core::invalid::Invalid;
use carillon_http::body::media_type;
use carillon_http::problem::{Document, Problem};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::accept::{Publisher, Submitted};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const HEADER_PREFIX: &str = "ce-";

/// `POST /v1/workspaces/{workspace}/events`
pub(crate) async fn publish(
    State(publisher): State<Arc<Publisher>>,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let workspace = publisher.workspace(&workspace).await?;
    let event = match media_type(&headers).as_deref() {
        Some(BATCH) => return publish_batch(&publisher, &workspace, &body).await,
        Some(STRUCTURED) => Event::from_structured(text(&body)?)?,
        _ if headers.keys().any(|name| name.as_str().starts_with(HEADER_PREFIX)) => {
            read_binary(&headers, &body)?
        }
        _ => {
            return Err(Problem::UnsupportedMediaType(
                "application/cloudevents+json, application/cloudevents-batch+json, or the attributes as ce- headers",
            ));
        }
    };
    let identity = Identity::of(&event);
    match publisher.accept(&workspace, event).await {
        Submitted::Refused(problem) => Err(problem),
        submitted => {
            Ok((StatusCode::ACCEPTED, Json(Answer::of(Some(&identity), &submitted))).into_response())
        }
    }
}

/// 202 if every event of the batch was accepted, now or before; 207 if some were not; 503 if some could not be at
/// the moment: then the batch may be sent again as it is.
async fn publish_batch(
    publisher: &Publisher,
    workspace: &WorkspaceId,
    body: &[u8],
) -> Result<Response, Problem> {
    let mut events = Vec::new();
    let mut read = Vec::new();
    for event in read_batch(body)? {
        read.push(event.as_ref().map(Identity::of).map_err(Clone::clone));
        events.extend(event);
    }
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
    let refusals: Vec<_> = results.iter().filter_map(|(_, submitted)| submitted.refusal()).collect();
    let status = if refusals.is_empty() {
        StatusCode::ACCEPTED
    } else if refusals.contains(&&Problem::Unavailable) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::MULTI_STATUS
    };
    let results =
        results.iter().map(|(identity, submitted)| Answer::of(identity.as_ref(), submitted)).collect();
    Ok((status, Json(BatchAnswer { results })).into_response())
}

/// What the publisher knows an event by.
#[derive(Debug)]
struct Identity {
    id: String,
    source: String,
}

impl Identity {
    fn of(event: &Event) -> Self {
        Self { id: event.id().to_owned(), source: event.source().to_owned() }
    }
}

/// What is said of one event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Document<'a>>,
}

impl<'a> Answer<'a> {
    fn of(identity: Option<&'a Identity>, submitted: &'a Submitted) -> Self {
        let (status, accepted_at, problem) = match submitted {
            Submitted::Accepted { accepted_at } => ("accepted", Some(accepted_at), None),
            Submitted::Duplicate { accepted_at } => ("duplicate", Some(accepted_at), None),
            Submitted::Refused(problem) => {
                let status = match problem {
                    Problem::EventConflict => "conflict",
                    Problem::Unavailable => "failed",
                    _ => "invalid",
                };
                (status, None, Some(problem.document(None)))
            }
        };
        Self {
            id: identity.map(|identity| identity.id.as_str()),
            source: identity.map(|identity| identity.source.as_str()),
            status,
            accepted_at: accepted_at.map(ToString::to_string),
            problem,
        }
    }
}

#[derive(Debug, Serialize)]
struct BatchAnswer<'a> {
    results: Vec<Answer<'a>>,
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

fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| Invalid::field("", format!("must be UTF-8: {error}")).into())
}
