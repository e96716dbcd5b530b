//! A batch of messages: read what they need in one call, let each go its own way, send on what follows.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse};
use carillon_aws::batch_read::{Item, Key, batch_read};
use carillon_aws::deliveries::{read_delivery, read_state};
use carillon_aws::error::AwsError;
use carillon_aws::events::read_event;
use carillon_aws::now;
use carillon_aws::queue::Message;
use carillon_core::id::SubscriptionId;
use carillon_core::retry::Wait;
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;
use futures::stream::{FuturesUnordered, StreamExt as _};
use lambda_runtime::LambdaEvent;
use serde::Deserialize;
use tokio::task::JoinError;
use tracing::Instrument as _;

use crate::attempt::{Case, FollowUp, Lane, Run, Time, Undone, admitted, attempt};
use crate::courier::Courier;
use crate::gate::passes;
use crate::log::{Lines, Span};
use crate::receiver::Seen;

/// How many endings are looked at together, so that what follows them is sent in one batch.
const ENDINGS_MAX: usize = carillon_aws::queue::BATCH_MESSAGES_MAX;

/// What is needed of an event of SQS. The library's own type takes twice as long to read as the tasks in it, since each
/// message has a dozen attributes.
#[derive(Deserialize)]
pub(crate) struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    body: String,
    #[serde(rename = "eventSourceARN")]
    source: String,
}

/// Works off a batch; the answer names the messages that must come again.
pub(crate) async fn handle(courier: &Arc<Courier>, event: LambdaEvent<Batch>) -> SqsBatchResponse {
    let LambdaEvent { payload: Batch { records }, context, .. } = event;
    let deadline = UnixMillis(context.deadline);
    let run = Arc::new(Run {
        span: Span { request_id: context.request_id, xray_trace_id: context.xray_trace_id },
        time: Time { deadline, whole: deadline.since(now()) },
        lines: Lines::default(),
    });
    courier.metrics.batch(records.len());
    let mut failed = Vec::new();
    let mut messages = Vec::with_capacity(records.len());
    for Record { message_id: id, body, source } in records {
        match DeliveryTask::from_json(&body) {
            Ok(task) => messages.push((id, lane(courier, &source), task)),
            Err(error) => {
                // It comes again until the redrive policy takes it to the dead-letter queue.
                tracing::error!(message_id = id, %error, "a message is no task");
                failed.push(id);
            }
        }
    }
    let cases = match cases(courier, messages).await {
        Ok((cases, unreadable)) => {
            failed.extend(unreadable);
            cases
        }
        Err((ids, error)) => {
            tracing::error!(%error, "the batch read failed, all tasks come again");
            failed.extend(ids);
            Vec::new()
        }
    };
    let ready = cases.into_iter().filter_map(|(id, case)| Some((id, admitted(case)?)));
    let (ids, ready): (Vec<_>, Vec<_>) = ready.unzip();
    let passes = passes(courier, &ready).await;
    let running = ids.into_iter().zip(ready.into_iter().zip(passes)).map(|(id, (ready, pass))| {
        let (courier, run) = (Arc::clone(courier), Arc::clone(&run));
        apart(id, async move { Box::pin(attempt(&courier, ready, pass?, &run)).await })
    });
    let mut endings = running.collect::<FuturesUnordered<_>>().ready_chunks(ENDINGS_MAX);
    while let Some(chunk) = endings.next().await {
        run.lines.write();
        let mut follow_ups = Vec::with_capacity(chunk.len());
        for (id, ending) in chunk {
            match ending {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(follow_up))) => follow_ups.push((id, follow_up)),
                Ok(Err(Undone::Taken)) => {
                    tracing::info!(message_id = id, "another copy of a task is at it, this one comes again");
                    failed.push(id);
                }
                Ok(Err(error)) => {
                    tracing::error!(message_id = id, %error, "a task failed and comes again");
                    failed.push(id);
                }
                Err(panic) => {
                    // Without what it says, which could quote anything.
                    tracing::error!(
                        message_id = id,
                        is_panic = panic.is_panic(),
                        "a task panicked and comes again"
                    );
                    failed.push(id);
                }
            }
        }
        failed.extend(follow(courier, follow_ups).await);
        run.lines.write();
    }
    courier.metrics.flush();
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failed.into_iter().map(failure).collect();
    response
}

/// Starts a task by itself: if it panics, it fails alone. Its log lines carry the request's id as all others do.
fn apart<T: Send + 'static>(
    id: String,
    task: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = (String, Result<T, JoinError>)> {
    let task = tokio::spawn(task.in_current_span());
    async { (id, task.await) }
}

/// Each message's task with all that it needs, and the ids of those for which that could not be read.
type Cases = (Vec<(String, Case)>, Vec<String>);

async fn cases(
    courier: &Courier,
    messages: Vec<(String, Lane, DeliveryTask)>,
) -> Result<Cases, (Vec<String>, AwsError)> {
    let tasks: Vec<_> = messages.iter().map(|(_, _, task)| task).collect();
    let mut keys = courier.targets.missing(&courier.config, &tasks);
    let rows: Vec<_> = tasks.iter().map(|task| courier.deliveries.key(task)).collect();
    keys.extend(rows.iter().cloned());
    for &task in &tasks {
        keys.push(courier.deliveries.state_key(task.subscription));
        if task.event.json.is_none() {
            keys.push(courier.events.key(&task.event.key));
        }
    }
    let read_at = now();
    let read = match batch_read(&courier.dynamodb, keys).await {
        Ok(read) => read,
        Err(error) => return Err((messages.into_iter().map(|(id, ..)| id).collect(), error)),
    };
    let targets = courier.targets.of(&courier.config, &courier.vault, &tasks, &read, read_at).await;
    let mut cases = Vec::with_capacity(messages.len());
    let (mut unreadable, mut seen) = (Vec::new(), HashMap::new());
    for ((id, lane, mut task), row) in messages.into_iter().zip(rows) {
        let Some(target) = targets.get(&task.subscription).cloned() else {
            unreadable.push(id);
            continue;
        };
        let subscription = task.subscription;
        let case = seen_of(courier, &mut seen, subscription, &read)
            .and_then(|seen| Ok((seen, known(courier, &mut task, &row, &read)?)));
        match case {
            Ok((seen, (delivery, json))) => {
                cases.push((id, Case { task, lane, delivery, seen, target, json }));
            }
            Err(error) => {
                tracing::error!(message_id = id, %error, "what a task needs cannot be read");
                unreadable.push(id);
            }
        }
    }
    Ok((cases, unreadable))
}

/// What was read of a subscription's state, one for all of its tasks.
fn seen_of(
    courier: &Courier,
    all: &mut HashMap<SubscriptionId, Arc<Seen>>,
    subscription: SubscriptionId,
    read: &HashMap<Key, Item>,
) -> Result<Arc<Seen>, AwsError> {
    if let Some(seen) = all.get(&subscription) {
        return Ok(Arc::clone(seen));
    }
    let state = read.get(&courier.deliveries.state_key(subscription)).cloned().map(read_state).transpose()?;
    let seen = Arc::new(Seen::new(state.unwrap_or_default()));
    all.insert(subscription, Arc::clone(&seen));
    Ok(seen)
}

type Known = (Option<carillon_aws::deliveries::Delivery>, Option<String>);

/// What was read of a task's delivery, whose row is at this key, and its event.
fn known(
    courier: &Courier,
    task: &mut DeliveryTask,
    row: &Key,
    read: &HashMap<Key, Item>,
) -> Result<Known, AwsError> {
    let delivery = read.get(row).cloned().map(read_delivery).transpose()?;
    if task.event.json.is_some() {
        return Ok((delivery, task.event.json.clone()));
    }
    let event = read.get(&courier.events.key(&task.event.key)).cloned().map(read_event).transpose()?;
    let json = event.map(|event| {
        task.event.trace = event.trace;
        event.json
    });
    Ok((delivery, json))
}

/// Sends what follows. The ids of messages that must come again, since what follows them could not be sent: all but
/// retries, which the row has and the sweep sends.
async fn follow(courier: &Courier, follow_ups: Vec<(String, FollowUp)>) -> Vec<String> {
    let now = now();
    let mut failed = Vec::new();
    let (mut delivery, mut slow, mut letters) = (Vec::new(), Vec::new(), Vec::new());
    for (id, follow_up) in follow_ups {
        match follow_up {
            FollowUp::Retry { task, at, lane } => match courier.pace.waits(now, at) {
                Wait::InSchedule => {
                    if let Err(error) = courier.schedule.put(&task, at).await {
                        tracing::error!(%error, delivery = %task.delivery(), "a retry is left to the sweep");
                    }
                }
                Wait::InQueue { seconds } => match lane {
                    Lane::Delivery => delivery.push((None, task, seconds)),
                    Lane::Slow => slow.push((None, task, seconds)),
                },
            },
            FollowUp::Later { task, seconds, lane } => match lane {
                Lane::Delivery => delivery.push((Some(id), task, seconds)),
                Lane::Slow => slow.push((Some(id), task, seconds)),
            },
            FollowUp::SlowLane(task) => slow.push((Some(id), task, 0)),
            FollowUp::Letter(task) => letters.push((Some(id), task, 0)),
        }
    }
    let queues = &courier.queues;
    for (queue, tasks) in [(&queues.delivery, delivery), (&queues.slow, slow), (&queues.dead_letter, letters)]
    {
        if tasks.is_empty() {
            continue;
        }
        let mut ids = Vec::with_capacity(tasks.len());
        let mut messages = Vec::with_capacity(tasks.len());
        for (id, task, delay_seconds) in tasks {
            match task.to_json() {
                Ok(body) => {
                    messages.push(Message { body, group: task.subscription.to_string(), delay_seconds });
                    ids.push(id);
                }
                Err(error) => {
                    tracing::error!(%error, delivery = %task.delivery(), "a task cannot be written");
                    failed.extend(id);
                }
            }
        }
        let sent = queue.send(messages).await;
        for (id, sent) in ids.into_iter().zip(sent) {
            if let Err(error) = sent {
                tracing::error!(%error, message_id = id, "what follows an attempt could not be sent");
                failed.extend(id);
            }
        }
    }
    failed
}

/// `source`: the ARN of the queue that a message came through.
fn lane(courier: &Courier, source: &str) -> Lane {
    if source.rsplit(':').next() == Some(courier.queues.slow_name.as_str()) {
        Lane::Slow
    } else {
        Lane::Delivery
    }
}

fn failure(id: String) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    failure.item_identifier = id;
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_fails_its_own_task_alone() {
        let running: FuturesUnordered<_> = (0..3)
            .map(|n| apart(n.to_string(), async move { assert_ne!(n, 1, "the second one panics") }))
            .collect();
        let endings: HashMap<_, _> = running.map(|(id, ending)| (id, ending.is_ok())).collect().await;
        assert_eq!(
            endings,
            HashMap::from([("0", true), ("1", false), ("2", true)].map(|(id, ok)| (id.to_owned(), ok)))
        );
    }
}
