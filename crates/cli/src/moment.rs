//! Times: as they are given on the command line, and as they are shown.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

const SECONDS_PER_MINUTE: u64 = 60;
const SECONDS_PER_HOUR: u64 = 60 * SECONDS_PER_MINUTE;
const SECONDS_PER_DAY: u64 = 24 * SECONDS_PER_HOUR;
const SECONDS_PER_WEEK: u64 = 7 * SECONDS_PER_DAY;

/// Longer than anything is kept: ten years.
const SPAN_SECONDS_MAX: u64 = 3_653 * SECONDS_PER_DAY;

/// A length of time: `90s`, `15m`, `2h`, `7d`, `1w`, or several of them, as in `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no length of time: write `90s`, `15m`, `2h`, `7d` or `1h30m`");
        let mut rest = text;
        let mut seconds = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|one: char| !one.is_ascii_digit()).ok_or_else(wrong)?;
            let number = rest[..digits].parse::<u64>().map_err(|_| wrong())?;
            let unit = match rest.as_bytes()[digits] {
                b's' => 1,
                b'm' => SECONDS_PER_MINUTE,
                b'h' => SECONDS_PER_HOUR,
                b'd' => SECONDS_PER_DAY,
                b'w' => SECONDS_PER_WEEK,
                _ => return Err(wrong()),
            };
            let more = number.checked_mul(unit).and_then(|part| seconds.checked_add(part));
            seconds = more.filter(|seconds| *seconds <= SPAN_SECONDS_MAX).ok_or_else(wrong)?;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self(Duration::from_secs(seconds))) }
    }
}

/// A point in time: RFC 3339, a date (its midnight in UTC), or how long ago it was (see [`Span`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Span),
    /// Then.
    At(Timestamp),
}

impl Moment {
    /// As the API takes it.
    pub(crate) fn rfc3339(self, now: Timestamp) -> String {
        let then = match self {
            // A span is bounded, and no clock stands so early.
            Self::Ago(Span(span)) => now.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH),
            Self::At(then) => then,
        };
        format!("{then:.3}")
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(then) = text.parse::<Timestamp>() {
            return Ok(Self::At(then));
        }
        if let Ok(date) = text.parse::<Date>()
            && let Ok(midnight) = date.to_zoned(TimeZone::UTC)
        {
            return Ok(Self::At(midnight.timestamp()));
        }
        text.parse::<Span>().map(Self::Ago).map_err(|_| {
            format!("`{text}` is no time: write `2h` (ago), `2026-11-20` or `2026-11-20T13:06:51Z`")
        })
    }
}

/// How long ago a time is, or how far ahead: `now`, `12s ago`, `in 5m`. What is no time is shown as it is.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return time.to_owned() };
    let seconds = now.as_second() - then.as_second();
    let length = short(Duration::from_secs(seconds.unsigned_abs()));
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{length} ago"),
        _ => format!("in {length}"),
    }
}

/// A time to the second, and how long ago that is. What is no time is shown as it is.
pub(crate) fn full(time: &str, now: Timestamp) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return time.to_owned() };
    format!("{} ({})", then.strftime("%Y-%m-%d %H:%M:%S UTC"), ago(time, now))
}

/// The time of a day, in UTC, as lines begin that tell what happens.
pub(crate) fn time_of_day(then: Timestamp) -> String {
    then.strftime("%H:%M:%S").to_string()
}

/// The two largest units are enough for people, and one from a day on.
fn short(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..SECONDS_PER_MINUTE => format!("{seconds}s"),
        SECONDS_PER_MINUTE..SECONDS_PER_HOUR => format!("{}m", seconds / SECONDS_PER_MINUTE),
        SECONDS_PER_HOUR..SECONDS_PER_DAY => {
            let minutes = seconds % SECONDS_PER_HOUR / SECONDS_PER_MINUTE;
            let hours = seconds / SECONDS_PER_HOUR;
            if minutes == 0 { format!("{hours}h") } else { format!("{hours}h{minutes}m") }
        }
        _ => format!("{}d", seconds / SECONDS_PER_DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn spans() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("1w", 604_800), ("1h30m", 5_400)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for wrong in ["", "2", "h", "2y", "-2h", "2h 3m", "2µ", "1.5h", "99999999w", "184467440737095516150s"]
        {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments() {
        let now = at("2026-11-22T10:00:00Z");
        for (text, meant) in [
            ("2h", "2026-11-22T08:00:00.000Z"),
            ("1d12h", "2026-11-20T22:00:00.000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000Z"),
            ("2026-11-20T13:06:51.004Z", "2026-11-20T13:06:51.004Z"),
            ("2026-11-20T14:06:51+01:00", "2026-11-20T13:06:51.000Z"),
        ] {
            assert_eq!(text.parse::<Moment>().unwrap().rfc3339(now), meant, "{text}");
        }
        for wrong in ["", "yesterday", "2026-13-01", "13:06"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_for_people() {
        let now = at("2026-11-22T10:00:00Z");
        for (time, shown) in [
            ("2026-11-22T10:00:00.900Z", "now"),
            ("2026-11-22T09:59:48Z", "12s ago"),
            ("2026-11-22T09:55:00Z", "5m ago"),
            ("2026-11-22T07:30:00Z", "2h30m ago"),
            ("2026-11-22T07:00:00Z", "3h ago"),
            ("2026-11-19T07:30:00Z", "3d ago"),
            ("2026-11-22T10:05:00Z", "in 5m"),
            ("soon", "soon"),
        ] {
            assert_eq!(ago(time, now), shown, "{time}");
        }
        assert_eq!(full("2026-11-22T09:55:00.123Z", now), "2026-11-22 09:55:00 UTC (5m ago)");
        assert_eq!(time_of_day(now), "10:00:00");
    }
}
