//! The deliveries table: the rows that guarantee each delivery, and what changes as a subscription runs.
//!
//! | what | pk | sk |
//! |---|---|---|
//! | delivery | `{subscription}#{shard}` | `{time of acceptance}#{event}` |
//! | state of a subscription | `{subscription}` | `state` |
//!
//! Two sparse indexes hold what is not done. `open`: what is retrying, as `retrying#{shard}` by the time of the next attempt,
//! which the sweep walks. `by_status`: what is retrying, held or failed, under the row's own `pk`, as
//! `{status}#{time of acceptance}#{event}` in `stands`. A delivery that goes well enters neither.
//!
//! The conditions are those of [`carillon_core::delivery::Row`].

mod lists;

use std::time::Duration;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use carillon_core::delivery::{Ask, AttemptRecord, Decision, FailReason, HeldBy, Row, Status};
use carillon_core::health::Health;
use carillon_core::id::{EventDigest, EventKey, SubscriptionId, WorkspaceId};
use carillon_core::pattern::EventType;
use carillon_core::rate::{RESERVED_AHEAD, Slots, room};
use carillon_core::task::{DeliveryTask, EventRef};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::SHARDS;
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;
use crate::wire::DynamoDb;

pub use self::lists::{Counted, Look, Open, Order, Place};

const TABLE: &str = "deliveries";
const INDEX: &str = "open";

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// The deliveries table.
#[derive(Clone, Debug)]
pub struct DeliveryTable {
    client: DynamoDb,
    table: String,
}

/// What changes of a subscription as it runs, outside its version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Whether its tasks belong into the slow queue.
    #[serde(default)]
    pub slow: bool,
    /// How many quick answers in a row it gave since it became slow.
    #[serde(default)]
    pub quick: u32,
    /// How its receiver fared when that was last written.
    #[serde(default)]
    health: Health,
    /// The subscription's revision then.
    #[serde(default)]
    health_of: u64,
    /// Grows with each change of `health`.
    #[serde(default)]
    health_writes: u64,
    /// The time of the next free slot, in microseconds since the epoch.
    #[serde(default)]
    next_slot: Option<u64>,
    /// The time from one slot to the next, in microseconds, when slots were last reserved.
    #[serde(default)]
    slot_spacing: Option<u64>,
}

/// How long a subscription's state is kept after its last change: longer than it takes to give a receiver up.
const STATE_KEPT: Duration = Duration::from_hours(15 * 24);

/// How many quick answers bring a subscription back from the slow lane.
pub const QUICK_ANSWERS: u32 = 20;

/// Slots that were reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slotted {
    /// From this time on, in microseconds since the epoch.
    From(u64),
    /// None: all slots of the next minutes are taken.
    Full,
}

/// How often slots are asked for where others ask at the same moment.
const RESERVE_TRIES: u32 = 5;

/// How many attempts of earlier rounds a delivery keeps.
pub const ATTEMPTS_KEPT: usize = 100;

/// Whether a conditional write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It did.
    Won,
    /// Its condition did not hold: another copy of the task was faster.
    Lost,
    /// There is no row any more: it was kept for as long as rows are.
    Gone,
}

/// A delivery's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What its conditions read.
    pub row: Row,
    /// Why it failed, if it did.
    pub reason: Option<FailReason>,
    /// Why it is held, if it is.
    pub held_by: Option<HeldBy>,
    /// Its attempts, the latest last.
    pub attempts: Vec<AttemptRecord>,
    /// Whom it is for.
    pub subscription: SubscriptionId,
    /// Its event, by reference.
    pub event: EventRef,
    /// From when on it is no more, though DynamoDB may delete it days later.
    pub expires_at: UnixMillis,
}

impl DeliveryTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: DynamoDb, table: String) -> Self {
        Self { client, table }
    }

    /// Where the row of a task's delivery is.
    #[must_use]
    pub fn key(&self, task: &DeliveryTask) -> Key {
        let digest = task.event.key.digest;
        let pk = format!("{}#{}", task.subscription, digest.shard(SHARDS));
        Key { table: self.table.clone(), pk, sk: Some(place(&task.event)) }
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
        let stands = stands(task, decision);
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
            held_by: held_by(decision),
            reason: reason(decision),
            attempts: attempt.into_iter().cloned().collect(),
            open_pk,
            open_sk,
            stands,
            expires_at: (task.event.accepted_at + retention).as_secs(),
        };
        Ok(match self.client.insert(&self.table, &item).await? {
            Ok(()) => Claim::Won,
            Err(kept) => won_before(kept, writer),
        })
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
        claim(&self.client, recordable(request, round, attempt)).await
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
        claim(&self.client, recordable(request, round, attempt)).await
    }

    /// Starts the round that a task asks for, after `after`, with the lease for its first attempt ([`Row::renewable`]). Of the attempts so far
    /// only the last [`ATTEMPTS_KEPT`] stay, without what receivers answered: an item has a bound.
    pub async fn start_round(
        &self,
        task: &DeliveryTask,
        (after, attempts): (u32, &[AttemptRecord]),
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<Claim, AwsError> {
        let (open_pk, open_sk) = open_retrying(task, now);
        let kept = attempts.iter().skip(attempts.len().saturating_sub(ATTEMPTS_KEPT));
        let kept: Vec<_> = kept.map(|attempt| AttemptRecord { response: None, ..attempt.clone() }).collect();
        let kept = serde_dynamo::to_attribute_value(kept).map_err(AwsError::item(TABLE))?;
        let request = self
            .update(&self.key(task))
            .update_expression(
                "SET writer = :writer, #status = :retrying, round = :next, attempt = :zero, next_at = :now, \
                 lease_until = :until, open_pk = :open_pk, open_sk = :open_sk, stands = :stands, attempts = :attempts \
                 REMOVE reason, held_by",
            )
            .condition_expression(if is_forced(task) { RENEWABLE_BY_FORCE } else { RENEWABLE })
            .expression_attribute_values(":attempts", kept)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":was", text(if is_forced(task) { "cancelled" } else { "failed" }))
            .expression_attribute_values(":retrying", text("retrying"))
            .expression_attribute_values(":round", number(after))
            .expression_attribute_values(":next", number(after + 1))
            .expression_attribute_values(":zero", number(0_u8))
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":until", number(until.0))
            .expression_attribute_values(":open_pk", AttributeValue::S(open_pk))
            .expression_attribute_values(":open_sk", AttributeValue::S(open_sk))
            .expression_attribute_values(":stands", AttributeValue::S(standing(task, Status::Retrying)));
        claim(&self.client, request).await
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
        match stands(task, decision) {
            Some(stands) => {
                set.push("stands = :stands");
                request = request.expression_attribute_values(":stands", AttributeValue::S(stands));
            }
            None => remove.push("stands"),
        }
        if let Some(reason) = reason(decision) {
            set.push("reason = :reason");
            let reason = serde_dynamo::to_attribute_value(reason).map_err(AwsError::item(TABLE))?;
            request = request.expression_attribute_values(":reason", reason);
        }
        let request =
            request.update_expression(format!("SET {} REMOVE {}", set.join(", "), remove.join(", ")));
        claim(&self.client, request).await
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
        self.through_index(query).await
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
        claim(&self.client, request).await
    }

    /// Holds a delivery before this attempt ([`Row::leasable`]).
    pub async fn hold(
        &self,
        task: &DeliveryTask,
        (round, attempt): (u32, u32),
        by: HeldBy,
        now: UnixMillis,
    ) -> Result<Claim, AwsError> {
        let request = self
            .update(&self.key(task))
            .update_expression(
                "SET writer = :writer, #status = :held, held_by = :by, stands = :stands \
                 REMOVE next_at, lease_until, open_pk, open_sk",
            )
            .condition_expression(leasable())
            .expression_attribute_values(":held", text("held"))
            .expression_attribute_values(
                ":by",
                serde_dynamo::to_attribute_value(by).map_err(AwsError::item(TABLE))?,
            )
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":stands", AttributeValue::S(standing(task, Status::Held)));
        claim(&self.client, recordable(request, round, attempt)).await
    }

    /// Gives the lease for this attempt back, since it is to be made elsewhere ([`Row::recordable`]).
    pub async fn give_back(
        &self,
        task: &DeliveryTask,
        (round, attempt): (u32, u32),
    ) -> Result<Claim, AwsError> {
        let request = self
            .update(&self.key(task))
            .update_expression("SET writer = :writer REMOVE lease_until")
            .condition_expression(RECORDABLE);
        claim(&self.client, recordable(request, round, attempt)).await
    }

    /// Releases a delivery that is held: it is due at once ([`Row::releasable`]). Lost: it is not held any more.
    pub async fn release(&self, delivery: &Delivery, now: UnixMillis) -> Result<Claim, AwsError> {
        let task = delivery.task();
        let (open_pk, open_sk) = open_retrying(&task, now);
        let request = self
            .update(&self.key(&task))
            .update_expression(
                "SET writer = :writer, #status = :retrying, next_at = :now, open_pk = :open_pk, open_sk = :open_sk, \
                 stands = :stands REMOVE held_by",
            )
            .condition_expression("#status = :held AND round = :round AND attempt = :before")
            .expression_attribute_values(":held", text("held"))
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":open_pk", AttributeValue::S(open_pk))
            .expression_attribute_values(":open_sk", AttributeValue::S(open_sk))
            .expression_attribute_values(":stands", AttributeValue::S(standing(&task, Status::Retrying)));
        claim(&self.client, recordable(request, delivery.row.round, delivery.row.attempt + 1)).await
    }

    /// A subscription's state, as it is now.
    pub async fn state(&self, subscription: SubscriptionId) -> Result<State, AwsError> {
        let key = self.state_key(subscription).attributes();
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key)).consistent_read(true);
        let answer = request.send().await.map_err(AwsError::call("dynamodb GetItem"))?;
        answer.item.map_or_else(|| Ok(State::default()), read_state)
    }

    /// Moves a subscription to the slow lane, or keeps it there for longer.
    pub async fn mark_slow(&self, subscription: SubscriptionId, now: UnixMillis) -> Result<(), AwsError> {
        self.put_lane(subscription, true, 0, now).await
    }

    /// Counts a quick answer of a slow subscription; [`QUICK_ANSWERS`] of them move it back.
    pub async fn count_quick(
        &self,
        subscription: SubscriptionId,
        state: &State,
        now: UnixMillis,
    ) -> Result<(), AwsError> {
        let quick = state.quick + 1;
        self.put_lane(subscription, quick < QUICK_ANSWERS, quick, now).await
    }

    /// Keeps a lane for as long as it can matter.
    async fn put_lane(
        &self,
        subscription: SubscriptionId,
        slow: bool,
        quick: u32,
        now: UnixMillis,
    ) -> Result<(), AwsError> {
        let request = self
            .update_state(subscription, now)
            .update_expression("SET slow = :slow, quick = :quick, expires_at = :expires_at")
            .expression_attribute_values(":slow", AttributeValue::Bool(slow))
            .expression_attribute_values(":quick", number(quick));
        // Without a condition, none can fail.
        self.client.update(request).await.map(|_| ())
    }

    /// Writes how the receiver of a subscription fares, at that revision of it, if nobody else did since `seen`: the state
    /// then. If somebody did: the state as it is now, as the error.
    pub async fn write_health(
        &self,
        (subscription, revision): (SubscriptionId, u64),
        seen: &State,
        health: &Health,
        now: UnixMillis,
    ) -> Result<Result<State, State>, AwsError> {
        let written = State {
            health: health.clone(),
            health_of: revision,
            health_writes: seen.health_writes + 1,
            ..seen.clone()
        };
        let health = serde_dynamo::to_attribute_value(health).map_err(AwsError::item(TABLE))?;
        let mut request = self
            .update_state(subscription, now)
            .update_expression(
                "SET health = :health, health_of = :revision, health_writes = :next, expires_at = :expires_at",
            )
            .expression_attribute_values(":health", health)
            .expression_attribute_values(":revision", number(revision))
            .expression_attribute_values(":next", number(written.health_writes))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request = if seen.health_writes == 0 {
            request.condition_expression("attribute_not_exists(health_writes)")
        } else {
            request
                .condition_expression("health_writes = :seen")
                .expression_attribute_values(":seen", number(seen.health_writes))
        };
        match self.client.update(request).await? {
            Ok(_) => Ok(Ok(written)),
            Err(now) => Ok(Err(read_state(now)?)),
        }
    }

    /// Reserves `count` slots behind those that are taken, of all functions that run at once.
    pub async fn reserve(
        &self,
        subscription: SubscriptionId,
        count: u64,
        slots: Slots,
        now: UnixMillis,
    ) -> Result<Slotted, AwsError> {
        let span = slots.spacing_micros.saturating_mul(count);
        let (now_micros, end) = (now.0.saturating_mul(1000), (now + RESERVED_AHEAD).0.saturating_mul(1000));
        for _ in 0..RESERVE_TRIES {
            let behind = self
                .update_state(subscription, now)
                .update_expression(
                    "SET next_slot = next_slot + :span, slot_spacing = :spacing, expires_at = :expires_at",
                )
                .condition_expression("slot_spacing = :spacing AND next_slot BETWEEN :now AND :end")
                .expression_attribute_values(":span", number(span))
                .expression_attribute_values(":spacing", number(slots.spacing_micros))
                .expression_attribute_values(":now", number(now_micros))
                .expression_attribute_values(":end", number(end))
                .return_values(ReturnValue::UpdatedNew)
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            let kept = match self.client.update(behind).await? {
                Ok(updated) => {
                    let next = read_state(updated)?.next_slot.unwrap_or_default();
                    return Ok(Slotted::From(next.saturating_sub(span)));
                }
                Err(kept) => read_state(kept)?,
            };
            let is_same_line = kept.slot_spacing == Some(slots.spacing_micros);
            if is_same_line && kept.next_slot.is_some_and(|next| next > end) {
                return Ok(Slotted::Full);
            }
            // None is taken from now on, or the rate is another one: the first slot is at once.
            let first = self
                .update_state(subscription, now)
                .update_expression("SET next_slot = :next, slot_spacing = :spacing, expires_at = :expires_at")
                .condition_expression(
                    "attribute_not_exists(next_slot) OR next_slot < :now OR slot_spacing <> :spacing",
                )
                .expression_attribute_values(":next", number(now_micros.saturating_add(span)))
                .expression_attribute_values(":spacing", number(slots.spacing_micros))
                .expression_attribute_values(":now", number(now_micros));
            if self.client.update(first).await?.is_ok() {
                return Ok(Slotted::From(now_micros));
            }
        }
        Err(AwsError::Undone { operation: "dynamodb UpdateItem", count: 1 })
    }

    fn update_state(&self, subscription: SubscriptionId, now: UnixMillis) -> UpdateItemFluentBuilder {
        let expires_at = (now + STATE_KEPT).as_secs();
        self.update(&self.state_key(subscription))
            .expression_attribute_values(":expires_at", number(expires_at))
    }

    /// The deliveries that a query of the index finds, each as the table has it.
    async fn through_index(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Delivery>, Option<Item>), AwsError> {
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

    fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).set_key(Some(key.attributes()))
    }
}

impl State {
    /// How the receiver of this revision of the subscription fares: whoever changes a subscription has it asked anew.
    #[must_use]
    pub fn health(&self, revision: u64) -> Health {
        if self.health_of == revision { self.health.clone() } else { Health::default() }
    }

    /// Whether what is kept is what would be written.
    #[must_use]
    pub fn keeps(&self, health: &Health, revision: u64) -> bool {
        self.health == *health && (self.health_of == revision || *health == Health::default())
    }

    /// Since when nothing was accepted, if its subscriber was told of that, at whatever revision.
    #[must_use]
    pub fn told_failing(&self) -> Option<UnixMillis> {
        self.health.failing.as_ref().filter(|failing| failing.told).map(|failing| failing.since)
    }

    /// Whether the circuit of some revision is open, and when its next trial may be made.
    #[must_use]
    pub fn trial_at(&self) -> Option<UnixMillis> {
        self.health.circuit.as_ref().map(|circuit| circuit.trial_at)
    }

    /// How many slots can be reserved now; `None` if none ever were.
    #[must_use]
    pub fn room(&self, now: UnixMillis) -> Option<u64> {
        Some(room(self.slot_spacing?, self.next_slot?, now))
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
            slot: None,
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
        held_by: item.held_by,
        attempts: item.attempts,
        subscription,
        event: EventRef {
            key: EventKey { workspace: item.workspace, digest },
            accepted_at,
            event_type: item.r#type,
            json: None,
            trace: None,
        },
        expires_at: UnixMillis(item.expires_at.saturating_mul(1000)),
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
    held_by: Option<HeldBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<FailReason>,
    attempts: Vec<AttemptRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_pk: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_sk: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stands: Option<String>,
    expires_at: u64,
}

/// [`Row::recordable`] as an expression, its values given by [`recordable`].
const RECORDABLE: &str = "#status = :retrying AND round = :round AND attempt = :before";

/// [`Row::renewable`] as an expression, `:was` being `failed`.
const RENEWABLE: &str = "#status = :was AND round = :round";

/// The same by force, `:was` being `cancelled`.
const RENEWABLE_BY_FORCE: &str = "#status <> :was AND round = :round";

fn is_forced(task: &DeliveryTask) -> bool {
    matches!(task.ask, Ask::NewRound { forced: true, .. })
}

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

/// Where a delivery is in the index `open` after a decision.
fn open(task: &DeliveryTask, decision: Decision) -> Option<(String, String)> {
    decision.next_at().map(|next_at| open_retrying(task, next_at))
}

/// Where a delivery is in the index `by_status` after a decision.
fn stands(task: &DeliveryTask, decision: Decision) -> Option<String> {
    match decision.status() {
        status @ (Status::Retrying | Status::Held | Status::Failed) => Some(standing(task, status)),
        Status::Delivered | Status::Cancelled => None,
    }
}

fn standing(task: &DeliveryTask, status: Status) -> String {
    format!("{}#{}", status.name(), place(&task.event))
}

/// The sort key of an event's delivery.
fn place(event: &EventRef) -> String {
    Place::of(event).to_string()
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

fn held_by(decision: Decision) -> Option<HeldBy> {
    match decision {
        Decision::Held(by) => Some(by),
        _ => None,
    }
}

/// Makes a conditional update that sets `writer`. If its answer was lost, it was tried again, and the condition
/// fails on the very write that it guards: the item then names this writer. Nothing less tells them apart, since two
/// copies of a task may run in one batch, at one time and with one deadline.
async fn claim(client: &DynamoDb, request: UpdateItemFluentBuilder) -> Result<Claim, AwsError> {
    let writer = writer()?;
    let request = request
        .expression_attribute_values(":writer", number(writer))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    Ok(match client.update(request).await? {
        Ok(_) => Claim::Won,
        Err(kept) => won_before(kept, writer),
    })
}

/// The name of one write, different from that of any other.
fn writer() -> Result<u64, AwsError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AwsError::Secret("made"))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn won_before(kept: Item, writer: u64) -> Claim {
    if kept.is_empty() {
        return Claim::Gone;
    }
    let kept = serde_dynamo::from_item::<_, DeliveryItem>(kept).ok();
    if kept.is_some_and(|kept| kept.writer == writer) { Claim::Won } else { Claim::Lost }
}

fn number(value: impl Into<u64>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
