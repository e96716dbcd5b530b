//! `/v1/workspaces/{workspace}/jobs`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use carillon_core::id::{JobId, WorkspaceId};
use carillon_core::job::{Job, JobKind, JobStatus};
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_http::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desk::Desk;
use crate::problems::Common;

pub(crate) fn router() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(read))
}

/// Work that outlasts a request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Job)]
pub(crate) struct Shown {
    /// Its id.
    #[schema(value_type = String, example = "job_06f1cap7jhsrabd4kwnrvf2rhr")]
    id: JobId,
    /// On what.
    #[schema(value_type = String, example = "acme-consents")]
    workspace: WorkspaceId,
    /// What is to be done.
    #[schema(value_type = KindShown)]
    kind: JobKind,
    /// How far it is.
    #[schema(value_type = StatusShown)]
    status: JobStatus,
    /// How many things are done: of a deletion, the subscriptions that are gone.
    done: u64,
    /// When it was asked for.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixMillis,
    /// When it last went on.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: UnixMillis,
}

/// What a job does.
#[derive(ToSchema)]
#[schema(as = JobKind, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes JobKind of the core, which knows no OpenAPI")]
enum KindShown {
    /// Deletes a workspace with all that belongs to it.
    DeleteWorkspace,
}

/// How far a job is.
#[derive(ToSchema)]
#[schema(as = JobStatus, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes JobStatus of the core, which knows no OpenAPI")]
enum StatusShown {
    /// Asked for.
    Queued,
    /// Begun.
    Running,
    /// Done.
    Completed,
}

impl From<Job> for Shown {
    fn from(job: Job) -> Self {
        let Job { id, workspace, kind, status, done, created_at, updated_at } = job;
        Self { id, workspace, kind, status, done, created_at, updated_at }
    }
}

/// Read a job
///
/// It can be read for 30 days after it last went on, also when its workspace is gone.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/jobs/{job}",
    operation_id = "getJob",
    tag = "jobs",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("job" = String, Path, description = "The job's id"),
    ),
    responses((status = 200, description = "The job", body = Shown), Common),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    Path((workspace, job)): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let workspace: WorkspaceId = workspace.parse().map_err(|_| Problem::NotFound)?;
    let job: JobId = job.parse().map_err(|_| Problem::NotFound)?;
    let job = desk.config.job(&workspace, job).await?.ok_or(Problem::NotFound)?;
    Ok(Json(job.into()))
}
