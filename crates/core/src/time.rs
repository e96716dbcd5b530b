//! Points in time, in milliseconds: what tables sort by and what tasks carry.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The last time that has thirteen digits.
const SORTABLE_MAX: u64 = 9_999_999_999_999;

/// Milliseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds since the epoch: what time-to-live attributes and `webhook-timestamp` count in.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to this one; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time less `span`; the epoch at the earliest.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// From RFC 3339, whatever its offset. `None`: it is no such text, or a time before 1970.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        // What else jiff reads has spaces, brackets or no colon in its offset.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-+:.TtZz".contains(&byte));
        let timestamp = text.parse::<jiff::Timestamp>().ok().filter(|_| is_plain)?;
        u64::try_from(timestamp.as_millisecond()).ok().map(Self)
    }

    /// Thirteen digits, so that the order of texts is the order of times until the year 2286. Later times are as that one.
    #[must_use]
    pub fn sortable(self) -> String {
        format!("{:013}", self.0.min(SORTABLE_MAX))
    }
}

impl std::ops::Add<Duration> for UnixMillis {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, with milliseconds: `2026-11-22T09:30:00.000Z`.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let timestamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{timestamp:.3}")
    }
}

/// From RFC 3339, section 5.6, with any offset. What is less than a millisecond is left out; times before the epoch are as
/// the epoch.
impl FromStr for UnixMillis {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let timestamp = timestamp(text).ok_or(NotATime)?;
        Ok(Self(u64::try_from(timestamp.as_millisecond()).unwrap_or_default()))
    }
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a time with its offset (RFC 3339), such as 2026-11-22T09:30:00Z")]
pub struct NotATime;

/// The parser knows more forms than RFC 3339, section 5.6, which others go by: the shape is checked first.
fn timestamp(text: &str) -> Option<jiff::Timestamp> {
    const DATE_TIME: &[u8] = b"0000-00-00T00:00:00";
    let alike = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        other => byte.eq_ignore_ascii_case(other),
    };
    let is_like =
        |text: &[u8], shape: &[u8]| text.len() == shape.len() && text.iter().copied().zip(shape).all(alike);
    let (date_time, rest) = text.as_bytes().split_at_checked(DATE_TIME.len())?;
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 { fraction } else { &fraction[digits..] }
        }
        whole => whole,
    };
    let is_offset = is_like(offset, b"Z") || is_like(offset, b"+00:00") || is_like(offset, b"-00:00");
    (is_like(date_time, DATE_TIME) && is_offset).then(|| text.parse().ok()).flatten()
}

/// For answers of the API: a field of this type is written as RFC 3339 with `#[serde(serialize_with = "rfc3339")]`.
pub fn rfc3339<S: serde::Serializer>(time: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_as_rfc_3339_and_sorts_as_text() {
        let time = UnixMillis(1_795_339_800_007);
        assert_eq!(time.to_string(), "2026-11-22T09:30:00.007Z");
        assert!(UnixMillis(9).sortable() < UnixMillis(10).sortable());
        assert_eq!(UnixMillis::from_rfc3339("2026-11-22T09:30:00.007Z"), Some(time));
        assert_eq!(UnixMillis::from_rfc3339("2026-11-22T10:30:00.007+01:00"), Some(time));
        for wrong in ["", "2026-11-22", "yesterday", "2026-11-22 09:30:00Z", "1960-01-01T00:00:00Z"] {
            assert_eq!(UnixMillis::from_rfc3339(wrong), None, "{wrong}");
        }
        assert!(UnixMillis(9).sortable() < UnixMillis(u64::MAX).sortable());
    }

    #[test]
    fn is_read_from_rfc_3339_alone() {
        for (text, millis) in [
            ("2026-11-22T09:30:00.007Z", 1_795_339_800_007),
            ("2026-11-22T10:30:00.0079999+01:00", 1_795_339_800_007),
            ("2026-11-22t09:30:00z", 1_795_339_800_000),
            ("0001-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(text.parse(), Ok(UnixMillis(millis)), "{text}");
        }
        for wrong in [
            "",
            "1795339800007",
            "2026-11-22",
            "2026-11-22T09:30Z",
            "2026-11-22 09:30:00Z",
            "20261122T093000Z",
            "2026-11-22T09:30:00",
            "2026-11-22T09:30:00.Z",
            "2026-11-22T09:30:00,5Z",
            "2026-11-22T09:30:00+01:00:30",
            "2026-11-22T09:30:00+00:00[UTC]",
            "2026-13-22T09:30:00Z",
        ] {
            assert_eq!(wrong.parse::<UnixMillis>(), Err(NotATime), "{wrong}");
        }
    }
}
