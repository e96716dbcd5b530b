//! Which subscriptions hold deliveries, as far as this process has noted it for the clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::schedule::ScheduleTable;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::retry::Pace;
use carillon_core::time::UnixMillis;

/// How many notes are remembered. Beyond it all are forgotten, which costs one write each.
const REMEMBERED_MAX: usize = 4096;

/// The notes that were written by this process, and when.
#[derive(Debug, Default)]
pub(crate) struct Holders(Mutex<HashMap<SubscriptionId, UnixMillis>>);

impl Holders {
    /// Makes sure that there is a note that the subscription holds deliveries, before one is held.
    ///
    /// The clock keeps a note for [`Pace::note_kept`] at least, and for as long as it finds something; one that was written
    /// a quarter of that ago outlives this run by far, so that many deliveries that are held one after the other need no
    /// note each.
    pub(crate) async fn note(
        &self,
        schedule: &ScheduleTable,
        (workspace, subscription): (&WorkspaceId, SubscriptionId),
        pace: &Pace,
    ) -> Result<(), AwsError> {
        let now = now();
        if self.has(subscription, now, pace.note_kept() / 4) {
            return Ok(());
        }
        schedule.note_held(workspace, subscription, now).await?;
        // Only now: one that could not be written is no note.
        self.remember(subscription, now);
        Ok(())
    }

    fn has(&self, subscription: SubscriptionId, now: UnixMillis, fresh: Duration) -> bool {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // By a clock that was set back, a note may be of any age.
        noted.get(&subscription).is_some_and(|at| *at <= now && now.since(*at) < fresh)
    }

    fn remember(&self, subscription: SubscriptionId, at: UnixMillis) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= REMEMBERED_MAX {
            noted.clear();
        }
        noted.insert(subscription, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_remembered_for_a_while_and_for_its_subscription_alone() {
        let (holders, fresh) = (Holders::default(), Duration::from_mins(5));
        let (one, other) =
            (SubscriptionId::new(UnixMillis(1), [1; 10]), SubscriptionId::new(UnixMillis(1), [2; 10]));
        let noted = UnixMillis(1_000_000);
        assert!(!holders.has(one, noted, fresh));
        holders.remember(one, noted);
        assert!(holders.has(one, noted + Duration::from_secs(299), fresh));
        assert!(!holders.has(one, noted + fresh, fresh));
        assert!(!holders.has(one, UnixMillis(noted.0 - 1), fresh), "the clock was set back");
        assert!(!holders.has(other, noted, fresh));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let holders = Holders::default();
        for number in 0..=u64::try_from(REMEMBERED_MAX).unwrap() {
            holders.remember(SubscriptionId::new(UnixMillis(number), [0; 10]), UnixMillis(1));
        }
        assert_eq!(holders.0.lock().unwrap().len(), 1);
    }
}
