//! What may be attempted now: the steps of `functions/deliver/src/gate.rs`.

use std::time::Duration;

use carillon_core::delivery::{Admission, HeldBy};
use carillon_core::rate::{Reserved, Slot, Slots};
use carillon_core::time::UnixMillis;

use super::deliver::{Lane, Ready};
use crate::rules::Rule;
use crate::sim::{Run, Undone};
use crate::tables::Slotted;
use crate::world::{SHARDS, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Now { slot: Option<Near> },
    Trial { timeout: Duration },
    Later { slot: Reserved, seconds: u16 },
    SlowLane,
    Held(HeldBy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    slots: Slots,
    pub(crate) slot: Reserved,
}

impl Near {
    pub(crate) async fn come(self, run: &Run) {
        run.sim.sleep(super::left(self.slot.at, run.now())).await;
    }

    pub(crate) fn holds(self, run: &Run) -> bool {
        !run.world().keeps(Rule::LateSlotIsGivenBack) || self.slots.stands(self.slot, run.now()) != Slot::Past
    }
}

/// A pass for each task, in their order.
pub(crate) async fn passes(run: &Run, tasks: &[Ready]) -> Vec<Result<Pass, Undone>> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (place, ready) in tasks.iter().enumerate() {
        match groups.iter_mut().find(|(subscription, _)| *subscription == ready.subscription) {
            Some((_, places)) => places.push(place),
            None => groups.push((ready.subscription, vec![place])),
        }
    }
    let asked = groups.into_iter().map(|(_, places)| {
        let group: Vec<_> = places.iter().map(|place| tasks[*place].clone()).collect();
        let run = run.clone();
        async move {
            let passes = of_one_subscription(&run, &group).await;
            (places, passes)
        }
    });
    let mut passes = vec![Err(Undone); tasks.len()];
    for (places, of_group) in run.together(asked.collect()).await {
        if let Ok(of_group) = of_group {
            places.into_iter().zip(of_group).for_each(|(place, pass)| passes[place] = Ok(pass));
        }
    }
    passes
}

async fn of_one_subscription(run: &Run, tasks: &[Ready]) -> Result<Vec<Pass>, Undone> {
    let all = |pass| Ok(vec![pass; tasks.len()]);
    let first = &tasks[0];
    let Some(target) = first.target.clone() else { return all(Pass::Now { slot: None }) };
    if target.is_paused() && run.world().keeps(Rule::PauseHolds) {
        note_held(run, first.subscription).await?;
        return all(Pass::Held(HeldBy::Pause));
    }
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
        if let Some(place) = tasks.iter().position(asks) {
            passes[place] = trial(run, &tasks[place], &target).await?;
        }
        passes
    } else if let Some(rate) = target.rate {
        slots(run, tasks, Slots::of(rate)).await?
    } else {
        return all(Pass::Now { slot: None });
    };
    if passes.iter().any(|pass| matches!(pass, Pass::Held(_))) {
        note_held(run, first.subscription).await?;
    }
    Ok(passes)
}

async fn note_held(run: &Run, subscription: usize) -> Result<(), Undone> {
    if run.world().keeps(Rule::NoteComesBeforeHold) { put_note(run, subscription).await } else { Ok(()) }
}

/// Makes sure that there is a note: the steps of `functions/deliver/src/holders.rs`.
pub(super) async fn put_note(run: &Run, subscription: usize) -> Result<(), Undone> {
    let now = run.now();
    let is_noted = {
        let world = run.world();
        let fresh = world.pace.note_kept() / 4;
        let noted = world.environments[run.environment].noted.get(&subscription);
        let is_fresh = |at: &UnixMillis| *at <= now && now.since(*at) < fresh;
        noted.is_some_and(|at| is_fresh(at) || !world.keeps(Rule::NoteIsRememberedBriefly))
    };
    if is_noted {
        return Ok(());
    }
    run.call(|world| _ = world.notes.insert((subscription % SHARDS, subscription), now)).await?;
    run.world().environments[run.environment].noted.insert(subscription, now);
    Ok(())
}

async fn trial(run: &Run, ready: &Ready, target: &Target) -> Result<Pass, Undone> {
    let (held, now) = (Pass::Held(HeldBy::Circuit), run.now());
    let state = &ready.seen.read;
    let pace = run.world().pace;
    let Some(claimed) = state.health(target.revision).claim_trial(now, &pace) else { return Ok(held) };
    if state.slow && ready.lane == Lane::Delivery {
        return Ok(Pass::SlowLane);
    }
    let whose = (ready.subscription, target.revision);
    let written = run.call(|world| world.write_health(whose, state, &claimed)).await?;
    let is_claimed = written.is_ok();
    *ready.seen.latest.borrow_mut() = written.unwrap_or_else(|other| other);
    Ok(if is_claimed { Pass::Trial { timeout: claimed.trial_timeout() } } else { held })
}

async fn slots(run: &Run, tasks: &[Ready], slots: Slots) -> Result<Vec<Pass>, Undone> {
    let now = run.now();
    let kept = |ready: &Ready| pass(slots, ready.task.slot?, run);
    let mut passes: Vec<Option<Pass>> = tasks.iter().map(kept).collect();
    let missing: Vec<_> =
        (0..tasks.len()).filter(|place| passes[*place].is_none() && asks(&tasks[*place])).collect();
    if !missing.is_empty() {
        let (subscription, count) = (tasks[0].subscription, missing.len() as u64);
        let seen = &tasks[0].seen.read;
        let reserved = run.call(|world| world.reserve(subscription, count, slots, (seen, now))).await?;
        for (index, place) in (0..).zip(missing) {
            passes[place] = Some(match reserved {
                Slotted::Full => Pass::Held(HeldBy::Rate),
                Slotted::From(first) => {
                    let slot = slots.at(first, index);
                    pass(slots, slot, run).unwrap_or(Pass::Now { slot: Some(Near { slots, slot }) })
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
fn pass(slots: Slots, slot: Reserved, run: &Run) -> Option<Pass> {
    match slots.stands(slot, run.now()) {
        Slot::Near => Some(Pass::Now { slot: Some(Near { slots, slot }) }),
        Slot::Far { seconds } => Some(Pass::Later { slot, seconds }),
        Slot::Past => None,
    }
}
