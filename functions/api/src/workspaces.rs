//! `/v1/workspaces`

mod deletion;
mod input;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{Made, Once, Page, StoredWorkspace, Written};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::id::{ClientId, WorkspaceId};
use carillon_core::workspace::{Settings, Workspace};
use carillon_http::access::Caller;
use carillon_http::body::{read_json, read_merge_patch, read_patched};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{ETAG, LOCATION};
use http::{HeaderMap, StatusCode};

use self::deletion::{__path_delete, delete};
use self::input::{NewWorkspace, Shown, WorkspaceInput, WorkspacePatch, admit};
use crate::conditional::{IdempotencyKey, IfMatch, etag, merge};
use crate::desk::{Desk, List, ListQuery, by, id_bytes};
use crate::problems::Common;

const PATH: &str = "/v1/workspaces";

/// How often a change is tried again that another one came before.
const TRIES_MAX: usize = 5;

/// How many workspaces of a list are read at once.
const READS_AT_ONCE: usize = 16;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list, create)).routes(routes!(read, replace, patch, delete))
}

/// Create a workspace
///
/// Settings that are left out take the defaults of its kind.
#[utoipa::path(
    post,
    path = "/v1/workspaces",
    operation_id = "createWorkspace",
    tag = "workspaces",
    params(IdempotencyKey),
    request_body(content = NewWorkspace, example = json!({
        "id": "acme-consents",
        "name": "Consents of Acme Bank",
        "kind": "consent",
        "settings": {"verification": "challenge", "defaultRatePerMinute": 600},
    })),
    responses(
        (status = 201, description = "Created", body = Shown, headers(
            ("location" = String, description = "Where it is"),
            ("etag" = String, description = "Its state, for `If-Match`"),
        )),
        (
            status = 409, description = "A workspace of this id exists",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 422, description = "Another request came with this `Idempotency-Key`",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn create(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let new: NewWorkspace = read_json(&headers, &body)?;
    let now = now();
    let workspace = new.check(WorkspaceId::new(now, id_bytes()?), now)?;
    admit(&workspace.settings, &Settings::default_of(workspace.kind), &caller, &desk.rules)?;
    let id = workspace.id.to_string();
    let once = key.map(|key| Once::new(caller.client.clone(), PATH, &key, &body, id, now));
    if let Some(once) = &once
        && let Some(made) = desk.config.made(once).await?
    {
        return repeated(&desk, once, &made).await;
    }
    let data_key = desk.vault.new_data_key(&workspace.id).await?;
    let stored = StoredWorkspace { workspace, data_key };
    match (desk.config.create_workspace(&stored, once.as_ref(), by(&caller)).await?, &once) {
        (Written::Done, _) => Ok(created(stored.workspace)),
        (Written::Exists, _) => Err(Problem::WorkspaceExists),
        (Written::MadeBefore(made), Some(once)) => repeated(&desk, once, &made).await,
        _ => Err(Problem::Unavailable),
    }
}

/// List workspaces
///
/// All for an administrator; for others those that the client has a role in.
#[utoipa::path(
    get,
    path = "/v1/workspaces",
    operation_id = "listWorkspaces",
    tag = "workspaces",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of them, in the order of their ids", body = List<Shown>),
        Common,
    ),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let (limit, after) = (query.limit()?, query.after()?);
    let page = if caller.admin {
        desk.config.workspaces(limit, after).await?
    } else {
        held_by(&desk, &caller.client, limit, after).await?
    };
    Ok(Json(List::of(page, Shown::from)))
}

/// Read a workspace
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}",
    operation_id = "getWorkspace",
    tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses(
        (
            status = 200, description = "The workspace",
            body = Shown,
            headers(("etag" = String, description = "Its state, for `If-Match`")),
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "publisher", "support", "subscriber"]))),
)]
async fn read(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(answered(desk.workspace(&id).await?.workspace))
}

/// Replace a workspace's name and settings
///
/// Settings that are left out take the defaults of its kind, which cannot be changed.
#[utoipa::path(
    put,
    path = "/v1/workspaces/{workspace}",
    operation_id = "replaceWorkspace",
    tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's id"), IfMatch),
    request_body(content = WorkspaceInput, example = json!({
        "name": "Consents of Acme Bank",
        "settings": {"audience": "required", "verification": "handshake"},
    })),
    responses(
        (
            status = 200, description = "Replaced",
            body = Shown,
            headers(("etag" = String, description = "Its state, for `If-Match`")),
        ),
        (
            status = 409, description = "The workspace is being deleted",
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
async fn replace(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let input: WorkspaceInput = read_json(&headers, &body)?;
    change(&desk, &caller, &id, &if_match, |_| Ok(input.clone())).await
}

/// Change a workspace's name or settings
///
/// By a JSON Merge Patch (RFC 7396) of what `PUT` takes: a setting that is null takes the default of the workspace's kind.
#[utoipa::path(
    patch,
    path = "/v1/workspaces/{workspace}",
    operation_id = "patchWorkspace",
    tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's id"), IfMatch),
    request_body(
        content((WorkspacePatch = "application/merge-patch+json"), (WorkspacePatch = "application/json")),
    ),
    responses(
        (
            status = 200, description = "Changed",
            body = Shown,
            headers(("etag" = String, description = "Its state, for `If-Match`")),
        ),
        (
            status = 409, description = "The workspace is being deleted",
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
async fn patch(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let patch = read_merge_patch(&headers, &body)?;
    change(&desk, &caller, &id, &if_match, |old| {
        let whole = serde_json::to_value(WorkspaceInput::of(old)).map_err(|_| Problem::Unavailable)?;
        read_patched(&merge(whole, patch.clone()))
    })
    .await
}

/// Changes a workspace into what `wish` makes of it; again, if another change came before.
async fn change(
    desk: &Desk,
    caller: &Caller,
    id: &str,
    if_match: &IfMatch,
    wish: impl Fn(&Workspace) -> Result<WorkspaceInput, Problem>,
) -> Result<Response, Problem> {
    for _ in 0..TRIES_MAX {
        let StoredWorkspace { workspace: old, data_key } = desk.open_workspace(id).await?;
        if !if_match.allows(old.revision) {
            return Err(Problem::PreconditionFailed);
        }
        let (name, settings) = wish(&old)?.check(old.kind)?;
        admit(&settings, &old.settings, caller, &desk.rules)?;
        if name == old.name && settings == old.settings {
            return Ok(answered(old));
        }
        let revision = old.revision + 1;
        let workspace = Workspace { name, settings, updated_at: now(), revision, ..old.clone() };
        let stored = StoredWorkspace { workspace, data_key };
        if desk.config.update_workspace(&old, &stored, by(caller)).await? == Written::Done {
            return Ok(answered(stored.workspace));
        }
    }
    Err(Problem::Unavailable)
}

/// The workspaces that a client has a role in. One that is gone in this moment is left out.
async fn held_by(
    desk: &Desk,
    client: &ClientId,
    limit: i32,
    after: Option<WorkspaceId>,
) -> Result<Page<Workspace>, AwsError> {
    let Page { items, next } = desk.config.workspaces_of(client, limit, after).await?;
    let reading = stream::iter(items).map(async |id| desk.config.workspace(&id).await);
    let found: Vec<_> = reading.buffered(READS_AT_ONCE).try_collect().await?;
    Ok(Page { items: found.into_iter().flatten().map(|stored| stored.workspace).collect(), next })
}

/// The answer to a repeated request.
async fn repeated(desk: &Desk, once: &Once, made: &Made) -> Result<Response, Problem> {
    if !once.repeats(made) {
        return Err(Problem::IdempotencyConflict);
    }
    Ok(created(desk.workspace(&made.id).await?.workspace))
}

fn created(workspace: Workspace) -> Response {
    let location = [(LOCATION, format!("{PATH}/{}", workspace.id))];
    (StatusCode::CREATED, location, answered(workspace)).into_response()
}

fn answered(workspace: Workspace) -> Response {
    ([(ETAG, etag(workspace.revision))], Json(Shown::from(workspace))).into_response()
}
