//! `/v1/workspaces/{workspace}/rules`: what a workspace's event types have to do with one another.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{StoredRules, Written};
use carillon_aws::now;
use carillon_catalogue::{CascadeRule, DeadlineRule, EventTypeDefinition, Rules, builtin_rules};
use carillon_core::invalid::Invalid;
use carillon_core::pattern::EventType;
use carillon_core::workspace::{Workspace, WorkspaceKind};
use carillon_http::access::Caller;
use carillon_http::body::read_json;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::HeaderMap;
use http::header::ETAG;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::conditional::{IfMatch, etag};
use crate::desk::{Desk, by};
use crate::problems::Common;
use crate::types::event_type;

/// The largest rules, in bytes as JSON.
const RULES_BYTES_MAX: usize = 64 * 1024;

/// How many definitions are read at once.
const READS_AT_ONCE: usize = 8;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(read, put))
}

/// All rules that hold in a workspace.
pub(crate) async fn rules(desk: &Desk, workspace: &Workspace) -> Result<Rules, Problem> {
    let own = own(desk, workspace).await?.1;
    Ok(Rules::merged(builtin_rules(workspace.kind), own))
}

/// Read the rules of a workspace
///
/// What its event types have to do with one another: deadlines, cascades, and whether its events have revisions. Those of
/// its own, and beside them those that the catalogue of its kind brings.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/rules",
    operation_id = "getRules",
    tag = "event types",
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses(
        (
            status = 200, description = "The rules",
            body = Shown,
            headers(("etag" = String, description = "Their revision, for `If-Match`")),
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "publisher", "support", "subscriber"]))),
)]
async fn read(State(desk): State<Arc<Desk>>, Path(workspace): Path<String>) -> Result<Response, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace;
    let (revision, own) = own(&desk, &workspace).await?;
    Ok(answered(workspace.kind, revision, own))
}

/// Write the rules of a workspace
///
/// Those of its own, all of them: what is left out is no more. They may name types of its kind's catalogue and of its own.
/// Each is tried with the samples of the types that it names, and refused if what follows from these is not as its own type
/// says; so are rules by which an event would lead to another one of its type.
///
/// They hold for events that are accepted 5 s after the answer. Deadlines that run already run on, but those whose rule is
/// gone do not fire.
#[utoipa::path(
    put,
    path = "/v1/workspaces/{workspace}/rules",
    operation_id = "putRules",
    tag = "event types",
    params(("workspace" = String, Path, description = "The workspace's id"), IfMatch),
    request_body(content = RulesShown, example = json!({
        "revisions": false,
        "deadlines": [{
            "name": "unpaid",
            "after": ["invoice.sent"],
            "unless": ["invoice.paid", "invoice.cancelled"],
            "within": "PT72H",
            "subject": "/number",
            "emits": "invoice.overdue",
            "data": {"keep": ["/number", "/total"], "set": {"/overdueSince": "{due}"}},
        }],
        "cascades": [{
            "name": "items",
            "when": "invoice.cancelled",
            "each": "/items/*",
            "key": "/sku",
            "emits": "item.released",
            "data": {"keep": ["/number"]},
        }],
    })),
    responses(
        (
            status = 200, description = "The rules",
            body = Shown,
            headers(("etag" = String, description = "Their revision, for `If-Match`")),
        ),
        (
            status = 409, description = "The workspace is being deleted",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 412, description = "They were changed since",
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
    Path(workspace): Path<String>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let new: Rules = read_json(&headers, &body)?;
    let workspace = desk.open_workspace(&workspace).await?.workspace;
    let (revision, old) = own(&desk, &workspace).await?;
    if !if_match.allows(revision) {
        return Err(Problem::PreconditionFailed);
    }
    let rules = serde_json::to_string(&new).map_err(|_| Problem::Unavailable)?;
    if rules.len() > RULES_BYTES_MAX {
        let detail = format!("must have at most {RULES_BYTES_MAX} bytes as JSON");
        return Err(Invalid::field("", detail).into());
    }
    let types = types(&desk, &workspace, &new).await?;
    new.check(builtin_rules(workspace.kind), |name| types.get(name))?;
    if new == old {
        return Ok(answered(workspace.kind, revision, old));
    }
    let stored = StoredRules { revision: revision + 1, rules };
    match desk.config.put_rules(&workspace.id, &stored, (by(&caller), now())).await? {
        Written::Done => Ok(answered(workspace.kind, stored.revision, new)),
        // Another change came first, in this moment.
        Written::Stale if if_match != IfMatch::Unsaid => Err(Problem::PreconditionFailed),
        Written::Missing => Err(Problem::WorkspaceDeleting),
        _ => Err(Problem::Unavailable),
    }
}

/// A workspace's own rules with their revision; 0 where it never had any.
async fn own(desk: &Desk, workspace: &Workspace) -> Result<(u64, Rules), Problem> {
    let Some(stored) = desk.config.rules(&workspace.id).await? else { return Ok((0, Rules::default())) };
    let rules = serde_json::from_str(&stored.rules).map_err(|error| {
        tracing::error!(%error, workspace = %workspace.id, "the rules of a workspace cannot be read");
        Problem::Unavailable
    })?;
    Ok((stored.revision, rules))
}

/// The types that rules name, as far as there are such.
async fn types(
    desk: &Desk,
    workspace: &Workspace,
    rules: &Rules,
) -> Result<HashMap<EventType, EventTypeDefinition>, Problem> {
    let names: BTreeSet<EventType> = rules.types().cloned().collect();
    let find = async |name: EventType| {
        let found = event_type(desk, workspace, &name).await?;
        Ok::<_, Problem>(found.map(|definition| (name, definition)))
    };
    let found: Vec<_> = stream::iter(names).map(find).buffered(READS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

fn answered(kind: WorkspaceKind, revision: u64, own: Rules) -> Response {
    let Rules { revisions, deadlines, cascades } = own;
    let shown = Shown { revisions, deadlines, cascades, builtin: builtin_rules(kind) };
    ([(ETAG, etag(revision))], Json(shown)).into_response()
}

/// The rules of a workspace.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkspaceRules)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Whether the workspace has asked for revisions itself.
    revisions: bool,
    /// Deadlines of its own.
    #[schema(value_type = Vec<DeadlineShown>)]
    deadlines: Vec<DeadlineRule>,
    /// Cascades of its own.
    #[schema(value_type = Vec<CascadeShown>)]
    cascades: Vec<CascadeRule>,
    /// Those that the catalogue of its kind brings. They hold as well.
    #[schema(value_type = RulesShown)]
    builtin: &'static Rules,
}

/// What event types have to do with one another.
#[derive(ToSchema)]
#[schema(as = Rules, rename_all = "camelCase")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes Rules of the catalogue, which knows no OpenAPI")]
struct RulesShown {
    /// Whether each event has a revision: a number, in its attribute `revision`, that grows by one with each event of the
    /// workspace, without a gap or a repeat. Carillon gives it, publishers cannot. Transactions of the workspace then follow
    /// one another, each with up to 25 events of a request.
    #[schema(required = false, default = false)]
    revisions: bool,
    #[schema(required = false, max_items = 20)]
    deadlines: Vec<DeadlineShown>,
    #[schema(required = false, max_items = 20)]
    cascades: Vec<CascadeShown>,
}

/// An event type that is due when something did not happen in time.
#[derive(ToSchema)]
#[schema(as = Deadline, rename_all = "camelCase")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes DeadlineRule of the catalogue, which knows no OpenAPI")]
struct DeadlineShown {
    /// What it is called, among the deadlines and cascades of its workspace.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,39}$")]
    name: String,
    /// Events of these types start it. Of several for one subject the earliest counts.
    #[schema(min_items = 1, max_items = 20)]
    after: Vec<String>,
    /// Events of these types settle it, also where they are accepted before it starts. Once settled it never fires.
    #[schema(min_items = 1, max_items = 20)]
    unless: Vec<String>,
    /// How long it runs, from the `time` of the event that started it, as an ISO 8601 duration of hours, minutes and seconds:
    /// from `PT1S` to `PT240H`.
    #[schema(example = "PT1H30M", max_length = 40, pattern = "^PT")]
    within: String,
    /// Where the data of those events says whose deadline it is, as a JSON Pointer (RFC 6901) to a text or a number. Without
    /// it their `subject` says so.
    #[schema(required = false, max_length = 512)]
    subject: Option<String>,
    /// Of which type the event is that it brings, within two minutes of being due, never before.
    emits: String,
    #[schema(required = false)]
    data: PlanShown,
}

/// An event type of which there are events for each of several parts of another event.
#[derive(ToSchema)]
#[schema(as = Cascade, rename_all = "camelCase")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes CascadeRule of the catalogue, which knows no OpenAPI")]
struct CascadeShown {
    /// What it is called, among the deadlines and cascades of its workspace.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,39}$")]
    name: String,
    /// Events of this type bring others: 500 at most, with those that follow from these.
    when: String,
    /// Where the parts stand in its data: a JSON Pointer in which `*` stands for each member of an object, or each element of
    /// an array.
    #[schema(max_length = 512, example = "/items/*")]
    each: String,
    /// Where in such a part its key stands, by which it is told from the others: a JSON Pointer to a text or a number.
    #[schema(max_length = 512, example = "/sku")]
    key: String,
    /// Of which type the events are that it brings. Each has the other event's `source`, its `id` as `causationid`, its
    /// `time`, its audience, and the key as `subject`; as data it has the part in its place, and what `data` says.
    emits: String,
    #[schema(required = false)]
    data: PlanShown,
}

/// What data an event has that follows from another.
#[derive(ToSchema)]
#[schema(as = DataPlan, rename_all = "camelCase")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes Plan of the catalogue, which knows no OpenAPI")]
struct PlanShown {
    /// JSON Pointers to what is taken over from the other event's data, to the same places.
    #[schema(required = false, max_items = 40)]
    keep: Vec<String>,
    /// Values by JSON Pointers to the places where they are given, up to 40. In texts `{/a/b}` stands for what the other event's data
    /// has there, `{key}` for the key of the part, `{due}` for the time when a deadline was due, `{{` for a brace.
    #[schema(required = false)]
    set: HashMap<String, Value>,
}
