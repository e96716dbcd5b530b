//! How a receiver fares: what its subscription's attempts teach, and when to spare it or to give it up.
//!
//! A receiver that lets attempts time out, or cannot be connected to, several times in a row opens its *circuit*: from then
//! on its deliveries are held, but for short trials, one at a time and ever further apart. Any answer closes the circuit
//! again, whatever its status: it shows that the receiver can be asked, and a trial may be an event that it refuses.
//!
//! A receiver of whom nothing was accepted for 120 hours is given up: its subscription is disabled.
//!
//! All well is the default, so that a delivery that goes well changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, OutcomeClass};
use crate::retry::Pace;
use crate::time::UnixMillis;

/// How many attempts in a row without an answer open the circuit.
pub const UNANSWERED_MAX: u32 = 5;

/// How long the first trial may take; each further one so much longer, so that a receiver that answers, but slowly, is
/// found in the end.
pub const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after the circuit opened the first trial is made; after each that fails it is twice as long.
pub const FIRST_TRIAL_AFTER: Duration = Duration::from_secs(30);

/// The longest time between two trials.
pub const TRIAL_AFTER_MAX: Duration = Duration::from_mins(10);

/// For how long nothing was accepted by a receiver that is given up.
pub const FAILING_MAX: Duration = Duration::from_hours(120);

/// How far apart failures are that count: a burst of them is one.
pub const STRIKES_APART: Duration = Duration::from_hours(12);

/// How many failures so far apart there must be: one at each end of that time, and one between.
pub const STRIKES_MIN: u32 = 3;

/// What is known of a subscription's receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How many attempts in a row got no answer.
    #[serde(default)]
    pub unanswered: u32,
    /// The circuit, if it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// Since when nothing was accepted, if anything was refused since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
}

/// An open circuit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// When the next trial may be made.
    pub trial_at: UnixMillis,
    /// How many were claimed so far.
    pub trials: u32,
}

/// A time without success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// When its first attempt ended.
    pub since: UnixMillis,
    /// How many failures there were, [`STRIKES_APART`] from one to the next at least.
    pub strikes: u32,
    /// When the last one that counts was.
    pub struck_at: UnixMillis,
    /// Whether its subscriber was told of it, and so is to be told when it is over.
    pub told: bool,
}

/// An attempt, as far as it teaches something of the receiver.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// How it ended.
    pub outcome: OutcomeClass,
    /// When.
    pub ended: UnixMillis,
    /// Whether the circuit was open, and this its trial.
    pub trial: bool,
    /// Whether the subscriber is told that the delivery fails.
    pub told: bool,
}

impl Health {
    /// What is known after an attempt; `None`: nothing else than before, so that there is nothing to write.
    #[must_use]
    pub fn after(&self, lesson: Lesson, pace: &Pace) -> Option<Self> {
        let after = match lesson.outcome {
            OutcomeClass::Delivered => Self::default(),
            outcome if is_unanswered(outcome) => self.after_no_answer(lesson, pace),
            // The receiver was not asked.
            OutcomeClass::Blocked | OutcomeClass::Token => {
                Self { failing: Some(self.struck(lesson, pace)), ..self.clone() }
            }
            _ => Self { failing: Some(self.struck(lesson, pace)), ..Self::default() },
        };
        (after != *self).then_some(after)
    }

    /// What is known once a trial is claimed: when the next one may be made, should this one fail or never end. `None`:
    /// it is not the time for a trial.
    #[must_use]
    pub fn claim_trial(&self, now: UnixMillis, pace: &Pace) -> Option<Self> {
        let circuit = self.circuit.as_ref().filter(|circuit| circuit.trial_at <= now)?;
        let trials = circuit.trials + 1;
        let circuit = Some(Circuit { trial_at: now + trial_after(trials, pace), trials });
        Some(Self { circuit, ..self.clone() })
    }

    /// How long the trial may take that was claimed.
    #[must_use]
    pub fn trial_timeout(&self) -> Duration {
        TRIAL_TIMEOUT * self.circuit.as_ref().map_or(1, |circuit| circuit.trials.max(1))
    }

    /// Whether the receiver is to be given up at a failure that ended `now`.
    #[must_use]
    pub fn is_hopeless(&self, now: UnixMillis, pace: &Pace) -> bool {
        self.failing.as_ref().is_some_and(|failing| {
            failing.strikes >= STRIKES_MIN && now.since(failing.since) >= pace.scaled(FAILING_MAX)
        })
    }

    fn after_no_answer(&self, lesson: Lesson, pace: &Pace) -> Self {
        // What began before the circuit opened and ends after teaches nothing new.
        if self.circuit.is_some() && !lesson.trial {
            return self.clone();
        }
        let unanswered = (self.unanswered + 1).min(UNANSWERED_MAX);
        let opens = self.circuit.is_none() && unanswered == UNANSWERED_MAX;
        let opened = || Circuit { trial_at: lesson.ended + trial_after(0, pace), trials: 0 };
        let circuit = if opens { Some(opened()) } else { self.circuit.clone() };
        let failing = Some(self.struck(Lesson { told: lesson.told || opens, ..lesson }, pace));
        Self { unanswered, circuit, failing }
    }

    fn struck(&self, lesson: Lesson, pace: &Pace) -> Failing {
        let Lesson { ended, told, .. } = lesson;
        let Some(failing) = self.failing.clone() else {
            return Failing { since: ended, strikes: 1, struck_at: ended, told };
        };
        let told = failing.told || told;
        if ended.since(failing.struck_at) >= pace.scaled(STRIKES_APART) {
            Failing { strikes: failing.strikes + 1, struck_at: ended, told, ..failing }
        } else {
            Failing { told, ..failing }
        }
    }
}

impl Lesson {
    /// What an attempt's outcome teaches.
    #[must_use]
    pub fn of(outcome: Outcome, ended: UnixMillis, trial: bool, told: bool) -> Self {
        Self { outcome: outcome.class(), ended, trial, told }
    }
}

/// Whether the receiver could not be asked, or said nothing.
fn is_unanswered(outcome: OutcomeClass) -> bool {
    matches!(
        outcome,
        OutcomeClass::TimedOut | OutcomeClass::Unreachable | OutcomeClass::Tls | OutcomeClass::Dns
    )
}

fn trial_after(trials: u32, pace: &Pace) -> Duration {
    pace.scaled(FIRST_TRIAL_AFTER.saturating_mul(1 << trials.min(16)).min(TRIAL_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn pace() -> Pace {
        Pace::new(1.0, Duration::ZERO).unwrap()
    }

    fn lesson(outcome: OutcomeClass, ended: UnixMillis) -> Lesson {
        Lesson { outcome, ended, trial: false, told: false }
    }

    fn learn(health: &mut Health, lesson: Lesson) {
        if let Some(after) = health.after(lesson, &pace()) {
            *health = after;
        }
    }

    #[test]
    fn what_goes_well_changes_nothing() {
        let delivered = lesson(OutcomeClass::Delivered, UnixMillis(5));
        assert_eq!(Health::default().after(delivered, &pace()), None);
    }

    #[test]
    fn five_attempts_without_an_answer_open_the_circuit_and_any_answer_closes_it() {
        for answer in [OutcomeClass::Delivered, OutcomeClass::ServerError, OutcomeClass::Throttled] {
            let mut health = Health::default();
            for n in 0..UNANSWERED_MAX {
                assert_eq!(health.circuit, None, "{n}");
                learn(&mut health, lesson(OutcomeClass::TimedOut, UnixMillis(u64::from(n))));
            }
            let circuit = Circuit { trial_at: UnixMillis(30_004), trials: 0 };
            assert_eq!(health.circuit, Some(circuit));
            assert!(
                health.failing.as_ref().is_some_and(|failing| failing.told),
                "its subscriber will hear of the end"
            );
            learn(&mut health, lesson(answer, UnixMillis(9)));
            assert_eq!((&health.circuit, health.unanswered), (&None, 0));
            assert_eq!(health.failing.is_none(), answer == OutcomeClass::Delivered);
        }
    }

    #[test]
    fn what_is_answered_in_between_keeps_it_closed() {
        let mut health = Health::default();
        for n in 0..100 {
            let outcome = if n % 5 == 4 { OutcomeClass::ClientError } else { OutcomeClass::Unreachable };
            learn(&mut health, lesson(outcome, UnixMillis(n)));
            assert_eq!(health.circuit, None);
        }
    }

    #[test]
    fn trials_are_made_one_at_a_time_and_ever_further_apart() {
        let mut health = Health::default();
        for n in 0..5 {
            learn(&mut health, lesson(OutcomeClass::Unreachable, UnixMillis(n)));
        }
        let mut gaps = Vec::new();
        let mut now = health.circuit.as_ref().unwrap().trial_at;
        for _ in 0..7 {
            assert_eq!(health.claim_trial(UnixMillis(now.0 - 1), &pace()), None, "too early");
            health = health.claim_trial(now, &pace()).unwrap();
            assert_eq!(health.trial_timeout(), TRIAL_TIMEOUT * (u32::try_from(gaps.len()).unwrap() + 1));
            assert_eq!(health.claim_trial(now, &pace()), None, "it is claimed");
            let failed = Lesson { trial: true, ..lesson(OutcomeClass::TimedOut, now) };
            learn(&mut health, failed);
            let next = health.circuit.as_ref().unwrap().trial_at;
            gaps.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(gaps, [60, 120, 240, 480, 600, 600, 600]);
    }

    #[test]
    fn stragglers_do_not_put_the_trial_off() {
        let mut health = Health::default();
        for n in 0..50 {
            learn(&mut health, lesson(OutcomeClass::TimedOut, UnixMillis(n)));
        }
        assert_eq!(health.circuit.unwrap().trial_at, UnixMillis(30_004));
    }

    #[test]
    fn five_days_without_success_are_enough_if_they_are_not_two_bursts() {
        let hopeless = |hours: &[u64]| {
            let mut health = Health::default();
            for hour in hours {
                learn(
                    &mut health,
                    lesson(OutcomeClass::ServerError, UnixMillis(0) + HOUR * u32::try_from(*hour).unwrap()),
                );
            }
            health.is_hopeless(UnixMillis(0) + HOUR * u32::try_from(*hours.last().unwrap()).unwrap(), &pace())
        };
        assert!(hopeless(&[0, 12, 60, 120]));
        assert!(hopeless(&[0, 60, 120]));
        assert!(!hopeless(&[0, 12, 60, 119]), "not long enough");
        assert!(!hopeless(&[0, 1, 2, 11, 120]), "a burst, and one failure days later");
        assert!(hopeless(&[0, 120, 132]), "and now there are three");
    }

    #[test]
    fn one_success_begins_anew() {
        let mut health = Health::default();
        for hour in [0, 13, 26, 119] {
            learn(&mut health, lesson(OutcomeClass::ServerError, UnixMillis(0) + HOUR * hour));
        }
        learn(&mut health, lesson(OutcomeClass::Delivered, UnixMillis(0) + HOUR * 119));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn a_failing_token_service_opens_no_circuit() {
        let mut health = Health::default();
        for n in 0..20 {
            learn(&mut health, lesson(OutcomeClass::Token, UnixMillis(n)));
        }
        assert_eq!((health.circuit, health.failing.map(|failing| failing.strikes)), (None, Some(1)));
    }

    proptest! {
        #[test]
        fn a_failure_writes_seldom(ended in prop::collection::vec(0_u64..1_000_000, 1..200)) {
            let mut health = Health::default();
            let mut writes = 0;
            for ended in ended {
                if let Some(after) = health.after(lesson(OutcomeClass::ServerError, UnixMillis(ended)), &pace()) {
                    writes += 1;
                    health = after;
                }
            }
            prop_assert_eq!(writes, 1, "within twelve hours the first failure alone is news");
        }
    }
}
