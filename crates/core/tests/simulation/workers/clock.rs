//! The steps of `functions/clock`: what is due, what is overdue, what is held.

use std::time::Duration;

use carillon_core::retry::delay_seconds;
use carillon_core::time::UnixMillis;

use super::millis;
use crate::queue::{Body, QueueName, Task};
use crate::rules::Rule;
use crate::sim::{Run, Undone};
use crate::tables::{Claim, Item, Open, Write};
use crate::world::{SHARDS, Standing, State, World};

/// How long Lambda lets it run, in milliseconds.
pub(crate) const CLOCK_TIMEOUT: u64 = 50_000;

const AHEAD: Duration = Duration::from_secs(75);
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);
const RELEASED_MAX: usize = 3000;

/// A run over all shards that have something to do.
pub(crate) async fn tick(run: Run) {
    let now = run.now();
    let Ok(busy) = run.call(|world| busy(world, now)).await else { return };
    let shards = busy.into_iter().map(|shard| {
        let run = run.clone();
        async move { _ = work_on(&run, shard).await }
    });
    run.together(shards.collect()).await;
}

/// Whether a run would find anything.
pub(crate) fn has_work(world: &mut World) -> bool {
    let now = UnixMillis(world.now + world.faults.skew);
    !busy(world, now).is_empty()
}

fn busy(world: &mut World, now: UnixMillis) -> Vec<usize> {
    (0..SHARDS)
        .filter(|shard| {
            !due(world, *shard, now).is_empty()
                || world.notes.range((*shard, 0)..(shard + 1, 0)).next().is_some()
                || !overdue(world, *shard, now).is_empty()
        })
        .collect()
}

async fn work_on(run: &Run, shard: usize) -> Result<(), Undone> {
    let (now, deadline) = (run.now(), run.deadline);
    let is_leased = run.call(|world| {
        let is_free = world.leases[shard] <= now;
        if is_free {
            world.leases[shard] = deadline;
        }
        is_free
    });
    if !is_leased.await? {
        return Ok(());
    }
    // Each whatever becomes of the other.
    _ = send_due(run, shard).await;
    _ = sweep(run, shard).await;
    _ = release(run, shard).await;
    run.call(|world| {
        if world.leases[shard] == deadline {
            world.leases[shard] = UnixMillis(0);
        }
    })
    .await
}

fn due(world: &World, shard: usize, now: UnixMillis) -> Vec<((usize, UnixMillis, usize), Task)> {
    let until = (shard, now + AHEAD + Duration::from_millis(1), 0);
    world.due.range((shard, UnixMillis(0), 0)..until).map(|(key, task)| (*key, *task)).collect()
}

async fn send_due(run: &Run, shard: usize) -> Result<(), Undone> {
    let now = run.now();
    let page = run.call(|world| due(world, shard, now)).await?;
    let now = run.now();
    let messages = page.iter().map(|((_, at, _), task)| (Body::Task(*task), delay_seconds(now, *at)));
    let results = run.send(QueueName::Delivery, messages.collect()).await;
    // What could not be sent stays, for the next run.
    let sent = page.into_iter().zip(results).filter(|(_, sent)| sent.is_ok());
    let sent: Vec<_> = sent.map(|((key, _), _)| key).collect();
    if sent.is_empty() {
        return Ok(());
    }
    run.call(|world| world.due.retain(|key, _| !sent.contains(key))).await
}

/// What is overdue, by the index and by the rows that it names.
fn overdue(world: &mut World, shard: usize, now: UnixMillis) -> Vec<(usize, Item)> {
    if !world.keeps(Rule::OverdueIsSentAgain) {
        return Vec::new();
    }
    let (overdue, subscriptions) = (world.pace.overdue(), world.subscriptions.len());
    let before = now.minus(overdue);
    let mut found = world.through_index(|delivery, open| {
        matches!(open, Open::Retrying(at) if at < before) && (delivery / subscriptions) % SHARDS == shard
    });
    found.retain(|(_, item)| item.row.overdue(now, overdue));
    found
}

async fn sweep(run: &Run, shard: usize) -> Result<(), Undone> {
    let now = run.now();
    let page = run.call(|world| overdue(world, shard, now)).await?;
    let mut messages = Vec::new();
    for (delivery, item) in page {
        let (write, was) = (write(run, delivery, &item), item.row.next_at);
        if run.claim(write, |world, write| world.resend(write, was)).await? == Claim::Won {
            messages.push((Body::Task(task(delivery, &item)), 0));
        }
    }
    run.world().report.resent += messages.len() as u64;
    run.send(QueueName::Delivery, messages).await.into_iter().collect()
}

async fn release(run: &Run, shard: usize) -> Result<(), Undone> {
    let notes = run.call(|world| {
        let notes = world.notes.range((shard, 0)..(shard + 1, 0));
        notes.map(|((_, subscription), noted_at)| (*subscription, *noted_at)).collect::<Vec<_>>()
    });
    for (subscription, noted_at) in notes.await? {
        // Those behind it wait for another cause than its trouble.
        _ = release_of(run, subscription, noted_at).await;
    }
    Ok(())
}

async fn release_of(run: &Run, subscription: usize, noted_at: UnixMillis) -> Result<(), Undone> {
    let is_paused = run.call(|world| {
        let stored = &world.subscriptions[subscription];
        !stored.is_deleted && stored.target.standing == Standing::Paused
    });
    if is_paused.await? {
        return Ok(());
    }
    let state = run.call(|world| world.states[subscription].clone()).await?;
    let Some(start) = release_at(&state, run.now()) else { return Ok(()) };
    let room = room(&state, run.now());
    let mut released = Vec::new();
    if room > 0 {
        let page = run.call(|world| {
            let subscriptions = world.subscriptions.len();
            let is_its = |delivery: usize| delivery % subscriptions == subscription;
            world.through_index(|delivery, open| open == Open::Held && is_its(delivery))
        });
        let mut page = page.await?;
        {
            let world = run.world();
            page.sort_by_key(|(delivery, _)| world.events[world.event_of(*delivery)].accepted_at);
        }
        page.truncate(room);
        for (delivery, item) in page {
            let write = write(run, delivery, &item);
            if run.claim(write, World::release).await? == Claim::Won {
                released.push((delivery, item));
            }
        }
    }
    let (outlives, kept) = {
        let world = run.world();
        (world.keeps(Rule::NoteOutlivesItsMaker), world.pace.note_kept())
    };
    let is_old = !outlives || run.now().since(noted_at) >= kept;
    if released.is_empty() && room > 0 && is_old {
        forget_held(run, subscription, noted_at).await?;
    }
    let begin = start.max(run.now());
    run.world().report.released += released.len() as u64;
    let messages = released.iter().map(|(delivery, item)| {
        let task = task(*delivery, item);
        (Body::Task(task), delay_seconds(run.now(), begin))
    });
    run.send(QueueName::Delivery, messages.collect()).await.into_iter().collect()
}

async fn forget_held(run: &Run, subscription: usize, noted_at: UnixMillis) -> Result<(), Undone> {
    let key = (subscription % SHARDS, subscription);
    run.call(|world| {
        if world.notes.get(&key) == Some(&noted_at) || !world.keeps(Rule::NoteIsForgottenAsSeen) {
            world.notes.remove(&key);
        }
    })
    .await
}

fn release_at(state: &State, now: UnixMillis) -> Option<UnixMillis> {
    match state.trial_at() {
        None => Some(now),
        Some(trial_at) => (trial_at <= now + AHEAD).then_some(trial_at + CLOCKS_DIFFER),
    }
}

fn room(state: &State, now: UnixMillis) -> usize {
    if state.trial_at().is_some() {
        return 1;
    }
    let slots = state.room(now).map_or(RELEASED_MAX, |room| usize::try_from(room).unwrap());
    slots.min(RELEASED_MAX)
}

fn task(delivery: usize, item: &Item) -> Task {
    Task { delivery, ask: item.row.next(), slot: None }
}

fn write(run: &Run, delivery: usize, item: &Item) -> Write {
    let (round, attempt) = (item.row.round, item.row.attempt + 1);
    Write { delivery, round, attempt, now: run.now(), writer: 0 }
}

/// The minutes at which a run is started.
pub(crate) fn next_minute(now: u64) -> u64 {
    let minute = millis(Duration::from_mins(1));
    (now / minute + 1) * minute
}
