//! A run over all shards. Runs may overlap: each shard belongs to one of them at a time.

use std::time::Duration;

use carillon_aws::batch_read::Item;
use carillon_aws::deliveries::{Claim, Delivery, DeliveryTable};
use carillon_aws::environment::setting;
use carillon_aws::error::AwsError;
use carillon_aws::queue::{Message, Queue};
use carillon_aws::schedule::{Due, ScheduleTable};
use carillon_aws::{DynamoDb, SHARDS, Sqs, now, sdk_config};
use carillon_core::retry::{Pace, QUEUE_DELAY_MAX, delay_seconds};
use carillon_core::time::UnixMillis;
use futures::stream::{self, StreamExt as _};
use serde::Serialize;

/// How far ahead a run looks: the minute until the next one, and some more in case that is late.
const AHEAD: Duration = Duration::from_secs(75);

/// What of the function's time is kept to finish a page and answer: this, or a third of it if it is short.
const FINISHING_TIME: Duration = Duration::from_secs(10);

/// How many items are taken at once.
const PAGE: i32 = 100;

/// How many shards a run works on at once.
const SHARDS_AT_ONCE: usize = 4;

/// Tables, the queue, and the deployment's pace.
pub(crate) struct Clock {
    schedule: ScheduleTable,
    deliveries: DeliveryTable,
    queue: Queue,
    pace: Pace,
}

/// What a run did, also its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// Tasks of the schedule that were sent to the queue.
    due: usize,
    /// Tasks that were sent again, since theirs must have been lost.
    overdue: usize,
    /// Shards that another run had.
    left: usize,
}

impl Clock {
    pub(crate) async fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let sdk = sdk_config().await;
        let dynamodb = DynamoDb::new(&sdk);
        Ok(Self {
            schedule: ScheduleTable::new(dynamodb.clone(), setting("SCHEDULE_TABLE")?),
            deliveries: DeliveryTable::new(dynamodb, setting("DELIVERIES_TABLE")?),
            queue: Queue::new(Sqs::new(&sdk), setting("DELIVERY_QUEUE_URL")?),
            pace: Pace::new(setting("RETRY_SCALE")?, QUEUE_DELAY_MAX)?,
        })
    }

    /// Works until all is sent or `deadline` (Unix milliseconds) is near. What is left is the next run's. If a shard
    /// failed, so does the run, after all the others: its alarm is how that is heard of.
    pub(crate) async fn run(&self, deadline: u64) -> Result<Done, AwsError> {
        let deadline = UnixMillis(deadline);
        let until = deadline.minus(FINISHING_TIME.min(deadline.since(now()) / 3));
        let shards = stream::iter(0..SHARDS).map(|shard| self.shard(shard, until, deadline));
        let results: Vec<_> = shards.buffer_unordered(SHARDS_AT_ONCE).collect().await;
        let mut done = Done::default();
        let mut failed = None;
        for result in results {
            match result {
                Ok(of_shard) => done = done + of_shard,
                Err(error) => {
                    tracing::error!(%error, "a shard is left to the next run");
                    failed = Some(error);
                }
            }
        }
        tracing::info!(due = done.due, overdue = done.overdue, left = done.left, "run");
        failed.map_or(Ok(done), Err)
    }

    async fn shard(&self, shard: u8, until: UnixMillis, deadline: UnixMillis) -> Result<Done, AwsError> {
        // Most shards have nothing to do most of the time, and are not worth a lease then.
        let (due, more_due) = self.schedule.due(shard, now() + AHEAD, 1, None).await?;
        let (overdue, more_overdue) = self.overdue(shard, 1, None).await?;
        if due.is_empty() && overdue.is_empty() && more_due.is_none() && more_overdue.is_none() {
            return Ok(Done::default());
        }
        if !self.schedule.lease(shard, now(), deadline).await? {
            return Ok(Done { left: 1, ..Done::default() });
        }
        // Each whatever becomes of the other.
        let (due, overdue) = (self.send_due(shard, until).await, self.sweep(shard, until).await);
        self.schedule.release(shard, deadline).await?;
        Ok(Done { due: due?, overdue: overdue?, left: 0 })
    }

    /// Sends what is due before the next run, each held back to its second; then removes it from the schedule.
    async fn send_due(&self, shard: u8, until: UnixMillis) -> Result<usize, AwsError> {
        let (mut count, mut after) = (0, None);
        while now() < until {
            let (page, next) = self.schedule.due(shard, now() + AHEAD, PAGE, after).await?;
            let messages = page.iter().map(|due| Message {
                body: due.task.clone(),
                group: due.group.clone(),
                delay_seconds: delay_seconds(now(), due.at),
            });
            let results = self.queue.send(messages.collect()).await;
            // What could not be sent stays, for the next run.
            let sent: Vec<Due> =
                page.into_iter().zip(results).filter_map(|(due, sent)| sent.ok().map(|()| due)).collect();
            self.schedule.delete(&sent).await?;
            count += sent.len();
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(count)
    }

    /// Sends again what should have been attempted long ago.
    async fn sweep(&self, shard: u8, until: UnixMillis) -> Result<usize, AwsError> {
        let (mut count, mut after) = (0, None);
        while now() < until {
            let (page, next) = self.overdue(shard, PAGE, after).await?;
            let mut messages = Vec::with_capacity(page.len());
            for delivery in &page {
                // Noted first: a run that dies in between leaves it to a later sweep, instead of sending it every time.
                if self.deliveries.resend(delivery, now()).await? == Claim::Won {
                    messages.extend(message(delivery));
                }
            }
            let resent = messages.len();
            for sent in self.queue.send(messages).await {
                sent?;
            }
            count += resent;
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(count)
    }

    async fn overdue(
        &self,
        shard: u8,
        limit: i32,
        after: Option<Item>,
    ) -> Result<(Vec<Delivery>, Option<Item>), AwsError> {
        let (now, overdue) = (now(), self.pace.overdue());
        let (mut page, next) = self.deliveries.due_before(shard, now.minus(overdue), limit, after).await?;
        page.retain(|delivery| delivery.row.overdue(now, overdue));
        Ok((page, next))
    }
}

impl std::ops::Add for Done {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            due: self.due + other.due,
            overdue: self.overdue + other.overdue,
            left: self.left + other.left,
        }
    }
}

fn message(delivery: &Delivery) -> Option<Message> {
    let task = delivery.task();
    match task.to_json() {
        Ok(body) => Some(Message { body, group: task.subscription.to_string(), delay_seconds: 0 }),
        Err(error) => {
            tracing::error!(delivery = %task.delivery(), %error, "a task cannot be written");
            None
        }
    }
}
