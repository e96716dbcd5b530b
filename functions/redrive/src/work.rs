//! Work on a job, step by step, until it is done or time runs short.
//!
//! A step sends a page and only then writes where the job goes on, so that nothing is missed by whoever goes on after a
//! crash; what is sent twice does no harm. Of two workers of one job the first to write goes on, and so does a client that
//! cancels it: the other one finds that and ends.

use std::time::Duration;

use carillon_aws::now;
use carillon_core::job::{Cursor, Job, JobKind, JobStatus, JobTask};
use carillon_core::time::UnixMillis;

use crate::ground::{Ground, NotDone};
use crate::{deletion, fanning, redelivery, replay};

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// How many things it did.
    pub(crate) done: usize,
    /// How many it looked at.
    pub(crate) looked: usize,
    /// What is left.
    pub(crate) then: Then,
}

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Another one, from here on.
    GoOn(Option<Cursor>),
    /// Nothing: all is done, or there is nothing any more that could be done.
    Completed,
    /// Nothing, though not all is done.
    Cancelled,
}

impl Step {
    /// One that did nothing.
    pub(crate) fn none(then: Then) -> Self {
        Self { done: 0, looked: 0, then }
    }
}

impl Then {
    /// What follows a page.
    pub(crate) fn behind(next: Option<Cursor>) -> Self {
        next.map_or(Self::Completed, |next| Self::GoOn(Some(next)))
    }
}

/// Works on the job of a task until `until`; what is left then is the next task's. The same task twice does no harm.
pub(crate) async fn work(ground: &impl Ground, task: &JobTask, until: UnixMillis) -> Result<(), NotDone> {
    let Some(mut job) = ground.job(&task.workspace, task.job).await? else {
        tracing::warn!(job = %task.job, "a task of a job that is not known any more");
        return Ok(());
    };
    while job.status.is_open() {
        let began = now();
        let step = step(ground, &job).await?;
        job = after(job, step);
        if !ground.put_job(&job).await? {
            tracing::info!(job = %job.id, "somebody else has changed the job, and goes on with it if it goes on");
            return Ok(());
        }
        tracing::info!(job = %job.id, kind = job.kind.name(), status = ?job.status, done = job.done, "a step");
        if !job.status.is_open() {
            break;
        }
        // After a step, not before it: every task brings its job on.
        if now() >= until {
            return ground.send(task).await;
        }
        let pause = pause(step.done, ground.tasks_per_second(), now().since(began));
        if !pause.is_zero() && job.kind != JobKind::DeleteWorkspace {
            ground.pause(pause).await;
        }
    }
    Ok(())
}

async fn step(ground: &impl Ground, job: &Job) -> Result<Step, NotDone> {
    match &job.kind {
        JobKind::DeleteWorkspace => deletion::step(ground, job).await,
        JobKind::Redeliver(wanted) => redelivery::step(ground, job, wanted).await,
        JobKind::Replay(wanted) => replay::step(ground, job, wanted).await,
        JobKind::FanOut(span) => fanning::step(ground, job, *span).await,
    }
}

/// The job as it is after a step.
fn after(job: Job, step: Step) -> Job {
    let count = |more: usize| u64::try_from(more).unwrap_or(u64::MAX);
    let (status, cursor) = match step.then {
        Then::GoOn(cursor) => (JobStatus::Running, cursor),
        Then::Completed => (JobStatus::Completed, job.cursor),
        Then::Cancelled => (JobStatus::Cancelled, job.cursor),
    };
    Job {
        status,
        cursor,
        done: job.done.saturating_add(count(step.done)),
        looked: job.looked.saturating_add(count(step.looked)),
        revision: job.revision + 1,
        updated_at: now(),
        ..job
    }
}

/// How long to wait after a step that took so long, so that no more tasks than these are sent in a second.
fn pause(sent: usize, tasks_per_second: u32, took: Duration) -> Duration {
    let sent = u32::try_from(sent).unwrap_or(u32::MAX);
    (Duration::from_secs(1) * sent / tasks_per_second.max(1)).saturating_sub(took)
}

#[cfg(test)]
mod tests {
    use carillon_core::id::JobId;

    use super::*;
    use crate::ground::testing::{Fake, later};

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

    #[tokio::test]
    async fn each_step_is_a_revision() {
        let fake = Fake::with_subscriptions(250);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert_eq!(
            fake.job.borrow().revision,
            1 + 4,
            "three steps with something to do, and the one that finds nothing"
        );
    }

    #[test]
    fn pages_keep_to_the_pace() {
        let millis = Duration::from_millis;
        assert_eq!(pause(100, 200, millis(120)), millis(380));
        assert_eq!(pause(100, 200, millis(900)), Duration::ZERO);
        assert_eq!(pause(0, 200, Duration::ZERO), Duration::ZERO);
        assert_eq!(pause(1, 0, Duration::ZERO), Duration::from_secs(1));
    }
}
