//! `/v1/workspaces`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{StoredWorkspace, Written};
use carillon_aws::now;
use carillon_core::id::WorkspaceId;
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_core::workspace::{NewWorkspace, Workspace, WorkspaceKind};
use carillon_http::body::JsonBody;
use carillon_http::problem::Problem;
use http::StatusCode;
use http::header::LOCATION;
use serde::Serialize;

use crate::desk::{Desk, List, ListQuery, id_bytes};

/// A workspace as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    id: WorkspaceId,
    name: String,
    kind: WorkspaceKind,
    #[serde(serialize_with = "rfc3339")]
    created_at: UnixMillis,
}

impl From<Workspace> for Shown {
    fn from(Workspace { id, name, kind, created_at }: Workspace) -> Self {
        Self { id, name, kind, created_at }
    }
}

pub(crate) async fn create(
    State(desk): State<Arc<Desk>>,
    JsonBody(new): JsonBody<NewWorkspace>,
) -> Result<Response, Problem> {
    let now = now();
    let workspace = new.check(WorkspaceId::new(now, id_bytes()?), now)?;
    let data_key = desk.vault.new_data_key(&workspace.id).await?;
    let stored = StoredWorkspace { workspace, data_key };
    match desk.config.create_workspace(&stored).await? {
        Written::Exists => Err(Problem::WorkspaceExists),
        Written::Missing | Written::InUse => Err(Problem::Unavailable),
        Written::Done => {
            let location = format!("/v1/workspaces/{}", stored.workspace.id);
            Ok((StatusCode::CREATED, [(LOCATION, location)], Json(Shown::from(stored.workspace)))
                .into_response())
        }
    }
}

pub(crate) async fn list(
    State(desk): State<Arc<Desk>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let page = desk.config.workspaces(query.limit()?, query.after()?).await?;
    Ok(Json(List::of(page, Shown::from)))
}

pub(crate) async fn read(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(desk.workspace(&id).await?.workspace.into()))
}

pub(crate) async fn delete(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let workspace = id.parse().map_err(|_| Problem::NotFound)?;
    match desk.config.delete_workspace(&workspace).await? {
        Written::Done => Ok(StatusCode::NO_CONTENT),
        Written::InUse => Err(Problem::WorkspaceInUse),
        Written::Missing | Written::Exists => Err(Problem::NotFound),
    }
}
