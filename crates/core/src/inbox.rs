//! Inboxes: receiving URLs to try webhooks with, without a server of one's own.
//!
//! An inbox keeps what comes to its URL and answers as it was told. It keeps so many requests, in a ring: each has a
//! number, and the place of a number is taken again [`REQUESTS_KEPT`] requests later.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{BASE32, InboxId, NotAnId, SubscriberId, decode};
use crate::time::UnixMillis;

/// How long an inbox is there after it was made or changed.
pub const OPEN: Duration = Duration::from_hours(7 * 24);

/// How long a request is kept.
pub const REQUEST_KEPT: Duration = Duration::from_hours(24);

/// How many requests an inbox keeps: the latest.
pub const REQUESTS_KEPT: u64 = 500;

/// The largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The most bytes of a request besides its body: its headers' names and values, its path and its query. The gateway takes
/// less.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How many inboxes a workspace has at once.
pub const INBOXES_MAX: u8 = 50;

/// How many of them are one subscriber's.
pub const INBOXES_OF_SUBSCRIBER_MAX: usize = 5;

/// The longest that an answer is delayed, in milliseconds.
pub const DELAY_MILLIS_MAX: u32 = 10_000;

/// An inbox, as its workspace knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbox {
    /// Its id.
    pub id: InboxId,
    /// What its URL ends in.
    pub token: InboxToken,
    /// Whose it is, if a client made it that is bound to a subscriber: other subscribers do not see it.
    pub subscriber: Option<SubscriberId>,
    /// What it answers.
    pub answer: Answer,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is no more.
    pub expires_at: UnixMillis,
}

/// What an inbox's URL ends in: 128 random bits. Who has it can send to the inbox, and nothing else; so it is not shown in
/// `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InboxToken([u8; 16]);

impl InboxToken {
    /// From random bytes.
    #[must_use]
    pub fn from_bytes(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl fmt::Display for InboxToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", BASE32.encode_display(&self.0))
    }
}

impl fmt::Debug for InboxToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboxToken(..)")
    }
}

impl FromStr for InboxToken {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        decode(text).map(Self).ok_or(NotAnId::of("inbox token"))
    }
}

/// What an inbox answers, and when. The default is 200, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Answer(Parts);

/// Why something is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No final status.
    #[error("must be a status from 200 to 599")]
    Status,
    /// More than [`DELAY_MILLIS_MAX`].
    #[error("must be at most {DELAY_MILLIS_MAX} ms")]
    Delay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    status: u16,
    delay_millis: u32,
}

impl Answer {
    /// The status that is answered unless something else was asked for.
    pub const STATUS_DEFAULT: u16 = 200;

    /// This status after so many milliseconds.
    pub fn new(status: u16, delay_millis: u32) -> Result<Self, AnswerError> {
        if !(200..=599).contains(&status) {
            return Err(AnswerError::Status);
        }
        if delay_millis > DELAY_MILLIS_MAX {
            return Err(AnswerError::Delay);
        }
        Ok(Self(Parts { status, delay_millis }))
    }

    /// The status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.0.status
    }

    /// How long the answer waits, in milliseconds.
    #[must_use]
    pub fn delay_millis(self) -> u32 {
        self.0.delay_millis
    }

    /// How long the answer waits.
    #[must_use]
    pub fn delay(self) -> Duration {
        Duration::from_millis(self.0.delay_millis.into())
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self(Parts { status: Self::STATUS_DEFAULT, delay_millis: 0 })
    }
}

impl TryFrom<Parts> for Answer {
    type Error = AnswerError;

    fn try_from(Parts { status, delay_millis }: Parts) -> Result<Self, AnswerError> {
        Self::new(status, delay_millis)
    }
}

impl From<Answer> for Parts {
    fn from(answer: Answer) -> Self {
        answer.0
    }
}

/// The place in the ring of the request that has this number.
#[must_use]
pub fn place(number: u64) -> u64 {
    number % REQUESTS_KEPT
}

/// The last number whose place lies on the same round of the ring as this one's.
#[must_use]
pub fn end_of_round(number: u64) -> u64 {
    number - place(number) + REQUESTS_KEPT - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_text_and_is_not_told_by_accident() {
        let token = InboxToken::from_bytes([7; 16]);
        let text = token.to_string();
        assert_eq!((text.len(), text.parse()), (26, Ok(token)));
        assert!(!format!("{token:?}").contains(&text[..4]));
        for wrong in
            ["", "x", &text[1..], &text.to_uppercase(), &format!("{text}0"), &format!("inbox_{text}")]
        {
            assert!(wrong.parse::<InboxToken>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_are_final_and_come_within_seconds() {
        assert_eq!(Answer::new(200, 0), Ok(Answer::default()));
        assert!(Answer::new(599, 10_000).is_ok());
        for status in [0, 100, 199, 600, u16::MAX] {
            assert_eq!(Answer::new(status, 0), Err(AnswerError::Status), "{status}");
        }
        assert_eq!(Answer::new(200, 10_001), Err(AnswerError::Delay));
        let stored = serde_json::to_string(&Answer::new(503, 1500).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&stored).unwrap().delay(), Duration::from_millis(1500));
        assert!(serde_json::from_str::<Answer>(&stored.replace("503", "99")).is_err());
    }

    #[test]
    fn a_place_is_taken_again_a_round_later() {
        assert_eq!((place(1), place(499), place(500), place(501)), (1, 499, 0, 1));
        assert_eq!((end_of_round(1), end_of_round(499), end_of_round(500)), (499, 499, 999));
    }
}
