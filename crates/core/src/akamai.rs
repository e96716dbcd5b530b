//! Where a delivery stands in the words of another system.
//!
//! Akamai Identity Cloud's Webhooks v3 tells of each event in which of five states it is. Whoever comes from there finds
//! the same five here, beside Carillon's own status, which says more.

use serde::{Deserialize, Serialize};

use crate::delivery::{Row, Status};
use crate::time::UnixMillis;

/// The state of an event, as the API of Webhooks v3 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventState {
    /// No attempt of the present round was recorded, and none is known to be under way.
    AwaitingExecuting,
    /// An attempt is under way: a function has the lease for it. Of the first attempt, which takes no lease, it is not
    /// known.
    Executing,
    /// Attempts of the present round failed, and another one is to come.
    AwaitingRetry,
    /// A receiver accepted it.
    Success,
    /// It has failed, or its subscription is no more.
    Failure,
}

impl EventState {
    /// The state of a delivery with this row, or without any, as it is `now`.
    #[must_use]
    pub fn of(row: Option<&Row>, now: UnixMillis) -> Self {
        let Some(row) = row else { return Self::AwaitingExecuting };
        match row.status {
            Status::Retrying if is_under_way(row, now) => Self::Executing,
            Status::Retrying | Status::Held if row.attempt == 0 => Self::AwaitingExecuting,
            Status::Retrying | Status::Held => Self::AwaitingRetry,
            Status::Delivered => Self::Success,
            Status::Failed | Status::Cancelled => Self::Failure,
        }
    }
}

/// What is put off has a lease too, until the very time when its attempt is due.
fn is_under_way(row: &Row, now: UnixMillis) -> bool {
    row.lease_until.is_some_and(|until| until > now) && row.lease_until != row.next_at
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1000);

    fn row(attempt: u32, status: Status, next_at: u64, lease_until: Option<u64>) -> Row {
        let next_at = Some(UnixMillis(next_at));
        Row { round: 2, attempt, status, next_at, lease_until: lease_until.map(UnixMillis) }
    }

    #[test]
    fn each_row_has_its_state() {
        use EventState::{AwaitingExecuting, AwaitingRetry, Executing, Failure, Success};
        for (row, state) in [
            (None, AwaitingExecuting),
            (Some(row(1, Status::Retrying, 900, None)), AwaitingRetry),
            (Some(row(1, Status::Retrying, 900, Some(1001))), Executing),
            // Whoever had the lease has died.
            (Some(row(1, Status::Retrying, 900, Some(1000))), AwaitingRetry),
            // Put off, before the first attempt and after it.
            (Some(row(0, Status::Retrying, 2000, Some(2000))), AwaitingExecuting),
            (Some(row(1, Status::Retrying, 2000, Some(2000))), AwaitingRetry),
            // A new round begins under a lease.
            (Some(row(0, Status::Retrying, 900, Some(2000))), Executing),
            (Some(row(0, Status::Held, 900, None)), AwaitingExecuting),
            (Some(row(1, Status::Held, 900, None)), AwaitingRetry),
            (Some(row(1, Status::Delivered, 900, None)), Success),
            (Some(row(8, Status::Failed, 900, None)), Failure),
            // Its subscription was disabled.
            (Some(row(0, Status::Failed, 900, None)), Failure),
            (Some(row(1, Status::Cancelled, 900, None)), Failure),
        ] {
            assert_eq!(EventState::of(row.as_ref(), NOW), state, "{row:?}");
        }
    }

    #[test]
    fn states_have_their_names() {
        let states = [
            EventState::AwaitingExecuting,
            EventState::Executing,
            EventState::AwaitingRetry,
            EventState::Success,
            EventState::Failure,
        ];
        let names = states.map(|state| serde_json::to_value(state).unwrap());
        assert_eq!(names, ["awaiting-executing", "executing", "awaiting-retry", "success", "failure"]);
    }
}
