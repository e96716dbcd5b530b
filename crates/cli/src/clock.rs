//! The one place that reads the clock.

use jiff::Timestamp;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "a command line tool has no caller that could tell it the time"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
