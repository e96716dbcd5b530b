//! How an attempt ended: a closed set, and what follows from each.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::UnixMillis;

/// The longest wait that a receiver may ask for with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// How much of a receiver's answer is kept with an attempt, in bytes.
pub const RESPONSE_EXCERPT_BYTES_MAX: usize = 1024;

/// The longest character of UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// The status of a refused Security Event Token.
const REJECTED_STATUS: u16 = 400;

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
    /// The receiver refused a Security Event Token: 400, and an error code in JSON (RFC 8935, section 2.3).
    Rejected,
    /// There was no answer.
    Unanswered(Failure),
}

/// How an attempt ended, and what the receiver said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How it ended.
    pub outcome: Outcome,
    /// The begin of what the receiver answered, by [`excerpt`]; only where it did not take the delivery, since what else
    /// it says is for nobody.
    pub response: Option<String>,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not within the time that an attempt has.
    TimedOut,
    /// The connection could not be made: it was refused, there is no way to the host, or TCP and TLS were not done within
    /// the time that a connection has.
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

/// The name of an outcome in rows, logs and answers. Unless it says otherwise, the delivery is tried again as its retry
/// policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeClass {
    /// 2xx, whatever the body. The delivery is done.
    Delivered,
    /// 3xx: redirects are not followed, since what stands elsewhere is not what was subscribed.
    Redirected,
    /// 401 or 403.
    Unauthorized,
    /// 410: the receiver wants no more. The delivery fails at once, and its subscription is disabled.
    Gone,
    /// 413 or 415: the receiver cannot take this event. The delivery fails at once.
    Unacceptable,
    /// 429 or 503. The delivery waits for as long as `Retry-After` asks, up to [`RETRY_AFTER_MAX`], if that is longer.
    Throttled,
    /// 400 with the error code of a receiver of Security Event Tokens. The delivery fails at once.
    Rejected,
    /// Any other 4xx.
    ClientError,
    /// Any other 5xx, statuses that HTTP does not know, and a change of protocols (101) that nobody asked for.
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
            Self::Rejected => OutcomeClass::Rejected,
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
            Self::Rejected => Some(REJECTED_STATUS),
            Self::Unanswered(_) => None,
        }
    }

    /// What follows (CloudEvents HTTP webhook 1.0, section 2.2; 429 and 503: RFC 9110, section 10.2.3; refused tokens:
    /// RFC 8935, section 2.3).
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self.class() {
            OutcomeClass::Delivered => Verdict::Delivered,
            OutcomeClass::Gone | OutcomeClass::Unacceptable | OutcomeClass::Rejected => Verdict::Refused,
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

impl Reply {
    /// How the push of a Security Event Token ended (RFC 8935, section 2): a refusal with an error code is one for good.
    #[must_use]
    pub fn to_token(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let reply = Self::to_event(status, retry_after, body);
        if status == REJECTED_STATUS && has_error_code(body) {
            return Self { outcome: Outcome::Rejected, ..reply };
        }
        reply
    }

    /// How the delivery of any other payload ended.
    #[must_use]
    pub fn to_event(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let outcome = Outcome::Answered { status, retry_after };
        let is_of_use = outcome.verdict() != Verdict::Delivered;
        Self { outcome, response: is_of_use.then(|| excerpt(body)).flatten() }
    }
}

/// Nobody said anything.
impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self { outcome: Outcome::Unanswered(failure), response: None }
    }
}

/// The begin of an answer's body as text, at most [`RESPONSE_EXCERPT_BYTES_MAX`] bytes and whole characters. What is no
/// UTF-8, and control characters that are no line end or tab, are replaced, so that it can stand anywhere. `None` if it
/// is empty.
#[must_use]
pub fn excerpt(body: &[u8]) -> Option<String> {
    // A character that the slice cuts begins at the bound or after it.
    let begin = &body[..body.len().min(RESPONSE_EXCERPT_BYTES_MAX + CHARACTER_BYTES_MAX)];
    let mut text = String::new();
    for character in String::from_utf8_lossy(begin).chars() {
        let is_kept = !character.is_control() || matches!(character, '\n' | '\t');
        let character = if is_kept { character } else { char::REPLACEMENT_CHARACTER };
        if text.len() + character.len_utf8() > RESPONSE_EXCERPT_BYTES_MAX {
            break;
        }
        text.push(character);
    }
    (!text.is_empty()).then_some(text)
}

/// Whether a body is a JSON object with an error code, a text (RFC 8935, section 2.3).
fn has_error_code(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["err"].is_string())
}

/// The wait that a `Retry-After` header asks for: seconds, or a date in any of HTTP's three forms (RFC 9110, sections
/// 10.2.3 and 5.6.7). `None` if it says neither.
#[must_use]
pub fn retry_after(value: &str, now: UnixMillis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs));
    }
    let date =
        jiff::fmt::rfc2822::parse(value).ok().map(|date| date.timestamp()).or_else(|| old_date(value))?;
    let millis = u64::try_from(date.as_millisecond()).ok()?;
    Some(UnixMillis(millis).since(now))
}

/// The two obsolete forms of a date, that of RFC 850 and that of C.
fn old_date(value: &str) -> Option<jiff::Timestamp> {
    let rfc_850 = || jiff::civil::DateTime::strptime("%A, %d-%b-%y %H:%M:%S GMT", value);
    let asctime = || jiff::civil::DateTime::strptime("%a %b %e %H:%M:%S %Y", value);
    let date = rfc_850().or_else(|_| asctime()).ok()?;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|date| date.timestamp())
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
            (Outcome::Rejected, Verdict::Refused),
            (Outcome::Unanswered(Failure::Blocked), retry(0)),
            (Outcome::Unanswered(Failure::Token), retry(0)),
        ] {
            assert_eq!(outcome.verdict(), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn a_token_is_refused_for_good_by_an_error_code() {
        let refusal = br#"{"err": "invalid_issuer", "description": "who?"}"#;
        let reply = Reply::to_token(400, None, refusal);
        assert_eq!((reply.outcome, reply.outcome.status()), (Outcome::Rejected, Some(400)));
        assert_eq!(reply.response.unwrap().as_bytes(), refusal);
        for body in
            [&b""[..], b"{}", br#"["err"]"#, br#"{"err": 1}"#, br#"{"err": null}"#, b"err", &refusal[..20]]
        {
            assert_eq!(Reply::to_token(400, None, body).outcome, answered(400, None));
        }
        assert_eq!(Reply::to_token(500, None, refusal).outcome, answered(500, None));
        assert_eq!(
            Reply::to_event(400, None, refusal).outcome,
            answered(400, None),
            "that is no receiver of tokens"
        );
    }

    #[test]
    fn what_a_receiver_says_is_kept_where_it_did_not_take_the_delivery() {
        assert_eq!(Reply::to_event(204, None, b"thanks").response, None);
        assert_eq!(Reply::to_event(500, None, b"").response, None);
        for status in [101, 302, 404, 500, 999] {
            assert_eq!(Reply::to_event(status, None, b"why").response.as_deref(), Some("why"));
        }
        assert_eq!(
            Reply::from(Failure::Tls),
            Reply { outcome: Outcome::Unanswered(Failure::Tls), response: None }
        );
    }

    #[test]
    fn an_excerpt_is_whole_characters_that_can_stand_anywhere() {
        let kept = |body: &[u8]| excerpt(body).unwrap();
        assert_eq!(kept("a\tb\r\n\0\u{85}é".as_bytes()), "a\tb\u{fffd}\n\u{fffd}\u{fffd}é");
        assert_eq!(kept(b"\xff\xfe!"), "\u{fffd}\u{fffd}!");
        for (body, bytes) in [
            ("x".repeat(2000), 1024),
            ("é".repeat(2000), 1024),
            ("€".repeat(2000), 1023),
            ("🔔".repeat(256), 1024),
        ] {
            let kept = kept(body.as_bytes());
            assert_eq!(kept.len(), bytes);
            assert!(body.starts_with(&kept), "no character is cut: {kept}");
        }
        assert_eq!(kept(&[0xff; 2000]).len(), 1023, "what replaces is bounded too");
        assert_eq!(excerpt(b""), None);
    }

    #[test]
    fn both_forms_of_retry_after() {
        let now = UnixMillis(784_111_777_000);
        let wait = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("99999999999999999999999"), Some(RETRY_AFTER_MAX.as_secs()));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
        assert_eq!(wait("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun Nov  6 08:50:37 1994"), Some(60));
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
