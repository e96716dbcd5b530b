//! Deliveries of a subscription in the order of time, merged over its shards.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use carillon_core::delivery::Status;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{EventDigest, EventKey, NotAnId, SubscriptionId};
use carillon_core::task::EventRef;
use carillon_core::time::UnixMillis;
use futures::future::try_join_all;

use super::{Delivery, DeliveryTable, read_delivery};
use crate::SHARDS;
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;

const INDEX: &str = "by_status";

/// The fewest items that are asked of a shard at once.
const CHUNK_MIN: usize = 4;

/// Where a delivery is among those of its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When its event was accepted.
    pub accepted_at: UnixMillis,
    /// Which event.
    pub digest: EventDigest,
}

/// What is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// [`Status::Retrying`]
    Retrying,
    /// [`Status::Held`]
    Held,
    /// [`Status::Failed`]
    Failed,
}

/// Which end of time comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The event that was accepted first.
    Oldest,
    /// The event that was accepted last.
    Newest,
}

/// A look at a part of a subscription's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which come first.
    pub order: Order,
    /// Of events that were accepted then or later.
    pub since: Option<UnixMillis>,
    /// Of events that were accepted before.
    pub until: Option<UnixMillis>,
    /// Behind this one, in their order.
    pub after: Option<Place>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// As far as they were counted.
    pub count: u64,
    /// Whether that is all.
    pub complete: bool,
}

impl Place {
    /// Of an event.
    #[must_use]
    pub fn of(event: &EventRef) -> Self {
        Self { accepted_at: event.accepted_at, digest: event.key.digest }
    }

    /// The same of an event that was read.
    #[must_use]
    pub fn of_accepted(event: &AcceptedEvent) -> Self {
        Self { accepted_at: event.accepted_at, digest: event.key.digest }
    }
}

/// As in sort keys: `{time}#{event}`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.accepted_at.sortable(), self.digest)
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (time, digest) = text.split_once('#').ok_or(NotAPlace)?;
        let accepted_at = UnixMillis(time.parse().map_err(|_| NotAPlace)?);
        Ok(Self { accepted_at, digest: digest.parse().map_err(|_: NotAnId| NotAPlace)? })
    }
}

/// A text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the place of a delivery")]
pub struct NotAPlace;

impl Open {
    fn name(self) -> &'static str {
        match self {
            Self::Retrying => Status::Retrying.name(),
            Self::Held => Status::Held.name(),
            Self::Failed => Status::Failed.name(),
        }
    }
}

impl Look {
    /// All of them.
    #[must_use]
    pub fn all(order: Order) -> Self {
        Self { order, since: None, until: None, after: None }
    }

    /// What is left of it behind this place.
    #[must_use]
    pub fn behind(self, place: Place) -> Self {
        Self { after: Some(place), ..self }
    }

    /// The first and the last sort key that it takes in; `None`: it takes in nothing.
    fn bounds(&self) -> Option<(String, String)> {
        let after = self.after.map(|place| place.to_string());
        let since = self.since.map_or_else(|| "0".to_owned(), UnixMillis::sortable);
        // The colon comes behind all digits.
        let until = self.until.map_or_else(|| ":".to_owned(), UnixMillis::sortable);
        let (low, high) = match (self.order, after) {
            (_, None) => (since, until),
            (Order::Oldest, Some(after)) => (since.max(after), until),
            (Order::Newest, Some(after)) => (since, until.min(after)),
        };
        (low <= high).then_some((low, high))
    }
}

/// One of the shards: what was read of it, and where to go on.
struct Shard {
    pk: String,
    read: VecDeque<(Place, Item)>,
    next: Option<Item>,
    is_done: bool,
}

impl DeliveryTable {
    /// Up to `limit` deliveries of a subscription, and the place to go on behind. Reads may lag behind writes.
    pub async fn of_subscription(
        &self,
        subscription: SubscriptionId,
        look: &Look,
        limit: usize,
        now: UnixMillis,
    ) -> Result<(Vec<Delivery>, Option<Place>), AwsError> {
        let (items, next) = self.merged(None, subscription, look, limit).await?;
        let found =
            items.into_iter().filter_map(|(_, item)| readable(item)).filter(|row| row.expires_at > now);
        Ok((found.collect(), next))
    }

    /// The same of those that stand so, each as the table has it now.
    pub async fn standing(
        &self,
        subscription: SubscriptionId,
        open: Open,
        look: &Look,
        limit: usize,
        now: UnixMillis,
    ) -> Result<(Vec<Delivery>, Option<Place>), AwsError> {
        let (items, next) = self.merged(Some(open), subscription, look, limit).await?;
        let keys: Vec<_> = items.iter().map(|(place, _)| self.key_at(subscription, *place)).collect();
        let mut rows = batch_read(&self.client, keys.iter().cloned()).await?;
        let found = keys.iter().filter_map(|key| readable(rows.remove(key)?));
        // The index lags behind the table.
        let found = found.filter(|row| row.row.status.name() == open.name() && row.expires_at > now);
        Ok((found.collect(), next))
    }

    /// How many of a subscription's deliveries stand so, counted up to about `max`.
    pub async fn count(
        &self,
        subscription: SubscriptionId,
        open: Open,
        look: &Look,
        max: u64,
    ) -> Result<Counted, AwsError> {
        let Some(bounds) = look.bounds() else { return Ok(Counted { count: 0, complete: true }) };
        let counting = (0..SHARDS).map(async |shard| {
            let (mut count, mut next) = (0, None);
            while count <= max / u64::from(SHARDS) {
                let pk = format!("{subscription}#{shard}");
                let query = self.query_of(Some(open), pk, &bounds).select(Select::Count);
                let answer = query.set_exclusive_start_key(next).send().await;
                let answer = answer.map_err(AwsError::call("dynamodb Query"))?;
                count += u64::try_from(answer.count).unwrap_or_default();
                next = answer.last_evaluated_key;
                if next.is_none() {
                    return Ok(Counted { count, complete: true });
                }
            }
            Ok::<_, AwsError>(Counted { count, complete: false })
        });
        let shards = try_join_all(counting).await?;
        Ok(Counted {
            count: shards.iter().map(|shard| shard.count).sum(),
            complete: shards.iter().all(|shard| shard.complete),
        })
    }

    /// The delivery of an event to a subscription, if an attempt was made of it or put off, as it is now.
    pub async fn delivery(
        &self,
        subscription: SubscriptionId,
        place: Place,
        now: UnixMillis,
    ) -> Result<Option<Delivery>, AwsError> {
        let mut found = self.deliveries_at(&[subscription], place, now).await?;
        Ok(found.pop())
    }

    /// Those of an event to these subscriptions, in no order.
    pub async fn deliveries_at(
        &self,
        subscriptions: &[SubscriptionId],
        place: Place,
        now: UnixMillis,
    ) -> Result<Vec<Delivery>, AwsError> {
        let keys = subscriptions.iter().map(|subscription| self.key_at(*subscription, place));
        let rows = batch_read(&self.client, keys).await?;
        Ok(rows.into_values().filter_map(readable).filter(|row| row.expires_at > now).collect())
    }

    /// Those of a subscription of these events, in no order.
    pub async fn deliveries_of(
        &self,
        subscription: SubscriptionId,
        places: impl Iterator<Item = Place>,
        now: UnixMillis,
    ) -> Result<Vec<Delivery>, AwsError> {
        let rows = batch_read(&self.client, places.map(|place| self.key_at(subscription, place))).await?;
        Ok(rows.into_values().filter_map(readable).filter(|row| row.expires_at > now).collect())
    }

    fn key_at(&self, subscription: SubscriptionId, place: Place) -> Key {
        let pk = format!("{subscription}#{}", place.digest.shard(SHARDS));
        Key { table: self.table.clone(), pk, sk: Some(place.to_string()) }
    }

    /// The items of all shards in the order of their places: `limit` of them, if there are so many.
    async fn merged(
        &self,
        open: Option<Open>,
        subscription: SubscriptionId,
        look: &Look,
        limit: usize,
    ) -> Result<(Vec<(Place, Item)>, Option<Place>), AwsError> {
        let Some(bounds) = look.bounds() else { return Ok((Vec::new(), None)) };
        // Events are spread evenly, so each shard has its share of the page, more or less.
        let chunk = (2 * limit / usize::from(SHARDS)).max(CHUNK_MIN);
        let shards = (0..SHARDS).map(|shard| Shard {
            pk: format!("{subscription}#{shard}"),
            read: VecDeque::new(),
            next: None,
            is_done: false,
        });
        let reading = shards.map(|shard| self.read_more(shard, open, look, &bounds, chunk));
        let mut shards = try_join_all(reading).await?;
        let mut page = Vec::with_capacity(limit);
        while page.len() < limit {
            // Whose next one is not known may have the first of all.
            if let Some(index) = shards.iter().position(|shard| shard.read.is_empty() && !shard.is_done) {
                let shard = shards.swap_remove(index);
                shards.push(self.read_more(shard, open, look, &bounds, chunk).await?);
                continue;
            }
            let heads = shards.iter_mut().filter(|shard| !shard.read.is_empty());
            let first = heads.min_by(|a, b| in_order(look.order, head(a), head(b)));
            match first.and_then(|shard| shard.read.pop_front()) {
                Some(item) => page.push(item),
                None => break,
            }
        }
        let has_more = shards.iter().any(|shard| !shard.read.is_empty() || !shard.is_done);
        let next = page.last().filter(|_| has_more).map(|(place, _)| *place);
        Ok((page, next))
    }

    async fn read_more(
        &self,
        mut shard: Shard,
        open: Option<Open>,
        look: &Look,
        bounds: &(String, String),
        chunk: usize,
    ) -> Result<Shard, AwsError> {
        let query = self
            .query_of(open, shard.pk.clone(), bounds)
            .scan_index_forward(look.order == Order::Oldest)
            .limit(i32::try_from(chunk).unwrap_or(i32::MAX))
            .set_exclusive_start_key(shard.next.take());
        let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
        let items = answer.items.unwrap_or_default().into_iter();
        let placed = items.filter_map(|item| Some((item.get("sk")?.as_s().ok()?.parse().ok()?, item)));
        shard.read.extend(placed.filter(|(place, _)| Some(*place) != look.after));
        shard.is_done = answer.last_evaluated_key.is_none();
        shard.next = answer.last_evaluated_key;
        Ok(shard)
    }

    /// Asks one shard, of the index if only those are wanted that stand so.
    fn query_of(&self, open: Option<Open>, pk: String, (low, high): &(String, String)) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.table);
        let query = match open {
            None => query
                .key_condition_expression("pk = :pk AND sk BETWEEN :low AND :high")
                .expression_attribute_values(":low", AttributeValue::S(low.clone()))
                .expression_attribute_values(":high", AttributeValue::S(high.clone())),
            Some(open) => query
                .index_name(INDEX)
                .key_condition_expression("pk = :pk AND stands BETWEEN :low AND :high")
                .expression_attribute_values(":low", AttributeValue::S(format!("{}#{low}", open.name())))
                .expression_attribute_values(":high", AttributeValue::S(format!("{}#{high}", open.name()))),
        };
        query.expression_attribute_values(":pk", AttributeValue::S(pk))
    }
}

impl Delivery {
    /// Where it is among those of its subscription.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::of(&self.event)
    }

    /// Its event's identity.
    #[must_use]
    pub fn event_key(&self) -> &EventKey {
        &self.event.key
    }
}

fn in_order(order: Order, a: Option<Place>, b: Option<Place>) -> Ordering {
    match order {
        Order::Oldest => a.cmp(&b),
        Order::Newest => b.cmp(&a),
    }
}

fn head(shard: &Shard) -> Option<Place> {
    shard.read.front().map(|(place, _)| *place)
}

fn readable(item: Item) -> Option<Delivery> {
    read_delivery(item).inspect_err(|error| tracing::error!(%error, "a row is left out")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(millis: u64) -> Place {
        Place { accepted_at: UnixMillis(millis), digest: EventDigest::of("/s", "1") }
    }

    #[test]
    fn places_are_told_and_sort_as_sort_keys_do() {
        let at = place(1_795_339_800_007);
        assert_eq!(at.to_string().parse(), Ok(at));
        assert!(place(9) < place(10) && place(9).to_string() < place(10).to_string());
        for wrong in ["", "#", "1", "x#00000000000000000000000000000000"] {
            assert_eq!(wrong.parse::<Place>(), Err(NotAPlace), "{wrong}");
        }
    }

    #[test]
    fn a_look_takes_in_what_lies_between_its_bounds() {
        let look = |order, since: Option<u64>, until: Option<u64>, after: Option<u64>| {
            let (since, until) = (since.map(UnixMillis), until.map(UnixMillis));
            Look { order, since, until, after: after.map(place) }
        };
        let takes_in = |look: Look, millis| {
            let key = place(millis).to_string();
            look.bounds().is_some_and(|(low, high)| (low..=high).contains(&key))
        };
        let all = Look::all(Order::Newest);
        assert!(takes_in(all, 0) && takes_in(all, 9_999_999_999_999));
        let some = look(Order::Oldest, Some(10), Some(20), None);
        assert!(takes_in(some, 10) && takes_in(some, 19) && !takes_in(some, 9) && !takes_in(some, 20));
        let rest = look(Order::Oldest, Some(10), Some(20), Some(15));
        assert!(takes_in(rest, 16) && !takes_in(rest, 14));
        let rest = look(Order::Newest, Some(10), Some(20), Some(15));
        assert!(takes_in(rest, 14) && !takes_in(rest, 16));
        assert_eq!(look(Order::Newest, Some(20), None, Some(15)).bounds(), None, "nothing is left");
    }
}
