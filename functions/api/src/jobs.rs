//! `/v1/workspaces/{workspace}/jobs`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::Page;
use carillon_aws::now;
use carillon_aws::queue::Message;
use carillon_core::id::{JobId, SubscriptionId, WorkspaceId};
use carillon_core::job::{Job, JobStatus, JobTask};
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::StatusCode;
use http::header::LOCATION;
use serde::Serialize;
use utoipa::ToSchema;

use crate::desk::{Desk, List, ListQuery};
use crate::problems::Common;

/// How often a cancellation is tried again that a step of the job came before.
const TRIES_MAX: usize = 5;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list)).routes(routes!(read)).routes(routes!(cancel))
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
    /// Which subscription it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "sub_06h02h91rss6dfwpq1vvgwp3d8")]
    subscription: Option<SubscriptionId>,
    /// What is to be done.
    #[schema(value_type = KindShown)]
    kind: &'static str,
    /// How far it is.
    #[schema(value_type = StatusShown)]
    status: JobStatus,
    /// How many things are done: of a deletion, the subscriptions that are gone; of a redelivery or replay, the deliveries
    /// that were asked for; of a fan-out, the events.
    done: u64,
    /// How many deliveries or events were looked at for that.
    looked: u64,
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
    /// Delivers again what has ended.
    Redeliver,
    /// Delivers what a subscription never got.
    Replay,
    /// Fans events out again.
    FanOut,
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
    /// Ended before it was done.
    Cancelled,
}

impl From<Job> for Shown {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            subscription: job.kind.subscription(),
            kind: job.kind.name(),
            workspace: job.workspace,
            status: job.status,
            done: job.done,
            looked: job.looked,
            created_at: job.created_at,
            updated_at: job.updated_at,
        }
    }
}

/// List jobs
///
/// Those about whole workspaces are shown to administrators alone, those about subscriptions to whoever may know of the
/// subscription.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/jobs",
    operation_id = "listJobs",
    tag = "jobs",
    params(("workspace" = String, Path, description = "The workspace's id"), ListQuery),
    responses(
        (
            status = 200,
            description = "A page of them, the newest first. It may have fewer than `limit` though there is a `next`",
            body = List<Shown>,
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(page): Query<ListQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let (limit, after) = (page.count()?, page.after()?);
    // Jobs outlive their workspace.
    let workspace: WorkspaceId = workspace.parse().map_err(|_| Problem::NotFound)?;
    let wanted = |job: &Job| is_for(&caller, job);
    let found: Page<Job> = desk.config.jobs(&workspace, limit, after, now(), wanted).await?;
    Ok(Json(List::of(found, Shown::from)))
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
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(find(&desk, &caller, &path).await?.into()))
}

/// Cancel a job
///
/// It ends after the page that it is at. What it has done stays done.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/jobs/{job}/cancel",
    operation_id = "cancelJob",
    tag = "jobs",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("job" = String, Path, description = "The job's id"),
    ),
    responses(
        (status = 200, description = "Cancelled, now or before", body = Shown),
        (status = 409, description = "It has ended, or cannot be cancelled", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn cancel(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    for _ in 0..TRIES_MAX {
        let job = find(&desk, &caller, &path).await?;
        if job.status == JobStatus::Cancelled {
            return Ok(Json(job.into()));
        }
        if !job.status.is_open() || !job.kind.can_be_cancelled() {
            return Err(Problem::JobNotCancellable);
        }
        let cancelled = job.cancelled(now());
        if desk.config.put_job(&cancelled).await? {
            return Ok(Json(cancelled.into()));
        }
    }
    Err(Problem::Unavailable)
}

/// Asks for a new job; the answer says where it is.
pub(crate) async fn begin(desk: &Desk, job: Job) -> Result<Response, Problem> {
    if !desk.config.put_job(&job).await? {
        // An id that exists is not for us to give out.
        return Err(Problem::Unavailable);
    }
    if let Err(problem) = send(desk, &job).await {
        // Nobody will work on it, and nobody is to think so.
        desk.config.put_job(&job.cancelled(now())).await?;
        return Err(problem);
    }
    Ok(accepted(job))
}

/// The answer that names a job.
pub(crate) fn accepted(job: Job) -> Response {
    let location = format!("/v1/workspaces/{}/jobs/{}", job.workspace, job.id);
    (StatusCode::ACCEPTED, [(LOCATION, location)], Json(Shown::from(job))).into_response()
}

/// Has a job worked on.
pub(crate) async fn send(desk: &Desk, job: &Job) -> Result<(), Problem> {
    let body = JobTask::of(job).to_json().map_err(|error| {
        tracing::error!(%error, job = %job.id, "a task cannot be written");
        Problem::Unavailable
    })?;
    let message = Message { body, group: job.workspace.to_string(), delay_seconds: 0 };
    for sent in desk.jobs.send(vec![message]).await {
        sent?;
    }
    Ok(())
}

/// A job that the caller may know of.
async fn find(desk: &Desk, caller: &Caller, (workspace, job): &(String, String)) -> Result<Job, Problem> {
    let workspace: WorkspaceId = workspace.parse().map_err(|_| Problem::NotFound)?;
    let job: JobId = job.parse().map_err(|_| Problem::NotFound)?;
    let job = desk.config.job(&workspace, job).await?;
    job.filter(|job| is_for(caller, job)).ok_or(Problem::NotFound)
}

/// Whether a caller may know of a job.
fn is_for(caller: &Caller, job: &Job) -> bool {
    match (caller.subscriber(), &job.subscriber) {
        (Some(bound), Some(subscriber)) => bound == subscriber,
        (Some(_), None) => false,
        (None, Some(_)) => true,
        (None, None) => caller.admin,
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::access::Role;
    use carillon_core::job::{Ended, JobKind, Redelivery, Span, Which};

    use super::*;

    const THEN: UnixMillis = UnixMillis(1_795_339_800_000);

    fn job(kind: JobKind, subscriber: Option<&str>) -> Job {
        let subscriber = subscriber.map(|text| text.parse().unwrap());
        Job::new(JobId::new(THEN, [7; 10]), ("acme".parse().unwrap(), subscriber), kind, THEN)
    }

    fn redelivery() -> JobKind {
        let which = Which::These(Vec::new());
        let subscription = SubscriptionId::new(THEN, [7; 10]);
        JobKind::Redeliver(Redelivery { subscription, ended: Ended::Failed, which })
    }

    fn caller(admin: bool, role: Option<Role>) -> Caller {
        Caller { client: "c".parse().unwrap(), admin, role }
    }

    #[test]
    fn jobs_are_shown_to_whom_they_concern() {
        let of_subscription = job(redelivery(), Some("tpp-1"));
        let of_workspace = job(JobKind::FanOut(Span { since: THEN, until: THEN }), None);
        let bound = |name: &str| caller(false, Some(Role::Subscriber(name.parse().unwrap())));
        for (caller, sees) in [
            (caller(true, None), (true, true)),
            (caller(false, Some(Role::Owner)), (true, false)),
            (caller(false, Some(Role::Support)), (true, false)),
            (bound("tpp-1"), (true, false)),
            (bound("tpp-2"), (false, false)),
        ] {
            assert_eq!(
                (is_for(&caller, &of_subscription), is_for(&caller, &of_workspace)),
                sees,
                "{caller:?}"
            );
        }
    }

    #[test]
    fn a_job_is_shown_without_what_it_goes_by() {
        let shown = serde_json::to_value(Shown::from(job(redelivery(), Some("tpp-1")))).unwrap();
        assert_eq!((&shown["kind"], &shown["status"]), (&"redeliver".into(), &"queued".into()));
        assert!(shown["subscription"].is_string() && shown.get("cursor").is_none());
        let shown = serde_json::to_value(Shown::from(job(JobKind::DeleteWorkspace, None))).unwrap();
        assert!(shown.get("subscription").is_none());
        assert_eq!(shown["kind"], "deleteWorkspace");
    }
}
