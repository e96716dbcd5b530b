//! A test event: sent at once, and told how that went. `/test`

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use carillon_attempt::{Exchange, prepare};
use carillon_aws::batch_read::batch_read;
use carillon_aws::now;
use carillon_aws::vault::random_bytes;
use carillon_catalogue::{EventTypeDefinition, builtin, operational};
use carillon_core::endpoint::request_origin;
use carillon_core::event::{AcceptedEvent, Event};
use carillon_core::id::DeliveryId;
use carillon_core::invalid::Invalid;
use carillon_core::outcome::{Outcome, Reply};
use carillon_core::pattern::EventType;
use carillon_core::subscription::{Status, Subscription};
use carillon_core::task::{DeliveryTask, EventRef};
use carillon_core::workspace::Workspace;
use carillon_http::access::Caller;
use carillon_http::body::optional_json;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::desk::Desk;
use crate::problems::Common;
use crate::rules::rules;
use crate::types::event_type;

use super::find;

/// The longest that a test takes, whatever the subscription's own time-out: the API's gateway does not wait for long.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Says in every format that this is a test. In the event itself an extension attribute of CloudEvents does.
const TEST: HeaderName = HeaderName::from_static("carillon-test");
const TEST_ATTRIBUTE: &str = "carillontest";

pub(super) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(test))
}

/// What to send.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TestInput {
    /// The type whose sample is sent; the first one that the subscription asks for if absent.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255, example = "consent:approved")]
    event_type: Option<String>,
}

/// How the attempt ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TestResult {
    /// What `webhook-id` said.
    #[schema(value_type = String, example = "dlv_3v9k2c8q5w1x7t4r6y0z2b8n5m4h1c7d")]
    id: DeliveryId,
    /// How it ended, as attempts of deliveries do.
    #[schema(example = "delivered")]
    outcome: String,
    /// The HTTP status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    duration_ms: u64,
    /// The first 1 KiB of the answer, where it was no success.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    /// The event that was sent.
    #[schema(value_type = Object)]
    event: Box<RawValue>,
}

/// Send a test event
///
/// The sample of an event type, signed and authorized as deliveries are, in the subscription's format: sent at once, once,
/// and answered with how that ended, after 20 s at most. It is marked as a test by the header `carillon-test: true` and the
/// event's attribute `carillontest`. It is no event of the workspace, and counts neither for nor against the receiver.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/test",
    operation_id = "testSubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    request_body = Option<TestInput>,
    responses(
        (status = 200, description = "How it ended", body = TestResult),
        (
            status = 409, description = "Its endpoint's owner has not confirmed it yet",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn test(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<TestResult>, Problem> {
    let TestInput { event_type } = optional_json(&headers, &body)?;
    let workspace = desk.open_workspace(&path.0).await?.workspace;
    let subscription = find(&desk, &caller, &path).await?.subscription;
    if subscription.status == Status::Pending {
        return Err(Problem::NotConfirmed);
    }
    let definition = wanted(&desk, &workspace, &subscription, event_type).await?;
    let revisions = rules(&desk, &workspace).await?.revisions;
    let event = sample(&desk, &workspace, &definition, revisions)?;
    attempt(&desk, &subscription, event).await.map(Json)
}

/// The type to send: the one that is asked for, or the first that the subscription would get.
async fn wanted(
    desk: &Desk,
    workspace: &Workspace,
    subscription: &Subscription,
    asked: Option<String>,
) -> Result<EventTypeDefinition, Problem> {
    const POINTER: &str = "/eventType";
    if let Some(name) = asked {
        let name: EventType = name.parse().map_err(|error| Invalid::field(POINTER, format!("{error}")))?;
        let known = event_type(desk, workspace, &name).await?;
        return Ok(known.ok_or_else(|| Invalid::field(POINTER, "is no event type of the workspace"))?);
    }
    let gets = |name: &EventType| subscription.details.types.iter().any(|pattern| pattern.matches(name));
    let given = builtin(workspace.kind).iter().chain(operational());
    if let Some(definition) = given.into_iter().find(|definition| gets(&definition.name)) {
        return Ok(definition.clone());
    }
    for name in desk.config.type_names(&workspace.id).await?.iter().filter(|name| gets(name)) {
        if let Some(definition) = event_type(desk, workspace, name).await? {
            return Ok(definition);
        }
    }
    Err(Invalid::field(POINTER, "is required, since the subscription asks for no type that there is").into())
}

/// An event of the type, with its sample. Where events have revisions it has none of the workspace's: 0.
fn sample(
    desk: &Desk,
    workspace: &Workspace,
    definition: &EventTypeDefinition,
    revisions: bool,
) -> Result<AcceptedEvent, Problem> {
    let now = now();
    let id = random_bytes(10)?.iter().fold("test-".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    let event: Value = json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("{}/v1/workspaces/{}", desk.public_url, workspace.id),
        "type": definition.name,
        "time": now.to_string(),
        "datacontenttype": "application/json",
        TEST_ATTRIBUTE: true,
        "data": definition.sample,
    });
    match Event::from_structured(&event.to_string()) {
        Ok(event) if revisions => Ok(event.revised(0).accepted(workspace.id.clone(), now)),
        Ok(event) => Ok(event.accepted(workspace.id.clone(), now)),
        Err(error) => {
            tracing::error!(%error, r#type = %definition.name, "a sample makes no event");
            Err(Problem::Unavailable)
        }
    }
}

async fn attempt(
    desk: &Desk,
    subscription: &Subscription,
    event: AcceptedEvent,
) -> Result<TestResult, Problem> {
    let began = now();
    let task = DeliveryTask::first(EventRef::of(&event), subscription.id);
    let config = &desk.config;
    let keys = [
        config.workspace_key(&subscription.workspace),
        config.subscription_key(&subscription.workspace, subscription.id),
    ];
    let read = batch_read(&desk.dynamodb, keys).await?;
    let targets = desk.targets.of(config, &desk.vault, &[&task], &read, began).await;
    // What cannot be opened is in the log.
    let target = targets.get(&subscription.id).ok_or(Problem::Unavailable)?;
    let target = target.as_deref().ok_or(Problem::NotFound)?;
    let unsendable = |error: &dyn std::fmt::Display| {
        tracing::error!(subscription = %subscription.id, %error, "a test cannot be sent");
        Problem::Unavailable
    };
    let payload = target.payload(&task, event.json.clone()).map_err(|error| {
        Invalid::field("/eventType", format!("its sample cannot be sent in the format: {error}"))
    })?;
    let origin = request_origin(&desk.public_url).and_then(|host| HeaderValue::try_from(host).ok());
    let origin = origin.ok_or(Problem::Unavailable)?;
    let mut prepared = prepare(&task, target, payload, &origin, began).map_err(|error| unsendable(&error))?;
    prepared.insert(TEST, HeaderValue::from_static("true"));
    let exchange = Exchange {
        sender: &desk.sender,
        tokens: &desk.tokens,
        subscription: subscription.id,
        target,
        until: began + target.timeout.min(TIME_MAX),
    };
    let Reply { outcome, response } = exchange.outcome(prepared).await;
    let duration = now().since(began);
    Ok(TestResult {
        id: task.delivery(),
        outcome: outcome.class().to_string(),
        status: Outcome::status(outcome),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        response,
        event: RawValue::from_string(event.json).map_err(|error| unsendable(&error))?,
    })
}
