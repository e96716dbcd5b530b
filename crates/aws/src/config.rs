//! The config table: workspaces, subscriptions, and the rows by which events find subscriptions.
//!
//! | what | pk | sk |
//! |---|---|---|
//! | workspace | `WS#{workspace}` | `workspace` |
//! | its entry in the list of all | `WORKSPACES` | `{workspace}` |
//! | version of all that matching reads | `WS#{workspace}` | `matching` |
//! | subscription | `WS#{workspace}` | `SUB#{subscription}` |
//! | matching row | `MATCH#{workspace}#{pattern}` | `{subscription}` |
//!
//! A subscription, its matching rows and the next version are one transaction, so that fan-out, which reads the version
//! first and consistently, never matches by half a change.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, Delete, Put, TransactWriteItem, Update};
use carillon_core::endpoint::Endpoint;
use carillon_core::id::{NotAnId, SubscriptionId, WorkspaceId};
use carillon_core::matching::{MatchRow, Range};
use carillon_core::pattern::TypePattern;
use carillon_core::subscription::{Subscription, SubscriptionStatus};
use carillon_core::time::UnixMillis;
use carillon_core::workspace::{Workspace, WorkspaceKind};
use serde::{Deserialize, Serialize};

use crate::batch_read::{Item, Key};
use crate::error::AwsError;
use crate::vault::{Sealed, SealedDataKey};

const TABLE: &str = "config";

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// How often a transaction that met another one is tried again, with a growing pause before each.
const TRIES_MAX: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(15);

/// The name of a subscription's first signing secret.
pub const FIRST_SECRET: &str = "1";

/// The config table.
#[derive(Clone, Debug)]
pub struct ConfigTable {
    client: Client,
    table: String,
}

/// A workspace with its sealed data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWorkspace {
    /// The workspace.
    pub workspace: Workspace,
    /// What its secrets are sealed with.
    pub data_key: SealedDataKey,
}

/// A subscription with its sealed signing secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Subscription,
    /// Each with its name, as it was sealed under.
    pub secrets: Vec<(String, Sealed)>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// As asked for.
    Done,
    /// Nothing was written: something of this id is there already.
    Exists,
    /// Nothing was written: what it concerns is not there.
    Missing,
    /// Nothing was written: the workspace still has subscriptions.
    InUse,
}

impl ConfigTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Where a workspace is.
    #[must_use]
    pub fn workspace_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(partition(workspace), "workspace".to_owned())
    }

    /// Where a subscription is.
    #[must_use]
    pub fn subscription_key(&self, workspace: &WorkspaceId, subscription: SubscriptionId) -> Key {
        self.key(partition(workspace), format!("SUB#{subscription}"))
    }

    /// Where the version of what matching reads is.
    #[must_use]
    pub fn matching_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(partition(workspace), "matching".to_owned())
    }

    /// A workspace by its id.
    pub async fn workspace(&self, workspace: &WorkspaceId) -> Result<Option<StoredWorkspace>, AwsError> {
        self.get(self.workspace_key(workspace)).await?.map(read_workspace).transpose()
    }

    /// Whether a workspace exists. Asked at half the price first, since it mostly does.
    pub async fn workspace_exists(&self, workspace: &WorkspaceId) -> Result<bool, AwsError> {
        let key = self.workspace_key(workspace);
        for consistent in [false, true] {
            let request = self.client.get_item().table_name(&self.table).set_key(Some(key.attributes()));
            let request = request.consistent_read(consistent).projection_expression("pk");
            if request.send().await.map_err(AwsError::call(GET))?.item.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The workspaces, a page at a time.
    pub async fn workspaces(
        &self,
        limit: i32,
        after: Option<WorkspaceId>,
    ) -> Result<Page<Workspace>, AwsError> {
        let after = after.map(|after| after.to_string());
        let (items, next) = self.page(LISTED.to_owned(), "", limit, after).await?;
        let items = items.into_iter().map(|item| read::<WorkspaceItem>(item)?.workspace());
        Ok(Page { items: items.collect::<Result<_, _>>()?, next })
    }

    /// Creates a workspace.
    pub async fn create_workspace(&self, stored: &StoredWorkspace) -> Result<Written, AwsError> {
        let id = &stored.workspace.id;
        let item = WorkspaceItem::of(stored, &self.workspace_key(id));
        let listed =
            WorkspaceItem { data_key: Vec::new(), ..WorkspaceItem::of(stored, &self.listed_key(id)) };
        let Key { pk, sk, .. } = self.matching_key(id);
        // Not from 0: a workspace that is made anew under an old id must not repeat the versions of the old one, by which
        // functions still know its rows.
        let version = stored.workspace.created_at.0;
        let matching = MatchingItem { pk, sk: sk.unwrap_or_default(), v: VERSION, version, subscriptions: 0 };
        let writes = vec![self.put_new(&item)?, self.put_new(&listed)?, self.put_new(&matching)?];
        self.transact(writes, &[Written::Exists; 3]).await
    }

    /// Deletes a workspace that has no subscriptions.
    pub async fn delete_workspace(&self, workspace: &WorkspaceId) -> Result<Written, AwsError> {
        let there = self.delete(&self.workspace_key(workspace), Some(("attribute_exists(pk)", None)))?;
        let none = Item::from([(":none".to_owned(), AttributeValue::N("0".to_owned()))]);
        let unused =
            self.delete(&self.matching_key(workspace), Some(("subscriptions = :none", Some(none))))?;
        let listed = self.delete(&self.listed_key(workspace), None)?;
        self.transact(vec![there, unused, listed], &[Written::Missing, Written::InUse]).await
    }

    /// A subscription by its id.
    pub async fn subscription(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
    ) -> Result<Option<StoredSubscription>, AwsError> {
        self.get(self.subscription_key(workspace, subscription)).await?.map(read_subscription).transpose()
    }

    /// A workspace's subscriptions, a page at a time.
    pub async fn subscriptions(
        &self,
        workspace: &WorkspaceId,
        limit: i32,
        after: Option<SubscriptionId>,
    ) -> Result<Page<Subscription>, AwsError> {
        let after = after.map(|after| format!("SUB#{after}"));
        let (items, next) = self.page(partition(workspace), "SUB#", limit, after).await?;
        let items = items.into_iter().map(|item| Ok(read_subscription(item)?.subscription));
        let next = next.and_then(|next| next.strip_prefix("SUB#").map(str::to_owned));
        Ok(Page { items: items.collect::<Result<_, AwsError>>()?, next })
    }

    /// Creates a subscription. [`Written::Missing`]: its workspace is not there.
    pub async fn create_subscription(&self, stored: &StoredSubscription) -> Result<Written, AwsError> {
        let subscription = &stored.subscription;
        let mut writes = vec![
            self.change_matching(&subscription.workspace, 1)?,
            self.put_new(&SubscriptionItem::of(
                stored,
                &self.subscription_key(&subscription.workspace, subscription.id),
            ))?,
        ];
        for pattern in &subscription.types {
            let Key { pk, sk, .. } = self.match_key(subscription, pattern);
            let created_at = subscription.created_at;
            writes.push(self.put_new(&MatchItem {
                pk,
                sk: sk.unwrap_or_default(),
                v: VERSION,
                created_at,
            })?);
        }
        self.transact(writes, &[Written::Missing, Written::Exists]).await
    }

    /// Deletes a subscription.
    pub async fn delete_subscription(&self, subscription: &Subscription) -> Result<Written, AwsError> {
        let workspace = &subscription.workspace;
        let there = self.delete(
            &self.subscription_key(workspace, subscription.id),
            Some(("attribute_exists(pk)", None)),
        )?;
        let mut writes = vec![there, self.change_matching(workspace, -1)?];
        for pattern in &subscription.types {
            writes.push(self.delete(&self.match_key(subscription, pattern), None)?);
        }
        self.transact(writes, &[Written::Missing, Written::Missing]).await
    }

    /// The rows of one pattern for a range of subscriptions and its lower end, consistently: what is read here is cached
    /// under the version that was read before, so an older state must not come in.
    pub async fn match_rows(
        &self,
        workspace: &WorkspaceId,
        pattern: &str,
        range: Range,
    ) -> Result<Vec<MatchRow>, AwsError> {
        // Ids sort as their texts, and no id's text lies outside of these two.
        let after = range.after.map_or_else(|| "sub_".to_owned(), |after| after.to_string());
        let up_to = range.up_to.map_or_else(|| "sub_~".to_owned(), |up_to| up_to.to_string());
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND sk BETWEEN :after AND :up_to")
            .expression_attribute_values(":pk", AttributeValue::S(match_partition(workspace, pattern)))
            .expression_attribute_values(":after", AttributeValue::S(after))
            .expression_attribute_values(":up_to", AttributeValue::S(up_to));
        let mut pages = query.into_paginator().send();
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(AwsError::call("dynamodb Query"))?;
            for item in page.items.unwrap_or_default() {
                let item: MatchItem = read(item)?;
                readable(item.v)?;
                let subscription = item.sk.parse().map_err(|error: NotAnId| unreadable(error.to_string()))?;
                rows.push(MatchRow { subscription, created_at: item.created_at });
            }
        }
        Ok(rows)
    }

    async fn get(&self, key: Key) -> Result<Option<Item>, AwsError> {
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key.attributes()));
        Ok(request.consistent_read(true).send().await.map_err(AwsError::call(GET))?.item)
    }

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
                .exclusive_start_key("sk", AttributeValue::S(after)),
            None => query,
        };
        let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
        let next = answer.last_evaluated_key.and_then(|key| key.get("sk")?.as_s().ok().cloned());
        Ok((answer.items.unwrap_or_default(), next))
    }

    /// Moves the version that matching goes by, and counts the workspace's subscriptions.
    fn change_matching(
        &self,
        workspace: &WorkspaceId,
        subscriptions: i8,
    ) -> Result<TransactWriteItem, AwsError> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.matching_key(workspace).attributes()))
            .update_expression("ADD version :one, subscriptions :change")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .expression_attribute_values(":change", AttributeValue::N(subscriptions.to_string()));
        let update = update.build().map_err(AwsError::call(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Puts an item that must not be there yet.
    fn put_new(&self, item: &impl Serialize) -> Result<TransactWriteItem, AwsError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?))
            .condition_expression("attribute_not_exists(pk)");
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

    /// Writes all or nothing. `refusals` says, write by write, what a condition that does not hold means; writes past
    /// its end have none that could fail.
    async fn transact(
        &self,
        writes: Vec<TransactWriteItem>,
        refusals: &[Written],
    ) -> Result<Written, AwsError> {
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
            let failed =
                reasons.iter().zip(refusals).find(|(reason, _)| code(reason, "ConditionalCheckFailed"));
            if let Some((_, refusal)) = failed {
                return Ok(*refusal);
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

    fn listed_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(LISTED.to_owned(), workspace.to_string())
    }

    fn match_key(&self, subscription: &Subscription, pattern: &TypePattern) -> Key {
        let pk = match_partition(&subscription.workspace, &pattern.to_string());
        self.key(pk, subscription.id.to_string())
    }

    fn key(&self, pk: String, sk: String) -> Key {
        Key { table: self.table.clone(), pk, sk: Some(sk) }
    }
}

/// Reads a workspace's item.
pub fn read_workspace(item: Item) -> Result<StoredWorkspace, AwsError> {
    let item: WorkspaceItem = read(item)?;
    let data_key = SealedDataKey(item.data_key.clone());
    Ok(StoredWorkspace { workspace: item.workspace()?, data_key })
}

/// Reads a subscription's item.
pub fn read_subscription(item: Item) -> Result<StoredSubscription, AwsError> {
    let item: SubscriptionItem = read(item)?;
    readable(item.v)?;
    let secrets = item.secrets.into_iter().map(|secret| (secret.name, Sealed(secret.sealed))).collect();
    let endpoint = Endpoint::stored(&item.endpoint).map_err(|error| unreadable(error.to_string()))?;
    let subscription = Subscription {
        id: item.id,
        workspace: item.workspace,
        endpoint,
        types: item.types,
        status: item.status,
        created_at: item.created_at,
    };
    Ok(StoredSubscription { subscription, secrets })
}

/// Reads the version of what matching reads.
pub fn read_matching_version(item: Item) -> Result<u64, AwsError> {
    let item: MatchingItem = read(item)?;
    readable(item.v)?;
    Ok(item.version)
}

const LISTED: &str = "WORKSPACES";
const GET: &str = "dynamodb GetItem";
const TRANSACT: &str = "dynamodb TransactWriteItems";

#[derive(Clone, Serialize, Deserialize)]
struct WorkspaceItem {
    pk: String,
    sk: String,
    v: u32,
    id: WorkspaceId,
    name: String,
    kind: WorkspaceKind,
    created_at: UnixMillis,
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    data_key: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct MatchingItem {
    pk: String,
    sk: String,
    v: u32,
    version: u64,
    subscriptions: u64,
}

#[derive(Serialize, Deserialize)]
struct SubscriptionItem {
    pk: String,
    sk: String,
    v: u32,
    id: SubscriptionId,
    workspace: WorkspaceId,
    endpoint: String,
    types: Vec<TypePattern>,
    status: SubscriptionStatus,
    created_at: UnixMillis,
    secrets: Vec<SecretItem>,
}

#[derive(Serialize, Deserialize)]
struct SecretItem {
    name: String,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct MatchItem {
    pk: String,
    sk: String,
    v: u32,
    created_at: UnixMillis,
}

impl WorkspaceItem {
    fn of(stored: &StoredWorkspace, key: &Key) -> Self {
        let StoredWorkspace { workspace, data_key } = stored;
        Self {
            pk: key.pk.clone(),
            sk: key.sk.clone().unwrap_or_default(),
            v: VERSION,
            id: workspace.id.clone(),
            name: workspace.name.clone(),
            kind: workspace.kind,
            created_at: workspace.created_at,
            data_key: data_key.0.clone(),
        }
    }

    fn workspace(self) -> Result<Workspace, AwsError> {
        readable(self.v)?;
        Ok(Workspace { id: self.id, name: self.name, kind: self.kind, created_at: self.created_at })
    }
}

impl SubscriptionItem {
    fn of(stored: &StoredSubscription, key: &Key) -> Self {
        let StoredSubscription { subscription, secrets } = stored;
        let secret =
            |(name, sealed): &(String, Sealed)| SecretItem { name: name.clone(), sealed: sealed.0.clone() };
        Self {
            pk: key.pk.clone(),
            sk: key.sk.clone().unwrap_or_default(),
            v: VERSION,
            id: subscription.id,
            workspace: subscription.workspace.clone(),
            endpoint: subscription.endpoint.to_string(),
            types: subscription.types.clone(),
            status: subscription.status,
            created_at: subscription.created_at,
            secrets: secrets.iter().map(secret).collect(),
        }
    }
}

fn partition(workspace: &WorkspaceId) -> String {
    format!("WS#{workspace}")
}

fn match_partition(workspace: &WorkspaceId, pattern: &str) -> String {
    format!("MATCH#{workspace}#{pattern}")
}

fn read<T: for<'de> Deserialize<'de>>(item: Item) -> Result<T, AwsError> {
    serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))
}

fn readable(version: u32) -> Result<(), AwsError> {
    if version == VERSION { Ok(()) } else { Err(unreadable(format!("it has version {version}"))) }
}

fn unreadable(detail: String) -> AwsError {
    AwsError::Item { table: TABLE, detail }
}
