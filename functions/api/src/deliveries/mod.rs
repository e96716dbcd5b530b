//! `/v1/workspaces/{workspace}/subscriptions/{subscription}/deliveries`: what became of events.

mod of_event;
mod pending;
mod query;
pub(crate) mod shown;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use carillon_aws::deliveries::{Counted, Delivery, Look, Open, Order, Place};
use carillon_aws::now;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{DeliveryId, SubscriptionId};
use carillon_core::subscription::Subscription;
use carillon_core::workspace::Workspace;
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use futures::future::try_join3;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::query::{AttemptedStatus, Cursor, Span, SpanQuery, event_type};

use self::pending::Concern;
use self::query::{DeliveryQuery, Wanted};
use self::shown::DeliveryShown;
use crate::desk::{Desk, Draft, List, ListQuery};
use crate::problems::Common;
use crate::subscriptions;

/// How many rows one answer looks at, where few of many are wanted.
const ROWS_MAX: usize = 1000;

/// How many of them are read at once.
const ROWS_AT_ONCE: usize = 100;

/// How far deliveries are counted, about.
const COUNT_MAX: u64 = 10_000;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new()
        .routes(routes!(list))
        .routes(routes!(read))
        .routes(routes!(counts))
        .merge(of_event::router())
}

/// A delivery that there is, attempted or not.
#[derive(Debug)]
pub(crate) struct Found {
    /// Of which workspace.
    pub(crate) workspace: Workspace,
    /// Of which subscription.
    pub(crate) subscription: Subscription,
    /// Of which event.
    pub(crate) event: AcceptedEvent,
    /// Its row; `None`: it is pending.
    pub(crate) delivery: Option<Delivery>,
}

/// How many deliveries of a subscription are not done.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryCounts {
    /// Those that have failed.
    failed: Count,
    /// Those of which attempts failed or were put off, and another one is to come.
    retrying: Count,
    /// Those that wait without attempts.
    held: Count,
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryCount)]
struct Count {
    /// As far as they were counted.
    #[schema(example = 12)]
    count: u64,
    /// Whether that is all.
    complete: bool,
}

/// List the deliveries of a subscription
///
/// Those that an attempt was made of, or put off; what is pending is found by its event.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/deliveries",
    operation_id = "listDeliveries",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        ListQuery,
        DeliveryQuery,
        SpanQuery,
    ),
    responses(
        (
            status = 200,
            description = "A page of them, that of the newest event first. It may have fewer than `limit`, even none, though \
                           there is a `next`. What happened a moment ago may be missing",
            body = List<DeliveryShown>,
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Query(page): Query<ListQuery>,
    Query(wanted): Query<DeliveryQuery>,
    Query(span): Query<SpanQuery>,
) -> Result<Json<List<DeliveryShown>>, Problem> {
    let (limit, after) = (page.count()?, page.after::<Cursor>()?);
    let (wanted, Span { since, until }) = (wanted.check()?, span.check()?);
    let workspace = desk.workspace(&path.0).await?.workspace;
    let subscription = subscriptions::find(&desk, &caller, &path).await?.subscription.id;
    let look = Look { order: Order::Newest, since, until, after: after.map(|Cursor(place)| place) };
    let (with_responses, now) = (workspace.settings.show_responses, now());
    let show = |row: &Delivery| DeliveryShown::of(row, with_responses, now);
    Ok(Json(page_of(&desk, subscription, &wanted, look, limit, show).await?))
}

/// Read a delivery
///
/// With all its attempts. It is `pending` while no attempt was made of it, as far as the subscription as it is now asks for
/// its event.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/deliveries/{delivery}",
    operation_id = "getDelivery",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        ("delivery" = String, Path, description = "The delivery's id: `webhook-id` of its requests"),
    ),
    responses((status = 200, description = "The delivery", body = DeliveryShown), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, subscription, delivery)): Path<(String, String, String)>,
) -> Result<Json<DeliveryShown>, Problem> {
    let found = find(&desk, &caller, (workspace, subscription), &delivery).await?;
    Ok(Json(found.shown()))
}

/// Count the deliveries of a subscription that are not done
///
/// Each kind up to about 10,000.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/deliveryCounts",
    operation_id = "countDeliveries",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    responses((status = 200, description = "How many there are", body = DeliveryCounts), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn counts(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<DeliveryCounts>, Problem> {
    let subscription = subscriptions::find(&desk, &caller, &path).await?.subscription.id;
    // The index does not know what is past its time to live.
    let look = Look { since: Some(now().minus(desk.retention)), ..Look::all(Order::Newest) };
    let count = |open| desk.deliveries.count(subscription, open, &look, COUNT_MAX);
    let (failed, retrying, held) =
        try_join3(count(Open::Failed), count(Open::Retrying), count(Open::Held)).await?;
    Ok(Json(DeliveryCounts { failed: failed.into(), retrying: retrying.into(), held: held.into() }))
}

/// A delivery that the caller may know of.
pub(crate) async fn find(
    desk: &Desk,
    caller: &Caller,
    path: (String, String),
    delivery: &str,
) -> Result<Found, Problem> {
    let delivery: DeliveryId = delivery.parse().map_err(|_| Problem::NotFound)?;
    let workspace = desk.workspace(&path.0).await?.workspace;
    let subscription = subscriptions::find(desk, caller, &path).await?.subscription;
    let (key, now) = (delivery.event(&workspace.id, subscription.id), now());
    let event = desk.events.kept(&key, workspace.created_at, now).await?.ok_or(Problem::NotFound)?;
    let row = desk.deliveries.delivery(subscription.id, Place::of_accepted(&event), now).await?;
    if row.is_none() && !Concern::of(&event).includes(&subscription) {
        return Err(Problem::NotFound);
    }
    Ok(Found { workspace, subscription, event, delivery: row })
}

impl Found {
    pub(crate) fn shown(&self) -> DeliveryShown {
        match &self.delivery {
            Some(row) => DeliveryShown::of(row, self.workspace.settings.show_responses, now()),
            None => DeliveryShown::pending(&self.event, self.subscription.id),
        }
    }
}

/// A page of what is wanted, or as much of it as is found among so many rows as one answer looks at.
async fn page_of(
    desk: &Desk,
    subscription: SubscriptionId,
    wanted: &Wanted,
    mut look: Look,
    limit: usize,
    show: impl Fn(&Delivery) -> DeliveryShown,
) -> Result<List<DeliveryShown>, Problem> {
    let now = now();
    let at_once = if wanted.is_exact() { limit } else { ROWS_AT_ONCE };
    let mut draft = Draft::new(limit);
    let mut last = None;
    for _ in 0..ROWS_MAX.div_ceil(at_once) {
        let (rows, next) = match wanted.open() {
            Some(open) => desk.deliveries.standing(subscription, open, &look, at_once, now).await?,
            None => desk.deliveries.of_subscription(subscription, &look, at_once, now).await?,
        };
        for row in rows.iter().filter(|row| wanted.includes(row)) {
            if draft.is_full() {
                return Ok(draft.finish(last.map(Cursor)));
            }
            draft.add(show(row));
            last = Some(row.place());
        }
        let Some(next) = next else { return Ok(draft.finish(None::<Cursor>)) };
        look = look.behind(next);
        if draft.is_full() {
            break;
        }
    }
    Ok(draft.finish(look.after.map(Cursor)))
}

impl From<Counted> for Count {
    fn from(Counted { count, complete }: Counted) -> Self {
        Self { count, complete }
    }
}
