//! Whom an event concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::AcceptedEvent;
use crate::id::{SubscriberId, SubscriptionId};
use crate::operational;
use crate::time::UnixMillis;

/// How far the clocks of two functions may lie apart. A subscription whose creation was answered before an event was
/// accepted must get it; one that is a moment too young and gets it all the same does no harm.
pub const CLOCK_SKEW: Duration = Duration::from_millis(500);

/// The most delivery tasks that one step of fan-out makes; an event with more matches becomes expansion tasks.
pub const EXPANSION_SIZE: usize = 500;

/// How many matches each of those expansion tasks has: few enough to be done in a moment, since one that is cut off begins
/// anew.
pub const PART_SIZE: usize = 100;

/// What fan-out knows of a subscription: stored once for each of its patterns, read by the pattern's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchRow {
    /// Whose row it is.
    pub subscription: SubscriptionId,
    /// Whose subscription it is: an event with an audience is for those alone that it names.
    pub subscriber: SubscriberId,
    /// Whether a filter has the last word.
    pub filtered: bool,
    /// Events that were accepted before it are none of its concern.
    pub created_at: UnixMillis,
}

/// A range of subscriptions in the order of their ids: those after `after`, up to and including `up_to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Exclusive lower end; from the first one if absent.
    pub after: Option<SubscriptionId>,
    /// Inclusive upper end; to the last one if absent.
    pub up_to: Option<SubscriptionId>,
}

/// What is to be enqueued for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// A delivery task for each of these.
    Deliveries(Vec<SubscriptionId>),
    /// An expansion task for each of these ranges, since there are too many matches for one step.
    Ranges(Vec<Range>),
}

/// The subscriptions in `range` that get the event, each once, in the order of their ids, with whether that is up to
/// their filters. `rows` are those of every pattern that matches the event's type. An operational event is not for the
/// subscription that it is about.
pub fn matches<'a>(
    event: &AcceptedEvent,
    rows: impl IntoIterator<Item = &'a MatchRow>,
    range: Range,
) -> BTreeMap<SubscriptionId, bool> {
    let itself = operational::about(event);
    let addressed =
        |row: &MatchRow| event.audience.as_ref().is_none_or(|audience| audience.contains(&row.subscriber));
    rows.into_iter()
        .filter(|row| range.contains(row.subscription) && row.created_at <= event.accepted_at + CLOCK_SKEW)
        .filter(|row| addressed(row) && Some(row.subscription) != itself)
        .map(|row| (row.subscription, row.filtered))
        .collect()
}

/// Splits the matches within a range into what one step can do. The new ranges together cover all ids of the old one, so
/// that whatever is matched when they are worked off belongs to one of them.
#[must_use]
pub fn expand(matches: BTreeSet<SubscriptionId>, within: Range) -> Expansion {
    if matches.len() <= EXPANSION_SIZE {
        return Expansion::Deliveries(matches.into_iter().collect());
    }
    let ends: Vec<_> = matches.into_iter().skip(PART_SIZE - 1).step_by(PART_SIZE).collect();
    let afters = std::iter::once(within.after).chain(ends.iter().copied().map(Some));
    let up_tos = ends.iter().copied().map(Some).chain(std::iter::once(within.up_to));
    Expansion::Ranges(afters.zip(up_tos).map(|(after, up_to)| Range { after, up_to }).collect())
}

impl Range {
    fn contains(&self, id: SubscriptionId) -> bool {
        self.after.is_none_or(|after| id > after) && self.up_to.is_none_or(|up_to| id <= up_to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn event(accepted_at: u64) -> AcceptedEvent {
        let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        Event::from_structured(json).unwrap().accepted("acme".parse().unwrap(), UnixMillis(accepted_at))
    }

    fn row(id: u64, created_at: u64) -> MatchRow {
        MatchRow {
            subscription: SubscriptionId::new(UnixMillis(id), [0; 10]),
            subscriber: format!("tpp-{}", id % 3).parse().unwrap(),
            filtered: false,
            created_at: UnixMillis(created_at),
        }
    }

    fn ids(rows: &[MatchRow], range: Range) -> BTreeSet<SubscriptionId> {
        matches(&event(0), rows, range).into_keys().collect()
    }

    #[test]
    fn a_subscription_of_several_matching_patterns_gets_an_event_once() {
        assert_eq!(matches(&event(9), &[row(1, 0), row(2, 0), row(1, 0)], Range::default()).len(), 2);
    }

    #[test]
    fn an_event_with_an_audience_is_for_nobody_else() {
        let rows: Vec<_> = (0..9).map(|id| row(id, 0)).collect();
        let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","audience":"tpp-1, tpp-7"}"#;
        let event = Event::from_structured(json).unwrap().accepted("acme".parse().unwrap(), UnixMillis(0));
        let matching: Vec<_> = matches(&event, &rows, Range::default()).into_keys().collect();
        assert_eq!(matching, [1, 4, 7].map(|id| row(id, 0).subscription));
        assert!(!event.json.contains("tpp"), "no subscriber learns of the others");
    }

    #[test]
    fn a_later_subscription_does_not_get_an_earlier_event() {
        let rows = [row(1, 10_000), row(2, 10_000 + 500), row(3, 10_000 + 501)];
        assert_eq!(matches(&event(10_000), &rows, Range::default()).len(), 2);
    }

    proptest! {
        /// Whatever else is created or deleted between the split and the work on its ranges: each subscription that is
        /// there at the work is found in exactly one range.
        #[test]
        fn ranges_cover_all_and_do_not_overlap(
            at_split in 501_u64..2500,
            later in prop::collection::btree_set(0_u64..4000, 0..50),
        ) {
            let rows: Vec<_> = (0..at_split).map(|id| row(id * 3 / 2, 0)).collect();
            let within = Range { after: None, up_to: Some(row(3900, 0).subscription) };
            let Expansion::Ranges(ranges) = expand(ids(&rows, within), within) else {
                return Err(TestCaseError::fail("more than one step can do"));
            };
            let now: Vec<_> = rows.iter().step_by(2).cloned().chain(later.into_iter().map(|id| row(id, 0))).collect();
            let found: Vec<_> = ranges.iter().flat_map(|range| ids(&now, *range)).collect();
            let all: Vec<_> = ids(&now, within).into_iter().collect();
            prop_assert_eq!(found, all);
            for range in ranges {
                prop_assert!(matches(&event(0), &rows, range).len() <= PART_SIZE);
            }
        }
    }
}
