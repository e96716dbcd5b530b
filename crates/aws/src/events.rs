//! The events table: one conditional put is both the write and the check for duplicates.
//!
//! `pk` is the event's key. The index `by_hour` (workspace, hour and shard; time of acceptance) serves what walks
//! events by time.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use carillon_core::event::{AcceptedEvent, Event};
use carillon_core::id::{EventKey, WorkspaceId};
use carillon_core::pattern::EventType;
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::SHARDS;
use crate::batch_read::Key;
use crate::error::AwsError;

const TABLE: &str = "events";

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// The events table.
#[derive(Clone, Debug)]
pub struct EventTable {
    client: Client,
    table: String,
}

/// How a submission went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is an event now.
    Accepted,
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
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Where an event is.
    #[must_use]
    pub fn key(&self, event: &EventKey) -> Key {
        Key { table: self.table.clone(), pk: event.to_string(), sk: None }
    }

    /// Accepts an event, unless one of its identity is kept already.
    pub async fn accept(
        &self,
        event: Event,
        workspace: WorkspaceId,
        now: UnixMillis,
        retention: Duration,
    ) -> Result<Acceptance, AwsError> {
        let content = event.content().to_vec();
        let item = EventItem::of(event.accepted(workspace, now), content.clone(), now + retention);
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?))
            // Past its time to live an event is gone for every reader, though DynamoDB deletes it days later.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", AttributeValue::N(now.as_secs().to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = request.send().await else { return Ok(Acceptance::Accepted) };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(kept)) => {
                let kept = kept.item.clone().unwrap_or_default();
                let kept: EventItem = serde_dynamo::from_item(kept).map_err(AwsError::item(TABLE))?;
                let same = kept.content == content;
                Ok(if same {
                    Acceptance::Duplicate { accepted_at: kept.accepted_at }
                } else {
                    Acceptance::Conflict
                })
            }
            _ => Err(AwsError::call("dynamodb PutItem")(error)),
        }
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
}

/// Reads an event's item, from the table or from a record of its stream.
pub fn read_event(item: impl Into<serde_dynamo::Item>) -> Result<AcceptedEvent, AwsError> {
    let item: EventItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    if item.v != VERSION {
        return Err(AwsError::Item { table: TABLE, detail: format!("it has version {}", item.v) });
    }
    Ok(AcceptedEvent {
        key: item.pk,
        event_type: item.r#type,
        accepted_at: item.accepted_at,
        json: item.event,
    })
}

#[derive(Serialize, Deserialize)]
struct EventItem {
    pk: EventKey,
    v: u32,
    r#type: EventType,
    accepted_at: UnixMillis,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
    event: String,
    hour_pk: String,
    hour_sk: String,
    expires_at: u64,
}

impl EventItem {
    fn of(event: AcceptedEvent, content: Vec<u8>, expires_at: UnixMillis) -> Self {
        const HOUR_SECS: u64 = 3600;
        let hour = event.accepted_at.as_secs() / HOUR_SECS;
        let shard = event.key.digest.shard(SHARDS);
        Self {
            hour_pk: format!("{}#{hour}#{shard}", event.key.workspace),
            hour_sk: event.accepted_at.sortable(),
            pk: event.key,
            v: VERSION,
            r#type: event.event_type,
            accepted_at: event.accepted_at,
            content,
            event: event.json,
            expires_at: expires_at.as_secs(),
        }
    }
}
