//! The deliveries table: the rows that guarantee each delivery, and what changes as a subscription runs.
//!
//! | what | pk | sk |
//! |---|---|---|
//! | delivery | `{subscription}#{shard}` | `{time of acceptance}#{event}` |
//! | state of a subscription | `{subscription}` | `state` |
//!
//! The sparse index `open` holds what is not done: `retrying#{shard}` by the time of the next attempt, which the sweep
//! walks, and `failed#{subscription}` by the time of acceptance.
//!
//! The conditions are those of [`carillon_core::delivery::Row`].

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use carillon_core::delivery::{AttemptRecord, Decision, FailReason, Row, Status};
use carillon_core::id::{EventDigest, EventKey, SubscriptionId, WorkspaceId};
use carillon_core::pattern::EventType;
use carillon_core::task::{DeliveryTask, EventRef};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::SHARDS;
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;

const TABLE: &str = "deliveries";
const INDEX: &str = "open";

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// The deliveries table.
#[derive(Clone, Debug)]
pub struct DeliveryTable {
    client: Client,
    table: String,
}

/// What changes of a subscription as it runs, outside its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Whether its tasks belong into the slow queue.
    pub slow: bool,
    /// How many quick answers it gave since it became slow.
    pub quick: u32,
}

/// How long a subscription's state is kept after its last change.
const STATE_KEPT: Duration = Duration::from_hours(24);

/// How many quick answers bring a subscription back from the slow lane.
pub const QUICK_ANSWERS: u32 = 3;

/// Whether a conditional write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It did.
    Won,
    /// Its condition did not hold: another copy of the task was faster.
    Lost,
}

/// A delivery's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What its conditions read.
    pub row: Row,
    /// Why it failed, if it did.
    pub reason: Option<FailReason>,
    /// Its attempts, the latest last.
    pub attempts: Vec<AttemptRecord>,
    /// Whom it is for.
    pub subscription: SubscriptionId,
    /// Its event, by reference.
    pub event: EventRef,
}

impl DeliveryTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Where the row of a task's delivery is.
    #[must_use]
    pub fn key(&self, task: &DeliveryTask) -> Key {
        let digest = task.event.key.digest;
        let pk = format!("{}#{}", task.subscription, digest.shard(SHARDS));
        Key {
            table: self.table.clone(),
            pk,
            sk: Some(format!("{}#{digest}", task.event.accepted_at.sortable())),
        }
    }

    /// Where a subscription's state is.
    #[must_use]
    pub fn state_key(&self, subscription: SubscriptionId) -> Key {
        Key { table: self.table.clone(), pk: subscription.to_string(), sk: Some("state".to_owned()) }
    }

    /// Records the outcome of a first attempt: puts the row if it is absent. It is kept for `retention` after the event
    /// was accepted.
    pub async fn record_first(
        &self,
        task: &DeliveryTask,
        attempt: Option<&AttemptRecord>,
        decision: Decision,
        retention: Duration,
    ) -> Result<Claim, AwsError> {
        let Key { pk, sk, .. } = self.key(task);
        let (open_pk, open_sk) = open(task, decision).unzip();
        let writer = writer()?;
        let item = DeliveryItem {
            pk,
            sk: sk.unwrap_or_default(),
            v: VERSION,
            writer,
            workspace: task.event.key.workspace.clone(),
            r#type: task.event.event_type.clone(),
            status: decision.status(),
            round: 1,
            attempt: attempt.map_or(0, |attempt| attempt.number),
            next_at: decision.next_at(),
            lease_until: None,
            reason: reason(decision),
            attempts: attempt.into_iter().cloned().collect(),
            open_pk,
            open_sk,
            expires_at: (task.event.accepted_at + retention).as_secs(),
        };
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(serde_dynamo::to_item(&item).map_err(AwsError::item(TABLE))?))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(_) => Ok(Claim::Won),
            Err(SdkError::ServiceError(error)) => match error.into_err() {
                PutItemError::ConditionalCheckFailedException(kept) => Ok(won_before(kept.item, writer)),
                other => Err(AwsError::call("dynamodb PutItem")(other)),
            },
            Err(error) => Err(AwsError::call("dynamodb PutItem")(error)),
        }
    }

    /// Takes the lease for an attempt ([`Row::leasable`]).
    pub async fn lease(
        &self,
        task: &DeliveryTask,
        (round, attempt): (u32, u32),
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<Claim, AwsError> {
        let request = self
            .update(&self.key(task))
            .update_expression("SET writer = :writer, lease_until = :until")
            .condition_expression(leasable())
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":until", number(until.0));
        claim(recordable(request, round, attempt)).await
    }

    /// Puts an attempt off until `until`: takes the lease for so long ([`Row::leasable`]), so that other copies of the task
    /// are dropped, and keeps the sweep away as well.
    pub async fn put_off(
        &self,
        task: &DeliveryTask,
        (round, attempt): (u32, u32),
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<Claim, AwsError> {
        let (_, open_sk) = open_retrying(task, until);
        let request = self
            .update(&self.key(task))
            .update_expression(
                "SET writer = :writer, lease_until = :until, next_at = :until, open_sk = :open_sk",
            )
            .condition_expression(leasable())
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":until", number(until.0))
            .expression_attribute_values(":open_sk", AttributeValue::S(open_sk));
        claim(recordable(request, round, attempt)).await
    }

    /// Starts the round after `after`, with the lease for its first attempt ([`Row::renewable`]).
    pub async fn start_round(
        &self,
        task: &DeliveryTask,
        after: u32,
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<Claim, AwsError> {
        let (open_pk, open_sk) = open_retrying(task, now);
        let request = self
            .update(&self.key(task))
            .update_expression(
                "SET writer = :writer, #status = :retrying, round = :next, attempt = :zero, next_at = :now, \
                 lease_until = :until, open_pk = :open_pk, open_sk = :open_sk REMOVE reason",
            )
            .condition_expression("#status = :failed AND round = :round")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":failed", text("failed"))
            .expression_attribute_values(":retrying", text("retrying"))
            .expression_attribute_values(":round", number(after))
            .expression_attribute_values(":next", number(after + 1))
            .expression_attribute_values(":zero", number(0_u8))
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":until", number(until.0))
            .expression_attribute_values(":open_pk", AttributeValue::S(open_pk))
            .expression_attribute_values(":open_sk", AttributeValue::S(open_sk));
        claim(request).await
    }

    /// Records the outcome of an attempt that was made under a lease ([`Row::recordable`]); without an attempt when the
    /// delivery was cancelled before it.
    pub async fn record(
        &self,
        task: &DeliveryTask,
        (round, attempt): (u32, u32),
        record: Option<&AttemptRecord>,
        decision: Decision,
    ) -> Result<Claim, AwsError> {
        let mut set = vec!["writer = :writer", "#status = :status"];
        let mut remove = vec!["lease_until"];
        let request = self.update(&self.key(task)).expression_attribute_values(
            ":status",
            serde_dynamo::to_attribute_value(decision.status()).map_err(AwsError::item(TABLE))?,
        );
        let mut request = recordable(request.condition_expression(RECORDABLE), round, attempt);
        if let Some(record) = record {
            set.extend(["attempt = :attempt", "attempts = list_append(attempts, :record)"]);
            let record = serde_dynamo::to_attribute_value(record).map_err(AwsError::item(TABLE))?;
            request = request
                .expression_attribute_values(":attempt", number(attempt))
                .expression_attribute_values(":record", AttributeValue::L(vec![record]));
        }
        match decision.next_at() {
            Some(at) => {
                set.push("next_at = :at");
                request = request.expression_attribute_values(":at", number(at.0));
            }
            None => remove.push("next_at"),
        }
        match open(task, decision) {
            Some((open_pk, open_sk)) => {
                set.extend(["open_pk = :open_pk", "open_sk = :open_sk"]);
                request = request
                    .expression_attribute_values(":open_pk", AttributeValue::S(open_pk))
                    .expression_attribute_values(":open_sk", AttributeValue::S(open_sk));
            }
            None => remove.extend(["open_pk", "open_sk"]),
        }
        if let Some(reason) = reason(decision) {
            set.push("reason = :reason");
            let reason = serde_dynamo::to_attribute_value(reason).map_err(AwsError::item(TABLE))?;
            request = request.expression_attribute_values(":reason", reason);
        }
        let request =
            request.update_expression(format!("SET {} REMOVE {}", set.join(", "), remove.join(", ")));
        claim(request).await
    }

    /// Deliveries of a shard whose next attempt was due before `before`, the longest due first. Read through the index and
    /// then row by row, so each is as the table has it. `after` is the `next` of the page before.
    pub async fn due_before(
        &self,
        shard: u8,
        before: UnixMillis,
        limit: i32,
        after: Option<Item>,
    ) -> Result<(Vec<Delivery>, Option<Item>), AwsError> {
        let query = self.client.query().table_name(&self.table).index_name(INDEX).limit(limit);
        let query = query
            .key_condition_expression("open_pk = :pk AND open_sk < :end")
            .expression_attribute_values(":pk", AttributeValue::S(format!("retrying#{shard}")))
            .expression_attribute_values(":end", AttributeValue::S(before.sortable()))
            .set_exclusive_start_key(after);
        let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
        let key = |item: Item| {
            let text = |name| item.get(name).and_then(|value| value.as_s().ok()).cloned();
            Some(Key { table: self.table.clone(), pk: text("pk")?, sk: text("sk") })
        };
        let keys: Vec<_> = answer.items.unwrap_or_default().into_iter().filter_map(key).collect();
        let rows = batch_read(&self.client, keys).await?;
        let readable =
            |item| read_delivery(item).inspect_err(|error| tracing::error!(%error, "a row is left out")).ok();
        Ok((rows.into_values().filter_map(readable).collect(), answer.last_evaluated_key))
    }

    /// Notes that a delivery's task is sent again now, so that the next sweeps leave it alone for as long as this one
    /// did. Lost: it moved on meanwhile.
    pub async fn resend(&self, delivery: &Delivery, now: UnixMillis) -> Result<Claim, AwsError> {
        let task = delivery.task();
        let (_, open_sk) = open_retrying(&task, now);
        let request = self
            .update(&self.key(&task))
            .update_expression("SET writer = :writer, next_at = :now, open_sk = :open_sk")
            .condition_expression(format!("{RECORDABLE} AND next_at = :was"))
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":was", number(delivery.row.next_at.map_or(0, |at| at.0)))
            .expression_attribute_values(":open_sk", AttributeValue::S(open_sk));
        let request = recordable(request, delivery.row.round, delivery.row.attempt + 1);
        claim(request).await
    }

    /// Moves a subscription to the slow lane.
    pub async fn mark_slow(&self, subscription: SubscriptionId, now: UnixMillis) -> Result<(), AwsError> {
        self.put_state(subscription, State { slow: true, quick: 0 }, now).await
    }

    /// Counts a quick answer of a slow subscription; [`QUICK_ANSWERS`] of them move it back.
    pub async fn count_quick(
        &self,
        subscription: SubscriptionId,
        state: State,
        now: UnixMillis,
    ) -> Result<(), AwsError> {
        let quick = state.quick + 1;
        self.put_state(subscription, State { slow: quick < QUICK_ANSWERS, quick }, now).await
    }

    /// Keeps a state for as long as it can matter: who gets no event for a day is no longer slow.
    async fn put_state(
        &self,
        subscription: SubscriptionId,
        state: State,
        now: UnixMillis,
    ) -> Result<(), AwsError> {
        let request = self
            .update(&self.state_key(subscription))
            .update_expression("SET slow = :slow, quick = :quick, expires_at = :expires_at")
            .expression_attribute_values(":slow", AttributeValue::Bool(state.slow))
            .expression_attribute_values(":quick", number(state.quick))
            .expression_attribute_values(":expires_at", number((now + STATE_KEPT).as_secs()));
        request.send().await.map_err(AwsError::call("dynamodb UpdateItem"))?;
        Ok(())
    }

    fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).set_key(Some(key.attributes()))
    }
}

impl Delivery {
    /// The task of its next attempt.
    #[must_use]
    pub fn task(&self) -> DeliveryTask {
        DeliveryTask {
            subscription: self.subscription,
            event: self.event.clone(),
            ask: self.row.next(),
            reason: None,
        }
    }
}

/// Reads a delivery's item.
pub fn read_delivery(item: Item) -> Result<Delivery, AwsError> {
    let item: DeliveryItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    if item.v != VERSION {
        return Err(AwsError::Item { table: TABLE, detail: format!("it has version {}", item.v) });
    }
    let keys = || -> Option<(SubscriptionId, UnixMillis, EventDigest)> {
        let (subscription, _) = item.pk.split_once('#')?;
        let (accepted_at, digest) = item.sk.split_once('#')?;
        Some((subscription.parse().ok()?, UnixMillis(accepted_at.parse().ok()?), digest.parse().ok()?))
    };
    let (subscription, accepted_at, digest) = keys()
        .ok_or_else(|| AwsError::Item { table: TABLE, detail: "its keys are no delivery's".to_owned() })?;
    Ok(Delivery {
        row: Row {
            round: item.round,
            attempt: item.attempt,
            status: item.status,
            next_at: item.next_at,
            lease_until: item.lease_until,
        },
        reason: item.reason,
        attempts: item.attempts,
        subscription,
        event: EventRef {
            key: EventKey { workspace: item.workspace, digest },
            accepted_at,
            event_type: item.r#type,
            json: None,
        },
    })
}

/// Reads a subscription's state.
pub fn read_state(item: Item) -> Result<State, AwsError> {
    serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))
}

#[derive(Serialize, Deserialize)]
struct DeliveryItem {
    pk: String,
    sk: String,
    v: u32,
    /// Of the write that left the item as it is.
    writer: u64,
    workspace: WorkspaceId,
    r#type: EventType,
    status: Status,
    round: u32,
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_at: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_until: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<FailReason>,
    attempts: Vec<AttemptRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_pk: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_sk: Option<String>,
    expires_at: u64,
}

/// [`Row::recordable`] as an expression, its values given by [`recordable`].
const RECORDABLE: &str = "#status = :retrying AND round = :round AND attempt = :before";

/// [`Row::leasable`] as an expression, with `:now` besides the values of [`recordable`].
fn leasable() -> String {
    format!("{RECORDABLE} AND (attribute_not_exists(lease_until) OR lease_until <= :now)")
}

fn recordable(request: UpdateItemFluentBuilder, round: u32, attempt: u32) -> UpdateItemFluentBuilder {
    request
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":retrying", text("retrying"))
        .expression_attribute_values(":round", number(round))
        .expression_attribute_values(":before", number(attempt - 1))
}

/// Where a delivery stands in the sparse index after a decision.
fn open(task: &DeliveryTask, decision: Decision) -> Option<(String, String)> {
    match decision {
        Decision::Retry { next_at } => Some(open_retrying(task, next_at)),
        Decision::Failed(_) => {
            let sk = format!("{}#{}", task.event.accepted_at.sortable(), task.event.key.digest);
            Some((format!("failed#{}", task.subscription), sk))
        }
        Decision::Delivered | Decision::Cancelled => None,
    }
}

fn open_retrying(task: &DeliveryTask, next_at: UnixMillis) -> (String, String) {
    let shard = task.event.key.digest.shard(SHARDS);
    (format!("retrying#{shard}"), format!("{}#{}", next_at.sortable(), task.delivery()))
}

fn reason(decision: Decision) -> Option<FailReason> {
    match decision {
        Decision::Failed(reason) => Some(reason),
        _ => None,
    }
}

/// Makes a conditional update that sets `writer`. If its answer was lost, the SDK has tried again, and the condition
/// fails on the very write that it guards: the item then names this writer. Nothing less tells them apart, since two
/// copies of a task may run in one batch, at one time and with one deadline.
async fn claim(request: UpdateItemFluentBuilder) -> Result<Claim, AwsError> {
    let writer = writer()?;
    let request = request
        .expression_attribute_values(":writer", number(writer))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    match request.send().await {
        Ok(_) => Ok(Claim::Won),
        Err(SdkError::ServiceError(error)) => match error.into_err() {
            UpdateItemError::ConditionalCheckFailedException(kept) => Ok(won_before(kept.item, writer)),
            other => Err(AwsError::call("dynamodb UpdateItem")(other)),
        },
        Err(error) => Err(AwsError::call("dynamodb UpdateItem")(error)),
    }
}

/// The name of one write, different from that of any other.
fn writer() -> Result<u64, AwsError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AwsError::Secret("made"))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn won_before(kept: Option<Item>, writer: u64) -> Claim {
    let kept = kept.and_then(|item| serde_dynamo::from_item::<_, DeliveryItem>(item).ok());
    if kept.is_some_and(|kept| kept.writer == writer) { Claim::Won } else { Claim::Lost }
}

fn number(value: impl Into<u64>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
