//! Whether events would match, and why not. `/dry-run`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use carillon_aws::now;
use carillon_core::event::{AcceptedEvent, Event, Rejected};
use carillon_core::id::SubscriberId;
use carillon_core::invalid::{FieldError, Findings, Invalid};
use carillon_core::pattern::TypePattern;
use carillon_core::subscription::{FilterSource, read_types};
use carillon_core::workspace::Workspace;
use carillon_filter::{Filter, Verdict};
use carillon_http::access::Caller;
use carillon_http::body::{JsonBody, whole};
use carillon_http::problem::{FieldErrorSchema, Problem};
use carillon_http::routes;
use carillon_http::routes::Routes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::desk::Desk;
use crate::events::is_for;
use crate::problems::Common;

use super::find;
use super::input::{FilterInput, TypePatternShown, under};

/// The most events of a request.
const EVENTS_MAX: usize = 20;

/// How far back recent events are looked for, in hours.
const RECENT_HOURS: u64 = 24;

pub(super) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(of_subscription)).routes(routes!(of_workspace))
}

/// Which events to try: given ones, or some that were published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Trial {
    /// CloudEvents, as they would be published.
    #[serde(default)]
    #[schema(max_items = 20, value_type = Vec<Object>, example = json!([{"specversion": "1.0", "id": "1", "source": "/bank", "type": "consent:approved", "data": {}}]))]
    events: Vec<Value>,
    /// How many events that were published, of the workspace's latest 200 of the last 24 hours.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 20, default = 0)]
    recent: usize,
}

/// Which events to try, and what would be subscribed to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkspaceTrial {
    /// The event types, as a subscription has them.
    #[schema(value_type = Vec<TypePatternShown>, min_items = 1, max_items = 40, example = json!(["consent:*"]))]
    types: Vec<String>,
    /// The filter, as a subscription has it.
    #[serde(default)]
    #[schema(value_type = Option<FilterInput>)]
    filter: Option<FilterSource>,
    /// Whose subscription it would be; without one, whom events are for is not looked at.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]+$")]
    subscriber: Option<String>,
    /// CloudEvents, as they would be published.
    #[serde(default)]
    #[schema(max_items = 20, value_type = Vec<Object>)]
    events: Vec<Value>,
    /// How many events that were published, of the workspace's latest 200 of the last 24 hours.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 20, default = 0)]
    recent: usize,
}

/// What came of a trial.
#[derive(Debug, Serialize, ToSchema)]
struct TrialResult {
    /// The given events in their order, then the recent ones, the latest first.
    results: Vec<Tried>,
}

/// Whether one event would match.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Tried {
    id: String,
    source: String,
    r#type: String,
    matches: bool,
    /// Why not: pointers into the event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<FieldErrorSchema>)]
    reasons: Vec<FieldError>,
}

/// Try a subscription
///
/// Tells which events would match it, and why others would not. Nothing is delivered.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/dry-run",
    operation_id = "dryRunSubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    request_body = Trial,
    responses((status = 200, description = "What would match", body = TrialResult), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn of_subscription(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    JsonBody(Trial { events, recent }): JsonBody<Trial>,
) -> Result<Json<TrialResult>, Problem> {
    let workspace = desk.workspace(&path.0).await?.workspace;
    let subscription = find(&desk, &caller, &path).await?.subscription;
    let matcher = Matcher {
        types: subscription.details.types,
        filter: subscription.details.filter.as_ref().map(Filter::compile).transpose()?,
        subscriber: Some(subscription.subscriber),
    };
    matcher.try_all(&desk, &caller, &workspace, events, recent).await
}

/// Try what a subscription would say
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/dry-run",
    operation_id = "dryRun",
    tag = "subscriptions",
    params(("workspace" = String, Path, description = "The workspace's id")),
    request_body = WorkspaceTrial,
    responses((status = 200, description = "What would match", body = TrialResult), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn of_workspace(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    JsonBody(trial): JsonBody<WorkspaceTrial>,
) -> Result<Json<TrialResult>, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace;
    let mut findings = Findings::default();
    let types = read_types(&trial.types, "/types", &mut findings);
    let filter = trial
        .filter
        .as_ref()
        .map(|source| Filter::compile(source).map_err(|invalid| under("/filter", invalid)));
    let filter = filter.and_then(|filter| findings.take(filter));
    let subscriber = trial.subscriber.map(|text| {
        text.parse()
            .map_err(|_| Invalid::field("/subscriber", "must be 1 to 64 of letters, digits and `. _ : ~ -`"))
    });
    let subscriber: Option<SubscriberId> = subscriber.and_then(|subscriber| findings.take(subscriber));
    findings.into_result(())?;
    let subscriber = match (caller.subscriber(), subscriber) {
        (Some(bound), Some(asked)) if *bound != asked => {
            return Err(Invalid::field("/subscriber", "must be the one that this client is bound to").into());
        }
        (Some(bound), _) => Some(bound.clone()),
        (None, asked) => asked,
    };
    Matcher { types, filter, subscriber }
        .try_all(&desk, &caller, &workspace, trial.events, trial.recent)
        .await
}

/// What fan-out goes by.
struct Matcher {
    types: Vec<TypePattern>,
    filter: Option<Filter>,
    subscriber: Option<SubscriberId>,
}

impl Matcher {
    async fn try_all(
        &self,
        desk: &Desk,
        caller: &Caller,
        workspace: &Workspace,
        given: Vec<Value>,
        recent: usize,
    ) -> Result<Json<TrialResult>, Problem> {
        if given.len() > EVENTS_MAX || recent > EVENTS_MAX {
            let pointer = if recent > EVENTS_MAX { "/recent" } else { "/events" };
            return Err(Invalid::field(pointer, format!("must be at most {EVENTS_MAX}")).into());
        }
        let mut events = Vec::with_capacity(given.len() + recent);
        for (place, event) in given.iter().enumerate() {
            let event = Event::from_structured(&event.to_string()).map_err(|rejected| match rejected {
                Rejected::Invalid(invalid) => Problem::Invalid(under(&format!("/events/{place}"), invalid)),
                too_large @ Rejected::TooLarge { .. } => too_large.into(),
            })?;
            events.push(event.accepted(workspace.id.clone(), now()));
        }
        if recent > 0 {
            let shown = |event: &AcceptedEvent| is_for(caller, event);
            let times = (workspace.created_at, now());
            events.extend(desk.events.recent(&workspace.id, times, RECENT_HOURS, recent, shown).await?);
        }
        Ok(Json(TrialResult { results: events.iter().map(|event| self.tried(event)).collect() }))
    }

    fn tried(&self, event: &AcceptedEvent) -> Tried {
        let json: Value = serde_json::from_str(&event.json).unwrap_or_default();
        let reasons = self.reasons(event, &json);
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        Tried {
            id: text("id"),
            source: text("source"),
            r#type: text("type"),
            matches: reasons.is_empty(),
            reasons,
        }
    }

    /// Why an event does not match; empty if it does.
    fn reasons(&self, event: &AcceptedEvent, json: &Value) -> Vec<FieldError> {
        let reason = |pointer: &str, detail: String| vec![FieldError { pointer: pointer.to_owned(), detail }];
        if !self.types.iter().any(|pattern| pattern.matches(&event.event_type)) {
            return reason("/type", "is matched by none of the patterns".to_owned());
        }
        if let (Some(audience), Some(subscriber)) = (&event.audience, &self.subscriber)
            && !audience.contains(subscriber)
        {
            return reason("/audience", "does not name the subscriber".to_owned());
        }
        match self.filter.as_ref().map(|filter| filter.evaluate(json)) {
            None | Some(Verdict::Match) => Vec::new(),
            Some(Verdict::NoMatch(reasons)) if reasons.is_empty() => {
                reason("", "is not matched by the filter".to_owned())
            }
            Some(Verdict::NoMatch(reasons)) => reasons,
            Some(Verdict::Failed(why)) => reason("", format!("the filter cannot be evaluated: {why}")),
        }
    }
}
