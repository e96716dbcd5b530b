//! How often a receiver may be asked: slots in time, reserved ahead by whoever has attempts to make.
//!
//! All functions that run at once take their slots from one line in the subscription's state, so the rate holds across
//! them. A slot may be used for a moment; whoever comes later takes another one. What the line has no room for in the
//! next minutes is held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retry::QUEUE_DELAY_MAX;
use crate::subscription::Rate;
use crate::time::UnixMillis;

/// How far ahead slots are reserved: what waits for one must fit into a queue's delay.
pub const RESERVED_AHEAD: Duration = Duration::from_mins(10);

/// How long a function waits for a slot itself. What has to wait longer goes back into the queue.
pub const WAITED_FOR: Duration = Duration::from_millis(2500);

/// How long before its slot a task that went back comes again, so that it is rarely late: queues count in seconds.
const COMES_EARLY: Duration = Duration::from_millis(1500);

/// How long a slot may be used at least.
const VALID_MIN: Duration = Duration::from_millis(500);

/// How much the way to the receiver may differ from one attempt to the next.
const WAYS_DIFFER: Duration = Duration::from_millis(250);

const MINUTE: Duration = Duration::from_mins(1);

/// The slots of a rate.
///
/// In any minute a receiver sees at most as many attempts as the rate allows: `n` slots and one more lie further apart
/// than a minute, the time that a slot may be used, and the difference of two ways to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// From one slot to the next, in microseconds.
    pub spacing_micros: u64,
    /// How long a slot may be used.
    valid: Duration,
}

/// A slot that was reserved for a task, which takes it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Its time.
    pub at: UnixMillis,
    /// The spacing of its line: one of another rate is worth nothing.
    pub spacing_micros: u64,
}

/// What a task does with its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Waits, if it must, and is attempted.
    Near,
    /// Goes back into the queue for these seconds.
    Far {
        /// From 1 on.
        seconds: u16,
    },
    /// It is over: another one is needed.
    Past,
}

impl Slots {
    /// Of this rate.
    #[must_use]
    pub fn of(rate: Rate) -> Self {
        let rate = u32::from(rate);
        let valid = VALID_MIN.max(MINUTE / rate / 10);
        let spacing_micros = (MINUTE + valid + WAYS_DIFFER).as_micros().div_ceil(u128::from(rate));
        Self { spacing_micros: u64::try_from(spacing_micros).unwrap_or(u64::MAX), valid }
    }

    /// The slot of the `index`th of those that were reserved from `first_micros` on.
    #[must_use]
    pub fn at(&self, first_micros: u64, index: u64) -> Reserved {
        let micros = first_micros.saturating_add(self.spacing_micros.saturating_mul(index));
        Reserved { at: UnixMillis(micros.div_ceil(1000)), spacing_micros: self.spacing_micros }
    }

    /// What follows from a slot.
    #[must_use]
    pub fn stands(&self, slot: Reserved, now: UnixMillis) -> Slot {
        if slot.spacing_micros != self.spacing_micros || now.since(slot.at) > self.valid {
            return Slot::Past;
        }
        let wait = slot.at.since(now);
        if wait <= WAITED_FOR {
            return Slot::Near;
        }
        // Those at the end of a group may lie behind what a queue holds back: such a task comes early, and waits again.
        let seconds = wait.saturating_sub(COMES_EARLY).min(QUEUE_DELAY_MAX).as_secs().max(1);
        Slot::Far { seconds: u16::try_from(seconds).unwrap_or(u16::MAX) }
    }
}

/// How many more slots fit into the time that is reserved ahead, if the next free one is at `next_micros`.
#[must_use]
pub fn room(spacing_micros: u64, next_micros: u64, now: UnixMillis) -> u64 {
    let end = (now + RESERVED_AHEAD).0.saturating_mul(1000);
    end.saturating_sub(next_micros.max(now.0.saturating_mul(1000))) / spacing_micros.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(per_minute: u32) -> Slots {
        Slots::of(per_minute.try_into().unwrap())
    }

    #[test]
    fn a_slot_is_waited_for_kept_in_the_queue_or_over() {
        let slots = slots(600);
        let slot = slots.at(1_000_000_000, 0);
        let stands = |now| slots.stands(slot, UnixMillis(now));
        assert_eq!(stands(1_000_000), Slot::Near);
        assert_eq!(stands(1_000_500), Slot::Near);
        assert_eq!(stands(1_000_501), Slot::Past);
        assert_eq!(stands(997_500), Slot::Near);
        assert_eq!(stands(997_499), Slot::Far { seconds: 1 });
        assert_eq!(stands(900_000), Slot::Far { seconds: 98 });
        assert_eq!(stands(0), Slot::Far { seconds: 900 });
        assert_eq!(self::slots(60).stands(slot, UnixMillis(1_000_000)), Slot::Past, "another rate's");
    }

    #[test]
    fn ten_minutes_hold_as_many_as_the_rate_gives() {
        let slots = slots(600);
        let now = UnixMillis(1_000_000);
        assert_eq!(room(slots.spacing_micros, 0, now), 5925);
        assert_eq!(room(slots.spacing_micros, 1_600_000_000, now), 0);
        assert_eq!(room(slots.spacing_micros, u64::MAX, now), 0);
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_the_rate(per_minute in 1_u32..3000, first in 0_u64..1_000_000_000, late in prop::collection::vec(0_u64..=500, 50)) {
            let slots = slots(per_minute);
            // Each is used as late as it may be, and takes a way of its own; the one after the last of the rate is punctual.
            for late in late {
                let valid = u64::try_from(slots.valid.as_millis()).unwrap();
                let used = slots.at(first, 0).at.0 + valid.min(late * valid / 500) + 250;
                let next = slots.at(first, u64::from(per_minute)).at.0;
                prop_assert!(next >= used.saturating_sub(valid + 250) + 60_000 && next + 1 >= used + 60_000, "{used} {next}");
            }
        }

        #[test]
        fn what_goes_back_comes_before_its_slot(per_minute in 1_u32..100_000, wait in 2501_u64..600_000) {
            let slots = slots(per_minute);
            let Slot::Far { seconds } = slots.stands(slots.at(wait * 1000, 0), UnixMillis(0)) else { panic!() };
            let early = wait.checked_sub(u64::from(seconds) * 1000);
            prop_assert!(early.is_some_and(|early| (1500..2501).contains(&early)), "{early:?}");
        }
    }
}
