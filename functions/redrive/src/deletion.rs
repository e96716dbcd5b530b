//! The deletion of a workspace: a step takes some of it apart.

use carillon_core::job::Job;

use crate::ground::{Ground, NotDone};
use crate::work::{Step, Then};

pub(crate) async fn step(ground: &impl Ground, job: &Job) -> Result<Step, NotDone> {
    // A workspace that is open was made anew under the id, and is none of this job's business.
    if !ground.is_closed(&job.workspace).await? {
        return Ok(Step::none(Then::Completed));
    }
    let Some(went) = ground.take_apart(&job.workspace).await? else {
        return Ok(Step::none(Then::Completed));
    };
    let went = usize::try_from(went).unwrap_or(usize::MAX);
    Ok(Step { done: went, looked: went, then: Then::GoOn(None) })
}

#[cfg(test)]
mod tests {
    use carillon_aws::now;

    use crate::ground::testing::{Fake, later};
    use crate::work::work;

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
}
