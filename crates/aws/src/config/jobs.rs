//! Jobs, and how far they are.

use std::time::Duration;

use carillon_core::id::{JobId, WorkspaceId};
use carillon_core::job::{Job, JobKind, JobStatus};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, PUT, TABLE, partition, read};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;

/// How long a job can be asked for after it last went on.
const KEPT: Duration = Duration::from_hours(30 * 24);

impl ConfigTable {
    /// A job by its id. It outlives its workspace.
    pub async fn job(&self, workspace: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError> {
        self.get(self.job_key(workspace, job)).await?.map(job_of).transpose()
    }

    /// Writes how far a job is. The same step may be written twice.
    pub async fn put_job(&self, job: &Job) -> Result<(), AwsError> {
        let item = JobItem {
            keys: Keys::of(&self.job_key(&job.workspace, job.id)),
            id: job.id,
            workspace: job.workspace.clone(),
            kind: job.kind,
            state: job.status,
            done: job.done,
            created_at: job.created_at,
            updated_at: job.updated_at,
            expires_at: (job.updated_at + KEPT).as_secs(),
        };
        let item = serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?;
        let request = self.client.put_item().table_name(&self.table).set_item(Some(item));
        request.send().await.map_err(AwsError::call(PUT))?;
        Ok(())
    }

    fn job_key(&self, workspace: &WorkspaceId, job: JobId) -> Key {
        self.key(partition(workspace), format!("JOB#{job}"))
    }
}

#[derive(Serialize, Deserialize)]
struct JobItem {
    #[serde(flatten)]
    keys: Keys,
    id: JobId,
    workspace: WorkspaceId,
    kind: JobKind,
    state: JobStatus,
    done: u64,
    created_at: UnixMillis,
    updated_at: UnixMillis,
    expires_at: u64,
}

fn job_of(item: Item) -> Result<Job, AwsError> {
    let item: JobItem = read(item)?;
    item.keys.readable()?;
    Ok(Job {
        id: item.id,
        workspace: item.workspace,
        kind: item.kind,
        status: item.state,
        done: item.done,
        created_at: item.created_at,
        updated_at: item.updated_at,
    })
}
