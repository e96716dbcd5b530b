//! Replay: a step sends a subscription what it never got of a page of events.

use carillon_core::job::{Job, Replay};
use carillon_core::subscription::Status;
use carillon_filter::Matcher;

use crate::ground::{Ground, NotDone};
use crate::work::{Step, Then};

pub(crate) async fn step(ground: &impl Ground, job: &Job, wanted: &Replay) -> Result<Step, NotDone> {
    let Some(subscription) = ground.subscription(&job.workspace, wanted.subscription).await? else {
        return Ok(Step::none(Then::Completed));
    };
    // Each delivery would fail as it begins.
    if matches!(subscription.status, Status::Disabled(_)) {
        return Ok(Step::none(Then::Cancelled));
    }
    let matcher = Matcher::of(&subscription);
    let page = ground.replay_page(job, wanted, &matcher).await?;
    let step = Step { done: page.found.len(), looked: page.looked, then: Then::behind(page.next) };
    ground.deliver(page.found).await?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use carillon_core::job::{JobKind, Replay, Span};
    use carillon_core::time::UnixMillis;

    use crate::ground::testing::{Fake, PAGE, later, subscription};
    use crate::work::work;

    fn kind() -> JobKind {
        let span = Span { since: UnixMillis(0), until: UnixMillis(u64::MAX) };
        JobKind::Replay(Replay { subscription: subscription().id, span })
    }

    #[tokio::test]
    async fn what_matches_now_is_sent() {
        let fake = Fake::with_events(kind(), 2 * PAGE);
        work(&fake, &fake.task(), later()).await.unwrap();
        // Every other event is of a type that the subscription asks for.
        let even: Vec<_> = (0..2 * PAGE).filter(|number| number % 2 == 0).collect();
        assert_eq!(fake.delivered(), even);
        let job = fake.job.borrow();
        assert_eq!((job.done, job.looked), (PAGE as u64, 2 * PAGE as u64));
    }

    #[tokio::test]
    async fn a_subscription_that_is_gone_gets_nothing() {
        let fake = Fake::with_events(kind(), PAGE);
        fake.subscription.take();
        work(&fake, &fake.task(), later()).await.unwrap();
        assert!(fake.is_completed() && fake.delivered().is_empty());
    }
}
