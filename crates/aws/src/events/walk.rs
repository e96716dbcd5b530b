//! Events of a workspace in the order of time, merged over the shards of each hour.
//!
//! The index knows an event's time and its key. Events of the same millisecond stand in it in no order that could be gone
//! by from one page to the next, so they are put in the order of their digests: what was read of a millisecond counts once
//! all of it was read.

use std::cmp::Ordering;
use std::collections::VecDeque;

use aws_sdk_dynamodb::types::AttributeValue;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{EventDigest, EventKey, WorkspaceId};
use carillon_core::time::UnixMillis;
use futures::future::try_join_all;

use super::{EventItem, EventTable, HOUR_SECS, INDEX, TABLE, hour_pk};
use crate::SHARDS;
use crate::batch_read::{Item, batch_read};
use crate::deliveries::{Order, Place};
use crate::error::AwsError;

/// How many hours one step looks at, each in all its shards.
const HOURS_MAX: usize = 48;

/// The fewest keys that are asked of a shard at once.
const CHUNK_MIN: usize = 8;

const HOUR_MILLIS: u64 = HOUR_SECS * 1000;

/// A part of a workspace's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Which come first.
    pub order: Order,
    /// Those that were accepted then or later. What was accepted before the workspace was made is another's, who had its id.
    pub since: UnixMillis,
    /// Those that were accepted before.
    pub until: UnixMillis,
    /// Those behind this one, in their order.
    pub after: Option<Place>,
}

impl Walk {
    /// What is left of it behind this place.
    #[must_use]
    pub fn behind(self, place: Place) -> Self {
        Self { after: Some(place), ..self }
    }

    /// The first and the last moment that it takes in; `None`: it takes in nothing.
    fn span(&self) -> Option<(UnixMillis, UnixMillis)> {
        let last = UnixMillis(self.until.0.checked_sub(1)?);
        let (first, last) = match (self.order, self.after) {
            (_, None) => (self.since, last),
            (Order::Oldest, Some(after)) => (self.since.max(after.accepted_at), last),
            (Order::Newest, Some(after)) => (self.since, last.min(after.accepted_at)),
        };
        (first <= last).then_some((first, last))
    }

    /// Whether a place lies ahead.
    fn is_ahead(&self, place: Place) -> bool {
        self.after.is_none_or(|after| self.compare(after, place) == Ordering::Less)
    }

    fn compare(&self, a: Place, b: Place) -> Ordering {
        match self.order {
            Order::Oldest => a.cmp(&b),
            Order::Newest => b.cmp(&a),
        }
    }
}

/// One shard of an hour: what was read of it, and where to go on.
struct Shard {
    pk: String,
    /// In their order.
    ahead: VecDeque<Place>,
    /// Of the last millisecond that was read, of which there may be more.
    unsettled: Vec<Place>,
    next: Option<Item>,
    is_done: bool,
}

impl EventTable {
    /// A step of a walk: up to `limit` events that are not past their time to live, and the place to go on behind. There
    /// may be fewer events, even none, though there is such a place: no more than 48 hours are looked at. What was accepted
    /// a moment ago may be missing.
    pub async fn walk(
        &self,
        workspace: &WorkspaceId,
        walk: &Walk,
        limit: usize,
        now: UnixMillis,
    ) -> Result<(Vec<AcceptedEvent>, Option<Place>), AwsError> {
        let (places, next) = self.places(workspace, walk, limit).await?;
        Ok((self.at(workspace, &places, now).await?, next))
    }

    /// An event that was accepted at `since` or later and is not past its time to live, by its key.
    pub async fn kept(
        &self,
        key: &EventKey,
        since: UnixMillis,
        now: UnixMillis,
    ) -> Result<Option<AcceptedEvent>, AwsError> {
        let items = batch_read(&self.client, [self.key(key)]).await?;
        let events = items.into_values().map(|item| kept(item, now));
        let found = events.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().next();
        Ok(found.filter(|event| event.accepted_at >= since))
    }

    async fn places(
        &self,
        workspace: &WorkspaceId,
        walk: &Walk,
        limit: usize,
    ) -> Result<(Vec<Place>, Option<Place>), AwsError> {
        let Some((first, last)) = walk.span() else { return Ok((Vec::new(), None)) };
        let mut hours = (first.0 / HOUR_MILLIS, last.0 / HOUR_MILLIS);
        let mut places = Vec::new();
        for _ in 0..HOURS_MAX {
            let hour = if walk.order == Order::Oldest { hours.0 } else { hours.1 };
            let wanted = limit - places.len();
            let (found, has_more) = self.places_of_hour(workspace, walk, (first, last), hour, wanted).await?;
            places.extend(found);
            let is_last = hours.0 == hours.1;
            if has_more || (places.len() >= limit && !is_last) {
                let next = places.last().copied();
                return Ok((places, next));
            }
            if is_last {
                return Ok((places, None));
            }
            match walk.order {
                Order::Oldest => hours.0 += 1,
                Order::Newest => hours.1 -= 1,
            }
        }
        // Nothing has the least of all digests, so this lies between the hours.
        let border = if walk.order == Order::Oldest { hours.0 } else { hours.1 + 1 };
        let next = Place { accepted_at: UnixMillis(border * HOUR_MILLIS), digest: EventDigest::LEAST };
        Ok((places, Some(next)))
    }

    /// Up to `limit` places of an hour, and whether there are more.
    async fn places_of_hour(
        &self,
        workspace: &WorkspaceId,
        walk: &Walk,
        span: (UnixMillis, UnixMillis),
        hour: u64,
        limit: usize,
    ) -> Result<(Vec<Place>, bool), AwsError> {
        // Events are spread evenly, so each shard has its share, more or less.
        let chunk = (2 * limit / usize::from(SHARDS)).max(CHUNK_MIN);
        let shards = (0..SHARDS).map(|shard| Shard {
            pk: hour_pk(workspace, hour, shard),
            ahead: VecDeque::new(),
            unsettled: Vec::new(),
            next: None,
            is_done: false,
        });
        let reading = shards.map(|shard| self.read_ahead(shard, walk, span, chunk));
        let mut shards = try_join_all(reading).await?;
        let mut places = Vec::with_capacity(limit);
        while places.len() < limit {
            // Whose next one is not known may have the first of all.
            if let Some(index) = shards.iter().position(|shard| shard.ahead.is_empty() && !shard.is_done) {
                let shard = shards.swap_remove(index);
                shards.push(self.read_ahead(shard, walk, span, chunk).await?);
                continue;
            }
            let heads = shards.iter_mut().filter_map(|shard| Some((*shard.ahead.front()?, shard)));
            let Some((place, shard)) = heads.min_by(|(a, _), (b, _)| walk.compare(*a, *b)) else { break };
            shard.ahead.pop_front();
            places.push(place);
        }
        let has_more = shards.iter().any(|shard| !shard.ahead.is_empty() || !shard.is_done);
        Ok((places, has_more))
    }

    /// Reads a shard until its next place is known, or that it has none.
    async fn read_ahead(
        &self,
        mut shard: Shard,
        walk: &Walk,
        (first, last): (UnixMillis, UnixMillis),
        chunk: usize,
    ) -> Result<Shard, AwsError> {
        while shard.ahead.is_empty() && !shard.is_done {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(INDEX)
                .key_condition_expression("hour_pk = :pk AND hour_sk BETWEEN :first AND :last")
                .expression_attribute_values(":pk", AttributeValue::S(shard.pk.clone()))
                .expression_attribute_values(":first", AttributeValue::S(first.sortable()))
                .expression_attribute_values(":last", AttributeValue::S(last.sortable()))
                .scan_index_forward(walk.order == Order::Oldest)
                .limit(i32::try_from(chunk).unwrap_or(i32::MAX))
                .set_exclusive_start_key(shard.next.take());
            let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
            shard.unsettled.extend(answer.items.unwrap_or_default().iter().filter_map(place));
            shard.is_done = answer.last_evaluated_key.is_none();
            shard.next = answer.last_evaluated_key;
            shard.settle(walk);
        }
        Ok(shard)
    }

    /// The events at these places that are not past their time to live, in the order of the places.
    async fn at(
        &self,
        workspace: &WorkspaceId,
        places: &[Place],
        now: UnixMillis,
    ) -> Result<Vec<AcceptedEvent>, AwsError> {
        let key = |place: &Place| self.key(&EventKey { workspace: workspace.clone(), digest: place.digest });
        let mut items = batch_read(&self.client, places.iter().map(key)).await?;
        let mut events = Vec::with_capacity(places.len());
        for place in places {
            let event = items.remove(&key(place)).map(|item| kept(item, now)).transpose()?.flatten();
            // The index lags behind the table: an identity that was free again is elsewhere by now.
            events.extend(event.filter(|event| event.accepted_at == place.accepted_at));
        }
        Ok(events)
    }
}

impl Shard {
    /// Puts in order what was read whole.
    fn settle(&mut self, walk: &Walk) {
        let last = self.unsettled.last().map(|place| place.accepted_at);
        let is_settled = |place: &Place| self.is_done || Some(place.accepted_at) != last;
        let (mut settled, unsettled): (Vec<_>, _) = self.unsettled.iter().copied().partition(is_settled);
        self.unsettled = unsettled;
        settled.retain(|place| walk.is_ahead(*place));
        settled.sort_unstable_by(|a, b| walk.compare(*a, *b));
        self.ahead.extend(settled);
    }
}

/// Where the index says that an event is.
fn place(item: &Item) -> Option<Place> {
    let text = |name| item.get(name).and_then(|value| value.as_s().ok());
    let key: EventKey = text("pk")?.parse().ok()?;
    Some(Place { accepted_at: UnixMillis(text("hour_sk")?.parse().ok()?), digest: key.digest })
}

/// Reads an event's item, unless it is past its time to live.
fn kept(item: Item, now: UnixMillis) -> Result<Option<AcceptedEvent>, AwsError> {
    let item: EventItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    if item.expires_at > now.as_secs() { item.event().map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(millis: u64, id: u8) -> Place {
        Place { accepted_at: UnixMillis(millis), digest: EventDigest::of("/s", &id.to_string()) }
    }

    fn walk(order: Order, after: Option<Place>) -> Walk {
        Walk { order, since: UnixMillis(10), until: UnixMillis(20), after }
    }

    #[test]
    fn a_walk_takes_in_what_lies_between_its_ends() {
        let span = |order, after| walk(order, after).span().map(|(first, last)| (first.0, last.0));
        for order in [Order::Oldest, Order::Newest] {
            assert_eq!(span(order, None), Some((10, 19)));
        }
        assert_eq!(span(Order::Oldest, Some(place(15, 0))), Some((15, 19)));
        assert_eq!(span(Order::Newest, Some(place(15, 0))), Some((10, 15)));
        assert_eq!(span(Order::Oldest, Some(place(20, 0))), None);
        assert_eq!(span(Order::Newest, Some(place(9, 0))), None);
        assert_eq!(Walk { until: UnixMillis(0), ..walk(Order::Newest, None) }.span(), None);
    }

    #[test]
    fn a_millisecond_counts_once_it_was_read_whole() {
        let mut shard = Shard {
            pk: String::new(),
            ahead: VecDeque::new(),
            unsettled: vec![place(17, 1), place(16, 2), place(16, 3)],
            next: None,
            is_done: false,
        };
        let walk = walk(Order::Newest, None);
        shard.settle(&walk);
        assert_eq!(shard.ahead, [place(17, 1)]);
        shard.unsettled.extend([place(16, 4), place(15, 5)]);
        shard.settle(&walk);
        let mut same = [place(16, 2), place(16, 3), place(16, 4)];
        same.sort_by(|a, b| b.cmp(a));
        assert_eq!(shard.ahead.make_contiguous()[1..], same);
        // Another page that begins amid them has the rest.
        let rest = walk.behind(same[1]);
        assert_eq!(same.map(|place| rest.is_ahead(place)), [false, false, true]);
        shard.is_done = true;
        shard.settle(&walk);
        assert_eq!(shard.ahead.len(), 5);
    }
}
