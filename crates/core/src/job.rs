//! Jobs: work that is too long for an answer, done in steps, each of which may be done twice.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, WorkspaceId};
use crate::time::UnixMillis;

/// The version of the job queue's messages that this release writes.
pub const VERSION: u32 = 1;

/// Work on a workspace, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// On what.
    pub workspace: WorkspaceId,
    /// What is to be done.
    pub kind: JobKind,
    /// How far it is.
    pub status: JobStatus,
    /// How many things are done: of a deletion, the subscriptions that are gone.
    pub done: u64,
    /// When it was asked for.
    pub created_at: UnixMillis,
    /// When it last went on.
    pub updated_at: UnixMillis,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobKind {
    /// Takes a workspace apart, with all that belongs to it.
    DeleteWorkspace,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobStatus {
    /// Asked for.
    Queued,
    /// Begun.
    Running,
    /// Done.
    Completed,
}

/// A message of the job queue: work on this job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTask {
    /// [`VERSION`]
    v: u32,
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Which job.
    pub job: JobId,
}

/// Why a text is no task.
#[derive(Debug, thiserror::Error)]
pub enum JobTaskError {
    /// No JSON, or not of the task's shape.
    #[error("the task does not have the shape of its version: {0}")]
    Shape(#[from] serde_json::Error),
    /// Written by a release that this one does not know.
    #[error("the task has version {0}, this release reads {VERSION}")]
    Version(u32),
}

impl JobTask {
    /// The task of a job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { v: VERSION, workspace: job.workspace.clone(), job: job.id }
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String, JobTaskError> {
        Ok(serde_json::to_string(self)?)
    }

    /// From JSON.
    pub fn from_json(text: &str) -> Result<Self, JobTaskError> {
        let task: Self = serde_json::from_str(text)?;
        if task.v == VERSION { Ok(task) } else { Err(JobTaskError::Version(task.v)) }
    }
}
