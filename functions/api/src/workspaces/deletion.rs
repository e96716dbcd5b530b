//! `DELETE /v1/workspaces/{workspace}`

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{StoredWorkspace, Written};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::id::JobId;
use carillon_core::job::{Job, JobKind};
use carillon_core::workspace::{Workspace, WorkspaceStatus};
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::TRIES_MAX;
use crate::desk::{Desk, by};
use crate::jobs;
use crate::problems::Common;

/// How long the request itself takes an empty workspace apart before a job goes on with it.
const AT_ONCE: Duration = Duration::from_secs(5);

/// How to delete.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeletionQuery {
    /// Whether the workspace's subscriptions go with it. Otherwise it must have none.
    #[serde(default)]
    #[param(required = false, default = false)]
    cascade: bool,
}

/// Delete a workspace
///
/// With its grants and event types and, if `cascade` says so, its subscriptions; deliveries that are under way end as
/// `cancelled`. Nothing new comes in from the answer on. What takes long is done by a job. Deleting a workspace that is
/// being deleted asks for the rest of the work again.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}",
    operation_id = "deleteWorkspace",
    tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's id"), DeletionQuery),
    responses(
        (
            status = 202, description = "A job deletes it",
            body = jobs::Shown,
            headers(("location" = String, description = "Where the job is")),
        ),
        (status = 204, description = "Deleted"),
        (
            status = 409, description = "It has subscriptions",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/admin"])),
)]
pub(super) async fn delete(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(DeletionQuery { cascade }): Query<DeletionQuery>,
) -> Result<Response, Problem> {
    let workspace = match close(&desk, &caller, &id, !cascade).await? {
        Closed::Now(workspace) if !cascade => {
            if taken_apart(&desk, &workspace).await? {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            workspace
        }
        Closed::Now(workspace) | Closed::Before(workspace) => workspace,
    };
    let job = hand_over(&desk, &workspace).await?;
    Ok(jobs::accepted(job))
}

/// A workspace that nothing comes into any more.
enum Closed {
    /// Since this request.
    Now(Workspace),
    /// Since an earlier one.
    Before(Workspace),
}

/// Closes a workspace, only an empty one if `empty`; again, if another change came before.
async fn close(desk: &Desk, caller: &Caller, id: &str, empty: bool) -> Result<Closed, Problem> {
    for _ in 0..TRIES_MAX {
        let StoredWorkspace { workspace, data_key } = desk.workspace(id).await?;
        if workspace.status == WorkspaceStatus::Deleting {
            return Ok(Closed::Before(workspace));
        }
        let revision = workspace.revision;
        let workspace = Workspace {
            status: WorkspaceStatus::Deleting,
            updated_at: now(),
            revision: revision + 1,
            ..workspace
        };
        let stored = StoredWorkspace { workspace, data_key };
        match desk.config.close_workspace(&stored, revision, empty, by(caller)).await? {
            Written::Done => return Ok(Closed::Now(stored.workspace)),
            Written::InUse if empty => return Err(Problem::WorkspaceInUse),
            Written::Stale => {}
            _ => return Err(Problem::Unavailable),
        }
    }
    Err(Problem::Unavailable)
}

/// Whether nothing is left of the workspace.
async fn taken_apart(desk: &Desk, workspace: &Workspace) -> Result<bool, AwsError> {
    let until = now() + AT_ONCE;
    while now() < until {
        if desk.config.take_apart(&workspace.id).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Leaves the rest to a job: the same one however often it is asked for.
async fn hand_over(desk: &Desk, workspace: &Workspace) -> Result<Job, Problem> {
    let id = job_of(workspace);
    let job = if let Some(job) = desk.config.job(&workspace.id, id).await? {
        job
    } else {
        let job = Job::new(id, (workspace.id.clone(), None), JobKind::DeleteWorkspace, now());
        // Another request may have made it in this moment.
        desk.config.put_job(&job).await?;
        job
    };
    jobs::send(desk, &job).await?;
    Ok(job)
}

/// The job that deletes a workspace, by the times at which that was made and closed, which do not change any more.
fn job_of(workspace: &Workspace) -> JobId {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&workspace.created_at.0.to_be_bytes());
    JobId::new(workspace.updated_at, bytes)
}
