//! `/v1/workspaces/{workspace}/event-types`: what a workspace's events can be.

mod shown;

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{StoredType, TYPES_MAX, Written};
use carillon_aws::now;
use carillon_catalogue::{
    EventTypeDefinition, NewEventType, RESERVED_PREFIX, builtin, builtin_type, operational,
};
use carillon_core::id::WorkspaceId;
use carillon_core::invalid::Invalid;
use carillon_core::pattern::{EventType, SEGMENTS_MAX, TYPE_BYTES_MAX};
use carillon_core::workspace::Workspace;
use carillon_http::access::Caller;
use carillon_http::body::read_json;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{ETAG, LOCATION};
use http::{HeaderMap, StatusCode};

use self::shown::{InputShown, ListedType, Shown, SourceQuery, Wanted};
use crate::conditional::{IfMatch, etag};
use crate::desk::{Desk, List, ListQuery, by};
use crate::problems::Common;
use crate::rules::rules;

/// How often a change is tried again that another one came before.
const TRIES_MAX: usize = 5;

/// How many definitions of a list are read at once: each can be large.
const READS_AT_ONCE: usize = 8;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list)).routes(routes!(read, put, delete))
}

/// A type that a workspace has, whoever defined it.
pub(crate) async fn event_type(
    desk: &Desk,
    workspace: &Workspace,
    name: &EventType,
) -> Result<Option<EventTypeDefinition>, Problem> {
    let operational = || operational().iter().find(|known| known.name == *name);
    if let Some(given) = builtin_type(workspace.kind, name).or_else(operational) {
        return Ok(Some(given.clone()));
    }
    let stored = desk.config.event_type(&workspace.id, name).await?;
    stored.as_ref().map(definition).transpose()
}

/// List the event types of a workspace
///
/// Those of its kind's catalogue and those of its own, without schemas and samples.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/event-types",
    operation_id = "listEventTypes",
    tag = "event types",
    params(("workspace" = String, Path, description = "The workspace's id"), ListQuery, SourceQuery),
    responses(
        (status = 200, description = "A page of them, in the order of their names", body = List<ListedType>),
        Common,
    ),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "publisher", "support", "subscriber"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
    Query(query): Query<ListQuery>,
    Query(source): Query<SourceQuery>,
) -> Result<Json<List<ListedType>>, Problem> {
    let (limit, after, source) = (query.limit()?, query.after::<PlainName>()?, source.wanted()?);
    let Workspace { id, kind, .. } = desk.workspace(&workspace).await?.workspace;
    let own = match source {
        Wanted::Builtin => Vec::new(),
        Wanted::All | Wanted::Own => desk.config.type_names(&id).await?,
    };
    let given: Vec<_> =
        if source == Wanted::Own { Vec::new() } else { builtin(kind).iter().chain(operational()).collect() };
    let (entries, next) =
        page(given, own, usize::try_from(limit).unwrap_or_default(), after.as_ref().map(|after| &after.0));
    let listed = stream::iter(entries).map(|entry| listed(&desk, &id, entry)).buffered(READS_AT_ONCE);
    let listed: Vec<Option<ListedType>> = listed.try_collect().await?;
    Ok(Json(List { items: listed.into_iter().flatten().collect(), next }))
}

/// Read an event type
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/event-types/{type}",
    operation_id = "getEventType",
    tag = "event types",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("type" = String, Path, description = "The type's name"),
    ),
    responses(
        (
            status = 200, description = "The type",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `If-Match`")),
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "publisher", "support", "subscriber"]))),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    Path((workspace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let name: EventType = name.parse().map_err(|_| Problem::NotFound)?;
    let workspace = desk.workspace(&workspace).await?.workspace;
    Ok(answered(event_type(&desk, &workspace, &name).await?.ok_or(Problem::NotFound)?))
}

/// Define an event type
///
/// Of the workspace's own. Each definition that differs from the one before is its next version; a sample that the
/// schema rejects is refused. Names that begin with `carillon.` are Carillon's.
#[utoipa::path(
    put,
    path = "/v1/workspaces/{workspace}/event-types/{type}",
    operation_id = "putEventType",
    tag = "event types",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("type" = String, Path, description = "The type's name"),
        IfMatch,
    ),
    request_body(content = InputShown, example = json!({
        "description": "An invoice was sent to its customer.",
        "schema": {
            "type": "object",
            "required": ["number", "total"],
            "properties": {"number": {"type": "string"}, "total": {"type": "number", "minimum": 0}},
        },
        "sample": {"number": "2026-0117", "total": 129.5},
        "validate": true,
    })),
    responses(
        (
            status = 200, description = "Its new version, or the present one if that says the same",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `If-Match`")),
        ),
        (status = 201, description = "Its first version", body = Shown, headers(
            ("location" = String, description = "Where it is"),
            ("etag" = String, description = "Its version, for `If-Match`"),
        )),
        (
            status = 409, description = "The name is taken by a type of the catalogue, or the workspace is being deleted",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 412, description = "It was changed since",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner"]))),
)]
async fn put(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, name)): Path<(String, String)>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let name = own_name(&name)?;
    let new: NewEventType = read_json(&headers, &body)?;
    let Workspace { id, kind, .. } = desk.open_workspace(&workspace).await?.workspace;
    if builtin_type(kind, &name).is_some() {
        return Err(Problem::EventTypeConflict);
    }
    for _ in 0..TRIES_MAX {
        let before = desk.config.event_type(&id, &name).await?;
        let is_known =
            before.as_ref().map_or(if_match.allows_none(), |old| if_match.allows(old.version.into()));
        if !is_known {
            return Err(Problem::PreconditionFailed);
        }
        let version = before.as_ref().map_or(1, |old| old.version + 1);
        let checked = new.clone().check(name.clone(), version)?;
        match &before {
            Some(old) => {
                let old = definition(old)?;
                if (EventTypeDefinition { version, ..old.clone() }) == checked {
                    return Ok(answered(old));
                }
            }
            None if desk.config.type_names(&id).await?.len() >= TYPES_MAX => {
                let full = format!("the workspace has {TYPES_MAX} event types of its own, which is the most");
                return Err(Invalid::field("path:type", full).into());
            }
            None => {}
        }
        let text = serde_json::to_string(&checked).map_err(|_| Problem::Unavailable)?;
        let stored = StoredType { name: name.clone(), version, definition: text };
        match desk.config.put_type(&id, &stored, (by(&caller), now())).await? {
            Written::Done if before.is_some() => return Ok(answered(checked)),
            Written::Done => {
                let location = [(LOCATION, format!("/v1/workspaces/{id}/event-types/{name}"))];
                return Ok((StatusCode::CREATED, location, answered(checked)).into_response());
            }
            Written::Stale => {}
            // The workspace was closed in this moment.
            Written::Missing => return Err(Problem::WorkspaceDeleting),
            _ => return Err(Problem::Unavailable),
        }
    }
    Err(Problem::Unavailable)
}

/// Delete an event type
///
/// Of the workspace's own. Events of it can be published no more; those that were are delivered.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/event-types/{type}",
    operation_id = "deleteEventType",
    tag = "event types",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("type" = String, Path, description = "The type's name"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (
            status = 409,
            description = "It is a type of the catalogue, or named by a rule, or the workspace is being deleted",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner"]))),
)]
async fn delete(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let name: EventType = name.parse().map_err(|_| Problem::NotFound)?;
    let workspace = desk.open_workspace(&workspace).await?.workspace;
    if builtin_type(workspace.kind, &name).is_some() {
        return Err(Problem::EventTypeConflict);
    }
    if rules(&desk, &workspace).await?.types().any(|named| *named == name) {
        return Err(Problem::EventTypeInUse);
    }
    match desk.config.delete_type(&workspace.id, &name, Some((by(&caller), now()))).await? {
        Written::Done => Ok(StatusCode::NO_CONTENT),
        _ => Err(Problem::NotFound),
    }
}

/// A type of a list.
#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Builtin(&'static EventTypeDefinition),
    Own(EventType),
}

impl Entry {
    fn name(&self) -> &EventType {
        match self {
            Self::Builtin(definition) => &definition.name,
            Self::Own(name) => name,
        }
    }
}

/// The first `limit` types behind `after` in the order of their names, and where the next page begins.
fn page(
    given: Vec<&'static EventTypeDefinition>,
    own: Vec<EventType>,
    limit: usize,
    after: Option<&EventType>,
) -> (Vec<Entry>, Option<String>) {
    let mut entries: Vec<_> =
        given.into_iter().map(Entry::Builtin).chain(own.into_iter().map(Entry::Own)).collect();
    entries.retain(|entry| after.is_none_or(|after| entry.name() > after));
    entries.sort_by(|a, b| a.name().cmp(b.name()));
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| last.name().to_string());
    (entries, next)
}

/// `None`: it is gone in this moment.
async fn listed(desk: &Desk, workspace: &WorkspaceId, entry: Entry) -> Result<Option<ListedType>, Problem> {
    match entry {
        Entry::Builtin(definition) => Ok(Some(definition.clone().into())),
        Entry::Own(name) => match desk.config.event_type(workspace, &name).await? {
            Some(stored) => Ok(Some(definition(&stored)?.into())),
            None => Ok(None),
        },
    }
}

fn definition(stored: &StoredType) -> Result<EventTypeDefinition, Problem> {
    serde_json::from_str(&stored.definition).map_err(|error| {
        tracing::error!(%error, name = %stored.name, "the definition of an event type cannot be read");
        Problem::Unavailable
    })
}

fn answered(definition: EventTypeDefinition) -> Response {
    ([(ETAG, etag(definition.version.into()))], Json(Shown::from(definition))).into_response()
}

/// A name that stands in a URL as it is, as all in the catalogue and all of workspaces' own do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlainName(EventType);

/// A text that is no such name.
#[derive(Debug)]
struct NotPlain;

impl FromStr for PlainName {
    type Err = NotPlain;

    fn from_str(text: &str) -> Result<Self, NotPlain> {
        let is_plain = |segment: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_~+@-".contains(&byte);
            !segment.is_empty() && segment.bytes().all(plain)
        };
        let name = text.split(['.', ':']).all(is_plain).then(|| text.parse().ok()).flatten();
        name.map(Self).ok_or(NotPlain)
    }
}

/// The name of a type that a workspace may define.
fn own_name(text: &str) -> Result<EventType, Invalid> {
    let PlainName(name) = text.parse().map_err(|_| {
        let fit = format!(
            "must have at most {TYPE_BYTES_MAX} characters in 1 to {SEGMENTS_MAX} segments of letters, digits and `_ ~ + @ -` \
             with `.` or `:` between them"
        );
        Invalid::field("path:type", fit)
    })?;
    if text.starts_with(RESERVED_PREFIX) {
        return Err(Invalid::field("path:type", format!("must not begin with `{RESERVED_PREFIX}`")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EventType {
        text.parse().unwrap()
    }

    #[test]
    fn own_names_stand_in_urls() {
        for fit in ["a", "invoice.sent", "invoice:sent:v2", "A_b~c+d@e-f", "carillon", "carillons.a"] {
            assert!(own_name(fit).is_ok(), "{fit}");
        }
        let long = "a".repeat(TYPE_BYTES_MAX + 1);
        let deep = "a.".repeat(SEGMENTS_MAX) + "a";
        for wrong in
            ["", ".", "..", "a.", "a..b", ":a", "a/b", "a b", "a*", "\u{fc}", "carillon.a", &long, &deep]
        {
            assert_eq!(own_name(wrong).unwrap_err().0[0].pointer, "path:type", "{wrong}");
        }
    }

    #[test]
    fn names_of_the_catalogues_are_plain_and_not_reserved() {
        use carillon_core::workspace::WorkspaceKind::{Consent, Custom, Directory, Identity};
        for definition in [Consent, Custom, Directory, Identity].into_iter().flat_map(builtin) {
            assert!(own_name(definition.name.as_str()).is_ok(), "{}", definition.name);
        }
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_overlap() {
        let own: Vec<_> = ["b", "a", "e", "d:x", "c"].map(name).into();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (entries, next) = page(Vec::new(), own.clone(), 2, after.as_ref());
            seen.extend(entries.iter().map(|entry| entry.name().to_string()));
            match next {
                Some(next) => after = Some(name(&next)),
                None => break,
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d:x", "e"]);
        assert_eq!(page(Vec::new(), own, 5, None).1, None);
    }
}
