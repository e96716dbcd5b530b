//! Redelivery of many: a step begins the new rounds of a page of a subscription's deliveries.

use carillon_core::job::{Job, Redelivery};
use carillon_core::subscription::Status;

use crate::ground::{Ground, NotDone};
use crate::work::{Step, Then};

pub(crate) async fn step(ground: &impl Ground, job: &Job, wanted: &Redelivery) -> Result<Step, NotDone> {
    match ground.subscription(&job.workspace, wanted.subscription).await? {
        None => return Ok(Step::none(Then::Completed)),
        // Each round would fail as it begins, and why it had failed before would be forgotten.
        Some(subscription) if matches!(subscription.status, Status::Disabled(_)) => {
            return Ok(Step::none(Then::Cancelled));
        }
        Some(_) => {}
    }
    let page = ground.redelivery_page(job, wanted).await?;
    let step = Step { done: page.found.len(), looked: page.looked, then: Then::behind(page.next) };
    ground.deliver(page.found).await?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use carillon_core::job::{Ended, JobKind, JobStatus, Redelivery, Which};
    use carillon_core::subscription::{DisabledBy, Status};

    use crate::ground::testing::{Fake, PAGE, later, subscription};
    use crate::work::work;

    fn kind() -> JobKind {
        let which = Which::Of { since: None, until: None, types: Vec::new() };
        JobKind::Redeliver(Redelivery { subscription: subscription().id, ended: Ended::Failed, which })
    }

    #[tokio::test]
    async fn every_delivery_is_sent_once_in_pages_at_a_pace() {
        let fake = Fake::with_events(kind(), 2 * PAGE + 1);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert!(fake.is_completed());
        assert_eq!(fake.delivered(), (0..=2 * PAGE).collect::<Vec<_>>());
        let job = fake.job.borrow();
        assert_eq!((job.done, job.looked), (2 * PAGE as u64 + 1, 2 * PAGE as u64 + 1));
        assert_eq!(fake.pauses.get(), 2, "after each page but the last");
    }

    #[tokio::test]
    async fn whoever_goes_on_after_a_crash_misses_nothing() {
        let fake = Fake::with_events(kind(), 3 * PAGE);
        // The second page is sent, and then the function dies.
        fake.dies_at_revision.set(Some(3));
        assert!(work(&fake, &fake.task(), later()).await.is_err());
        assert_eq!(fake.delivered().len(), 2 * PAGE);
        fake.dies_at_revision.set(None);
        work(&fake, &fake.task(), later()).await.unwrap();
        let mut delivered = fake.delivered();
        assert_eq!(delivered.len(), 4 * PAGE, "one page was sent twice");
        delivered.sort_unstable();
        delivered.dedup();
        assert_eq!(delivered, (0..3 * PAGE).collect::<Vec<_>>());
        assert_eq!(fake.job.borrow().done, 3 * PAGE as u64, "what was not written down is not counted");
    }

    #[tokio::test]
    async fn what_could_not_be_sent_is_sent_again() {
        let fake = Fake::with_events(kind(), PAGE);
        fake.failing.set(true);
        assert!(work(&fake, &fake.task(), later()).await.is_err());
        assert_eq!(fake.job.borrow().revision, 1, "nothing is written before it is sent");
    }

    #[tokio::test]
    async fn a_job_that_is_cancelled_ends_within_a_page() {
        let fake = Fake::with_events(kind(), 3 * PAGE);
        fake.cancelled_at_revision.set(Some(3));
        work(&fake, &fake.task(), later()).await.unwrap();
        assert_eq!(fake.delivered().len(), 2 * PAGE);
        assert_eq!(fake.job.borrow().status, JobStatus::Cancelled);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert_eq!(fake.delivered().len(), 2 * PAGE);
    }

    #[tokio::test]
    async fn nothing_is_sent_for_a_subscription_that_is_gone_or_disabled() {
        let fake = Fake::with_events(kind(), PAGE);
        fake.subscription.borrow_mut().as_mut().unwrap().status = Status::Disabled(DisabledBy::Owner);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert_eq!(fake.job.borrow().status, JobStatus::Cancelled);
        let fake = Fake::with_events(kind(), PAGE);
        fake.subscription.take();
        work(&fake, &fake.task(), later()).await.unwrap();
        assert!(fake.is_completed() && fake.delivered().is_empty());
    }
}
