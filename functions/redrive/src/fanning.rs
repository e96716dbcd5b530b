//! Fan-out again: a step has a page of events expanded over all subscriptions. What they have led to before is dropped
//! where it is delivered.

use carillon_core::job::{Job, Span};
use carillon_core::matching::Range;
use carillon_core::task::ExpansionTask;

use crate::ground::{Ground, NotDone};
use crate::work::{Step, Then};

pub(crate) async fn step(ground: &impl Ground, job: &Job, span: Span) -> Result<Step, NotDone> {
    if !ground.is_open(&job.workspace).await? {
        return Ok(Step::none(Then::Completed));
    }
    let page = ground.events_page(job, span).await?;
    let step = Step { done: page.found.len(), looked: page.looked, then: Then::behind(page.next) };
    // By reference: whom an event is for is read with it.
    let task = |event| ExpansionTask { event, audience: None, range: Range::default() };
    ground.expand(page.found.into_iter().map(task).collect()).await?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use carillon_core::job::{JobKind, Span};
    use carillon_core::matching::Range;
    use carillon_core::time::UnixMillis;

    use crate::ground::testing::{Fake, PAGE, later};
    use crate::work::work;

    #[tokio::test]
    async fn every_event_is_expanded_by_reference_over_all_subscriptions() {
        let span = Span { since: UnixMillis(0), until: UnixMillis(u64::MAX) };
        let fake = Fake::with_events(JobKind::FanOut(span), 2 * PAGE + 1);
        fake.closed.set(false);
        work(&fake, &fake.task(), later()).await.unwrap();
        let expanded = fake.expanded.borrow();
        assert_eq!(expanded.len(), 2 * PAGE + 1);
        assert!(expanded.iter().all(|task| task.event.json.is_none() && task.range == Range::default()));
        assert_eq!(fake.job.borrow().done, 2 * PAGE as u64 + 1);
    }

    #[tokio::test]
    async fn the_events_of_a_workspace_that_is_being_deleted_are_nobodys() {
        let span = Span { since: UnixMillis(0), until: UnixMillis(u64::MAX) };
        let fake = Fake::with_events(JobKind::FanOut(span), 1);
        fake.closed.set(true);
        work(&fake, &fake.task(), later()).await.unwrap();
        assert!(fake.is_completed() && fake.expanded.borrow().is_empty());
    }
}
