//! How an attempt ended: a closed set, and what follows from each.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// The longest wait that a receiver may ask for with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// How an attempt ended, as the receiver's side shows it. Faults of our own are no outcome: such a task comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered with this status.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The wait that `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    Unanswered(Failure),
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not within the time that an attempt has.
    TimedOut,
    /// The connection could not be made.
    Unreachable,
    /// The connection broke, or what came over it was no HTTP.
    Broken,
    /// The receiver's certificate or its TLS was refused.
    Tls,
    /// The host's name has no address.
    Dns,
    /// The host has an address that Carillon does not connect to, or its URL a scheme that is not allowed.
    Blocked,
    /// The subscriber's own token service gave no token for the attempt, whatever the cause: it did not answer in the
    /// time that the attempt has, it refused, or its answer was no bearer token. The receiver was not asked, or has
    /// refused an older token just now. Tried again as any other failure.
    Token,
}

/// The name of an outcome in rows, logs and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeClass {
    /// 2xx.
    Delivered,
    /// 3xx: redirects are not followed.
    Redirected,
    /// 401 or 403.
    Unauthorized,
    /// 410: the receiver wants no more.
    Gone,
    /// 413 or 415: the receiver cannot take this event.
    Unacceptable,
    /// 429 or 503.
    Throttled,
    /// Any other 4xx.
    ClientError,
    /// Any other 5xx, and statuses that HTTP does not know.
    ServerError,
    /// See [`Failure::TimedOut`].
    TimedOut,
    /// See [`Failure::Unreachable`].
    Unreachable,
    /// See [`Failure::Broken`].
    Broken,
    /// See [`Failure::Tls`].
    Tls,
    /// See [`Failure::Dns`].
    Dns,
    /// See [`Failure::Blocked`].
    Blocked,
    /// See [`Failure::Token`].
    Token,
}

/// What an outcome means for its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has arrived.
    Delivered,
    /// Another attempt may help, after this wait at the earliest.
    Retry {
        /// Bounded by [`RETRY_AFTER_MAX`]; zero if the receiver named none.
        not_before: Duration,
    },
    /// No further attempt can help.
    Refused,
}

impl Outcome {
    /// Its name.
    #[must_use]
    pub fn class(self) -> OutcomeClass {
        match self {
            Self::Answered { status, .. } => match status {
                200..=299 => OutcomeClass::Delivered,
                300..=399 => OutcomeClass::Redirected,
                401 | 403 => OutcomeClass::Unauthorized,
                410 => OutcomeClass::Gone,
                413 | 415 => OutcomeClass::Unacceptable,
                429 | 503 => OutcomeClass::Throttled,
                400..=499 => OutcomeClass::ClientError,
                _ => OutcomeClass::ServerError,
            },
            Self::Unanswered(failure) => match failure {
                Failure::TimedOut => OutcomeClass::TimedOut,
                Failure::Unreachable => OutcomeClass::Unreachable,
                Failure::Broken => OutcomeClass::Broken,
                Failure::Tls => OutcomeClass::Tls,
                Failure::Dns => OutcomeClass::Dns,
                Failure::Blocked => OutcomeClass::Blocked,
                Failure::Token => OutcomeClass::Token,
            },
        }
    }

    /// The HTTP status, if there was one.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status),
            Self::Unanswered(_) => None,
        }
    }

    /// What follows (CloudEvents HTTP webhook 1.0, section 2.2; 429 and 503: RFC 9110, section 10.2.3).
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self.class() {
            OutcomeClass::Delivered => Verdict::Delivered,
            OutcomeClass::Gone | OutcomeClass::Unacceptable => Verdict::Refused,
            OutcomeClass::Throttled => Verdict::Retry { not_before: self.retry_after().min(RETRY_AFTER_MAX) },
            OutcomeClass::Redirected
            | OutcomeClass::Unauthorized
            | OutcomeClass::ClientError
            | OutcomeClass::ServerError
            | OutcomeClass::TimedOut
            | OutcomeClass::Unreachable
            | OutcomeClass::Broken
            | OutcomeClass::Tls
            | OutcomeClass::Dns
            | OutcomeClass::Blocked
            | OutcomeClass::Token => Verdict::Retry { not_before: Duration::ZERO },
        }
    }

    fn retry_after(self) -> Duration {
        match self {
            Self::Answered { retry_after: Some(wait), .. } => wait,
            _ => Duration::ZERO,
        }
    }
}

/// The wait that a `Retry-After` header asks for: seconds, or a date (RFC 9110, section 10.2.3). `None` if it says
/// neither.
#[must_use]
pub fn retry_after(value: &str, now: UnixMillis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let millis = u64::try_from(date.as_millisecond()).ok()?;
    Some(UnixMillis(millis).since(now))
}

/// As in JSON: `timedOut`.
impl fmt::Display for OutcomeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Answered { status, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn what_follows_each_status() {
        let retry = |secs| Verdict::Retry { not_before: Duration::from_secs(secs) };
        for (outcome, verdict) in [
            (answered(200, None), Verdict::Delivered),
            (answered(204, None), Verdict::Delivered),
            (answered(302, None), retry(0)),
            (answered(400, None), retry(0)),
            (answered(401, None), retry(0)),
            (answered(410, None), Verdict::Refused),
            (answered(413, None), Verdict::Refused),
            (answered(415, None), Verdict::Refused),
            (answered(429, Some(30)), retry(30)),
            (answered(429, None), retry(0)),
            (answered(503, Some(1_000_000)), retry(86_400)),
            (answered(500, Some(30)), retry(0)),
            (answered(999, None), retry(0)),
            (Outcome::Unanswered(Failure::Blocked), retry(0)),
            (Outcome::Unanswered(Failure::Token), retry(0)),
        ] {
            assert_eq!(outcome.verdict(), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn both_forms_of_retry_after() {
        let now = UnixMillis(784_111_777_000);
        let wait = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("99999999999999999999999"), Some(RETRY_AFTER_MAX.as_secs()));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
        for nonsense in ["", "-1", "1.5", "soon", "1994-11-06"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_class_is_shown_as_it_is_stored() {
        assert_eq!(OutcomeClass::TimedOut.to_string(), "timedOut");
        assert_eq!(serde_json::to_string(&OutcomeClass::TimedOut).unwrap(), "\"timedOut\"");
    }
}
