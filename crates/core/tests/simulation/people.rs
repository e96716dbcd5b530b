//! What people do: publish, set up, change their minds, and operate; at random times, until all is healed.

use carillon_core::delivery::{Ask, Row, Status};
use carillon_core::health::{Lesson, UNANSWERED_MAX};
use carillon_core::matching::Range;
use carillon_core::outcome::OutcomeClass;
use carillon_core::time::UnixMillis;

use crate::queue::{Body, QueueName, Task};
use crate::receiver::Manner;
use crate::sim::Sim;
use crate::workers::clock;
use crate::world::{BEGIN, STREAM_SHARDS, Standing};

/// How long a request to the API takes at most, in milliseconds.
const API_TIMEOUT: u64 = 15_000;

/// For how many seconds something is waited for that is worth a redelivery.
const TRIES: usize = 90;

/// How often an operator looks after queues once all is healed, in milliseconds.
const ROUNDS_APART: u64 = 600_000;

/// Starts everything that goes on by itself.
pub(crate) fn set_out(sim: &Sim) {
    (0..STREAM_SHARDS).for_each(|shard| sim.spawn(crate::stream::read(sim.clone(), shard)));
    sim.spawn(every_minute(sim.clone()));
    let (subscriptions, events, troubled_for) = {
        let world = sim.world();
        (world.subscriptions.len(), world.events.len(), world.troubled_until - BEGIN)
    };
    // Most events come in the first part of the trouble, some at once.
    let times: Vec<_> = (0..events)
        .map(|_| {
            let mut world = sim.world();
            let within = if world.chance.happens(300) { 2000 } else { troubled_for * 2 / 3 };
            BEGIN + 2000 + world.chance.below(within)
        })
        .collect();
    for (event, at) in times.iter().enumerate() {
        let repeats = sim.world().chance.one_of(&[0, 0, 0, 1, 2]);
        for _ in 0..=repeats {
            let again = sim.world().chance.below(3000);
            sim.spawn(publish(sim.clone(), event, at + again));
        }
    }
    for subscription in 0..subscriptions {
        let at = {
            let mut world = sim.world();
            match world.chance.below(10) {
                // About when some event is accepted.
                0 | 1 => times[world.chance.index(events)].saturating_sub(world.chance.below(700)),
                _ => BEGIN,
            }
        };
        sim.spawn(create(sim.clone(), subscription, at));
    }
    let deeds = sim.world().chance.below(4 + subscriptions as u64 * 3);
    for _ in 0..deeds {
        let at = {
            let mut world = sim.world();
            // Many when something is under way.
            if world.chance.happens(400) {
                times[world.chance.index(events)] + world.chance.below(9000)
            } else {
                BEGIN + world.chance.below(troubled_for)
            }
        };
        sim.spawn(do_something(sim.clone(), at));
    }
}

async fn every_minute(sim: Sim) {
    loop {
        let next = clock::next_minute(sim.now());
        sim.sleep_until(next).await;
        {
            let mut world = sim.world();
            let now = world.now;
            world.queues.iter_mut().for_each(|queue| queue.scale(now));
        }
        if clock::has_work(&mut sim.world()) {
            let copies = if sim.world().chance.happens(30) { 2 } else { 1 };
            for _ in 0..copies {
                let sim = sim.clone();
                sim.clone().spawn(async move {
                    _ = sim.invoke(clock::CLOCK_TIMEOUT, clock::tick).await;
                });
            }
        }
    }
}

/// A publisher asks until it is told that its event was accepted.
async fn publish(sim: Sim, event: usize, at: u64) {
    sim.sleep_until(at).await;
    loop {
        let accepted = sim.invoke(API_TIMEOUT, |run| async move {
            let (asked_at, accepted_at) = (run.sim.now(), run.now());
            run.call(|world| {
                if world.events[event].accepted_at.is_none() {
                    world.events[event].accepted_at = Some(accepted_at);
                    world.events[event].asked_at = asked_at;
                    let shard = world.chance.index(STREAM_SHARDS);
                    world.stream[shard].push_back(event);
                    world.tell(|| format!("event {event} is accepted"));
                }
            })
            .await
        });
        if accepted.await.is_some_and(|accepted| accepted.is_ok()) {
            return;
        }
        sim.sleep(1000).await;
    }
}

/// Whoever makes a subscription asks until it is told so; nothing is made twice, by an idempotency key.
async fn create(sim: Sim, subscription: usize, at: u64) {
    sim.sleep_until(at).await;
    loop {
        let created = sim.invoke(API_TIMEOUT, |run| async move {
            let created_at = run.now();
            run.call(|world| {
                let stored = &mut world.subscriptions[subscription];
                stored.created_at = stored.created_at.or(Some(created_at));
            })
            .await
        });
        if created.await.is_some_and(|created| created.is_ok()) {
            let mut world = sim.world();
            let now = world.now;
            world.subscriptions[subscription].answered_at = Some(now);
            return;
        }
        sim.sleep(1000).await;
    }
}

async fn do_something(sim: Sim, at: u64) {
    sim.sleep_until(at).await;
    let (deed, subscription, delivery) = {
        let mut world = sim.world();
        let (subscriptions, deliveries) = (world.subscriptions.len(), world.rows.len());
        (world.chance.below(22), world.chance.index(subscriptions), world.chance.index(deliveries))
    };
    match deed {
        0..=3 => {
            let mut world = sim.world();
            let manner = Manner::of(&mut world.chance);
            world.tell(|| format!("receiver {subscription}: {manner:?}"));
            world.receivers[subscription].manner = manner;
        }
        4..=8 => pause(&sim, subscription).await,
        9 | 10 => disable(&sim, subscription).await,
        11 => ask_owner(&sim, subscription).await,
        12 => delete(&sim, subscription),
        13 | 14 => replay_letters(&sim),
        15 => sim.world().move_back(QueueName::Crashed),
        16 => redeliver(&sim, delivery, false),
        17 | 18 => redeliver_under_way(&sim, delivery).await,
        19 => replay(&sim, delivery),
        20 => hold_while_forgotten(&sim).await,
        _ => fan_out_again(&sim, delivery),
    }
}

fn stand(sim: &Sim, subscription: usize, standing: Standing) {
    let mut world = sim.world();
    if !world.subscriptions[subscription].is_deleted {
        world.tell(|| format!("subscription {subscription}: {standing:?}"));
        world.change(subscription, standing);
    }
}

/// Pauses for a while; sometimes only for a moment.
async fn pause(sim: &Sim, subscription: usize) {
    stand(sim, subscription, Standing::Paused);
    let while_long = {
        let mut world = sim.world();
        let most = world.chance.one_of(&[5000, 120_000, 1_800_000]);
        world.chance.below(most)
    };
    sim.sleep(while_long).await;
    if !sim.world().is_healed {
        stand(sim, subscription, Standing::Active);
    }
}

async fn disable(sim: &Sim, subscription: usize) {
    stand(sim, subscription, Standing::Disabled);
    let while_long = sim.world().chance.below(1_200_000);
    sim.sleep(while_long).await;
    // Some stay so.
    if !sim.world().is_healed && sim.world().chance.happens(700) {
        stand(sim, subscription, Standing::Active);
    }
}

/// The endpoint is changed: its owner consents, or does so too late.
async fn ask_owner(sim: &Sim, subscription: usize) {
    let (until, consents) = {
        let mut world = sim.world();
        (world.now + world.chance.below(1_800_000), world.chance.below(2_000_000))
    };
    stand(sim, subscription, Standing::Pending(UnixMillis(until)));
    sim.sleep(consents).await;
    if !sim.world().is_healed {
        stand(sim, subscription, Standing::Active);
    }
}

fn delete(sim: &Sim, subscription: usize) {
    let mut world = sim.world();
    let now = world.now;
    let subscription = &mut world.subscriptions[subscription];
    // The last one stays, and not many go.
    if subscription.answered_at.is_some() {
        subscription.is_deleted = true;
        subscription.stopped_at = Some(subscription.stopped_at.unwrap_or(now));
    }
}

/// An operator moves dead letters to the delivery queue: all, or those that come first.
pub(crate) fn replay_letters(sim: &Sim) {
    let mut world = sim.world();
    let letters = world.queue(QueueName::Letters).messages.len();
    let some = if world.is_healed { letters } else { world.chance.index(letters + 1) };
    let moved: Vec<_> = world.queue(QueueName::Letters).messages.drain(..some).collect();
    for message in moved {
        world.put(QueueName::Delivery, message.body, 0);
    }
}

/// Redelivers one. Whether it may be is for its row to say when the task comes; in the end only what failed is.
pub(crate) fn redeliver(sim: &Sim, delivery: usize, forced: bool) {
    let mut world = sim.world();
    let Some(item) = &world.rows[delivery] else { return };
    let row = item.row.clone();
    let is_asked = !world.is_healed || row.status == Status::Failed;
    if is_asked {
        world.tell(|| format!("delivery {delivery} is redelivered, forced: {forced}"));
        let ask = Ask::NewRound { after: row.round, forced };
        world.put(QueueName::Delivery, Body::Task(Task { delivery, ask, slot: None }), 0);
    }
}

/// By force, what is under way if anything is soon, and best while an attempt is made.
async fn redeliver_under_way(sim: &Sim, delivery: usize) {
    for _ in 0..TRIES {
        let under_way = {
            let world = sim.world();
            let is_made = |row: &Row| row.lease_until.is_some_and(|until| until.0 > world.now);
            let is_its = |number: &usize| {
                world.rows[*number].as_ref().is_some_and(|item| {
                    item.row.status == Status::Held
                        || item.row.status == Status::Retrying && is_made(&item.row)
                })
            };
            (0..world.rows.len()).map(|number| (number + delivery) % world.rows.len()).find(is_its)
        };
        if let Some(delivery) = under_way {
            return redeliver(sim, delivery, true);
        }
        sim.sleep(1000).await;
    }
    redeliver(sim, delivery, true);
}

/// Holds something again when the note that it held something is about to be forgotten: a receiver is found not to answer,
/// and a moment later what it got is redelivered.
async fn hold_while_forgotten(sim: &Sim) {
    let note =
        sim.world().notes.iter().next().map(|((_, subscription), noted_at)| (*subscription, *noted_at));
    let Some((subscription, noted_at)) = note else { return };
    let kept = sim.world().pace.note_kept();
    let forgotten_at = clock::next_minute((noted_at + kept).0);
    sim.sleep_until(forgotten_at.saturating_sub(1000)).await;
    if sim.world().is_healed {
        return;
    }
    open_circuit(sim, subscription);
    let moment = sim.world().chance.below(150);
    sim.sleep_until(forgotten_at + moment).await;
    let (all, subscriptions) = {
        let world = sim.world();
        (world.rows.len(), world.subscriptions.len())
    };
    (subscription..all).step_by(subscriptions).for_each(|delivery| redeliver(sim, delivery, true));
}

/// As many attempts in a row as that takes found no connection.
fn open_circuit(sim: &Sim, subscription: usize) {
    let mut world = sim.world();
    let (pace, revision) = (world.pace, world.subscriptions[subscription].target.revision);
    let ended = UnixMillis(world.now);
    world.receivers[subscription].manner = Manner::Unreachable;
    let state = &mut world.states[subscription];
    let lesson = Lesson { outcome: OutcomeClass::Unreachable, ended, trial: false, told: false };
    let mut health = state.health(revision);
    for _ in 0..UNANSWERED_MAX {
        health = health.after(lesson, &pace).unwrap_or(health);
    }
    (state.health, state.health_of) = (health, revision);
    state.health_writes += 1;
}

/// An event is replayed for a subscription that never got it.
fn replay(sim: &Sim, delivery: usize) {
    let mut world = sim.world();
    let (event, subscription) = (world.event_of(delivery), world.subscription_of(delivery));
    let stored = &world.subscriptions[subscription];
    let is_there = stored.answered_at.is_some() && !stored.is_deleted;
    if is_there && world.events[event].accepted_at.is_some() && world.rows[delivery].is_none() {
        world.tell(|| format!("delivery {delivery} is replayed"));
        world.lives[delivery].is_replayed = true;
        let ask = Ask::Attempt { round: 1, attempt: 1 };
        world.put(QueueName::Delivery, Body::Task(Task { delivery, ask, slot: None }), 0);
    }
}

/// A job fans an event out again.
fn fan_out_again(sim: &Sim, delivery: usize) {
    let mut world = sim.world();
    let event = world.event_of(delivery);
    if world.events[event].accepted_at.is_some() {
        world.put(QueueName::Expansion, Body::Expand { event, range: Range::default() }, 0);
    }
}

/// All trouble is over: receivers answer, nothing is paused, operators look after what was set aside.
pub(crate) fn heal(sim: &Sim) {
    let subscriptions = {
        let mut world = sim.world();
        world.is_healed = true;
        let skew = world.faults.skew;
        world.faults = crate::world::Faults { skew, ..Default::default() };
        world.receivers.iter_mut().for_each(|receiver| receiver.manner = Manner::well());
        world.subscriptions.len()
    };
    for subscription in 0..subscriptions {
        let standing = sim.world().subscriptions[subscription].target.standing;
        if matches!(standing, Standing::Paused | Standing::Pending(_)) {
            stand(sim, subscription, Standing::Active);
        }
    }
    let operator = sim.clone();
    sim.spawn(async move {
        loop {
            operator.world().move_back(QueueName::Crashed);
            operator.world().move_back(QueueName::FanoutFailures);
            operator.sleep(ROUNDS_APART).await;
        }
    });
}

/// Everybody is enabled again, and all that failed is redelivered.
pub(crate) fn redeliver_failed(sim: &Sim) {
    let (subscriptions, deliveries) = {
        let world = sim.world();
        (world.subscriptions.len(), world.rows.len())
    };
    for subscription in 0..subscriptions {
        if sim.world().subscriptions[subscription].target.standing == Standing::Disabled {
            stand(sim, subscription, Standing::Active);
        }
    }
    (0..deliveries).for_each(|delivery| redeliver(sim, delivery, false));
}
