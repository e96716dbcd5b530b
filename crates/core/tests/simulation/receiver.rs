//! Receivers: they answer, fail, hang, and change.

use std::time::Duration;

use carillon_core::outcome::{Failure, Outcome};

use crate::seed::Chance;

/// How much the way to a receiver may differ from one request to the next, in milliseconds: `WAYS_DIFFER` of the core.
const WAY_MAX: u64 = 250;

/// How a receiver behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    Answers {
        status: u16,
    },
    Throttles {
        seconds: u64,
    },
    /// Answers after so many milliseconds.
    Slow {
        millis: u64,
    },
    Hangs,
    /// Refuses connections.
    Unreachable,
    /// Now this, now that.
    Flaky,
}

#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) manner: Manner,
    /// What arrived, when: its delivery, the slot that it was sent for, and whether it was a trial.
    pub(crate) arrived: Vec<Arrival>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    /// What makes it one request, however often it is made: queues deliver a first task twice, with its slot.
    pub(crate) request: (usize, u32, u32, u64),
    pub(crate) is_trial: bool,
}

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// How long the request takes to arrive.
    pub(crate) way: u64,
    /// When it answers; absent: never.
    pub(crate) after: Option<u64>,
    pub(crate) outcome: Outcome,
}

impl Receiver {
    pub(crate) fn of(chance: &mut Chance) -> Self {
        let manner = if chance.happens(600) { Manner::well() } else { Manner::of(chance) };
        Self { manner, arrived: Vec::new() }
    }

    pub(crate) fn answer(&self, chance: &mut Chance) -> Answer {
        let manner = match self.manner {
            Manner::Flaky => match chance.below(4) {
                0 => Manner::Hangs,
                1 => Manner::Unreachable,
                2 => Manner::Answers { status: 500 },
                _ => Manner::well(),
            },
            manner => manner,
        };
        let way = chance.below(WAY_MAX + 1);
        let answered = |status| Outcome::Answered { status, retry_after: None };
        let (after, outcome) = match manner {
            Manner::Answers { status } => (Some(way + chance.between(5, 200)), answered(status)),
            Manner::Throttles { seconds } => {
                let retry_after = Some(Duration::from_secs(seconds));
                (Some(way + 20), Outcome::Answered { status: 429, retry_after })
            }
            Manner::Slow { millis } => (Some(way + millis), answered(200)),
            Manner::Hangs | Manner::Flaky => (None, Outcome::Unanswered(Failure::TimedOut)),
            Manner::Unreachable => (Some(way + 5), Outcome::Unanswered(Failure::Unreachable)),
        };
        Answer { way, after, outcome }
    }
}

impl Manner {
    pub(crate) fn well() -> Self {
        Self::Answers { status: 204 }
    }

    pub(crate) fn of(chance: &mut Chance) -> Self {
        match chance.below(16) {
            0..=4 => Self::well(),
            5 | 6 => Self::Answers { status: 500 },
            7 => Self::Answers { status: chance.one_of(&[404, 413, 410]) },
            8 => Self::Throttles { seconds: chance.one_of(&[1, 30, 1200]) },
            9 | 10 => Self::Slow { millis: chance.between(1500, 12_000) },
            11 | 12 => Self::Hangs,
            13 => Self::Unreachable,
            _ => Self::Flaky,
        }
    }
}
