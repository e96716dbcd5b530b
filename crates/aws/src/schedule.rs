//! The schedule table: what must happen at a time further off than a queue can hold a message back.
//!
//! | what | pk | sk |
//! |---|---|---|
//! | task | `due#{shard}` | `{time}#{delivery}` |
//! | note that a subscription holds deliveries | `held#{shard}` | `{subscription}` |
//! | lease of a shard | `lease#{shard}` | `lease` |
//! | deadline of a rule for a subject | `deadline#{digest}` | `deadline` |
//! | that one becomes due | `deadlines#{shard}` | `{time}#{digest}` |
//! | a workspace's last revision | `revision#{workspace}#{made at}` | `revision` |

mod ledger;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use carillon_core::id::{NotAnId, SubscriptionId, WorkspaceId};
use carillon_core::task::{DeliveryTask, TaskError};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::SHARDS;
use crate::batch_read::{Item, Key};
use crate::error::AwsError;
use crate::wire::{DynamoDb, Put};

pub use self::ledger::DueDeadline;
pub(crate) use self::ledger::Ledger;

const TABLE: &str = "schedule";

/// The version of the shape of tasks that this release writes.
const VERSION: u32 = 1;

/// The most items of one delete.
const DELETES_MAX: usize = 25;

/// The schedule table.
#[derive(Clone, Debug)]
pub struct ScheduleTable {
    client: DynamoDb,
    table: String,
}

/// A task of the schedule.
#[derive(Clone, Debug)]
pub struct Due {
    /// When.
    pub at: UnixMillis,
    /// What, as it was written.
    pub task: String,
    /// Whose it is, for the queue's fairness.
    pub group: String,
    key: Key,
}

/// A note that a subscription holds deliveries, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldNote {
    /// In which workspace.
    pub workspace: WorkspaceId,
    /// Whose.
    pub subscription: SubscriptionId,
    /// When the latest of them was about to be held.
    pub noted_at: UnixMillis,
}

impl ScheduleTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: DynamoDb, table: String) -> Self {
        Self { client, table }
    }

    /// Keeps a task until it is due. Doing it twice does no harm.
    pub async fn put(&self, task: &DeliveryTask, at: UnixMillis) -> Result<(), AwsError> {
        let unwritable = |error: TaskError| AwsError::Item { table: TABLE, detail: error.to_string() };
        let item = DueItem {
            pk: format!("due#{}", task.event.key.digest.shard(SHARDS)),
            sk: format!("{}#{}", at.sortable(), task.delivery()),
            v: VERSION,
            at,
            task: task.by_reference().to_json().map_err(unwritable)?,
            group: task.subscription.to_string(),
        };
        let put = Put { table: &self.table, item: &item, condition: None, values: &[] };
        // Without a condition, none can fail.
        self.client.put(put).await.map(|_| ())
    }

    /// What of a shard is due until `until`, the earliest first. `after` is the `next` of the page before.
    pub async fn due(
        &self,
        shard: u8,
        until: UnixMillis,
        limit: i32,
        after: Option<Item>,
    ) -> Result<(Vec<Due>, Option<Item>), AwsError> {
        let query = self.client.query().table_name(&self.table).consistent_read(true).limit(limit);
        let query = query
            .key_condition_expression("pk = :pk AND sk < :end")
            .expression_attribute_values(":pk", AttributeValue::S(format!("due#{shard}")))
            .expression_attribute_values(":end", AttributeValue::S(UnixMillis(until.0 + 1).sortable()))
            .set_exclusive_start_key(after);
        let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
        let readable =
            |item| self.read(item).inspect_err(|error| tracing::error!(%error, "an item is left out")).ok();
        let items = answer.items.unwrap_or_default();
        Ok((items.into_iter().filter_map(readable).collect(), answer.last_evaluated_key))
    }

    /// Notes that a subscription is about to hold deliveries, so that the clock looks after them.
    pub async fn note_held(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
        now: UnixMillis,
    ) -> Result<(), AwsError> {
        let Key { pk, sk, .. } = self.held_key(subscription);
        let (sk, workspace) = (sk.unwrap_or_default(), workspace.clone());
        let item = HeldItem { pk, sk, v: VERSION, workspace, noted_at: now };
        let item = serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?;
        let request = self.client.put_item().table_name(&self.table).set_item(Some(item));
        request.send().await.map_err(AwsError::call("dynamodb PutItem"))?;
        Ok(())
    }

    /// The subscriptions of a shard that hold deliveries. `after` is the `next` of the page before.
    pub async fn held(
        &self,
        shard: u8,
        limit: i32,
        after: Option<Item>,
    ) -> Result<(Vec<HeldNote>, Option<Item>), AwsError> {
        let query = self.client.query().table_name(&self.table).consistent_read(true).limit(limit);
        let query = query
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(format!("held#{shard}")))
            .set_exclusive_start_key(after);
        let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
        let readable =
            |item| read_note(item).inspect_err(|error| tracing::error!(%error, "a note is left out")).ok();
        let items = answer.items.unwrap_or_default();
        Ok((items.into_iter().filter_map(readable).collect(), answer.last_evaluated_key))
    }

    /// Removes a note, unless it was made anew since it was read.
    pub async fn forget_held(&self, note: &HeldNote) -> Result<(), AwsError> {
        let request = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(self.held_key(note.subscription).attributes()))
            .condition_expression("noted_at = :seen")
            .expression_attribute_values(":seen", AttributeValue::N(note.noted_at.0.to_string()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(AwsError::call("dynamodb DeleteItem")(error)),
            },
        }
    }

    fn held_key(&self, subscription: SubscriptionId) -> Key {
        let pk = format!("held#{}", subscription.shard(SHARDS));
        Key { table: self.table.clone(), pk, sk: Some(subscription.to_string()) }
    }

    fn read(&self, item: Item) -> Result<Due, AwsError> {
        let item: DueItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
        if item.v != VERSION {
            return Err(AwsError::Item { table: TABLE, detail: format!("it has version {}", item.v) });
        }
        let key = Key { table: self.table.clone(), pk: item.pk, sk: Some(item.sk) };
        Ok(Due { at: item.at, task: item.task, group: item.group, key })
    }

    /// Removes tasks that were sent. What cannot be removed is sent once more by a later run, which does no harm.
    pub async fn delete(&self, sent: &[Due]) -> Result<(), AwsError> {
        const OPERATION: &str = "dynamodb BatchWriteItem";
        for chunk in sent.chunks(DELETES_MAX) {
            let request = |due: &Due| {
                let delete = DeleteRequest::builder().set_key(Some(due.key.attributes())).build();
                Ok(WriteRequest::builder().delete_request(delete.map_err(AwsError::call(OPERATION))?).build())
            };
            let requests = chunk.iter().map(request).collect::<Result<Vec<_>, AwsError>>()?;
            let answer = self.client.batch_write_item().request_items(&self.table, requests).send().await;
            let undone = answer.map_err(AwsError::call(OPERATION))?.unprocessed_items.unwrap_or_default();
            let count = undone.values().map(Vec::len).sum();
            if count > 0 {
                return Err(AwsError::Undone { operation: OPERATION, count });
            }
        }
        Ok(())
    }

    /// Takes a shard for a run that ends at `until`; `false` if another run has it.
    pub async fn lease(&self, shard: u8, now: UnixMillis, until: UnixMillis) -> Result<bool, AwsError> {
        let request = self
            .lease_update(shard, until)
            .condition_expression("attribute_not_exists(pk) OR until_ms <= :now");
        let request = request.expression_attribute_values(":now", AttributeValue::N(now.0.to_string()));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(AwsError::call("dynamodb UpdateItem")(error)),
            },
        }
    }

    /// Gives a shard back that was leased until `until`.
    pub async fn release(&self, shard: u8, until: UnixMillis) -> Result<(), AwsError> {
        let request = self.lease_update(shard, UnixMillis(0)).condition_expression("until_ms = :mine");
        let request = request.expression_attribute_values(":mine", AttributeValue::N(until.0.to_string()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                // It ran out, and another run has it.
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(AwsError::call("dynamodb UpdateItem")(error)),
            },
        }
    }

    fn lease_update(
        &self,
        shard: u8,
        until: UnixMillis,
    ) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder {
        let key =
            Key { table: self.table.clone(), pk: format!("lease#{shard}"), sk: Some("lease".to_owned()) };
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression("SET until_ms = :until")
            .expression_attribute_values(":until", AttributeValue::N(until.0.to_string()))
    }
}

fn read_note(item: Item) -> Result<HeldNote, AwsError> {
    let item: HeldItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    if item.v != VERSION {
        return Err(AwsError::Item { table: TABLE, detail: format!("it has version {}", item.v) });
    }
    let subscription = item.sk.parse();
    let subscription =
        subscription.map_err(|error: NotAnId| AwsError::Item { table: TABLE, detail: error.to_string() })?;
    Ok(HeldNote { workspace: item.workspace, subscription, noted_at: item.noted_at })
}

#[derive(Serialize, Deserialize)]
struct HeldItem {
    pk: String,
    sk: String,
    v: u32,
    workspace: WorkspaceId,
    noted_at: UnixMillis,
}

#[derive(Serialize, Deserialize)]
struct DueItem {
    pk: String,
    sk: String,
    v: u32,
    at: UnixMillis,
    task: String,
    group: String,
}
