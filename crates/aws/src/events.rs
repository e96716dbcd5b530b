//! The events table: one conditional put is both the write and the check for duplicates.
//!
//! `pk` is the event's key. The index `by_hour` (workspace, hour and shard; time of acceptance) serves what walks
//! events by time.

mod some;
mod walk;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{self as transaction, AttributeValue, TransactWriteItem};
use carillon_core::event::{AcceptedEvent, Audience, Event};
use carillon_core::id::{EventKey, WorkspaceId};
use carillon_core::pattern::EventType;
use carillon_core::time::UnixMillis;
use carillon_core::trace::Trace;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::SHARDS;
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;
use crate::wire::{DynamoDb, Put};

pub use self::walk::Walk;

const TABLE: &str = "events";
const INDEX: &str = "by_hour";

/// On which condition an event is put. Past its time to live one is gone for every reader, though DynamoDB deletes it days
/// later.
const UNLESS_KEPT: &str = "attribute_not_exists(pk) OR expires_at <= :now OR accepted_at < :made_at";

const HOUR_SECS: u64 = 3600;

/// How many events a look at the latest ones takes in, whoever of them is wanted: what it costs is bounded.
pub const LATEST_MAX: usize = 200;

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// The events table.
#[derive(Clone, Debug)]
pub struct EventTable {
    client: DynamoDb,
    table: String,
}

/// How a submission went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is an event now.
    Accepted {
        /// When it was accepted.
        at: UnixMillis,
    },
    /// It was one before, with the same content.
    Duplicate {
        /// When it was accepted.
        accepted_at: UnixMillis,
    },
    /// Another event has its identity.
    Conflict,
}

impl EventTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: DynamoDb, table: String) -> Self {
        Self { client, table }
    }

    /// Where an event is.
    #[must_use]
    pub fn key(&self, event: &EventKey) -> Key {
        Key { table: self.table.clone(), pk: event.to_string(), sk: None }
    }

    /// Accepts an event that nothing else depends on, unless one of its identity is kept already. The workspace was made at
    /// `made_at`: what it had accepted before is another's, who had its id. `cascades`: whether others follow from it.
    pub async fn accept(
        &self,
        event: Event,
        (workspace, made_at): (WorkspaceId, UnixMillis),
        cascades: bool,
        now: UnixMillis,
        retention: Duration,
    ) -> Result<Acceptance, AwsError> {
        let content = event.content().to_vec();
        let event = AcceptedEvent { cascades, ..event.accepted(workspace, now) };
        let item = EventItem::of(event, content, now + retention);
        let put = Put {
            table: &self.table,
            item: &item,
            condition: Some(UNLESS_KEPT),
            values: &[(":made_at", made_at.0), (":now", now.as_secs())],
        };
        let Err(kept) = self.client.put(put).await? else { return Ok(Acceptance::Accepted { at: now }) };
        judged(kept, &item.content)
    }

    /// The same as a part of a transaction.
    pub(crate) fn put_accepted(
        &self,
        event: AcceptedEvent,
        content: &[u8],
        made_at: UnixMillis,
        retention: Duration,
    ) -> Result<TransactWriteItem, AwsError> {
        const OPERATION: &str = "dynamodb TransactWriteItems";
        let now = event.accepted_at;
        let item = EventItem::of(event, content.to_vec(), now + retention);
        let put = transaction::Put::builder()
            .table_name(&self.table)
            .set_item(Some(serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?))
            .condition_expression(UNLESS_KEPT)
            .expression_attribute_values(":made_at", AttributeValue::N(made_at.0.to_string()))
            .expression_attribute_values(":now", AttributeValue::N(now.as_secs().to_string()));
        Ok(TransactWriteItem::builder().put(put.build().map_err(AwsError::call(OPERATION))?).build())
    }

    /// How it went with events of which others of the same identity stood in the way, each by its key and content; those
    /// that are gone in this moment are left out.
    pub(crate) async fn judge(
        &self,
        refused: Vec<(EventKey, Vec<u8>)>,
    ) -> Result<HashMap<EventKey, Acceptance>, AwsError> {
        let mut kept = batch_read(&self.client, refused.iter().map(|(key, _)| self.key(key))).await?;
        let judge = |(key, content): (EventKey, Vec<u8>)| {
            let item = kept.remove(&self.key(&key))?;
            Some(judged(item, &content).map(|acceptance| (key, acceptance)))
        };
        refused.into_iter().filter_map(judge).collect()
    }

    /// An event by its key.
    pub async fn event(&self, key: &EventKey) -> Result<Option<AcceptedEvent>, AwsError> {
        let request =
            self.client.get_item().table_name(&self.table).set_key(Some(self.key(key).attributes()));
        // The event was accepted long before anybody asks for it by its key, yet one that is missed would be lost.
        let answer =
            request.consistent_read(true).send().await.map_err(AwsError::call("dynamodb GetItem"))?;
        answer.item.map(read_event).transpose()
    }

    /// Up to `limit` of a workspace's [`LATEST_MAX`] latest events of the last `hours` hours, the newest first: those
    /// that `wanted` accepts. What was accepted before `since` is another's, who had the workspace's id before.
    pub async fn recent(
        &self,
        workspace: &WorkspaceId,
        (since, now): (UnixMillis, UnixMillis),
        hours: u64,
        limit: usize,
        wanted: impl Fn(&AcceptedEvent) -> bool,
    ) -> Result<Vec<AcceptedEvent>, AwsError> {
        let mut found = Vec::new();
        let mut left = LATEST_MAX;
        let this_hour = now.as_secs() / HOUR_SECS;
        let first_hour = this_hour.saturating_sub(hours.saturating_sub(1)).max(since.as_secs() / HOUR_SECS);
        for hour in (first_hour..=this_hour).rev() {
            let shards = (0..SHARDS).map(|shard| self.latest_keys(workspace, hour, shard));
            let mut keys: Vec<_> = try_join_all(shards).await?.into_iter().flatten().collect();
            keys.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
            keys.truncate(left);
            left -= keys.len();
            // No more is read at once than is asked for: events can be large.
            for some in keys.chunks(limit.max(1)) {
                let events = self.read_kept(some, now).await?.into_iter();
                found.extend(events.filter(|event| event.accepted_at >= since && wanted(event)));
                if found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
            if left == 0 {
                break;
            }
        }
        Ok(found)
    }

    /// The events of these keys that are not past their time to live, in the order of the keys.
    async fn read_kept(
        &self,
        keys: &[(String, Key)],
        now: UnixMillis,
    ) -> Result<Vec<AcceptedEvent>, AwsError> {
        let mut items = batch_read(&self.client, keys.iter().map(|(_, key)| key.clone())).await?;
        let mut events = Vec::with_capacity(items.len());
        for item in keys.iter().filter_map(|(_, key)| items.remove(key)) {
            let item: EventItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
            if item.expires_at > now.as_secs() {
                events.push(item.event()?);
            }
        }
        Ok(events)
    }

    /// The keys of the latest events of an hour and shard, each behind its time.
    async fn latest_keys(
        &self,
        workspace: &WorkspaceId,
        hour: u64,
        shard: u8,
    ) -> Result<Vec<(String, Key)>, AwsError> {
        let query = self.client.query().table_name(&self.table).index_name(INDEX);
        let query = query
            .key_condition_expression("hour_pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(hour_pk(workspace, hour, shard)))
            .scan_index_forward(false)
            .limit(i32::try_from(LATEST_MAX).unwrap_or(i32::MAX));
        let items = query.send().await.map_err(AwsError::call("dynamodb Query"))?.items.unwrap_or_default();
        let key = |item: Item| {
            let text = |name| item.get(name).and_then(|value| value.as_s().ok()).cloned();
            Some((text("hour_sk")?, Key { table: self.table.clone(), pk: text("pk")?, sk: None }))
        };
        Ok(items.into_iter().filter_map(key).collect())
    }
}

/// What stands in the way of an event: the same one, or another.
fn judged(kept: Item, content: &[u8]) -> Result<Acceptance, AwsError> {
    let kept: EventItem = serde_dynamo::from_item(kept).map_err(AwsError::item(TABLE))?;
    Ok(if kept.content == content {
        Acceptance::Duplicate { accepted_at: kept.accepted_at }
    } else {
        Acceptance::Conflict
    })
}

/// Reads an event's item, from the table or from a record of its stream.
pub fn read_event(item: impl Into<serde_dynamo::Item>) -> Result<AcceptedEvent, AwsError> {
    let item: EventItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    item.event()
}

#[derive(Serialize, Deserialize)]
struct EventItem {
    pk: EventKey,
    v: u32,
    r#type: EventType,
    accepted_at: UnixMillis,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audience: Option<Audience>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cascades: bool,
    event: String,
    hour_pk: String,
    hour_sk: String,
    expires_at: u64,
}

impl EventItem {
    fn event(self) -> Result<AcceptedEvent, AwsError> {
        if self.v != VERSION {
            return Err(AwsError::Item { table: TABLE, detail: format!("it has version {}", self.v) });
        }
        Ok(AcceptedEvent {
            key: self.pk,
            event_type: self.r#type,
            accepted_at: self.accepted_at,
            audience: self.audience,
            trace: self.trace,
            cascades: self.cascades,
            json: self.event,
        })
    }

    fn of(event: AcceptedEvent, content: Vec<u8>, expires_at: UnixMillis) -> Self {
        let hour = event.accepted_at.as_secs() / HOUR_SECS;
        let shard = event.key.digest.shard(SHARDS);
        Self {
            hour_pk: hour_pk(&event.key.workspace, hour, shard),
            hour_sk: event.accepted_at.sortable(),
            pk: event.key,
            v: VERSION,
            r#type: event.event_type,
            accepted_at: event.accepted_at,
            content,
            audience: event.audience,
            trace: event.trace,
            cascades: event.cascades,
            event: event.json,
            expires_at: expires_at.as_secs(),
        }
    }
}

fn hour_pk(workspace: &WorkspaceId, hour: u64, shard: u8) -> String {
    format!("{workspace}#{hour}#{shard}")
}
