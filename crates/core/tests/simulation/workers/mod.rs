//! The functions: their steps in the order of the real ones, under their names, and the core's rules as they call them.

pub(crate) mod clock;
pub(crate) mod deliver;
pub(crate) mod fanout;
mod gate;

use carillon_core::time::UnixMillis;

use crate::queue::{Body, QueueName};
use crate::sim::{Run, Undone};

/// How long Lambda lets a function run, in milliseconds: `DeliverTimeoutSeconds` and `FanoutTimeoutSeconds`.
pub(crate) const FUNCTION_TIMEOUT: u64 = 60_000;

/// After how long a message comes again, in milliseconds: `QueueVisibilitySeconds`.
pub(crate) const VISIBILITY: u64 = 180_000;

impl Run {
    /// Sends messages in one call; each may be refused by itself.
    pub(crate) async fn send(&self, queue: QueueName, messages: Vec<(Body, u16)>) -> Vec<Result<(), Undone>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let sent = self
            .call(|world| {
                let sent = messages.iter().map(|(body, delay)| {
                    if world.chance.happens(world.faults.refused) {
                        return Err(Undone);
                    }
                    world.put(queue, *body, *delay);
                    Ok(())
                });
                sent.collect::<Vec<_>>()
            })
            .await;
        sent.unwrap_or_else(|undone| vec![Err(undone); messages.len()])
    }
}

/// In milliseconds.
pub(crate) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

/// What is left until then, in milliseconds.
pub(crate) fn left(until: UnixMillis, now: UnixMillis) -> u64 {
    millis(until.since(now))
}
