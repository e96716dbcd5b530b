//! Work on a job, step by step, until it is done or time runs short.

use carillon_aws::config::ConfigTable;
use carillon_aws::environment::setting;
use carillon_aws::error::AwsError;
use carillon_aws::queue::{Message, Queue};
use carillon_aws::{DynamoDb, Sqs, now, sdk_config};
use carillon_core::id::{JobId, WorkspaceId};
use carillon_core::job::{Job, JobKind, JobStatus, JobTask, JobTaskError};
use carillon_core::time::UnixMillis;
use carillon_core::workspace::WorkspaceStatus;

/// What jobs are done on.
pub(crate) trait Ground {
    /// A job, if it is still known.
    async fn job(&self, workspace: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError>;
    /// Writes how far a job is.
    async fn put_job(&self, job: &Job) -> Result<(), AwsError>;
    /// Whether a workspace is there and to be deleted.
    async fn is_closed(&self, workspace: &WorkspaceId) -> Result<bool, AwsError>;
    /// A step of taking it apart: how many subscriptions went; `None` when nothing is left.
    async fn take_apart(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError>;
    /// Sends a task.
    async fn send(&self, task: &JobTask) -> Result<(), NotDone>;
}

/// Why a task must come again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    /// AWS did not do what it was asked for.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The task cannot be written.
    #[error(transparent)]
    Task(#[from] JobTaskError),
}

/// The stack's tables and queues.
pub(crate) struct Stack {
    config: ConfigTable,
    jobs: Queue,
}

impl Stack {
    pub(crate) async fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let sdk = sdk_config().await;
        Ok(Self {
            config: ConfigTable::new(DynamoDb::new(&sdk), setting("CONFIG_TABLE")?),
            jobs: Queue::new(Sqs::new(&sdk), setting("JOB_QUEUE_URL")?),
        })
    }
}

/// Works on the job of a task until `until`; what is left then is the next task's. The same task twice does no harm.
pub(crate) async fn work(ground: &impl Ground, task: &JobTask, until: UnixMillis) -> Result<(), NotDone> {
    let Some(mut job) = ground.job(&task.workspace, task.job).await? else {
        tracing::warn!(job = %task.job, "a task of a job that is not known any more");
        return Ok(());
    };
    while job.status != JobStatus::Completed {
        job = step(ground, job).await?;
        ground.put_job(&job).await?;
        tracing::info!(job = %job.id, status = ?job.status, done = job.done, "a step");
        // After a step, not before it: every task brings its job on.
        if job.status != JobStatus::Completed && now() >= until {
            return ground.send(task).await;
        }
    }
    Ok(())
}

/// The job as it is after another step.
async fn step(ground: &impl Ground, job: Job) -> Result<Job, AwsError> {
    let went = match job.kind {
        // A workspace that is open was made anew under the id, and is none of this job's business.
        JobKind::DeleteWorkspace if ground.is_closed(&job.workspace).await? => {
            ground.take_apart(&job.workspace).await?
        }
        JobKind::DeleteWorkspace => None,
    };
    let status = if went.is_some() { JobStatus::Running } else { JobStatus::Completed };
    Ok(Job { status, done: job.done + went.unwrap_or_default(), updated_at: now(), ..job })
}

impl Ground for Stack {
    async fn job(&self, workspace: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError> {
        self.config.job(workspace, job).await
    }

    async fn put_job(&self, job: &Job) -> Result<(), AwsError> {
        self.config.put_job(job).await
    }

    async fn is_closed(&self, workspace: &WorkspaceId) -> Result<bool, AwsError> {
        let stored = self.config.workspace(workspace).await?;
        Ok(stored.is_some_and(|stored| stored.workspace.status == WorkspaceStatus::Deleting))
    }

    async fn take_apart(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError> {
        self.config.take_apart(workspace).await
    }

    async fn send(&self, task: &JobTask) -> Result<(), NotDone> {
        let message = Message { body: task.to_json()?, group: task.workspace.to_string(), delay_seconds: 0 };
        for sent in self.jobs.send(vec![message]).await {
            sent?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A workspace in memory.
    pub(crate) struct Fake {
        pub(super) job: RefCell<Job>,
        pub(super) subscriptions: Cell<u64>,
        pub(super) closed: Cell<bool>,
        pub(super) failing: Cell<bool>,
        pub(super) sent: RefCell<Vec<JobTask>>,
    }

    impl Fake {
        pub(crate) fn with_subscriptions(subscriptions: u64) -> Self {
            let job = Job {
                id: JobId::new(UnixMillis(1), [0; 10]),
                workspace: "acme".parse().unwrap(),
                kind: JobKind::DeleteWorkspace,
                status: JobStatus::Queued,
                done: 0,
                created_at: UnixMillis(1),
                updated_at: UnixMillis(1),
            };
            Self {
                job: RefCell::new(job),
                subscriptions: Cell::new(subscriptions),
                closed: Cell::new(true),
                failing: Cell::new(false),
                sent: RefCell::default(),
            }
        }

        pub(crate) fn task(&self) -> JobTask {
            JobTask::of(&self.job.borrow())
        }

        pub(crate) fn is_completed(&self) -> bool {
            self.job.borrow().status == JobStatus::Completed
        }
    }

    impl Ground for Fake {
        async fn job(&self, _: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError> {
            Ok(Some(self.job.borrow().clone()).filter(|known| known.id == job))
        }

        async fn put_job(&self, job: &Job) -> Result<(), AwsError> {
            self.job.replace(job.clone());
            Ok(())
        }

        async fn is_closed(&self, _: &WorkspaceId) -> Result<bool, AwsError> {
            Ok(self.closed.get())
        }

        async fn take_apart(&self, _: &WorkspaceId) -> Result<Option<u64>, AwsError> {
            if self.failing.get() {
                return Err(AwsError::Conflict { operation: "test" });
            }
            let left = self.subscriptions.get();
            let went = left.min(100);
            self.subscriptions.set(left - went);
            Ok((went > 0).then_some(went))
        }

        async fn send(&self, task: &JobTask) -> Result<(), NotDone> {
            self.sent.borrow_mut().push(task.clone());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::testing::Fake;
    use super::*;

    fn later() -> UnixMillis {
        now() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_job_is_worked_off_and_counted() {
        let fake = Fake::with_subscriptions(250);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert!(fake.is_completed() && fake.sent.borrow().is_empty());
        assert_eq!((fake.job.borrow().done, fake.subscriptions.get()), (250, 0));
    }

    #[tokio::test]
    async fn a_task_that_comes_twice_does_no_harm() {
        let fake = Fake::with_subscriptions(1);
        work(&fake, &fake.task(), later()).await.unwrap();
        fake.subscriptions.set(7);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert_eq!((fake.job.borrow().done, fake.subscriptions.get()), (1, 7));
    }

    #[tokio::test]
    async fn what_is_left_when_time_runs_short_is_the_next_tasks() {
        let fake = Fake::with_subscriptions(250);
        work(&fake, &fake.task(), now()).await.unwrap();
        assert_eq!(*fake.sent.borrow(), [fake.task()]);
        assert_eq!((fake.job.borrow().done, fake.subscriptions.get()), (100, 150));
    }

    #[tokio::test]
    async fn a_workspace_that_was_made_anew_is_left_alone() {
        let fake = Fake::with_subscriptions(250);
        fake.closed.set(false);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert_eq!(fake.subscriptions.get(), 250);
        assert!(fake.is_completed());
    }

    #[tokio::test]
    async fn a_job_that_is_not_known_asks_for_nothing() {
        let (fake, other) = (Fake::with_subscriptions(1), Fake::with_subscriptions(1));
        other.job.borrow_mut().id = JobId::new(UnixMillis(2), [0; 10]);
        work(&fake, &other.task(), later()).await.unwrap();
        assert_eq!(fake.subscriptions.get(), 1);
    }

    #[tokio::test]
    async fn a_fault_lets_the_task_come_again() {
        let fake = Fake::with_subscriptions(1);
        fake.failing.set(true);
        assert!(work(&fake, &fake.task(), later()).await.is_err());
        fake.failing.set(false);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert!(fake.is_completed());
    }
}
