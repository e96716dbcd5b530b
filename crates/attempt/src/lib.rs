//! One attempt at a receiver: where it goes is read by [`Targets`], with the keys that sign it; what it sends is made by
//! [`prepare`]; an [`Exchange`] sends it, with a token of [`Tokens`] where the receiver wants one, and tells how it ended.
//!
//! What an attempt is part of, a delivery or a trial of somebody's, is not known here.

mod authorization;
mod exchange;
mod keyring;
mod request;
mod targets;
mod tokens;

use std::time::Duration;

pub use exchange::Exchange;
pub use request::{Prepared, Unwritable, prepare};
pub use targets::{Target, Targets};
pub use tokens::Tokens;

/// With less time than this an attempt is not begun.
pub const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(500);
