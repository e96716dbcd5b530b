//! What is delivered again, or at last: one delivery, many, what a subscription never got, and what was fanned out.
//!
//! Nothing is written here but jobs. What is to be delivered is sent as a task, and `deliver` decides by the row as it is
//! then what the task may do.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::now;
use carillon_aws::queue::Message;
use carillon_aws::redelivery::Pages;
use carillon_core::delivery::{Ask, Status};
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{DeliveryId, JobId, SubscriberId, SubscriptionId, WorkspaceId};
use carillon_core::invalid::{Findings, Invalid};
use carillon_core::job::{DELIVERIES_MAX, Ended, Job, JobKind, Redelivery, Replay, Span, Which};
use carillon_core::matching::CLOCK_SKEW;
use carillon_core::subscription::{Status as SubscriptionStatus, Subscription, read_types};
use carillon_core::task::{DeliveryTask, EventRef};
use carillon_core::time::{NotATime, UnixMillis};
use carillon_core::workspace::Workspace;
use carillon_filter::Matcher;
use carillon_http::access::Caller;
use carillon_http::body::{JsonBody, optional_json};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deliveries::shown::DeliveryShown;
use crate::deliveries::{Found, find};
use crate::desk::{Desk, id_bytes};
use crate::jobs;
use crate::problems::Common;
use crate::subscriptions::{self, TypePatternShown};

/// How many deliveries or events a trial looks at, and for how long.
const TRIED_MAX: usize = 10_000;
const TRYING_TIME: Duration = Duration::from_secs(10);

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new()
        .routes(routes!(redeliver))
        .routes(routes!(redeliver_many))
        .routes(routes!(replay))
        .routes(routes!(fan_out))
}

/// How to deliver again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Again {
    /// Whether a delivery that is under way is begun anew, and one that was delivered is delivered once more.
    #[serde(default)]
    #[schema(default = false)]
    force: bool,
}

/// Which deliveries to deliver again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Many {
    /// How they have ended: `failed` unless it says otherwise.
    #[serde(default)]
    #[schema(value_type = Option<Vec<EndedShown>>, min_items = 1, max_items = 2, default = json!(["failed"]))]
    statuses: Option<Vec<EndedShown>>,
    /// Of events that were accepted then or later.
    #[serde(default)]
    #[schema(format = DateTime, example = "2026-11-22T09:30:00Z")]
    since: Option<String>,
    /// Of events that were accepted before.
    #[serde(default)]
    #[schema(format = DateTime, example = "2026-11-22T10:30:00Z")]
    until: Option<String>,
    /// Of events of these types, as a subscription asks for them; of all if absent.
    #[serde(default)]
    #[schema(value_type = Option<Vec<TypePatternShown>>, min_items = 1, max_items = 40, example = json!(["consent:*"]))]
    event_types: Option<Vec<String>>,
    /// These alone: with none of `since`, `until` and `eventTypes`.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 100, example = json!(["dlv_4ab2k0w9d7v5rqm1x8y3tznc6hjfgpse"]))]
    deliveries: Option<Vec<String>>,
    /// Whether they are only counted.
    #[serde(default)]
    #[schema(default = false)]
    dry_run: bool,
}

/// How a delivery has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EndedStatus)]
enum EndedShown {
    Failed,
    Delivered,
}

/// Which events to replay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Events {
    /// Those that were accepted then or later. It may lie before the subscription was created.
    #[schema(format = DateTime, example = "2026-11-22T09:30:00Z")]
    since: String,
    /// Those that were accepted before; before now if absent.
    #[serde(default)]
    #[schema(format = DateTime, example = "2026-11-22T10:30:00Z")]
    until: Option<String>,
    /// Whether they are only counted.
    #[serde(default)]
    #[schema(default = false)]
    dry_run: bool,
}

/// Which events to fan out again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fanned {
    /// Those that were accepted then or later.
    #[schema(format = DateTime, example = "2026-11-22T09:30:00Z")]
    since: String,
    /// Those that were accepted before.
    #[schema(format = DateTime, example = "2026-11-22T10:30:00Z")]
    until: String,
}

/// How many deliveries there would be.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = TrialCount)]
struct Counted {
    /// As far as they were counted.
    count: usize,
    /// Whether that is all.
    complete: bool,
}

/// Redeliver one
///
/// It begins anew, with all attempts of the subscription's retry policy; its `webhook-id` stays the same. What is answered is
/// the delivery as it was found. Of several requests at once one has an effect.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/deliveries/{delivery}/redeliver",
    operation_id = "redeliver",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        ("delivery" = String, Path, description = "The delivery's id: `webhook-id` of its requests"),
    ),
    request_body = Option<Again>,
    responses(
        (status = 202, description = "It will be delivered again", body = DeliveryShown),
        (status = 409, description = "It is under way, delivered or cancelled, or the subscription gets no deliveries", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn redeliver(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, subscription, delivery)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let Again { force } = optional_json(&headers, &body)?;
    desk.open_workspace(&workspace).await?;
    let found = find(&desk, &caller, (workspace, subscription), &delivery).await?;
    gets_deliveries(&found.subscription)?;
    send(&desk, &task(&found, force)?).await?;
    Ok((StatusCode::ACCEPTED, Json(found.shown())).into_response())
}

/// Redeliver many
///
/// A job does it, at a pace that leaves room for what is new. What was attempted since the job was asked for is left alone.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/redeliveries",
    operation_id = "redeliverMany",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    request_body = Many,
    responses(
        (status = 200, description = "With `dryRun`: how many there are", body = Counted),
        (status = 202, description = "A job does it", body = jobs::Shown, headers(("location" = String, description = "Where the job is"))),
        (status = 409, description = "The subscription gets no deliveries", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn redeliver_many(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    JsonBody(many): JsonBody<Many>,
) -> Result<Response, Problem> {
    let workspace = desk.open_workspace(&path.0).await?.workspace;
    let subscription = subscriptions::find(&desk, &caller, &path).await?.subscription;
    let (dry_run, now) = (many.dry_run, now());
    let wanted = many.check(subscription.id)?;
    if dry_run {
        return Ok(Json(count(&desk, &workspace.id, Tried::Redelivery(&wanted), now).await?).into_response());
    }
    gets_deliveries(&subscription)?;
    begin(&desk, (workspace.id, Some(subscription.subscriber)), JobKind::Redeliver(wanted)).await
}

/// Replay
///
/// Delivers events that the subscription, as it is now, asks for and never got: because it was not there yet, asked for
/// something else, or because they failed. A job does it, at a pace that leaves room for what is new.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/replays",
    operation_id = "replay",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    request_body = Events,
    responses(
        (status = 200, description = "With `dryRun`: how many there are", body = Counted),
        (status = 202, description = "A job does it", body = jobs::Shown, headers(("location" = String, description = "Where the job is"))),
        (status = 409, description = "The subscription gets no deliveries", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn replay(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    JsonBody(events): JsonBody<Events>,
) -> Result<Response, Problem> {
    let workspace = desk.open_workspace(&path.0).await?.workspace;
    let subscription = subscriptions::find(&desk, &caller, &path).await?.subscription;
    let now = now();
    let span = span(&events.since, events.until.as_deref(), now)?;
    let span = within(span, &workspace, now.minus(desk.retention));
    let wanted = Replay { subscription: subscription.id, span };
    if events.dry_run {
        let matcher = Matcher::of(&subscription);
        let counted = count(&desk, &workspace.id, Tried::Replay(&wanted, &matcher), now);
        return Ok(Json(counted.await?).into_response());
    }
    gets_deliveries(&subscription)?;
    begin(&desk, (workspace.id, Some(subscription.subscriber)), JobKind::Replay(wanted)).await
}

/// Fan out again
///
/// For what fan-out gave up on or never saw: a job has every event of this time matched anew, by the subscriptions as they
/// are now. What was delivered, or is under way, is left as it is.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/fanouts",
    operation_id = "fanOut",
    tag = "events",
    params(("workspace" = String, Path, description = "The workspace's id")),
    request_body = Fanned,
    responses(
        (status = 202, description = "A job does it", body = jobs::Shown, headers(("location" = String, description = "Where the job is"))),
        (status = 409, description = "The workspace is being deleted", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn fan_out(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
    JsonBody(fanned): JsonBody<Fanned>,
) -> Result<Response, Problem> {
    let workspace = desk.open_workspace(&workspace).await?.workspace;
    let now = now();
    let span = span(&fanned.since, Some(&fanned.until), now)?;
    let span = within(span, &workspace, now.minus(desk.retention));
    begin(&desk, (workspace.id, None), JobKind::FanOut(span)).await
}

impl Many {
    fn check(self, subscription: SubscriptionId) -> Result<Redelivery, Invalid> {
        let mut findings = Findings::default();
        let ended = match self.statuses.as_deref() {
            None | Some([EndedShown::Failed]) => Ended::Failed,
            Some([EndedShown::Delivered]) => Ended::Delivered,
            Some([one, other]) if one != other => Ended::Both,
            Some(_) => {
                findings.add("/statuses", "must be `failed`, `delivered` or both");
                Ended::Failed
            }
        };
        let mut when = |pointer: &str, text: Option<String>| findings.take(time(pointer, &text?));
        let (since, until) = (when("/since", self.since.clone()), when("/until", self.until.clone()));
        let which = if let Some(deliveries) = &self.deliveries {
            for (pointer, is_there) in [
                ("/since", self.since.is_some()),
                ("/until", self.until.is_some()),
                ("/eventTypes", self.event_types.is_some()),
            ] {
                if is_there {
                    findings.add(pointer, "must be absent where `deliveries` are named");
                }
            }
            Which::These(read_deliveries(deliveries, &mut findings))
        } else {
            if let (Some(since), Some(until)) = (since, until)
                && until <= since
            {
                findings.add("/until", "must be later than `since`");
            }
            let types = self.event_types.as_deref();
            let types =
                types.map(|types| read_types(types, "/eventTypes", &mut findings)).unwrap_or_default();
            Which::Of { since, until, types }
        };
        findings.into_result(Redelivery { subscription, ended, which })
    }
}

fn read_deliveries(texts: &[String], findings: &mut Findings) -> Vec<DeliveryId> {
    if !(1..=DELIVERIES_MAX).contains(&texts.len()) {
        findings.add("/deliveries", format!("must have 1 to {DELIVERIES_MAX} ids"));
        return Vec::new();
    }
    let read = |(place, text): (usize, &String)| {
        let id = text
            .parse()
            .map_err(|_| Invalid::field(format!("/deliveries/{place}"), "must be a delivery's id"));
        findings.take(id)
    };
    texts.iter().enumerate().filter_map(read).collect()
}

/// From one time until another, or until now.
fn span(since: &str, until: Option<&str>, now: UnixMillis) -> Result<Span, Invalid> {
    let mut findings = Findings::default();
    let since = findings.take(time("/since", since));
    let until = match until {
        Some(text) => findings.take(time("/until", text)),
        None => Some(now),
    };
    if let (Some(since), Some(until)) = (since, until)
        && until <= since
    {
        let (pointer, detail) = if until == now {
            ("/since", "must lie in the past")
        } else {
            ("/until", "must be later than `since`")
        };
        findings.add(pointer, detail);
    }
    let span = Span { since: since.unwrap_or(now), until: until.unwrap_or(now) };
    findings.into_result(span)
}

fn time(pointer: &str, text: &str) -> Result<UnixMillis, Invalid> {
    text.parse().map_err(|error: NotATime| Invalid::field(pointer, error.to_string()))
}

/// What of a time has events: none from before the workspace was made, which are another's, who had its id, none from before
/// the oldest that is kept, and none of the future, since what is asked for is what has happened.
fn within(span: Span, workspace: &Workspace, oldest: UnixMillis) -> Span {
    let since = span.since.max(workspace.created_at).max(oldest);
    Span { since, until: span.until.min(now() + CLOCK_SKEW) }
}

/// Whether what is delivered again would not fail as it begins.
fn gets_deliveries(subscription: &Subscription) -> Result<(), Problem> {
    match subscription.status {
        SubscriptionStatus::Active | SubscriptionStatus::Paused => Ok(()),
        SubscriptionStatus::Pending | SubscriptionStatus::Disabled(_) => Err(Problem::SubscriptionNotActive),
    }
}

/// What asks for a delivery again.
fn task(found: &Found, force: bool) -> Result<DeliveryTask, Problem> {
    let Some(delivery) = &found.delivery else {
        let first = DeliveryTask::first(EventRef::of(&found.event), found.subscription.id).by_reference();
        return if force { Ok(first) } else { Err(Problem::DeliveryNotFailed("pending")) };
    };
    Ok(delivery.task().asking(again(delivery.row.status, delivery.row.round, force)?))
}

fn again(status: Status, round: u32, force: bool) -> Result<Ask, Problem> {
    match status {
        Status::Failed => Ok(Ask::NewRound { after: round, forced: false }),
        Status::Cancelled => Err(Problem::DeliveryCancelled),
        Status::Retrying | Status::Held | Status::Delivered if force => {
            Ok(Ask::NewRound { after: round, forced: true })
        }
        Status::Retrying | Status::Held | Status::Delivered => Err(Problem::DeliveryNotFailed(status.name())),
    }
}

async fn send(desk: &Desk, task: &DeliveryTask) -> Result<(), Problem> {
    let body = task.to_json().map_err(|error| {
        tracing::error!(%error, "a task cannot be written");
        Problem::Unavailable
    })?;
    let message = Message { body, group: task.subscription.to_string(), delay_seconds: 0 };
    for sent in desk.delivery.send(vec![message]).await {
        sent?;
    }
    Ok(())
}

async fn begin(
    desk: &Desk,
    of: (WorkspaceId, Option<SubscriberId>),
    kind: JobKind,
) -> Result<Response, Problem> {
    let id = JobId::new(now(), id_bytes()?);
    jobs::begin(desk, Job::new(id, of, kind, now())).await
}

/// What is only counted.
enum Tried<'a> {
    Redelivery(&'a Redelivery),
    Replay(&'a Replay, &'a Matcher),
}

/// Counts what a job would send if it were asked for at this moment.
async fn count(
    desk: &Desk,
    workspace: &WorkspaceId,
    tried: Tried<'_>,
    asked_at: UnixMillis,
) -> Result<Counted, Problem> {
    let pages = Pages::of(desk.deliveries.clone(), desk.events.clone());
    let until = asked_at + TRYING_TIME;
    let (mut counted, mut looked, mut cursor) = (Counted::default(), 0, None);
    while looked < TRIED_MAX && now() < until {
        let times = (asked_at, now());
        let page = match tried {
            Tried::Redelivery(wanted) => pages.redelivery(workspace, wanted, times, cursor).await?,
            Tried::Replay(wanted, matcher) => {
                let wants = |event: &AcceptedEvent| matcher.wants(event);
                pages.replay(workspace, wanted, wants, times, cursor).await?
            }
        };
        counted.count += page.found.len();
        looked += page.looked;
        cursor = page.next;
        if cursor.is_none() {
            counted.complete = true;
            break;
        }
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use carillon_core::id::{EventDigest, EventKey};
    use serde_json::{Value, json};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_000);

    fn subscription() -> SubscriptionId {
        SubscriptionId::new(NOW, [7; 10])
    }

    fn check(body: &Value) -> Result<(Ended, Which), Vec<String>> {
        let many: Many = serde_json::from_value(body.clone()).map_err(|error| vec![error.to_string()])?;
        match many.check(subscription()) {
            Ok(wanted) => Ok((wanted.ended, wanted.which)),
            Err(Invalid(errors)) => Err(errors.into_iter().map(|error| error.pointer).collect()),
        }
    }

    fn delivery_id() -> DeliveryId {
        let key = EventKey { workspace: "acme".parse().unwrap(), digest: EventDigest::of("/s", "1") };
        DeliveryId::of(&key, subscription())
    }

    #[test]
    fn what_has_not_failed_is_forced_or_left() {
        let anew = |forced| Ok(Ask::NewRound { after: 2, forced });
        for (status, unforced, forced) in [
            (Status::Failed, anew(false), anew(false)),
            (Status::Retrying, Err(Problem::DeliveryNotFailed("retrying")), anew(true)),
            (Status::Held, Err(Problem::DeliveryNotFailed("held")), anew(true)),
            (Status::Delivered, Err(Problem::DeliveryNotFailed("delivered")), anew(true)),
            (Status::Cancelled, Err(Problem::DeliveryCancelled), Err(Problem::DeliveryCancelled)),
        ] {
            assert_eq!(again(status, 2, false), unforced, "{status:?}");
            assert_eq!(again(status, 2, true), forced, "{status:?}");
        }
    }

    #[test]
    fn which_deliveries_are_wanted() {
        let all = Which::Of { since: None, until: None, types: Vec::new() };
        assert_eq!(check(&json!({})), Ok((Ended::Failed, all.clone())));
        assert_eq!(check(&json!({"statuses": ["delivered", "failed"]})), Ok((Ended::Both, all.clone())));
        assert_eq!(check(&json!({"statuses": ["delivered"]})), Ok((Ended::Delivered, all)));
        let some =
            json!({"since": "2026-11-22T09:30:00Z", "until": "2026-11-22T09:30:01Z", "eventTypes": ["a.*"]});
        let expected = Which::Of {
            since: Some(NOW),
            until: Some(UnixMillis(NOW.0 + 1000)),
            types: vec!["a.*".parse().unwrap()],
        };
        assert_eq!(check(&some), Ok((Ended::Failed, expected)));
        let these = json!({"deliveries": [delivery_id()]});
        assert_eq!(check(&these), Ok((Ended::Failed, Which::These(vec![delivery_id()]))));
    }

    #[test]
    fn what_makes_no_sense_is_told_all_at_once() {
        let refused = |body: &Value| check(body).unwrap_err();
        assert_eq!(refused(&json!({"statuses": []})), ["/statuses"]);
        assert_eq!(refused(&json!({"statuses": ["failed", "failed"]})), ["/statuses"]);
        assert_eq!(
            refused(&json!({"since": "yesterday", "eventTypes": ["a*"]})),
            ["/since", "/eventTypes/0"]
        );
        let backwards = json!({"since": "2026-11-22T09:30:00Z", "until": "2026-11-22T09:30:00Z"});
        assert_eq!(refused(&backwards), ["/until"]);
        let both = json!({"deliveries": ["dlv_1"], "since": "2026-11-22T09:30:00Z"});
        assert_eq!(refused(&both), ["/since", "/deliveries/0"]);
        assert_eq!(refused(&json!({"deliveries": []})), ["/deliveries"]);
        assert_eq!(refused(&json!({"deliveries": vec![delivery_id(); 101]})), ["/deliveries"]);
        assert!(refused(&json!({"statuses": ["held"]}))[0].contains("held"));
    }

    #[test]
    fn a_span_ends_now_unless_it_says_otherwise() {
        let now = UnixMillis(NOW.0 + 5000);
        assert_eq!(span("2026-11-22T09:30:00Z", None, now), Ok(Span { since: NOW, until: now }));
        let pointer = |since, until| span(since, until, now).unwrap_err().0.swap_remove(0).pointer;
        assert_eq!(pointer("2026-11-22T09:30:06Z", None), "/since");
        assert_eq!(pointer("2026-11-22T09:30:02Z", Some("2026-11-22T09:30:01Z")), "/until");
        assert_eq!(pointer("2026-11-22T09:30:02Z", Some("soon")), "/until");
    }
}
