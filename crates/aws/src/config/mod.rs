//! The config table: what is set up, and the rows by which events find subscriptions.
//!
//! | what | pk | sk |
//! |---|---|---|
//! | workspace | `WS#{workspace}` | `workspace` |
//! | its entry in the list of all | `WORKSPACES` | `{workspace}` |
//! | version of all that matching reads | `WS#{workspace}` | `matching` |
//! | grant | `WS#{workspace}` | `CLIENT#{client}` |
//! | its entry in the list of the client's | `CLIENT#{client}` | `{workspace}` |
//! | event type of the workspace's own | `WS#{workspace}` | `TYPE#{type}` |
//! | its entry in the list of all | `TYPES#{workspace}` | `{type}` |
//! | subscription | `WS#{workspace}` | `SUB#{subscription}` |
//! | its entry in the list of its subscriber's | `OF#{workspace}#{subscriber}` | `SUB#{subscription}` |
//! | that its title is taken | `WS#{workspace}` | `TITLE#{subscriber}#{title}` |
//! | matching row | `MATCH#{workspace}#{pattern}` | `{subscription}` |
//! | its keys | `WS#{workspace}` | `keys` |
//! | its own rules | `WS#{workspace}` | `rules` |
//! | job | `WS#{workspace}` | `JOB#{job}` |
//! | entry of the audit | `AUDIT#{workspace}` | `{time}.{random}` |
//! | what an idempotency key made | `ONCE#{client}` | `{digest of path and key}` |
//!
//! A subscription, its matching rows and the next version are one transaction, so that fan-out, which reads the version
//! before and after its rows, never matches by half a change. So is the entry of the audit that tells of a change.

mod audit;
mod grants;
mod jobs;
mod keys;
mod once;
mod rules;
mod subscriptions;
mod types;
mod workspaces;

use std::time::Duration;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, Delete, Put, TransactWriteItem, Update};
use carillon_core::id::WorkspaceId;
use serde::{Deserialize, Serialize};

use crate::batch_read::{Item, Key};
use crate::error::AwsError;
use crate::wire::DynamoDb;

pub use audit::{AuditCursor, AuditSpan};
pub use keys::StoredKeys;
pub use once::{Made, Once};
pub use rules::StoredRules;
pub use subscriptions::{
    Asked, FIRST_SECRET, StoredSecret, StoredSubscription, Verification, Wanted, read_subscription,
};
pub use types::{StoredType, TYPES_MAX};
pub use workspaces::{MatchingVersion, StoredWorkspace, read_matching_version, read_workspace};

const TABLE: &str = "config";

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// How often a transaction that met another one is tried again, with a growing pause before each.
const TRIES_MAX: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(15);

const GET: &str = "dynamodb GetItem";
const PUT: &str = "dynamodb PutItem";
const QUERY: &str = "dynamodb Query";
const TRANSACT: &str = "dynamodb TransactWriteItems";

/// The config table.
#[derive(Clone, Debug)]
pub struct ConfigTable {
    client: DynamoDb,
    table: String,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// In the order of their ids.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// How a conditional write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// As asked for.
    Done,
    /// Nothing was written: something of this id is there already.
    Exists,
    /// Nothing was written: what it concerns is not there.
    Missing,
    /// Nothing was written: the workspace still has subscriptions.
    InUse,
    /// Nothing was written: another change came first.
    Stale,
    /// Nothing was written: another subscription of the subscriber has this title.
    TitleTaken,
    /// Nothing was written: this was made before, under the same idempotency key.
    MadeBefore(Made),
}

impl ConfigTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: DynamoDb, table: String) -> Self {
        Self { client, table }
    }

    async fn get(&self, key: Key) -> Result<Option<Item>, AwsError> {
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key.attributes()));
        Ok(request.consistent_read(true).send().await.map_err(AwsError::call(GET))?.item)
    }

    /// A page of a partition: the items whose sort keys begin with `prefix`, behind `after`. The `next` is a sort key
    /// without the prefix.
    async fn page(
        &self,
        pk: String,
        prefix: &str,
        limit: i32,
        after: Option<String>,
    ) -> Result<(Vec<Item>, Option<String>), AwsError> {
        let query = self.client.query().table_name(&self.table).consistent_read(true).limit(limit);
        let query = query.expression_attribute_values(":pk", AttributeValue::S(pk.clone()));
        let query = match prefix {
            "" => query.key_condition_expression("pk = :pk"),
            prefix => query
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned())),
        };
        let query = match after {
            Some(after) => query
                .exclusive_start_key("pk", AttributeValue::S(pk))
                .exclusive_start_key("sk", AttributeValue::S(format!("{prefix}{after}"))),
            None => query,
        };
        let answer = query.send().await.map_err(AwsError::call(QUERY))?;
        let next = answer.last_evaluated_key.and_then(|key| key.get("sk")?.as_s().ok().cloned());
        let next = next.and_then(|next| next.strip_prefix(prefix).map(str::to_owned));
        Ok((answer.items.unwrap_or_default(), next))
    }

    /// Puts an item that must not be there yet.
    fn put_new(&self, item: &impl Serialize) -> Result<TransactWriteItem, AwsError> {
        self.put_if(item, Some("attribute_not_exists(pk)"), Item::new())
    }

    /// Puts an item whatever is there.
    fn put(&self, item: &impl Serialize) -> Result<TransactWriteItem, AwsError> {
        self.put_if(item, None, Item::new())
    }

    /// Puts an item in the place of the one that has this revision.
    fn put_over(&self, item: &impl Serialize, revision: u64) -> Result<TransactWriteItem, AwsError> {
        let values = Item::from([(":revision".to_owned(), AttributeValue::N(revision.to_string()))]);
        self.put_if(item, Some("revision = :revision"), values)
    }

    fn put_if(
        &self,
        item: &impl Serialize,
        condition: Option<&str>,
        values: Item,
    ) -> Result<TransactWriteItem, AwsError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?))
            .set_condition_expression(condition.map(str::to_owned))
            .set_expression_attribute_values((!values.is_empty()).then_some(values));
        let put = put.build().map_err(AwsError::call(TRANSACT))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn delete(
        &self,
        key: &Key,
        condition: Option<(&str, Option<Item>)>,
    ) -> Result<TransactWriteItem, AwsError> {
        let (condition, values) = condition.unzip();
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .set_condition_expression(condition.map(str::to_owned))
            .set_expression_attribute_values(values.flatten());
        let delete = delete.build().map_err(AwsError::call(TRANSACT))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    fn update(
        &self,
        key: &Key,
        expression: &str,
        condition: &str,
        values: Item,
    ) -> Result<TransactWriteItem, AwsError> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression(expression)
            .condition_expression(condition)
            .set_expression_attribute_values(Some(values));
        let update = update.build().map_err(AwsError::call(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Writes all or nothing. Each write comes with what it means when its condition does not hold; the first such
    /// meaning is the answer.
    async fn transact(&self, writes: Vec<(TransactWriteItem, Written)>) -> Result<Written, AwsError> {
        let (writes, refusals): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let mut pause = FIRST_PAUSE;
        for _ in 0..TRIES_MAX {
            let request = self.client.transact_write_items().set_transact_items(Some(writes.clone()));
            let Err(error) = request.send().await else { return Ok(Written::Done) };
            let reasons = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                    canceled.cancellation_reasons()
                }
                _ => return Err(AwsError::call(TRANSACT)(error)),
            };
            let code = |reason: &CancellationReason, code: &str| reason.code() == Some(code);
            let mut answers = reasons.iter().zip(&refusals);
            if let Some((_, refusal)) = answers.find(|(reason, _)| code(reason, "ConditionalCheckFailed")) {
                return Ok(refusal.clone());
            }
            if !reasons
                .iter()
                .any(|reason| code(reason, "TransactionConflict") || code(reason, "ThrottlingError"))
            {
                return Err(AwsError::call(TRANSACT)(error));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(AwsError::Conflict { operation: TRANSACT })
    }

    fn key(&self, pk: impl Into<String>, sk: impl Into<String>) -> Key {
        Key { table: self.table.clone(), pk: pk.into(), sk: Some(sk.into()) }
    }
}

/// The keys of an item, written with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Keys {
    pk: String,
    sk: String,
    v: u32,
}

impl Keys {
    fn of(key: &Key) -> Self {
        Self { pk: key.pk.clone(), sk: key.sk.clone().unwrap_or_default(), v: VERSION }
    }

    fn readable(&self) -> Result<(), AwsError> {
        if self.v == VERSION { Ok(()) } else { Err(unreadable(format!("it has version {}", self.v))) }
    }
}

fn partition(workspace: &WorkspaceId) -> String {
    format!("WS#{workspace}")
}

fn read<T: for<'de> Deserialize<'de>>(item: Item) -> Result<T, AwsError> {
    serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))
}

fn unreadable(detail: impl Into<String>) -> AwsError {
    AwsError::Item { table: TABLE, detail: detail.into() }
}
