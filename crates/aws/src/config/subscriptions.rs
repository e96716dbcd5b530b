//! Subscriptions with their secrets, and the rows by which events find them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::endpoint::Endpoint;
use carillon_core::id::{NotAnId, SubscriberId, SubscriptionId, WorkspaceId};
use carillon_core::matching::{MatchRow, Range};
use carillon_core::pattern::{EventType, TypePattern};
use carillon_core::retry::{PolicyError, RetryPolicy};
use carillon_core::subscription::{
    AttemptTimeout, Authorization, ClientCertificate, CustomHeaders, Details, DisabledBy, FilterSource,
    Format, Rate, Signatures, Status, StatusName, Subscription, Title, TokenSettings,
};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::audit::changes;
use super::{ConfigTable, Keys, Once, Page, QUERY, TABLE, TRANSACT, Written, partition, read, unreadable};
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;
use crate::vault::Sealed;

/// The name of a subscription's first signing secret.
pub const FIRST_SECRET: &str = "1";

/// How many pages a list that wants few of many reads at most, before it answers with what it has.
const PAGES_MAX: usize = 20;

/// A subscription with all that is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Subscription,
    /// Its signing secrets, the newest last.
    pub signing: Vec<StoredSecret>,
    /// The secret of its authorization, if that has one.
    pub authorization: Option<StoredSecret>,
    /// The key of its client certificate, if it has one.
    pub client_key: Option<StoredSecret>,
    /// How its endpoint's owner was asked, and what came of it.
    pub verification: Verification,
}

/// A sealed secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSecret {
    /// Its name, as it was sealed under.
    pub name: String,
    /// The secret.
    pub sealed: Sealed,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it goes out of use; never if absent.
    pub expires_at: Option<UnixMillis>,
}

/// How an endpoint's owner was asked whether it wants to be called, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// What is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// When the owner agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<UnixMillis>,
    /// The rate that the owner allows; any rate if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_rate: Option<Rate>,
}

/// A question to an endpoint's owner that can still be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// A SHA-256 of the token that answers it.
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// Until when.
    pub until: UnixMillis,
    /// The rate that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// Which subscriptions a list is to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this subscriber.
    pub subscriber: Option<SubscriberId>,
    /// With this status.
    pub status: Option<StatusName>,
    /// That ask for events of this type.
    pub event_type: Option<EventType>,
}

impl ConfigTable {
    /// Where a subscription is.
    #[must_use]
    pub fn subscription_key(&self, workspace: &WorkspaceId, subscription: SubscriptionId) -> Key {
        self.key(partition(workspace), sort_key(subscription))
    }

    /// A subscription by its id.
    pub async fn subscription(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
    ) -> Result<Option<StoredSubscription>, AwsError> {
        self.get(self.subscription_key(workspace, subscription)).await?.map(read_subscription).transpose()
    }

    /// Those of these subscriptions that are there.
    pub async fn subscriptions_by_id(
        &self,
        workspace: &WorkspaceId,
        ids: impl IntoIterator<Item = SubscriptionId>,
    ) -> Result<HashMap<SubscriptionId, StoredSubscription>, AwsError> {
        let keys = ids.into_iter().map(|id| self.subscription_key(workspace, id));
        let items = batch_read(&self.client, keys).await?;
        let stored = items.into_values().map(|item| {
            let stored = read_subscription(item)?;
            Ok((stored.subscription.id, stored))
        });
        stored.collect()
    }

    /// A workspace's subscriptions, a page at a time.
    pub async fn subscriptions(
        &self,
        workspace: &WorkspaceId,
        limit: i32,
        after: Option<SubscriptionId>,
    ) -> Result<Page<Subscription>, AwsError> {
        let page = self.stored_subscriptions(partition(workspace), limit, after).await?;
        Ok(Page {
            items: page.items.into_iter().map(|stored| stored.subscription).collect(),
            next: page.next,
        })
    }

    /// The subscriptions that a list is to show, a page at a time. A page may have fewer than `limit` though there is a
    /// next one: where few of many are wanted, what one answer reads is bounded.
    pub async fn wanted_subscriptions(
        &self,
        workspace: &WorkspaceId,
        wanted: &Wanted,
        limit: i32,
        mut after: Option<SubscriptionId>,
    ) -> Result<Page<StoredSubscription>, AwsError> {
        let count = usize::try_from(limit).unwrap_or_default();
        let mut items = Vec::new();
        for _ in 0..PAGES_MAX {
            let Page { items: page, next } = self.some_subscriptions(workspace, wanted, limit, after).await?;
            let mut found = page.into_iter().filter(|stored| wanted.includes(&stored.subscription));
            items.extend(found.by_ref().take(count - items.len()));
            let more = found.next().is_some();
            let last = items.last().map(|stored: &StoredSubscription| stored.subscription.id);
            if more {
                return Ok(Page { items, next: last.map(|last| last.to_string()) });
            }
            after = match next {
                None => return Ok(Page { items, next: None }),
                Some(next) if items.len() == count => return Ok(Page { items, next: Some(next) }),
                Some(next) => Some(next.parse().map_err(|error: NotAnId| unreadable(error.to_string()))?),
            };
        }
        Ok(Page { items, next: after.map(|after| after.to_string()) })
    }

    /// Creates a subscription. [`Written::Missing`]: its workspace is not there, or not for long.
    pub async fn create_subscription(
        &self,
        stored: &StoredSubscription,
        once: Option<&Once>,
        by: By,
    ) -> Result<Written, AwsError> {
        let subscription = &stored.subscription;
        let key = self.subscription_key(&subscription.workspace, subscription.id);
        let entry = Keys::of(&self.entry_key(subscription));
        let mut writes = vec![
            (self.change_matching(&subscription.workspace, 1)?, Written::Missing),
            (self.put_new(&SubscriptionItem::of(stored, &key)?)?, Written::Exists),
            (self.put(&entry)?, Written::Exists),
            self.subscription_audited(subscription, by, Action::SubscriptionCreated, Vec::new())?,
        ];
        if let Some(title) = self.title_key(subscription) {
            writes.push((self.put_new(&Keys::of(&title))?, Written::TitleTaken));
        }
        for pattern in &subscription.details.types {
            writes.extend(self.put_match(subscription, pattern)?.map(|put| (put, Written::Exists)));
        }
        self.transact_once(once, &mut writes).await
    }

    /// Writes a subscription in the place of `old`, as that was read. [`Written::Stale`]: it was changed or deleted
    /// since.
    pub async fn update_subscription(
        &self,
        old: &StoredSubscription,
        new: &StoredSubscription,
        by: By,
    ) -> Result<Written, AwsError> {
        let (was, is) = (&old.subscription, &new.subscription);
        let key = self.subscription_key(&is.workspace, is.id);
        let item = SubscriptionItem::of(new, &key)?;
        let changes = changes(&SubscriptionItem::of(old, &key)?, &item)?;
        let mut writes = vec![
            (self.put_over(&item, was.revision)?, Written::Stale),
            self.subscription_audited(is, by, Action::SubscriptionUpdated, changes)?,
        ];
        let (old_title, new_title) = (self.title_key(was), self.title_key(is));
        if old_title != new_title {
            if let Some(title) = &old_title {
                writes.push((self.delete(title, None)?, Written::Stale));
            }
            if let Some(title) = &new_title {
                writes.push((self.put_new(&Keys::of(title))?, Written::TitleTaken));
            }
        }
        let same_rows = was.match_row() == is.match_row();
        if !same_rows || was.details.types != is.details.types || was.details.filter != is.details.filter {
            writes.push((self.change_matching(&is.workspace, 0)?, Written::Missing));
            let had = |pattern| was.match_row().is_some() && was.details.types.contains(pattern);
            let has = |pattern| is.match_row().is_some() && is.details.types.contains(pattern);
            for pattern in was.details.types.iter().filter(|pattern| had(pattern) && !has(pattern)) {
                writes.push((self.delete(&self.match_key(is, pattern), None)?, Written::Stale));
            }
            for pattern in is.details.types.iter().filter(|pattern| !(same_rows && had(pattern))) {
                writes.extend(self.put_match(is, pattern)?.map(|put| (put, Written::Stale)));
            }
        }
        self.transact(writes).await
    }

    /// Disables a subscription as it was at `revision`. `false`: it was changed, or deleted, since.
    pub async fn disable_subscription(
        &self,
        (workspace, subscription): (&WorkspaceId, SubscriptionId),
        revision: u64,
        by: DisabledBy,
        now: UnixMillis,
    ) -> Result<bool, AwsError> {
        let status = serde_dynamo::to_attribute_value(Status::Disabled(by)).map_err(AwsError::item(TABLE))?;
        let number = |number: u64| AttributeValue::N(number.to_string());
        let values = Item::from([
            (":disabled".to_owned(), status),
            (":next".to_owned(), number(revision + 1)),
            (":revision".to_owned(), number(revision)),
            (":now".to_owned(), number(now.0)),
        ]);
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.subscription_key(workspace, subscription).attributes()))
            .update_expression("SET #state = :disabled, revision = :next, updated_at = :now")
            .condition_expression("revision = :revision")
            .expression_attribute_names("#state", "state")
            .set_expression_attribute_values(Some(values));
        let update = update.build().map_err(AwsError::call(TRANSACT))?;
        let update = TransactWriteItem::builder().update(update).build();
        let (action, target) = (Action::SubscriptionUpdated, subscription.to_string());
        let changes = vec!["status".to_owned()];
        let entry = AuditEntry { at: now, by: By::Carillon, action, target, changes };
        let written = self.transact(vec![(update, Written::Stale), self.audited(workspace, entry)?]).await?;
        Ok(written == Written::Done)
    }

    /// Deletes a subscription. [`Written::Missing`]: it is not there, or was changed since it was read. Where nobody asks for
    /// that but its workspace's end, there is no entry of the audit.
    pub async fn delete_subscription(
        &self,
        subscription: &Subscription,
        by: Option<(By, UnixMillis)>,
    ) -> Result<Written, AwsError> {
        let revision = AttributeValue::N(subscription.revision.to_string());
        let values = Item::from([(":revision".to_owned(), revision)]);
        let there = self.delete(
            &self.subscription_key(&subscription.workspace, subscription.id),
            Some(("revision = :revision", Some(values))),
        )?;
        let mut writes = vec![
            (there, Written::Missing),
            (self.change_matching(&subscription.workspace, -1)?, Written::Missing),
            (self.delete(&self.entry_key(subscription), None)?, Written::Missing),
        ];
        if let Some(title) = self.title_key(subscription) {
            writes.push((self.delete(&title, None)?, Written::Missing));
        }
        for pattern in &subscription.details.types {
            writes.push((self.delete(&self.match_key(subscription, pattern), None)?, Written::Missing));
        }
        if let Some((by, at)) = by {
            let deleted = Subscription { updated_at: at, ..subscription.clone() };
            writes.push(self.subscription_audited(&deleted, by, Action::SubscriptionDeleted, Vec::new())?);
        }
        self.transact(writes).await
    }

    fn subscription_audited(
        &self,
        subscription: &Subscription,
        by: By,
        action: Action,
        changes: Vec<String>,
    ) -> Result<(TransactWriteItem, Written), AwsError> {
        let Subscription { id, workspace, updated_at, .. } = subscription;
        let entry = AuditEntry { at: *updated_at, by, action, target: id.to_string(), changes };
        self.audited(workspace, entry)
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
            let page = page.map_err(AwsError::call(QUERY))?;
            for item in page.items.unwrap_or_default() {
                rows.push(read_match_row(item)?);
            }
        }
        Ok(rows)
    }

    /// A page of the partition that has the fewest of what is not wanted.
    async fn some_subscriptions(
        &self,
        workspace: &WorkspaceId,
        wanted: &Wanted,
        limit: i32,
        after: Option<SubscriptionId>,
    ) -> Result<Page<StoredSubscription>, AwsError> {
        let Some(subscriber) = &wanted.subscriber else {
            return self.stored_subscriptions(partition(workspace), limit, after).await;
        };
        let after = after.map(|after| after.to_string());
        let (entries, next) = self.page(entries(workspace, subscriber), PREFIX, limit, after).await?;
        let ids = entries.into_iter().map(|entry| {
            let keys: Keys = read(entry)?;
            let id = keys.sk.strip_prefix(PREFIX).unwrap_or_default();
            id.parse().map_err(|error: NotAnId| unreadable(error.to_string()))
        });
        let ids = ids.collect::<Result<Vec<SubscriptionId>, AwsError>>()?;
        let mut found = self.subscriptions_by_id(workspace, ids.iter().copied()).await?;
        Ok(Page { items: ids.iter().filter_map(|id| found.remove(id)).collect(), next })
    }

    async fn stored_subscriptions(
        &self,
        pk: String,
        limit: i32,
        after: Option<SubscriptionId>,
    ) -> Result<Page<StoredSubscription>, AwsError> {
        let after = after.map(|after| after.to_string());
        let (items, next) = self.page(pk, PREFIX, limit, after).await?;
        Ok(Page { items: items.into_iter().map(read_subscription).collect::<Result<_, _>>()?, next })
    }

    /// Puts what fan-out knows of a subscription under one of its patterns; nothing if it is not to be found.
    fn put_match(
        &self,
        subscription: &Subscription,
        pattern: &TypePattern,
    ) -> Result<Option<TransactWriteItem>, AwsError> {
        let Some(MatchRow { subscriber, filtered, created_at, .. }) = subscription.match_row() else {
            return Ok(None);
        };
        let keys = Keys::of(&self.match_key(subscription, pattern));
        self.put(&MatchItem { keys, subscriber, filtered, created_at }).map(Some)
    }

    fn entry_key(&self, subscription: &Subscription) -> Key {
        let Subscription { id, workspace, subscriber, .. } = subscription;
        self.key(entries(workspace, subscriber), sort_key(*id))
    }

    fn title_key(&self, subscription: &Subscription) -> Option<Key> {
        let title = subscription.details.title.as_ref()?;
        let sk = format!("TITLE#{}#{}", subscription.subscriber, title.as_str());
        Some(self.key(partition(&subscription.workspace), sk))
    }

    fn match_key(&self, subscription: &Subscription, pattern: &TypePattern) -> Key {
        let pk = match_partition(&subscription.workspace, &pattern.to_string());
        self.key(pk, subscription.id.to_string())
    }
}

impl StoredSubscription {
    /// The signing secrets that are in use.
    pub fn live(&self, now: UnixMillis) -> impl Iterator<Item = &StoredSecret> {
        self.signing.iter().filter(move |secret| secret.expires_at.is_none_or(|expires_at| expires_at > now))
    }
}

impl Wanted {
    fn includes(&self, subscription: &Subscription) -> bool {
        self.subscriber.as_ref().is_none_or(|subscriber| *subscriber == subscription.subscriber)
            && self.status.is_none_or(|status| status == subscription.status.name())
            && self
                .event_type
                .as_ref()
                .is_none_or(|wanted| subscription.details.types.iter().any(|pattern| pattern.matches(wanted)))
    }
}

/// Reads a subscription's item.
pub fn read_subscription(item: Item) -> Result<StoredSubscription, AwsError> {
    let item: SubscriptionItem = read(item)?;
    item.keys.readable()?;
    let filter = item.filter.as_deref().map(serde_json::from_str::<FilterSource>).transpose();
    let steps = item.retry_steps.map(|steps| RetryPolicy::new(steps.into_iter().map(span).collect()));
    let details = Details {
        endpoint: item.endpoint,
        title: item.title,
        types: item.types,
        filter: filter.map_err(|error| unreadable(error.to_string()))?,
        format: item.format,
        token: item.token,
        signatures: item.signatures,
        authorization: item.authorization,
        client_certificate: item.client_certificate,
        headers: item.headers,
        retry_policy: steps.transpose().map_err(|error: PolicyError| unreadable(error.to_string()))?,
        timeout: item.timeout,
        rate_per_minute: item.rate_per_minute,
    };
    let subscription = Subscription {
        id: item.id,
        workspace: item.workspace,
        subscriber: item.subscriber,
        details,
        status: item.state,
        created_at: item.created_at,
        updated_at: item.updated_at,
        revision: item.revision,
    };
    Ok(StoredSubscription {
        subscription,
        signing: item.signing.into_iter().map(Into::into).collect(),
        authorization: item.authorization_secret.map(Into::into),
        client_key: item.client_key.map(Into::into),
        verification: item.verification,
    })
}

const PREFIX: &str = "SUB#";

#[derive(Serialize, Deserialize)]
struct SubscriptionItem {
    #[serde(flatten)]
    keys: Keys,
    id: SubscriptionId,
    workspace: WorkspaceId,
    subscriber: SubscriberId,
    endpoint: Endpoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<Title>,
    types: Vec<TypePattern>,
    /// As JSON text: its numbers and its depth are not the table's concern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    format: Format,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<TokenSettings>,
    #[serde(default)]
    signatures: Signatures,
    authorization: Authorization,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<ClientCertificate>,
    headers: CustomHeaders,
    /// In seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_steps: Option<Vec<u64>>,
    timeout: AttemptTimeout,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_per_minute: Option<Rate>,
    state: Status,
    created_at: UnixMillis,
    updated_at: UnixMillis,
    revision: u64,
    signing: Vec<SecretItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authorization_secret: Option<SecretItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_key: Option<SecretItem>,
    verification: Verification,
}

#[derive(Serialize, Deserialize)]
struct SecretItem {
    name: String,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
    created_at: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<UnixMillis>,
}

#[derive(Serialize, Deserialize)]
struct MatchItem {
    #[serde(flatten)]
    keys: Keys,
    subscriber: SubscriberId,
    filtered: bool,
    created_at: UnixMillis,
}

impl SubscriptionItem {
    fn of(stored: &StoredSubscription, key: &Key) -> Result<Self, AwsError> {
        let StoredSubscription { subscription, signing, authorization, client_key, verification } = stored;
        let details = &subscription.details;
        let filter = details.filter.as_ref().map(serde_json::to_string).transpose();
        let steps = |policy: &RetryPolicy| policy.steps().iter().map(std::time::Duration::as_secs).collect();
        Ok(Self {
            keys: Keys::of(key),
            id: subscription.id,
            workspace: subscription.workspace.clone(),
            subscriber: subscription.subscriber.clone(),
            endpoint: details.endpoint.clone(),
            title: details.title.clone(),
            types: details.types.clone(),
            filter: filter.map_err(|error| AwsError::Item { table: TABLE, detail: error.to_string() })?,
            format: details.format,
            token: details.token.clone(),
            signatures: details.signatures.clone(),
            authorization: details.authorization.clone(),
            client_certificate: details.client_certificate.clone(),
            headers: details.headers.clone(),
            retry_steps: details.retry_policy.as_ref().map(steps),
            timeout: details.timeout,
            rate_per_minute: details.rate_per_minute,
            state: subscription.status,
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
            revision: subscription.revision,
            signing: signing.iter().map(Into::into).collect(),
            authorization_secret: authorization.as_ref().map(Into::into),
            client_key: client_key.as_ref().map(Into::into),
            verification: verification.clone(),
        })
    }
}

impl From<&StoredSecret> for SecretItem {
    fn from(StoredSecret { name, sealed, created_at, expires_at }: &StoredSecret) -> Self {
        let sealed = sealed.0.clone();
        Self { name: name.clone(), sealed, created_at: *created_at, expires_at: *expires_at }
    }
}

impl From<SecretItem> for StoredSecret {
    fn from(SecretItem { name, sealed, created_at, expires_at }: SecretItem) -> Self {
        Self { name, sealed: Sealed(sealed), created_at, expires_at }
    }
}

fn read_match_row(item: Item) -> Result<MatchRow, AwsError> {
    let item: MatchItem = read(item)?;
    item.keys.readable()?;
    let subscription = item.keys.sk.parse().map_err(|error: NotAnId| unreadable(error.to_string()))?;
    Ok(MatchRow {
        subscription,
        subscriber: item.subscriber,
        filtered: item.filtered,
        created_at: item.created_at,
    })
}

fn sort_key(subscription: SubscriptionId) -> String {
    format!("{PREFIX}{subscription}")
}

fn entries(workspace: &WorkspaceId, subscriber: &SubscriberId) -> String {
    format!("OF#{workspace}#{subscriber}")
}

fn match_partition(workspace: &WorkspaceId, pattern: &str) -> String {
    format!("MATCH#{workspace}#{pattern}")
}

fn span(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
