//! The events table's stream, as Lambda reads it: shard by shard, in batches that come again, in halves if they crash.

use std::collections::VecDeque;

use crate::queue::{Body, QueueName};
use crate::sim::Sim;
use crate::workers::FUNCTION_TIMEOUT;
use crate::workers::fanout::{Record, fan_out};

/// How many records a batch has at most: few, as runs are small.
const BATCH: usize = 5;

/// How often a batch is tried before it is given up: less often than it is, so that it happens.
const TRIES_MAX: u32 = 4;

/// How long the mapping waits before it tries again, or looks again, in milliseconds.
const PAUSE: u64 = 1000;
const MINUTE: u64 = 60 * PAUSE;

/// Reads a shard for ever.
pub(crate) async fn read(sim: Sim, shard: usize) {
    loop {
        let batch: Vec<_> = {
            let mut world = sim.world();
            let size = world.stream[shard].len().min(BATCH);
            let batch: Vec<_> = world.stream[shard].drain(..size).collect();
            world.stream_batches += usize::from(!batch.is_empty());
            batch
        };
        if !batch.is_empty() {
            work_off(&sim, batch).await;
            sim.world().stream_batches -= 1;
            continue;
        }
        // Shards are read in any order, some long after others.
        let pause = {
            let mut world = sim.world();
            if world.is_healed { 10 * MINUTE } else { world.chance.one_of(&[100, PAUSE, 20 * PAUSE, MINUTE]) }
        };
        sim.sleep(pause).await;
    }
}

async fn work_off(sim: &Sim, batch: Vec<usize>) {
    let mut parts = VecDeque::from([(batch, 0)]);
    while let Some((mut events, tries)) = parts.pop_front() {
        if tries >= TRIES_MAX {
            let mut world = sim.world();
            world.report.given_up += events.len() as u64;
            for event in events {
                world.put(QueueName::FanoutFailures, Body::Unfanned { event }, 0);
            }
            continue;
        }
        let records = events.iter().map(|event| Record::of_stream(*event)).collect();
        if let Some(unfinished) = sim.invoke(FUNCTION_TIMEOUT, |run| fan_out(run, records)).await {
            let checkpoint = unfinished.first().copied();
            if let Some(place) = checkpoint {
                parts.push_front((events.split_off(place), tries + 1));
            } else if sim.world().chance.happens(20) && !sim.world().is_healed {
                // It was done, but Lambda did not learn of it.
                parts.push_front((events, tries + 1));
            }
        } else {
            let second = events.split_off(events.len() / 2);
            parts.push_front((second, tries + 1));
            if !events.is_empty() {
                parts.push_front((events, tries + 1));
            }
        }
        sim.sleep(PAUSE).await;
    }
}
