//! Works records off in order, while there is time.

use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse};
use carillon_aws::accepting::Acceptor;
use carillon_aws::config::ConfigTable;
use carillon_aws::environment::{SettingError, setting};
use carillon_aws::error::AwsError;
use carillon_aws::events::EventTable;
use carillon_aws::metrics::{Counter, Metrics};
use carillon_aws::queue::{Message, Queue};
use carillon_aws::{DynamoDb, Sqs, now, sdk_config};
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::matching::{EXPANSION_SIZE, Range};
use carillon_core::task::{EventRef, ExpansionTask, FirstTasks};
use carillon_core::time::UnixMillis;
use futures::FutureExt as _;
use serde_json::json;

use crate::cascades::Cascades;
use crate::patience::{FIRST_PAUSE, PAUSE_MAX, Patience, Unplanned};
use crate::source::Table;
use crate::subscriptions::{Current, Matched, Subscriptions};
use crate::woken::{Record, Source, Step, Woken};

/// What of the function's time is kept to send what was planned and to answer: this, or a third of it if it is short.
const SENDING_TIME: Duration = Duration::from_secs(10);

/// What is kept of it to answer.
const ANSWERING_TIME: Duration = Duration::from_millis(300);

/// How long an event of the stream may spend on filters. Those behind it in its shard, of whatever workspace, wait
/// meanwhile; what is left goes the way of events with many matches, where nothing waits for it.
const FILTERING_TIME: Duration = Duration::from_millis(200);

/// How long all events of a workspace together may do so in a run. Once that is over, no more filters of it are asked.
const WORKSPACE_FILTERING_TIME: Duration = Duration::from_secs(1);

/// How many messages are planned before they are sent.
const PLANNED_MAX: usize = EXPANSION_SIZE;

/// Tables, queues, and the subscriptions that are kept.
pub(crate) struct Fanout {
    events: EventTable,
    cascades: Cascades,
    subscriptions: Subscriptions<Table>,
    delivery: Queue,
    expansion: Queue,
    failure: Queue,
    metrics: Metrics,
}

/// A message, the queue that it is for, and the place of its record in the batch.
struct Planned {
    place: usize,
    to: To,
    message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Delivery,
    Expansion,
    Failure,
}

impl Fanout {
    pub(crate) async fn from_environment() -> Result<Self, SettingError> {
        let sdk = sdk_config().await;
        let (dynamodb, sqs) = (DynamoDb::new(&sdk), Sqs::new(&sdk));
        let queue = |name| Ok::<_, SettingError>(Queue::new(sqs.clone(), setting(name)?));
        let config = ConfigTable::new(dynamodb.clone(), setting("CONFIG_TABLE")?);
        let acceptor = Acceptor::from_environment(&dynamodb)?;
        Ok(Self {
            events: acceptor.events().clone(),
            cascades: Cascades::new(config.clone(), acceptor),
            delivery: queue("DELIVERY_QUEUE_URL")?,
            expansion: queue("EXPANSION_QUEUE_URL")?,
            failure: queue("FANOUT_FAILURE_QUEUE_URL")?,
            metrics: Metrics::from_environment()?,
            subscriptions: Subscriptions::new(Table::new(dynamodb, config)),
        })
    }

    /// Works off what it can until shortly before `deadline` (Unix milliseconds). The answer, of one shape for streams
    /// and queues, names what must come again.
    pub(crate) async fn handle(&self, woken: Woken, deadline: u64) -> SqsBatchResponse {
        let deadline = UnixMillis(deadline);
        let patience = Patience::until(deadline.minus(SENDING_TIME.min(deadline.since(now()) / 3)));
        let records = woken.records();
        let workspaces = workspaces(&records);
        self.metrics.batch(records.len());
        let unfinished = match patience.over(|| self.subscriptions.begin(&workspaces)).await {
            Ok(current) => self.work_off(&records, &current, patience, deadline).await,
            Err(error) => {
                tracing::error!(%error, "the versions of workspaces cannot be read");
                (0..records.len()).collect()
            }
        };
        self.metrics.flush();
        answer(&records, unfinished)
    }

    /// The records that are not finished, by their places.
    async fn work_off(
        &self,
        records: &[Record],
        current: &Current,
        patience: Patience,
        deadline: UnixMillis,
    ) -> BTreeSet<usize> {
        let mut unfinished = BTreeSet::new();
        let mut planned = Vec::new();
        for (place, record) in records.iter().enumerate() {
            // The first record is planned in any case: otherwise a batch could come again for ever.
            if place > 0 && patience.is_over() {
                unfinished.extend(place..records.len());
                break;
            }
            match self.plan_surely(record, current, patience).await {
                Ok(messages) => {
                    planned.extend(messages.into_iter().map(|(to, message)| Planned { place, to, message }));
                }
                Err(error) => {
                    tracing::error!(%error, record = record.id, "a record comes again");
                    unfinished.insert(place);
                    if record.source == Source::Stream {
                        break;
                    }
                }
            }
            if planned.len() >= PLANNED_MAX {
                unfinished.extend(self.send(std::mem::take(&mut planned), patience, deadline).await);
            }
        }
        unfinished.extend(self.send(planned, patience, deadline).await);
        unfinished
    }

    /// Plans a record, or its letter if that can never succeed. An error is one that may pass.
    async fn plan_surely(
        &self,
        record: &Record,
        current: &Current,
        patience: Patience,
    ) -> Result<Vec<(To, Message)>, Unplanned> {
        let planning = patience.over(|| self.plan(record, current, patience));
        match AssertUnwindSafe(planning).catch_unwind().await {
            Ok(Err(error)) if error.is_lasting() => poisoned(record, &error.to_string()),
            Ok(planned) => planned,
            // It would panic again.
            Err(_) => poisoned(record, "the function panicked over it"),
        }
    }

    /// The messages that one record asks for.
    async fn plan(
        &self,
        record: &Record,
        current: &Current,
        patience: Patience,
    ) -> Result<Vec<(To, Message)>, Unplanned> {
        match &record.step {
            Step::Match(event) => {
                self.follow(event).await?;
                let left =
                    WORKSPACE_FILTERING_TIME.saturating_sub(current.filtered_for(&event.key.workspace));
                self.spread(current, event, Range::default(), patience, FILTERING_TIME.min(left)).await
            }
            Step::Expand(task) => match self.event(task).await? {
                Some(event) => {
                    // The whole of it is asked for where the stream may have lost it.
                    if task.range == Range::default() {
                        self.follow(&event).await?;
                    }
                    self.spread(current, &event, task.range, patience, Duration::MAX).await
                }
                None => Ok(Vec::new()),
            },
            Step::Poisoned { reason } => poisoned(record, reason),
        }
    }

    async fn follow(&self, event: &AcceptedEvent) -> Result<(), AwsError> {
        if event.cascades {
            let new = self.cascades.follow(event).await?;
            self.metrics.count(Counter::EventsAccepted, new);
        }
        Ok(())
    }

    /// The tasks that an event needs within a range of subscriptions.
    async fn spread(
        &self,
        current: &Current,
        event: &AcceptedEvent,
        range: Range,
        patience: Patience,
        filtering_time: Duration,
    ) -> Result<Vec<(To, Message)>, Unplanned> {
        let matched = self.subscriptions.matching(current, event, range, patience, filtering_time).await?;
        tracing::info!(
            event = %event.key,
            r#type = %event.event_type,
            matches = matched.subscriptions.len(),
            filtered_out = matched.filtered_out,
            parts = matched.parts.len(),
            "fan-out"
        );
        matched.failures.log(&event.key);
        self.metrics.count(Counter::EventsFannedOut, 1);
        self.metrics.count(Counter::FiltersFailed, matched.failures.count());
        tasks(event, matched)
    }

    /// The event of an expansion task, read if it is too large to travel in one; `None`: it is no more.
    async fn event(&self, task: &ExpansionTask) -> Result<Option<AcceptedEvent>, AwsError> {
        let event = &task.event;
        match &event.json {
            None => self.events.event(&event.key).await,
            Some(json) => Ok(Some(AcceptedEvent {
                key: event.key.clone(),
                event_type: event.event_type.clone(),
                accepted_at: event.accepted_at,
                audience: task.audience.clone(),
                trace: event.trace.clone(),
                cascades: false,
                json: json.clone(),
            })),
        }
    }

    /// Sends what was planned, and again what could not be sent while there is time; the places of records of which
    /// something is unsent in the end.
    async fn send(
        &self,
        mut planned: Vec<Planned>,
        patience: Patience,
        deadline: UnixMillis,
    ) -> BTreeSet<usize> {
        let mut pause = FIRST_PAUSE;
        loop {
            let unfinished = places(&planned);
            let time = deadline.minus(ANSWERING_TIME).since(now());
            let Ok(unsent) = tokio::time::timeout(time, self.send_once(planned)).await else {
                tracing::error!("the time ran out while tasks were sent, their records come again");
                return unfinished;
            };
            planned = unsent;
            if planned.is_empty() || patience.is_over() {
                return places(&planned);
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// Sends each message once; those that could not be sent.
    async fn send_once(&self, planned: Vec<Planned>) -> Vec<Planned> {
        let mut unsent = Vec::new();
        let mut left = planned;
        let lanes =
            [(To::Delivery, &self.delivery), (To::Expansion, &self.expansion), (To::Failure, &self.failure)];
        for (lane, queue) in lanes {
            let (mine, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|planned| planned.to == lane);
            left = others;
            let results = queue.send(mine.iter().map(|planned| &planned.message).collect()).await;
            if lane != To::Failure {
                let sent = results.iter().filter(|result| result.is_ok()).count();
                self.metrics.count(Counter::TasksSent, sent);
            }
            for (planned, result) in mine.into_iter().zip(results) {
                if let Err(error) = result {
                    tracing::error!(%error, "a task could not be sent");
                    unsent.push(planned);
                }
            }
        }
        unsent
    }
}

/// A delivery task for each match, and an expansion task for each part.
fn tasks(event: &AcceptedEvent, matched: Matched) -> Result<Vec<(To, Message)>, Unplanned> {
    let reference = EventRef::of(event);
    let mut first = FirstTasks::of(&reference)?;
    let delivery =
        |subscription: SubscriptionId| Ok((To::Delivery, message(first.json(subscription)?, &subscription)));
    let part = |range: Range| {
        let audience = event.audience.clone();
        let body = ExpansionTask { event: reference.clone(), audience, range }.to_json()?;
        Ok((To::Expansion, message(body, &event.key.workspace)))
    };
    let Matched { subscriptions, parts, .. } = matched;
    subscriptions.into_iter().map(delivery).chain(parts.into_iter().map(part)).collect()
}

fn places(planned: &[Planned]) -> BTreeSet<usize> {
    planned.iter().map(|planned| planned.place).collect()
}

/// The letter of a record that can never be worked off. A message of the expansion queue needs none: the redrive policy
/// takes it, with all that is in it, to the same queue.
fn poisoned(record: &Record, reason: &str) -> Result<Vec<(To, Message)>, Unplanned> {
    tracing::error!(record = record.id, event = record.event, reason, "a record is poisoned");
    match record.source {
        Source::Queue => Err(Unplanned::Poisoned),
        Source::Stream => {
            let body = json!({ "v": 1, "task": "fanoutFailure", "event": record.event, "record": record.id, "reason": reason });
            Ok(vec![(To::Failure, message(body.to_string(), &"poisoned"))])
        }
    }
}

fn message(body: String, group: &dyn std::fmt::Display) -> Message {
    Message { body, group: group.to_string(), delay_seconds: 0 }
}

fn workspaces(records: &[Record]) -> HashSet<WorkspaceId> {
    let workspace = |record: &Record| match &record.step {
        Step::Match(event) => Some(event.key.workspace.clone()),
        Step::Expand(task) => Some(task.event.key.workspace.clone()),
        Step::Poisoned { .. } => None,
    };
    records.iter().filter_map(workspace).collect()
}

/// Of a stream the first unfinished record is named: the checkpoint, from which on all come again.
fn answer(records: &[Record], unfinished: BTreeSet<usize>) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for record in unfinished.into_iter().map(|place| &records[place]) {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier.clone_from(&record.id);
        response.batch_item_failures.push(failure);
        if record.source == Source::Stream {
            break;
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(source: Source, id: &str) -> Record {
        let step = Step::Poisoned { reason: String::new() };
        Record { source, id: id.to_owned(), event: String::new(), step }
    }

    fn answered(source: Source, unfinished: &[usize]) -> Vec<String> {
        let records = ["a", "b", "c", "d"].map(|id| record(source, id));
        let response = answer(&records, unfinished.iter().copied().collect());
        response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
    }

    #[test]
    fn of_a_stream_the_first_unfinished_record_is_the_checkpoint() {
        assert_eq!(answered(Source::Stream, &[3, 1]), ["b"]);
        assert!(answered(Source::Stream, &[]).is_empty());
    }

    #[test]
    fn of_a_queue_each_unfinished_message_is_named() {
        assert_eq!(answered(Source::Queue, &[3, 1]), ["b", "d"]);
    }

    #[test]
    fn a_poisoned_record_of_the_stream_leaves_a_letter() {
        let letters = poisoned(&record(Source::Stream, "7"), "it has version 9").unwrap();
        let [(To::Failure, letter)] = &letters[..] else { panic!("one letter") };
        let letter: serde_json::Value = serde_json::from_str(&letter.body).unwrap();
        assert_eq!((&letter["record"], &letter["reason"]), (&json!("7"), &json!("it has version 9")));
        assert!(
            poisoned(&record(Source::Queue, "m"), "nonsense").is_err(),
            "the redrive policy takes it as it is"
        );
    }
}
