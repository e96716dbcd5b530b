//! What may be attempted now, of all tasks of a batch: a pause, an open circuit and a rate hold some back, and slow receivers have a
//! lane of their own. What a subscription's tasks need of its state is written once for all of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use carillon_attempt::Target;
use carillon_aws::deliveries::Slotted;
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::delivery::{Admission, HeldBy};
use carillon_core::id::SubscriptionId;
use carillon_core::rate::{Reserved, Slot, Slots};
use carillon_core::time::UnixMillis;
use futures::future::join_all;

use crate::attempt::{Lane, Ready};
use crate::courier::Courier;

/// What becomes of an admitted task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It is attempted, not before its slot if it has one.
    Now { slot: Option<Near> },
    /// It is the trial of an open circuit, which may take so long.
    Trial { timeout: Duration },
    /// It goes back into its queue for these seconds, for this slot.
    Later { slot: Reserved, seconds: u16 },
    /// It goes to the slow lane.
    SlowLane,
    /// It is held.
    Held(HeldBy),
}

/// A slot that is near, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    slots: Slots,
    slot: Reserved,
}

impl Near {
    /// Waits for it.
    pub(crate) async fn come(self) {
        tokio::time::sleep(self.slot.at.since(now())).await;
    }

    /// Whether it may still be used.
    pub(crate) fn holds(self) -> bool {
        self.slots.stands(self.slot, now()) != Slot::Past
    }
}

/// There is no pass: what it takes could not be written. So it is for all tasks of a subscription, and they come again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("what its subscription's state has to say could not be written: {0}")]
pub(crate) struct NoPass(String);

/// A pass for each task, in their order.
pub(crate) async fn passes(courier: &Courier, tasks: &[Ready]) -> Vec<Result<Pass, NoPass>> {
    let mut groups: BTreeMap<SubscriptionId, Vec<usize>> = BTreeMap::new();
    for (place, ready) in tasks.iter().enumerate() {
        groups.entry(ready.task.subscription).or_default().push(place);
    }
    let groups = groups.into_values().map(async |places| {
        let group: Vec<_> = places.iter().map(|place| &tasks[*place]).collect();
        let passes = of_one_subscription(courier, &group).await.map_err(|error| NoPass(error.to_string()));
        (places, passes)
    });
    let mut passes: HashMap<usize, Result<Pass, NoPass>> = HashMap::with_capacity(tasks.len());
    for (places, of_group) in join_all(groups).await {
        match of_group {
            Ok(of_group) => passes.extend(places.into_iter().zip(of_group.into_iter().map(Ok))),
            Err(error) => passes.extend(places.into_iter().map(|place| (place, Err(error.clone())))),
        }
    }
    let forgotten = || Err(NoPass("it was forgotten".to_owned()));
    (0..tasks.len()).map(|place| passes.remove(&place).unwrap_or_else(forgotten)).collect()
}

async fn of_one_subscription(courier: &Courier, tasks: &[&Ready]) -> Result<Vec<Pass>, AwsError> {
    let all = |pass| Ok(vec![pass; tasks.len()]);
    let Some(first) = tasks.first() else { return all(Pass::Now { slot: None }) };
    let Some(target) = first.target.as_deref() else { return all(Pass::Now { slot: None }) };
    let noted = async || {
        // Before the first of them is held, so that the clock finds them whatever becomes of this run.
        let whose = (&first.task.event.key.workspace, first.task.subscription);
        courier.holders.note(&courier.schedule, whose, &courier.pace).await
    };
    if target.is_paused() {
        noted().await?;
        return all(Pass::Held(HeldBy::Pause));
    }
    // What is no attempt needs no pass.
    if !target.is_active() {
        return all(Pass::Now { slot: None });
    }
    let state = &first.seen.read;
    let is_open = state.health(target.revision).circuit.is_some();
    if !is_open && state.slow && first.lane == Lane::Delivery {
        return all(Pass::SlowLane);
    }
    let passes = if is_open {
        let mut passes = vec![Pass::Held(HeldBy::Circuit); tasks.len()];
        // A dead letter that is sent again asks nobody.
        if let Some(place) = tasks.iter().position(|ready| asks(ready)) {
            passes[place] = trial(courier, tasks[place], target).await?;
        }
        passes
    } else if let Some(rate) = target.rate {
        slots(courier, tasks, Slots::of(rate)).await?
    } else {
        return all(Pass::Now { slot: None });
    };
    if passes.iter().any(|pass| matches!(pass, Pass::Held(_))) {
        noted().await?;
    }
    Ok(passes)
}

/// The trial of an open circuit, if it is time for one and no other task makes it.
async fn trial(courier: &Courier, ready: &Ready, target: &Target) -> Result<Pass, AwsError> {
    let (held, now) = (Pass::Held(HeldBy::Circuit), now());
    let state = &ready.seen.read;
    let Some(claimed) = state.health(target.revision).claim_trial(now, &courier.pace) else {
        return Ok(held);
    };
    if state.slow && ready.lane == Lane::Delivery {
        return Ok(Pass::SlowLane);
    }
    let whose = (ready.task.subscription, target.revision);
    let is_claimed = ready.seen.claim(courier, whose, &claimed).await?;
    Ok(if is_claimed { Pass::Trial { timeout: claimed.trial_timeout() } } else { held })
}

/// A slot for each task: the one that it brought, if that is not over, or one of those that are reserved for the others.
async fn slots(courier: &Courier, tasks: &[&Ready], slots: Slots) -> Result<Vec<Pass>, AwsError> {
    let now = now();
    let kept = |ready: &Ready| {
        let slot = ready.task.slot?;
        pass(slots, slot, now)
    };
    let mut passes: Vec<Option<Pass>> = tasks.iter().map(|ready| kept(ready)).collect();
    let missing: Vec<_> =
        (0..tasks.len()).filter(|place| passes[*place].is_none() && asks(tasks[*place])).collect();
    if !missing.is_empty() {
        let (subscription, count) = (tasks[0].task.subscription, missing.len() as u64);
        let reserved = courier.deliveries.reserve(subscription, count, slots, now).await?;
        for (index, place) in (0..).zip(missing) {
            passes[place] = Some(match reserved {
                Slotted::Full => Pass::Held(HeldBy::Rate),
                Slotted::From(first) => {
                    let slot = slots.at(first, index);
                    pass(slots, slot, now).unwrap_or(Pass::Now { slot: Some(Near { slots, slot }) })
                }
            });
        }
    }
    Ok(passes.into_iter().map(|pass| pass.unwrap_or(Pass::Now { slot: None })).collect())
}

/// Whether a task asks its receiver: a dead letter that is sent again does not.
fn asks(ready: &Ready) -> bool {
    !matches!(ready.admission, Admission::Letter { .. } | Admission::Taken)
}

/// What a slot lets its task do; `None` if it is over.
fn pass(slots: Slots, slot: Reserved, now: UnixMillis) -> Option<Pass> {
    match slots.stands(slot, now) {
        Slot::Near => Some(Pass::Now { slot: Some(Near { slots, slot }) }),
        Slot::Far { seconds } => Some(Pass::Later { slot, seconds }),
        Slot::Past => None,
    }
}
