//! Which calls are made again, when, and how often: as the SDK's standard mode has it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How often a call is made at most.
const TRIES_MAX: u32 = 3;

/// The longest pause before the second try; before the third it is twice that.
const PAUSE: Duration = Duration::from_millis(50);

/// The same where the service asks for fewer calls.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);

/// A clock that is off by less than this is not why a signature is refused.
pub(super) const SKEW_MIN: Duration = Duration::from_mins(4);

/// What errors are called that may come of a wrong clock.
pub(super) const SKEW_NAMES: [&str; 5] = [
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "AccessDeniedException",
];

/// What errors are called that ask for fewer calls.
const THROTTLED_NAMES: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// What errors are called that pass.
const PASSING_NAMES: [&str; 3] = ["InternalServerError", "RequestTimeout", "RequestTimeoutException"];

/// Why a call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    TimedOut,
    Passing,
    Throttled,
    Skewed,
}

/// What tries in a row may cost before calls are no longer made again: where a service is down, three times the calls
/// would not help it.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

const BUDGET: u32 = 500;
const COST: u32 = 5;
const COST_OF_TIMEOUT: u32 = 10;

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(BUDGET))
    }
}

impl Budget {
    /// How long to wait before the next try, after so many; `None`: there is none.
    pub(super) fn pause(&self, cause: Cause, tried: u32) -> Option<Duration> {
        if tried >= TRIES_MAX {
            return None;
        }
        let cost = if cause == Cause::TimedOut { COST_OF_TIMEOUT } else { COST };
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(cost)).ok()?;
        let longest = match cause {
            Cause::Skewed => Duration::ZERO,
            Cause::Throttled => THROTTLED_PAUSE,
            Cause::TimedOut | Cause::Passing => PAUSE,
        };
        Some((longest * 2_u32.pow(tried - 1)).mul_f64(share()))
    }

    /// Takes note of a success after so many tries.
    pub(super) fn succeeded(&self, tried: u32) {
        let left = self.0.load(Relaxed);
        if left < BUDGET {
            let back = if tried > 1 { COST } else { 1 };
            self.0.store(BUDGET.min(left + back), Relaxed);
        }
    }
}

/// Why a call that was refused so may succeed if it is made once more.
pub(super) fn cause(status: u16, name: &str) -> Option<Cause> {
    if THROTTLED_NAMES.contains(&name) {
        return Some(Cause::Throttled);
    }
    (PASSING_NAMES.contains(&name) || matches!(status, 500 | 502 | 503 | 504)).then_some(Cause::Passing)
}

/// Anything from 0 to 1, so that those who failed together do not come again together.
fn share() -> f64 {
    let mut byte = [0xff];
    // Without it, the pause is the longest.
    _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again() {
        assert_eq!(cause(400, "ThrottlingException"), Some(Cause::Throttled));
        assert_eq!(cause(500, "InternalServerError"), Some(Cause::Passing));
        assert_eq!(cause(503, ""), Some(Cause::Passing));
        assert_eq!(cause(400, "ConditionalCheckFailedException"), None);
        assert_eq!(cause(501, ""), None);
    }

    #[test]
    fn there_are_three_tries_with_growing_pauses() {
        let budget = Budget::default();
        assert!(budget.pause(Cause::Passing, 1).is_some_and(|pause| pause <= PAUSE));
        assert!(budget.pause(Cause::Throttled, 2).is_some_and(|pause| pause <= THROTTLED_PAUSE * 2));
        assert_eq!(budget.pause(Cause::Passing, 3), None);
        assert_eq!(budget.pause(Cause::Skewed, 1), Some(Duration::ZERO));
    }

    #[test]
    fn where_nothing_succeeds_there_is_one_try_in_the_end() {
        let budget = Budget::default();
        let again = (0..1000).take_while(|_| budget.pause(Cause::TimedOut, 1).is_some()).count();
        assert_eq!(again, 50);
        (0..COST_OF_TIMEOUT).for_each(|_| budget.succeeded(1));
        assert!(budget.pause(Cause::TimedOut, 1).is_some());
    }
}
