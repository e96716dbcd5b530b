//! `/v1/workspaces/{workspace}/events/{event}/deliveries`

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use carillon_aws::config::{Page, StoredSubscription, Wanted};
use carillon_aws::deliveries::Place;
use carillon_aws::now;
use carillon_core::id::{NotAnId, SubscriptionId};
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;

use super::pending::Concern;
use super::shown::DeliveryShown;
use crate::desk::{Desk, Draft, List, ListQuery};
use crate::events;
use crate::problems::Common;

/// How many subscriptions one answer looks at.
const SUBSCRIPTIONS_MAX: usize = 500;

/// How many of them are read at once: as many rows as one call takes.
const SUBSCRIPTIONS_AT_ONCE: i32 = 100;

pub(super) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list))
}

/// List the deliveries of an event
///
/// Those to subscriptions that there are; to a client that is bound to a subscriber, to its own alone. Those that no attempt
/// was made of yet are `pending`, as far as the subscriptions as they are now ask for the event.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/events/{event}/deliveries",
    operation_id = "listEventDeliveries",
    tag = "deliveries",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("event" = String, Path, description = "The event's id"),
        ListQuery,
    ),
    responses(
        (
            status = 200,
            description = "A page of them, in the order of the subscriptions' ids. It may have fewer than `limit`, even none, \
                           though there is a `next`",
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
    Path((workspace, event)): Path<(String, String)>,
    Query(page): Query<ListQuery>,
) -> Result<Json<List<DeliveryShown>>, Problem> {
    let (limit, mut after) = (page.count()?, page.after::<SubscriptionId>()?);
    let workspace = desk.workspace(&workspace).await?.workspace;
    let event = events::find(&desk, &caller, &workspace, &event).await?;
    let concern = Concern::of(&event);
    let wanted = Wanted { subscriber: caller.subscriber().cloned(), ..Wanted::default() };
    let now = now();
    let mut draft = Draft::new(limit);
    let mut looked = 0;
    while looked < SUBSCRIPTIONS_MAX && !draft.is_full() {
        let Page { items, next } =
            desk.config.wanted_subscriptions(&workspace.id, &wanted, SUBSCRIPTIONS_AT_ONCE, after).await?;
        looked += items.len();
        let possible = |stored: &&StoredSubscription| !concern.is_for_others(&stored.subscription);
        let ids: Vec<_> = items.iter().filter(possible).map(|stored| stored.subscription.id).collect();
        let rows = desk.deliveries.deliveries_at(&ids, Place::of_accepted(&event), now).await?;
        let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.subscription, row)).collect();
        for subscription in items.iter().map(|stored| &stored.subscription) {
            let shown = match rows.get(&subscription.id) {
                Some(row) => Some(DeliveryShown::of(row, workspace.settings.show_responses, now)),
                None if concern.includes(subscription) => {
                    Some(DeliveryShown::pending(&event, subscription.id))
                }
                None => None,
            };
            if let Some(shown) = shown {
                if draft.is_full() {
                    return Ok(Json(draft.finish(after)));
                }
                draft.add(shown);
            }
            after = Some(subscription.id);
        }
        let Some(next) = next else { return Ok(Json(draft.finish(None::<SubscriptionId>))) };
        after = Some(next.parse().map_err(|_: NotAnId| Problem::Unavailable)?);
    }
    Ok(Json(draft.finish(after)))
}
