//! `/v1/workspaces/{workspace}/events`: what has happened. Events are published elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use carillon_aws::deliveries::{Order, Place};
use carillon_aws::events::Walk;
use carillon_aws::now;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{EventId, EventKey, SubscriberId};
use carillon_core::matching::CLOCK_SKEW;
use carillon_core::pattern::EventType;
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_core::workspace::Workspace;
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::deliveries::{Cursor, Span, SpanQuery, event_type};
use crate::desk::{Desk, Draft, List, ListQuery};
use crate::problems::Common;

/// How many events one answer looks at, where few of many are wanted.
const EVENTS_MAX: usize = 500;

/// How many of them are read at once: each can be large.
const EVENTS_AT_ONCE: usize = 25;

/// How much of events' JSON one answer reads, in bytes, about.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list)).routes(routes!(read))
}

/// An event that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
struct EventShown {
    /// Its name here. CloudEvents know it by its `source` and `id`.
    #[schema(value_type = String, example = "evt_7v5rqm1x8y3tznc6hjfgpse4ab2k0w9d")]
    id: EventId,
    /// What happened.
    #[schema(value_type = String, example = "consent:approved")]
    r#type: EventType,
    /// When it was accepted.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    accepted_at: UnixMillis,
    /// The subscribers that it is for, if it names them; to a client that is bound to a subscriber, that one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<String>, required = false, example = json!(["tpp-1"]))]
    audience: Option<Vec<SubscriberId>>,
    /// The CloudEvent, as it is delivered.
    #[schema(value_type = Object, example = json!({"specversion": "1.0", "id": "0f3b8f6e-approved", "source": "https://consents.aurora-bank.example/open-finance", "type": "consent:approved", "data": {}}))]
    event: Box<RawValue>,
}

/// Which events to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TypeQuery {
    /// Those of this type.
    #[param(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\s*\u0000-\u001f\u007f-\u009f]+$",
        example = "consent:approved"
    )]
    r#type: Option<String>,
}

/// List events
///
/// A client that is bound to a subscriber sees those that name it as their audience, and those that name nobody.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/events",
    operation_id = "listEvents",
    tag = "events",
    params(("workspace" = String, Path, description = "The workspace's id"), ListQuery, TypeQuery, SpanQuery),
    responses(
        (
            status = 200,
            description = "A page of them, the newest first. It may have fewer than `limit`, even none, though there is a \
                           `next`: an answer looks at 48 hours. What was accepted a moment ago may be missing",
            body = List<EventShown>,
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(page): Query<ListQuery>,
    Query(wanted): Query<TypeQuery>,
    Query(span): Query<SpanQuery>,
) -> Result<Json<List<EventShown>>, Problem> {
    let (limit, after) = (page.count()?, page.after::<Cursor>()?);
    let (Span { since, until }, now) = (span.check()?, now());
    let wanted = wanted.r#type.map(|text| event_type("query:type", &text)).transpose()?;
    let workspace = desk.workspace(&workspace).await?.workspace;
    let ahead = now + CLOCK_SKEW;
    let mut walk = Walk {
        order: Order::Newest,
        since: since.unwrap_or(UnixMillis(0)).max(workspace.created_at).max(now.minus(desk.retention)),
        until: until.unwrap_or(ahead).min(ahead),
        after: after.map(|Cursor(place)| place),
    };
    let is_wanted = |event: &AcceptedEvent| {
        wanted.as_ref().is_none_or(|wanted| *wanted == event.event_type) && is_for(&caller, event)
    };
    let at_once = limit.min(EVENTS_AT_ONCE);
    let mut draft = Draft::new(limit);
    let mut read = 0;
    for _ in 0..EVENTS_MAX.div_ceil(at_once) {
        let (events, next) = desk.events.walk(&workspace.id, &walk, at_once, now).await?;
        let has_more = events.len() == at_once;
        read += events.iter().map(|event| event.json.len()).sum::<usize>();
        for event in events.into_iter().filter(is_wanted) {
            if draft.is_full() {
                return Ok(Json(draft.finish(walk.after.map(Cursor))));
            }
            walk = walk.behind(Place::of_accepted(&event));
            draft.add(EventShown::of(event, &caller)?);
        }
        let Some(next) = next else { return Ok(Json(draft.finish(None::<Cursor>))) };
        walk = walk.behind(next);
        // Fewer than were asked for: as many hours were looked at as one answer should.
        if draft.is_full() || !has_more || read > READ_BYTES_MAX {
            break;
        }
    }
    Ok(Json(draft.finish(walk.after.map(Cursor))))
}

/// Read an event
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/events/{event}",
    operation_id = "getEvent",
    tag = "events",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("event" = String, Path, description = "The event's id: `eventId` of the answer when it was published"),
    ),
    responses((status = 200, description = "The event", body = EventShown), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, event)): Path<(String, String)>,
) -> Result<Json<EventShown>, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace;
    let event = find(&desk, &caller, &workspace, &event).await?;
    Ok(Json(EventShown::of(event, &caller)?))
}

/// An event that the caller may know of.
pub(crate) async fn find(
    desk: &Desk,
    caller: &Caller,
    workspace: &Workspace,
    event: &str,
) -> Result<AcceptedEvent, Problem> {
    let id: EventId = event.parse().map_err(|_| Problem::NotFound)?;
    let key = EventKey { workspace: workspace.id.clone(), digest: id.into() };
    let event = desk.events.kept(&key, workspace.created_at, now()).await?;
    event.filter(|event| is_for(caller, event)).ok_or(Problem::NotFound)
}

/// Whether a caller may know of an event: of those that are for others, not even the ids are to be known.
pub(crate) fn is_for(caller: &Caller, event: &AcceptedEvent) -> bool {
    let mut audience = caller.subscriber().into_iter().zip(&event.audience);
    audience.all(|(bound, audience)| audience.contains(bound))
}

impl EventShown {
    fn of(event: AcceptedEvent, caller: &Caller) -> Result<Self, Problem> {
        let AcceptedEvent { key, event_type, accepted_at, audience, json, .. } = event;
        let may_know =
            |subscriber: &SubscriberId| caller.subscriber().is_none_or(|bound| bound == subscriber);
        let event = RawValue::from_string(json).map_err(|error| {
            tracing::error!(%error, event = %key, "an event is no JSON");
            Problem::Unavailable
        })?;
        Ok(Self {
            id: key.digest.into(),
            r#type: event_type,
            accepted_at,
            audience: audience.map(|audience| audience.into_iter().filter(may_know).collect()),
            event,
        })
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::access::Role;
    use carillon_core::event::Event;
    use serde_json::{Value, json};

    use super::*;

    fn event(audience: Option<&str>) -> AcceptedEvent {
        let audience = audience.map(|names| format!(r#","audience":"{names}""#)).unwrap_or_default();
        let json = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"consent:created","data":{{"a": 1.10}}{audience}}}"#
        );
        let then = UnixMillis(1_795_339_800_000);
        Event::from_structured(&json).unwrap().accepted("acme".parse().unwrap(), then)
    }

    fn caller(subscriber: Option<&str>) -> Caller {
        let role = match subscriber {
            Some(subscriber) => Role::Subscriber(subscriber.parse().unwrap()),
            None => Role::Support,
        };
        Caller { client: "c".parse().unwrap(), admin: false, role: Some(role) }
    }

    #[test]
    fn a_subscriber_sees_what_is_for_it_and_nobody_beside_it() {
        let sees = |subscriber, audience| is_for(&caller(subscriber), &event(audience));
        assert!(sees(None, Some("tpp-1")) && sees(None, None) && sees(Some("tpp-1"), None));
        assert!(sees(Some("tpp-1"), Some("tpp-1 tpp-2")) && !sees(Some("tpp-3"), Some("tpp-1 tpp-2")));
        let audience = |subscriber| {
            let shown = EventShown::of(event(Some("tpp-1 tpp-2")), &caller(subscriber)).unwrap();
            serde_json::to_value(shown).unwrap()["audience"].take()
        };
        assert_eq!(audience(None), json!(["tpp-1", "tpp-2"]));
        assert_eq!(audience(Some("tpp-1")), json!(["tpp-1"]));
    }

    #[test]
    fn an_event_is_shown_as_it_is_delivered() {
        let shown = serde_json::to_string(&EventShown::of(event(None), &caller(None)).unwrap()).unwrap();
        assert!(shown.contains(r#""data":{"a": 1.10}"#), "{shown}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["acceptedAt"], "2026-11-22T09:30:00.000Z");
        assert!(
            shown["id"].as_str().is_some_and(|id| id.starts_with("evt_")) && shown.get("audience").is_none()
        );
    }
}
