//! When to try again.

use std::time::Duration;

use crate::time::UnixMillis;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The longest delay that a queue can hold a message back for (SQS `DelaySeconds`).
pub const QUEUE_DELAY_MAX: Duration = Duration::from_mins(15);

/// How long after the due time, or the end of the lease, the sweep takes a delivery's task for lost.
pub const OVERDUE: Duration = Duration::from_mins(10);

/// It is no sooner at any pace, since a queue holds messages back for whole seconds.
const OVERDUE_MIN: Duration = Duration::from_secs(3);

/// The waits between the attempts of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    steps: Vec<Duration>,
}

/// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h: eight attempts within 28 hours.
impl Default for RetryPolicy {
    fn default() -> Self {
        let steps = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR];
        Self { steps: steps.map(Duration::from_secs).to_vec() }
    }
}

/// The most waits of a policy.
pub const STEPS_MAX: usize = 20;

/// How long the waits of a policy may be together.
pub const STEPS_TOTAL_MAX: Duration = Duration::from_hours(14 * 24);

/// Waits that are no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More than [`STEPS_MAX`].
    #[error("must have at most {STEPS_MAX} waits")]
    TooMany,
    /// One that is no wait.
    #[error("must be at least 1 second each")]
    TooShort,
    /// Longer than [`STEPS_TOTAL_MAX`].
    #[error("must be at most 14 days together")]
    TooLong,
}

impl RetryPolicy {
    /// A policy with these waits between attempts; none: one attempt.
    pub fn new(steps: Vec<Duration>) -> Result<Self, PolicyError> {
        let total = steps.iter().try_fold(Duration::ZERO, |total, step| total.checked_add(*step));
        if steps.len() > STEPS_MAX {
            Err(PolicyError::TooMany)
        } else if steps.iter().any(|step| *step < Duration::from_secs(1)) {
            Err(PolicyError::TooShort)
        } else if total.is_none_or(|total| total > STEPS_TOTAL_MAX) {
            Err(PolicyError::TooLong)
        } else {
            Ok(Self { steps })
        }
    }

    /// The waits, before jitter.
    #[must_use]
    pub fn steps(&self) -> &[Duration] {
        &self.steps
    }

    /// The wait after attempt number `attempt` (from 1) failed, spread by +-20 % over `chance`; `None` if that was the
    /// last one.
    #[must_use]
    pub fn wait(&self, attempt: u32, chance: u32) -> Option<Duration> {
        let step = self.steps.get(usize::try_from(attempt).ok()?.checked_sub(1)?)?;
        let jitter = 0.8 + 0.4 * f64::from(chance) / f64::from(u32::MAX);
        Some(step.mul_f64(jitter))
    }

    /// The most attempts of a round.
    #[must_use]
    pub fn attempts_max(&self) -> usize {
        self.steps.len() + 1
    }
}

/// How fast time passes for retries, and how far ahead a queue is trusted with one. Both are settings of the
/// deployment: on AWS the scale is 1, a local stack lets hours pass in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    scale: f64,
    queue_delay_max: Duration,
}

/// Where the next task of a delivery waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// In the queue, held back for these seconds.
    InQueue {
        /// At most 900.
        seconds: u16,
    },
    /// In the schedule until shortly before it is due.
    InSchedule,
}

/// A pace that cannot be kept.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PaceError {
    /// The scale is no number above 0 and up to 1.
    #[error("the retry scale must be above 0 and at most 1, not {0}")]
    Scale(f64),
    /// Longer than a queue can hold a message back.
    #[error("a queue holds a message back for at most 900 s, not {0:?}")]
    Delay(Duration),
}

impl Pace {
    /// Every wait of the policy is multiplied by `scale`; those above `queue_delay_max` go through the schedule.
    pub fn new(scale: f64, queue_delay_max: Duration) -> Result<Self, PaceError> {
        if !(scale > 0.0 && scale <= 1.0) {
            return Err(PaceError::Scale(scale));
        }
        if queue_delay_max > QUEUE_DELAY_MAX {
            return Err(PaceError::Delay(queue_delay_max));
        }
        Ok(Self { scale, queue_delay_max })
    }

    /// A wait of the policy at this pace.
    #[must_use]
    pub fn scaled(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.scale)
    }

    /// [`OVERDUE`] at this pace, but some seconds at least.
    #[must_use]
    pub fn overdue(&self) -> Duration {
        self.scaled(OVERDUE).max(OVERDUE_MIN)
    }

    /// For how long a note that a subscription holds deliveries is kept at least, be nothing found that it holds: longer
    /// than a function can run that is about to hold something.
    #[must_use]
    pub fn note_kept(&self) -> Duration {
        self.scaled(OVERDUE) * 2
    }

    /// Where a task that is due at `at` waits, so that it does not start before.
    #[must_use]
    pub fn waits(&self, now: UnixMillis, at: UnixMillis) -> Wait {
        if at.since(now) > self.queue_delay_max {
            Wait::InSchedule
        } else {
            Wait::InQueue { seconds: delay_seconds(now, at) }
        }
    }
}

/// The whole seconds from `now` until `at`, rounded up, as many as a queue can hold a message back.
#[must_use]
pub fn delay_seconds(now: UnixMillis, at: UnixMillis) -> u16 {
    let seconds = at.since(now).min(QUEUE_DELAY_MAX).as_millis().div_ceil(1000);
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_policy_makes_eight_attempts() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.attempts_max(), 8);
        let middle = u32::MAX / 2;
        let waits: Vec<_> =
            (1..=8).map(|n| policy.wait(n, middle).map(|wait| wait.as_secs_f64().round())).collect();
        let hours = |n: f64| Some(n * 3600.0);
        assert_eq!(
            waits,
            [Some(5.0), Some(300.0), Some(1800.0), hours(2.0), hours(5.0), hours(10.0), hours(10.0), None]
        );
        assert_eq!(policy.wait(0, middle), None);
    }

    #[test]
    fn what_no_queue_can_hold_waits_in_the_schedule() {
        let pace = Pace::new(1.0, QUEUE_DELAY_MAX).unwrap();
        let waits = |millis| pace.waits(UnixMillis(1000), UnixMillis(1000) + Duration::from_millis(millis));
        assert_eq!(waits(0), Wait::InQueue { seconds: 0 });
        assert_eq!(waits(1), Wait::InQueue { seconds: 1 });
        assert_eq!(waits(900_000), Wait::InQueue { seconds: 900 });
        assert_eq!(waits(900_001), Wait::InSchedule);
        assert_eq!(pace.waits(UnixMillis(2000), UnixMillis(1000)), Wait::InQueue { seconds: 0 });
    }

    #[test]
    fn a_pace_is_bounded() {
        for scale in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(scale, Duration::ZERO).is_err(), "{scale}");
        }
        assert!(Pace::new(1.0, Duration::from_secs(901)).is_err());
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(attempt in 1_u32..8, chance: u32) {
            let policy = RetryPolicy::default();
            let wait = policy.wait(attempt, chance).unwrap().as_secs_f64();
            let step = policy.steps[attempt as usize - 1].as_secs_f64();
            prop_assert!((0.799 * step..=1.201 * step).contains(&wait));
        }
    }
}
