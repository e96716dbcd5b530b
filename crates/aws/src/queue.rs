//! Queues: tasks are sent in batches, and the answer for each one is looked at.

use std::borrow::Borrow;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use crate::error::AwsError;
use crate::wire::{Entry, Sqs};

/// The most messages of one batch.
pub const BATCH_MESSAGES_MAX: usize = 10;

/// The most bytes of one batch: below SQS's 1 MiB, which counts more than bodies.
const BATCH_BYTES_MAX: usize = 1_000_000;

/// How many batches are under way at once.
const BATCHES_AT_ONCE: usize = 16;

/// How often entries that SQS could not take are sent again, with a growing pause before each.
const TRIES_MAX: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const OPERATION: &str = "sqs SendMessageBatch";

/// A queue that tasks are sent to.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Sqs,
    url: String,
}

/// A task on its way into a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The task as JSON.
    pub body: String,
    /// Whose it is: fair queues serve groups with few messages in flight first.
    pub group: String,
    /// How long the queue holds it back: at most 900 s.
    pub delay_seconds: u16,
}

impl Queue {
    /// The queue at this URL.
    #[must_use]
    pub fn new(client: Sqs, url: String) -> Self {
        Self { client, url }
    }

    /// Sends every message, in batches, several at once; tells for each, in their order, whether SQS has it.
    pub async fn send<M: Borrow<Message>>(&self, messages: Vec<M>) -> Vec<Result<(), AwsError>> {
        let batches = batches(messages);
        let sending = stream::iter(batches).map(|batch| self.send_batch(batch)).buffered(BATCHES_AT_ONCE);
        sending.flat_map(stream::iter).collect().await
    }

    async fn send_batch<M: Borrow<Message>>(&self, batch: Vec<M>) -> Vec<Result<(), AwsError>> {
        let mut results: Vec<_> =
            batch.iter().map(|_| Err(AwsError::Undone { operation: OPERATION, count: 1 })).collect();
        let mut open: Vec<usize> = (0..batch.len()).collect();
        let mut pause = FIRST_PAUSE;
        for last in (0..TRIES_MAX).map(|n| n + 1 == TRIES_MAX) {
            let entries: Vec<_> = open.iter().map(|index| entry(*index, batch[*index].borrow())).collect();
            match self.client.send_batch(&self.url, &entries).await {
                Ok(answer) => {
                    for sent in answer.successful {
                        let index = sent.id.parse::<usize>().ok().filter(|index| open.contains(index));
                        if let Some(index) = index {
                            results[index] = Ok(());
                        }
                    }
                    for failed in &answer.failed {
                        tracing::warn!(
                            code = failed.code,
                            detail = failed.message,
                            "SQS did not take a message"
                        );
                    }
                    open.retain(|index| results[*index].is_err());
                }
                // It was tried again already; the whole batch is undone.
                Err(error) => {
                    tracing::warn!(%error, "SQS did not take a batch");
                    return results;
                }
            }
            if open.is_empty() || last {
                return results;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        results
    }
}

fn entry(index: usize, message: &Message) -> Entry<'_> {
    Entry {
        id: index.to_string(),
        message_body: &message.body,
        message_group_id: &message.group,
        delay_seconds: (message.delay_seconds > 0).then_some(message.delay_seconds),
    }
}

fn batches<M: Borrow<Message>>(messages: Vec<M>) -> Vec<Vec<M>> {
    let mut batches: Vec<Vec<M>> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let size = message.borrow().body.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_MESSAGES_MAX && bytes + size <= BATCH_BYTES_MAX => {
                bytes += size;
                batch.push(message);
            }
            _ => {
                bytes = size;
                batches.push(vec![message]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_within_number_and_size() {
        let message =
            |bytes: usize| Message { body: "x".repeat(bytes), group: "g".to_owned(), delay_seconds: 0 };
        let sizes = |messages: Vec<Message>| batches(messages).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![message(1); 21]), [10, 10, 1]);
        assert_eq!(sizes(vec![message(400_000); 5]), [2, 2, 1]);
        assert_eq!(sizes(vec![message(1), message(1_000_000), message(1)]), [1, 1, 1]);
        assert!(sizes(Vec::new()).is_empty());
    }
}
