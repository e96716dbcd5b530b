//! Accepting: the one way in for events, whether they are published, follow from others, or come due.
//!
//! An event that nothing else depends on is one conditional put. One that has a revision, or touches a deadline, is a
//! transaction of itself and of these, read before and written on the condition that they are as they were read; who meets
//! another one at it reads again. So revisions have no gap and no repeat, and a deadline fires or is settled, never both.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::TransactWriteItem;
use carillon_core::deadline::{Effects, Start};
use carillon_core::event::Event;
use carillon_core::id::{EventDigest, EventKey, WorkspaceId};
use carillon_core::time::UnixMillis;
use futures::stream::{self, StreamExt as _};

use crate::environment::{SettingError, retention, setting};
use crate::error::AwsError;
use crate::events::{Acceptance, EventTable};
use crate::now;
use crate::schedule::{DueDeadline, Ledger, ScheduleTable};
use crate::vault::random_bytes;
use crate::wire::DynamoDb;

/// How many events are accepted at once, each by itself.
const CALLS_AT_ONCE: usize = 25;

/// The most events of one transaction. DynamoDB takes 100 writes of 4 MB; the larger it is, the more others it meets.
const EVENTS_MAX: usize = 25;

/// The most writes of one transaction that are not events, and the most bytes of events.
const OTHER_WRITES_MAX: usize = 70;
const BYTES_MAX: usize = 3 * 1024 * 1024;

/// How long a transaction that meets others is tried again.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long the first pause is at most, and how long any.
const FIRST_PAUSE: Duration = Duration::from_millis(15);
const PAUSE_MAX: Duration = Duration::from_millis(400);

const OPERATION: &str = "dynamodb TransactWriteItems";

/// Why a transaction is made again: something that it wrote or read had others at it, or its service was busy.
const PASSING: [&str; 4] =
    ["TransactionConflict", "ConditionalCheckFailed", "ThrottlingError", "ProvisionedThroughputExceeded"];
const PASSING_CALLS: [&str; 5] = [
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "InternalServerError",
];

/// The tables that accepting writes.
#[derive(Clone, Debug)]
pub struct Acceptor {
    client: DynamoDb,
    events: EventTable,
    schedule: ScheduleTable,
    retention: Duration,
}

/// The workspace that events are accepted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Which.
    pub workspace: WorkspaceId,
    /// When it was made: what is older is another's, who had its id.
    pub made_at: UnixMillis,
    /// Whether its events have revisions.
    pub revisions: bool,
}

/// An event that is to be accepted, and what that brings about.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The event.
    pub event: Event,
    /// What its acceptance brings about.
    pub effects: Effects,
}

/// What became of a deadline that was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fired {
    /// It fired, and its event was accepted.
    Now,
    /// It had been settled, or had fired: nothing was done.
    Before,
}

impl Acceptor {
    /// From the settings of the environment.
    pub fn from_environment(client: &DynamoDb) -> Result<Self, SettingError> {
        Ok(Self {
            client: client.clone(),
            events: EventTable::new(client.clone(), setting("EVENTS_TABLE")?),
            schedule: ScheduleTable::new(client.clone(), setting("SCHEDULE_TABLE")?),
            retention: retention()?,
        })
    }

    /// The table of what was accepted.
    #[must_use]
    pub fn events(&self) -> &EventTable {
        &self.events
    }

    /// The table of deadlines, among others.
    #[must_use]
    pub fn schedule(&self) -> &ScheduleTable {
        &self.schedule
    }

    /// Accepts events, each of its own identity; how it went for each, in their order. Revisions are given in that order,
    /// too.
    pub async fn accept(
        &self,
        tenant: &Tenant,
        incoming: Vec<Incoming>,
    ) -> Vec<Result<Acceptance, AwsError>> {
        if tenant.revisions {
            return self.accept_in_order(tenant, incoming).await;
        }
        let accept = async |incoming| self.accept_by_itself(tenant, incoming).await;
        stream::iter(incoming).map(accept).buffered(CALLS_AT_ONCE).collect().await
    }

    /// Fires a deadline that is due, with the event that it brings.
    pub async fn fire(
        &self,
        tenant: &Tenant,
        due: &DueDeadline,
        incoming: Incoming,
    ) -> Result<Fired, AwsError> {
        let fired = self.transact(tenant, &[incoming], Some(due)).await?;
        Ok(if fired.is_empty() { Fired::Before } else { Fired::Now })
    }

    /// What armed a deadline that is due; `None`: it is armed no more.
    pub async fn armed_by(&self, tenant: &Tenant, due: &DueDeadline) -> Result<Option<Start>, AwsError> {
        let now = now();
        let mut ledger = self.schedule.ledger(tenant, [due.deadline.clone()].into(), now).await?;
        Ok(ledger.fire(&due.deadline, now))
    }

    async fn accept_by_itself(&self, tenant: &Tenant, incoming: Incoming) -> Result<Acceptance, AwsError> {
        if incoming.effects.touches.is_empty() {
            return self.put(tenant, &incoming).await;
        }
        let accepted = self.transact(tenant, &[incoming], None).await?;
        accepted.into_iter().next().ok_or(AwsError::Conflict { operation: OPERATION })
    }

    /// An event that nothing else depends on.
    async fn put(&self, tenant: &Tenant, incoming: &Incoming) -> Result<Acceptance, AwsError> {
        let Incoming { event, effects } = incoming;
        let place = (tenant.workspace.clone(), tenant.made_at);
        self.events.accept(event.clone(), place, effects.cascades, now(), self.retention).await
    }

    /// As few transactions as can be, one after the other.
    async fn accept_in_order(
        &self,
        tenant: &Tenant,
        incoming: Vec<Incoming>,
    ) -> Vec<Result<Acceptance, AwsError>> {
        let mut accepted = Vec::with_capacity(incoming.len());
        for chunk in chunks(&incoming) {
            match self.transact(tenant, chunk, None).await {
                Ok(acceptances) => accepted.extend(acceptances.into_iter().map(Ok)),
                Err(error) => {
                    tracing::error!(%error, count = chunk.len(), "events are not accepted");
                    accepted.extend(
                        chunk
                            .iter()
                            .map(|_| Err(AwsError::Undone { operation: OPERATION, count: chunk.len() })),
                    );
                }
            }
        }
        accepted
    }

    /// Accepts all of these events that are new, in one transaction. With a deadline that fires: nothing is done, and none
    /// is told of, if it does not fire.
    async fn transact(
        &self,
        tenant: &Tenant,
        incoming: &[Incoming],
        firing: Option<&DueDeadline>,
    ) -> Result<Vec<Acceptance>, AwsError> {
        let give_up_at = now() + PATIENCE;
        let mut decided: HashMap<EventKey, Acceptance> = HashMap::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let left: Vec<_> =
                incoming.iter().filter(|one| !decided.contains_key(&key(tenant, one))).collect();
            if left.is_empty() && firing.is_none() {
                break;
            }
            let now = now();
            let mut touched: BTreeSet<_> = firing.iter().map(|due| due.deadline.clone()).collect();
            for one in &left {
                touched.extend(one.effects.touches.iter().map(|(key, _)| key.clone()));
            }
            let mut ledger = self.schedule.ledger(tenant, touched, now).await?;
            if let Some(due) = firing
                && ledger.fire(&due.deadline, now).is_none()
            {
                return Ok(Vec::new());
            }
            let writes = self.writes(tenant, &left, &mut ledger, firing, now)?;
            if let ([one], [_], None, false) = (&left[..], &writes[..], firing, tenant.revisions) {
                // Its deadlines stay as they are, whatever becomes of them meanwhile.
                return Ok(vec![self.put(tenant, one).await?]);
            }
            let request = self.client.transact_write_items().set_transact_items(Some(writes));
            let Err(error) = request.send().await else {
                decided
                    .extend(left.into_iter().map(|one| (key(tenant, one), Acceptance::Accepted { at: now })));
                break;
            };
            let refused = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                    let reasons = canceled.cancellation_reasons();
                    let codes = || reasons.iter().filter_map(|reason| reason.code());
                    if codes().any(|code| code != "None" && !PASSING.contains(&code)) {
                        return Err(AwsError::call(OPERATION)(error));
                    }
                    let is_refused = |at: &usize| {
                        reasons.get(*at).and_then(|reason| reason.code()) == Some("ConditionalCheckFailed")
                    };
                    (0..left.len()).filter(is_refused).map(|at| left[at]).collect()
                }
                Some(service) if service.code().is_some_and(|code| PASSING_CALLS.contains(&code)) => {
                    Vec::new()
                }
                _ => return Err(AwsError::call(OPERATION)(error)),
            };
            if !refused.is_empty() {
                let refused = refused.into_iter().map(|one| (key(tenant, one), one.event.content().to_vec()));
                let judged = self.events.judge(refused.collect()).await?;
                if !judged.is_empty() {
                    decided.extend(judged);
                    continue;
                }
            }
            if now >= give_up_at {
                return Err(AwsError::Conflict { operation: OPERATION });
            }
            tokio::time::sleep(jittered(pause)?).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
        Ok(incoming.iter().filter_map(|one| decided.get(&key(tenant, one)).copied()).collect())
    }

    /// The writes of a transaction: the events first, in their order.
    fn writes(
        &self,
        tenant: &Tenant,
        events: &[&Incoming],
        ledger: &mut Ledger,
        firing: Option<&DueDeadline>,
        now: UnixMillis,
    ) -> Result<Vec<TransactWriteItem>, AwsError> {
        let mut writes = Vec::with_capacity(events.len() + 2);
        for Incoming { event, effects } in events {
            let content = *event.content();
            let event = match ledger.next_revision() {
                Some(revision) => event.clone().revised(revision),
                None => event.clone(),
            };
            effects.touches.iter().for_each(|(key, touch)| ledger.touch(key, *touch));
            let mut accepted = event.accepted(tenant.workspace.clone(), now);
            accepted.cascades = effects.cascades;
            writes.push(self.events.put_accepted(accepted, &content, tenant.made_at, self.retention)?);
        }
        writes.extend(self.schedule.writes(ledger, firing, now, self.retention)?);
        Ok(writes)
    }
}

fn key(tenant: &Tenant, incoming: &Incoming) -> EventKey {
    let digest = EventDigest::of(incoming.event.source(), incoming.event.id());
    EventKey { workspace: tenant.workspace.clone(), digest }
}

/// Parts of a list that one transaction can take.
fn chunks(incoming: &[Incoming]) -> Vec<&[Incoming]> {
    let mut chunks = Vec::new();
    let (mut begin, mut bytes, mut others) = (0, 0, 0);
    for (at, one) in incoming.iter().enumerate() {
        let (its_bytes, its_others) = (one.event.json().len(), 2 * one.effects.touches.len());
        let full = at - begin == EVENTS_MAX
            || bytes + its_bytes > BYTES_MAX
            || others + its_others > OTHER_WRITES_MAX;
        if full && at > begin {
            chunks.push(&incoming[begin..at]);
            (begin, bytes, others) = (at, 0, 0);
        }
        (bytes, others) = (bytes + its_bytes, others + its_others);
    }
    if begin < incoming.len() {
        chunks.push(&incoming[begin..]);
    }
    chunks
}

/// Some time up to `pause`, so that those who met do not meet again.
fn jittered(pause: Duration) -> Result<Duration, AwsError> {
    let random = random_bytes(1)?.first().copied().unwrap_or_default();
    Ok(pause * (u32::from(random) + 1) / 256)
}

#[cfg(test)]
mod tests {
    use carillon_core::deadline::{DeadlineKey, Touch};

    use super::*;

    fn incoming(id: usize, bytes: usize, touches: usize) -> Incoming {
        let json = serde_json::json!({
            "specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "t", "data": "x".repeat(bytes),
        });
        let touch = |n: usize| (DeadlineKey { rule: n.to_string(), subject: id.to_string() }, Touch::Settle);
        let effects = Effects { cascades: false, touches: (0..touches).map(touch).collect() };
        Incoming { event: Event::from_structured(&json.to_string()).unwrap(), effects }
    }

    #[test]
    fn a_transaction_takes_what_it_can() {
        let lengths =
            |incoming: &[Incoming]| chunks(incoming).iter().map(|chunk| chunk.len()).collect::<Vec<_>>();
        let small: Vec<_> = (0..60).map(|id| incoming(id, 10, 0)).collect();
        assert_eq!(lengths(&small), [25, 25, 10]);
        let large: Vec<_> = (0..20).map(|id| incoming(id, 250 * 1024, 0)).collect();
        assert_eq!(lengths(&large), [12, 8]);
        let touching: Vec<_> = (0..5).map(|id| incoming(id, 10, 20)).collect();
        assert_eq!(lengths(&touching), [1; 5]);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn pauses_are_never_longer_than_asked() {
        for _ in 0..100 {
            let pause = jittered(PAUSE_MAX).unwrap();
            assert!(pause > Duration::ZERO && pause <= PAUSE_MAX);
        }
    }
}
