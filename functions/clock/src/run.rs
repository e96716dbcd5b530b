//! A run over all shards. Runs may overlap: each shard belongs to one of them at a time.

use std::time::Duration;

use carillon_aws::accepting::Acceptor;
use carillon_aws::batch_read::Item;
use carillon_aws::config::ConfigTable;
use carillon_aws::deliveries::{Claim, Delivery, DeliveryTable, Look, Open, Order, State};
use carillon_aws::environment::setting;
use carillon_aws::error::AwsError;
use carillon_aws::metrics::{Counter, Metrics};
use carillon_aws::queue::{Message, Queue};
use carillon_aws::schedule::{Due, HeldNote, ScheduleTable};
use carillon_aws::{DynamoDb, SHARDS, Sqs, now, sdk_config};
use carillon_core::retry::{Pace, QUEUE_DELAY_MAX, delay_seconds};
use carillon_core::subscription::Status as SubscriptionStatus;
use carillon_core::time::UnixMillis;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::deadlines::Deadlines;

/// How far ahead a run looks: the minute until the next one, and some more in case that is late.
const AHEAD: Duration = Duration::from_secs(75);

/// What of the function's time is kept to finish a page and answer: this, or a third of it if it is short.
const FINISHING_TIME: Duration = Duration::from_secs(10);

/// How many items are taken at once.
const PAGE: i32 = 100;

/// How many shards a run works on at once.
const SHARDS_AT_ONCE: usize = 4;

/// How many deliveries of a subscription a run releases at most: a receiver that comes back is not to be buried.
const RELEASED_MAX: usize = 3000;

/// How many of them are read at once.
const RELEASED_AT_ONCE: usize = 100;

/// Over how much of the time until the next run they are spread.
const RELEASED_OVER: Duration = Duration::from_secs(50);

/// How far the clocks of two functions may lie apart.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// As many are sent at once.
const FEW: usize = 50;

/// How many rows are written at once.
const WRITES_AT_ONCE: usize = 10;

/// Tables, the queue, and the deployment's pace.
pub(crate) struct Clock {
    config: ConfigTable,
    schedule: ScheduleTable,
    deliveries: DeliveryTable,
    deadlines: Deadlines,
    queue: Queue,
    pace: Pace,
    metrics: Metrics,
}

/// What a run did, also its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// Tasks of the schedule that were sent to the queue.
    due: usize,
    /// Tasks that were sent again, since theirs must have been lost.
    overdue: usize,
    /// Deliveries that were held and may go on.
    released: usize,
    /// Deadlines that fired.
    fired: usize,
    /// Shards that another run had.
    left: usize,
}

impl Clock {
    pub(crate) async fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let sdk = sdk_config().await;
        let dynamodb = DynamoDb::new(&sdk);
        let config = ConfigTable::new(dynamodb.clone(), setting("CONFIG_TABLE")?);
        let acceptor = Acceptor::from_environment(&dynamodb)?;
        Ok(Self {
            schedule: acceptor.schedule().clone(),
            deadlines: Deadlines::new(config.clone(), acceptor),
            config,
            deliveries: DeliveryTable::new(dynamodb, setting("DELIVERIES_TABLE")?),
            queue: Queue::new(Sqs::new(&sdk), setting("DELIVERY_QUEUE_URL")?),
            pace: Pace::new(setting("RETRY_SCALE")?, QUEUE_DELAY_MAX)?,
            metrics: Metrics::from_environment()?,
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
        tracing::info!(
            due = done.due,
            overdue = done.overdue,
            released = done.released,
            fired = done.fired,
            left = done.left,
            "run"
        );
        self.metrics.count(Counter::DueSent, done.due);
        self.metrics.count(Counter::OverdueResent, done.overdue);
        self.metrics.count(Counter::Released, done.released);
        self.metrics.count(Counter::EventsAccepted, done.fired);
        self.metrics.flush();
        failed.map_or(Ok(done), Err)
    }

    async fn shard(&self, shard: u8, until: UnixMillis, deadline: UnixMillis) -> Result<Done, AwsError> {
        // Most shards have nothing to do most of the time, and are not worth a lease then.
        let (due, more_due) = self.schedule.due(shard, now() + AHEAD, 1, None).await?;
        let (overdue, more_overdue) = self.overdue(shard, 1, None).await?;
        let (held, more_held) = self.schedule.held(shard, 1, None).await?;
        let nothing =
            due.is_empty() && overdue.is_empty() && held.is_empty() && !self.deadlines.any_due(shard).await?;
        if nothing && more_due.is_none() && more_overdue.is_none() && more_held.is_none() {
            return Ok(Done::default());
        }
        if !self.schedule.lease(shard, now(), deadline).await? {
            return Ok(Done { left: 1, ..Done::default() });
        }
        // Each whatever becomes of the other.
        let (due, overdue) = (self.send_due(shard, until).await, self.sweep(shard, until).await);
        let fired = self.deadlines.fire(shard, until).await;
        let released = self.release(shard, until).await;
        self.schedule.release(shard, deadline).await?;
        Ok(Done { due: due?, overdue: overdue?, released: released?, fired: fired?, left: 0 })
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
                    messages.extend(message(delivery, 0));
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

    /// Releases what is held without a cause, and of what is held with one as much as that lets through.
    async fn release(&self, shard: u8, until: UnixMillis) -> Result<usize, AwsError> {
        let (mut count, mut after, mut failed) = (0, None, None);
        while now() < until {
            let (notes, next) = self.schedule.held(shard, PAGE, after).await?;
            for note in notes {
                match self.release_of(&note, until).await {
                    Ok(released) => count += released,
                    // Those behind it wait for another cause than its trouble.
                    Err(error) => {
                        tracing::error!(%error, subscription = %note.subscription, "what it holds stays held");
                        failed = Some(error);
                    }
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// Releases deliveries of one subscription, the oldest events first.
    async fn release_of(&self, note: &HeldNote, until: UnixMillis) -> Result<usize, AwsError> {
        let stored = self.config.subscription(&note.workspace, note.subscription).await?;
        if stored.is_some_and(|stored| stored.subscription.status == SubscriptionStatus::Paused) {
            return Ok(0);
        }
        let state = self.deliveries.state(note.subscription).await?;
        let Some(start) = release_at(&state, now()) else { return Ok(0) };
        let room = room(&state, now());
        let (mut released, mut look, mut looked) = (Vec::new(), Look::all(Order::Oldest), false);
        while released.len() < room && now() < until {
            let limit = (room - released.len()).min(RELEASED_AT_ONCE);
            let (page, next) =
                self.deliveries.standing(note.subscription, Open::Held, &look, limit, now()).await?;
            released.extend(self.free(page).await?);
            let Some(place) = next else {
                looked = true;
                break;
            };
            look = look.behind(place);
        }
        if released.is_empty() && looked && now().since(note.noted_at) >= self.pace.note_kept() {
            // Nothing is held, and whoever noted that it was about to hold something has ended.
            self.schedule.forget_held(note).await?;
        }
        let (begin, count) = (start.max(now()), released.len());
        let messages = released.iter().enumerate().filter_map(|(place, delivery)| {
            let at = begin + spread(place, count);
            message(delivery, delay_seconds(now(), at))
        });
        // What could not be sent is overdue in a while.
        for sent in self.queue.send(messages.collect()).await {
            sent?;
        }
        Ok(count)
    }

    /// Those of a page that were held until now.
    async fn free(&self, page: Vec<Delivery>) -> Result<Vec<Delivery>, AwsError> {
        let freeing = page.into_iter().map(async |delivery| {
            let claim = self.deliveries.release(&delivery, now()).await?;
            Ok::<_, AwsError>((claim == Claim::Won).then_some(delivery))
        });
        let freed: Vec<_> = stream::iter(freeing).buffered(WRITES_AT_ONCE).try_collect().await?;
        Ok(freed.into_iter().flatten().collect())
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
            released: self.released + other.released,
            fired: self.fired + other.fired,
            left: self.left + other.left,
        }
    }
}

/// From when on deliveries of a subscription may be released; `None`: not before the next run.
fn release_at(state: &State, now: UnixMillis) -> Option<UnixMillis> {
    match state.trial_at() {
        None => Some(now),
        // One that comes before its time, by another clock, would be held again.
        Some(trial_at) => (trial_at <= now + AHEAD).then_some(trial_at + CLOCKS_DIFFER),
    }
}

/// How many of them: one for the trial of an open circuit, or as many as there is room for in its slots.
fn room(state: &State, now: UnixMillis) -> usize {
    if state.trial_at().is_some() {
        return 1;
    }
    let slots = state.room(now).map_or(RELEASED_MAX, |room| usize::try_from(room).unwrap_or(usize::MAX));
    slots.min(RELEASED_MAX)
}

/// When the delivery at this place of so many is sent. A few are no burden.
fn spread(place: usize, count: usize) -> Duration {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
    if count <= FEW { Duration::ZERO } else { RELEASED_OVER * number(place) / number(count) }
}

fn message(delivery: &Delivery, delay_seconds: u16) -> Option<Message> {
    let task = delivery.task();
    match task.to_json() {
        Ok(body) => Some(Message { body, group: task.subscription.to_string(), delay_seconds }),
        Err(error) => {
            tracing::error!(delivery = %task.delivery(), %error, "a task cannot be written");
            None
        }
    }
}
