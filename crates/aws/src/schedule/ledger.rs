//! What the acceptance of events keeps in the schedule: deadlines, and the last revision. Each is read, thought over, and
//! written on the condition that it is as it was read, as parts of the transaction that puts the events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use carillon_core::deadline::{Deadline, DeadlineKey, Start, Touch};
use carillon_core::id::{EventDigest, WorkspaceId};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ScheduleTable, TABLE, VERSION};
use crate::SHARDS;
use crate::accepting::Tenant;
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;

const OPERATION: &str = "dynamodb TransactWriteItems";

/// That a deadline becomes due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDeadline {
    /// In which workspace.
    pub workspace: WorkspaceId,
    /// When that was made.
    pub made_at: UnixMillis,
    /// Which deadline.
    pub deadline: DeadlineKey,
    /// When it is due.
    pub due: UnixMillis,
    digest: EventDigest,
}

/// What was read, and what is to become of it.
pub(crate) struct Ledger {
    workspace: WorkspaceId,
    made_at: UnixMillis,
    revision: Option<Counted>,
    deadlines: BTreeMap<DeadlineKey, Entry>,
}

/// A workspace's last revision.
struct Counted {
    read: u64,
    now: u64,
}

struct Entry {
    /// The number of the write that was read; none if there was nothing.
    read: Option<u64>,
    deadline: Option<Deadline>,
    changed: bool,
}

/// What an item is put in the place of.
#[derive(Clone, Copy)]
enum On {
    Whatever,
    Absence,
    /// The one that has this number.
    Number(u64),
}

impl ScheduleTable {
    /// Reads what events of a workspace touch.
    pub(crate) async fn ledger(
        &self,
        tenant: &Tenant,
        touched: BTreeSet<DeadlineKey>,
        now: UnixMillis,
    ) -> Result<Ledger, AwsError> {
        let (workspace, made_at) = (&tenant.workspace, tenant.made_at);
        let placed = |key: DeadlineKey| {
            let at = self.deadline_key(digest(workspace, made_at, &key));
            (key, at)
        };
        let keys: Vec<_> = touched.into_iter().map(placed).collect();
        let revision_key = tenant.revisions.then(|| self.revision_key(workspace, made_at));
        let mut items =
            batch_read(&self.client, keys.iter().map(|(_, at)| at.clone()).chain(revision_key.clone()))
                .await?;
        let mut deadlines = BTreeMap::new();
        for (key, at) in keys {
            let entry = match items.remove(&at) {
                Some(item) => DeadlineItem::read(item)?.entry(now),
                None => Entry { read: None, deadline: None, changed: false },
            };
            deadlines.insert(key, entry);
        }
        let revision = revision_key.map(|at| items.remove(&at).map_or(Ok(0), read_revision)).transpose()?;
        let revision = revision.map(|read| Counted { read, now: read });
        Ok(Ledger { workspace: workspace.clone(), made_at, revision, deadlines })
    }

    /// What of a shard was due by `until`, the earliest first. `after` is the `next` of the page before.
    pub async fn due_deadlines(
        &self,
        shard: u8,
        until: UnixMillis,
        limit: i32,
        after: Option<Item>,
    ) -> Result<(Vec<DueDeadline>, Option<Item>), AwsError> {
        let query = self.client.query().table_name(&self.table).consistent_read(true).limit(limit);
        let query = query
            .key_condition_expression("pk = :pk AND sk < :end")
            .expression_attribute_values(":pk", AttributeValue::S(format!("deadlines#{shard}")))
            .expression_attribute_values(":end", AttributeValue::S(UnixMillis(until.0 + 1).sortable()))
            .set_exclusive_start_key(after);
        let answer = query.send().await.map_err(AwsError::call("dynamodb Query"))?;
        let readable = |item| {
            DueItem::read(item).inspect_err(|error| tracing::error!(%error, "a deadline is left out")).ok()
        };
        let items = answer.items.unwrap_or_default();
        Ok((items.into_iter().filter_map(readable).collect(), answer.last_evaluated_key))
    }

    /// Forgets that a deadline becomes due.
    pub async fn forget_due(&self, due: &DueDeadline) -> Result<(), AwsError> {
        let request = self.client.delete_item().table_name(&self.table);
        let request = request.set_key(Some(self.due_key(due.due, due.digest).attributes()));
        request.send().await.map_err(AwsError::call("dynamodb DeleteItem")).map(|_| ())
    }

    /// Everything that is to become of a ledger, and of a deadline that fires with it.
    pub(crate) fn writes(
        &self,
        ledger: &Ledger,
        fired: Option<&DueDeadline>,
        now: UnixMillis,
        retention: Duration,
    ) -> Result<Vec<TransactWriteItem>, AwsError> {
        let mut writes = Vec::new();
        if let Some(Counted { read, now: count }) = &ledger.revision
            && count > read
        {
            let key = self.revision_key(&ledger.workspace, ledger.made_at);
            let (pk, sk) = (key.pk, key.sk.unwrap_or_default());
            let item = RevisionItem { pk, sk, v: VERSION, n: *count };
            writes.push(self.put_on(&item, if *read == 0 { On::Absence } else { On::Number(*read) })?);
        }
        for (key, entry) in ledger.deadlines.iter().filter(|(_, entry)| entry.changed) {
            let Some(deadline) = entry.deadline else { continue };
            let digest = digest(&ledger.workspace, ledger.made_at, key);
            let n = entry.read.map_or(1, |read| read + 1);
            let item = DeadlineItem::of(&self.deadline_key(digest), n, deadline, now, retention);
            writes.push(self.put_on(&item, entry.read.map_or(On::Absence, On::Number))?);
            if let Deadline::Armed(start) = deadline {
                let at = self.due_key(start.due, digest);
                writes.push(self.put_on(&DueItem::of(&at, ledger, key, start), On::Whatever)?);
            }
        }
        if let Some(fired) = fired {
            let at = self.due_key(fired.due, fired.digest);
            let delete = Delete::builder().table_name(&self.table).set_key(Some(at.attributes()));
            let delete = delete.build().map_err(AwsError::call(OPERATION))?;
            writes.push(TransactWriteItem::builder().delete(delete).build());
        }
        Ok(writes)
    }

    fn put_on(&self, item: &impl Serialize, on: On) -> Result<TransactWriteItem, AwsError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?));
        let put = match on {
            On::Whatever => put,
            On::Absence => put.condition_expression("attribute_not_exists(pk)"),
            On::Number(n) => put
                .condition_expression("n = :before")
                .expression_attribute_values(":before", AttributeValue::N(n.to_string())),
        };
        Ok(TransactWriteItem::builder().put(put.build().map_err(AwsError::call(OPERATION))?).build())
    }

    fn deadline_key(&self, digest: EventDigest) -> Key {
        Key { table: self.table.clone(), pk: format!("deadline#{digest}"), sk: Some("deadline".to_owned()) }
    }

    fn due_key(&self, due: UnixMillis, digest: EventDigest) -> Key {
        let pk = format!("deadlines#{}", digest.shard(SHARDS));
        Key { table: self.table.clone(), pk, sk: Some(format!("{}#{digest}", due.sortable())) }
    }

    fn revision_key(&self, workspace: &WorkspaceId, made_at: UnixMillis) -> Key {
        let pk = format!("revision#{workspace}#{}", made_at.0);
        Key { table: self.table.clone(), pk, sk: Some("revision".to_owned()) }
    }
}

impl Ledger {
    /// The next revision, where there are revisions.
    pub(crate) fn next_revision(&mut self) -> Option<u64> {
        let counted = self.revision.as_mut()?;
        counted.now += 1;
        Some(counted.now)
    }

    /// Notes what an event does to a deadline.
    pub(crate) fn touch(&mut self, key: &DeadlineKey, touch: Touch) {
        let Some(entry) = self.deadlines.get_mut(key) else { return };
        if let Some(next) = Deadline::touched(entry.deadline, touch) {
            entry.deadline = Some(next);
            entry.changed = true;
        }
    }

    /// Notes that a deadline fires; what makes it do so, if it does.
    pub(crate) fn fire(&mut self, key: &DeadlineKey, now: UnixMillis) -> Option<Start> {
        let entry = self.deadlines.get_mut(key)?;
        let start = entry.deadline?.fires(now)?;
        entry.deadline = Some(Deadline::Fired);
        entry.changed = true;
        Some(start)
    }
}

/// A deadline's place: of all that tells it from others.
fn digest(workspace: &WorkspaceId, made_at: UnixMillis, key: &DeadlineKey) -> EventDigest {
    EventDigest::of(&format!("{workspace}#{}", made_at.0), &format!("{}\n{}", key.rule, key.subject))
}

#[derive(Serialize, Deserialize)]
struct RevisionItem {
    pk: String,
    sk: String,
    v: u32,
    n: u64,
}

fn read_revision(item: Item) -> Result<u64, AwsError> {
    let item: RevisionItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    if item.v == VERSION { Ok(item.n) } else { Err(unknown(item.v)) }
}

#[derive(Serialize, Deserialize)]
struct DeadlineItem {
    pk: String,
    sk: String,
    v: u32,
    /// Grows by one with each write.
    n: u64,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<EventDigest>,
    expires_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Armed,
    Settled,
    Fired,
}

impl DeadlineItem {
    fn of(key: &Key, n: u64, deadline: Deadline, now: UnixMillis, retention: Duration) -> Self {
        let (state, start) = match deadline {
            Deadline::Armed(start) => (State::Armed, Some(start)),
            Deadline::Settled => (State::Settled, None),
            Deadline::Fired => (State::Fired, None),
        };
        let due = start.map(|start| start.due);
        let kept_until = due.unwrap_or(now).max(now) + retention;
        Self {
            pk: key.pk.clone(),
            sk: key.sk.clone().unwrap_or_default(),
            v: VERSION,
            n,
            state,
            due,
            event: start.map(|start| start.event),
            expires_at: kept_until.as_secs(),
        }
    }

    fn read(item: Item) -> Result<Self, AwsError> {
        let item: Self = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
        if item.v == VERSION { Ok(item) } else { Err(unknown(item.v)) }
    }

    /// Past its time to live it is gone, though DynamoDB deletes it days later.
    fn entry(self, now: UnixMillis) -> Entry {
        let deadline = match (self.state, self.due, self.event) {
            (State::Armed, Some(due), Some(event)) => Deadline::Armed(Start { due, event }),
            (State::Fired, ..) => Deadline::Fired,
            (State::Settled | State::Armed, ..) => Deadline::Settled,
        };
        let is_kept = self.expires_at > now.as_secs();
        Entry { read: Some(self.n), deadline: is_kept.then_some(deadline), changed: false }
    }
}

#[derive(Serialize, Deserialize)]
struct DueItem {
    pk: String,
    sk: String,
    v: u32,
    workspace: WorkspaceId,
    made_at: UnixMillis,
    rule: String,
    subject: String,
    due: UnixMillis,
}

impl DueItem {
    fn of(at: &Key, ledger: &Ledger, key: &DeadlineKey, start: Start) -> Self {
        Self {
            pk: at.pk.clone(),
            sk: at.sk.clone().unwrap_or_default(),
            v: VERSION,
            workspace: ledger.workspace.clone(),
            made_at: ledger.made_at,
            rule: key.rule.clone(),
            subject: key.subject.clone(),
            due: start.due,
        }
    }

    fn read(item: Item) -> Result<DueDeadline, AwsError> {
        let item: Self = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
        if item.v != VERSION {
            return Err(unknown(item.v));
        }
        let deadline = DeadlineKey { rule: item.rule, subject: item.subject };
        let digest = digest(&item.workspace, item.made_at, &deadline);
        Ok(DueDeadline { workspace: item.workspace, made_at: item.made_at, deadline, due: item.due, digest })
    }
}

fn unknown(version: u32) -> AwsError {
    AwsError::Item { table: TABLE, detail: format!("it has version {version}") }
}
