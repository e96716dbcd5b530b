//! Event types, and the patterns by which subscriptions ask for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::operational;

/// The longest event type and pattern, in bytes.
pub const TYPE_BYTES_MAX: usize = 255;

/// The most segments of an event type: each costs fan-out a look-up.
pub const SEGMENTS_MAX: usize = 12;

/// The most patterns of one subscription.
pub const PATTERNS_MAX: usize = 40;

/// The type of an event, such as `consent:approved`. Its segments end at `.` or `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(String);

/// Which event types a subscription asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TypePattern {
    /// `*`: every type that is published, so none of [`operational`].
    All,
    /// `consent.*` or `consent:*`: every type that begins with the text before the star, which ends a segment.
    Prefix(String),
    /// One type.
    Exact(EventType),
}

/// Why a text is no event type, or no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Longer than [`TYPE_BYTES_MAX`].
    #[error("must be at most {TYPE_BYTES_MAX} bytes long")]
    TooLong,
    /// More than [`SEGMENTS_MAX`].
    #[error("must have at most {SEGMENTS_MAX} segments")]
    TooManySegments,
    /// White space or a control character.
    #[error("must not contain white space or control characters")]
    Character,
    /// A star that does not stand alone behind a segment's end.
    #[error("a star stands alone, or at the end after `.` or `:`")]
    Star,
}

impl EventType {
    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The texts of all patterns that match this type, from the most to the least specific: for
    /// `consent:payment:approved` itself, `consent:payment:*`, `consent:*`, `*`. The last one is not for what Carillon
    /// itself tells ([`operational`]).
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        let prefixes =
            self.0.char_indices().rev().filter(|(_, c)| ends_segment(*c)).map(|(at, _)| &self.0[..=at]);
        let wider = prefixes.filter(|prefix| prefix.len() < self.0.len()).map(|prefix| format!("{prefix}*"));
        let all = (!operational::is_operational(self)).then(|| "*".to_owned());
        std::iter::once(self.0.clone()).chain(wider).chain(all)
    }
}

impl FromStr for EventType {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        check_text(text)?;
        if text.contains('*') { Err(PatternError::Star) } else { Ok(Self(text.to_owned())) }
    }
}

impl TypePattern {
    /// Whether an event of this type is asked for.
    #[must_use]
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            Self::All => !operational::is_operational(event_type),
            Self::Prefix(prefix) => event_type.0.len() > prefix.len() && event_type.0.starts_with(prefix),
            Self::Exact(exact) => exact == event_type,
        }
    }
}

impl FromStr for TypePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        check_text(text)?;
        match text.strip_suffix('*') {
            None => text.parse().map(Self::Exact),
            Some("") => Ok(Self::All),
            Some(prefix) if prefix.contains('*') || !prefix.ends_with(ends_segment) => {
                Err(PatternError::Star)
            }
            Some(prefix) => Ok(Self::Prefix(prefix.to_owned())),
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => exact.fmt(f),
        }
    }
}

macro_rules! through_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = PatternError;

            fn try_from(text: String) -> Result<Self, PatternError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

through_text!(EventType);
through_text!(TypePattern);

fn ends_segment(c: char) -> bool {
    matches!(c, '.' | ':')
}

fn check_text(text: &str) -> Result<(), PatternError> {
    if text.is_empty() {
        Err(PatternError::Empty)
    } else if text.len() > TYPE_BYTES_MAX {
        Err(PatternError::TooLong)
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Err(PatternError::Character)
    } else if text.matches(ends_segment).count() >= SEGMENTS_MAX {
        Err(PatternError::TooManySegments)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event_type(text: &str) -> EventType {
        text.parse().unwrap()
    }

    #[test]
    fn the_patterns_of_a_type_go_from_narrow_to_wide() {
        let patterns: Vec<_> = event_type("consent:payment:approved").patterns().collect();
        assert_eq!(patterns, ["consent:payment:approved", "consent:payment:*", "consent:*", "*"]);
        assert_eq!(event_type("entityCreated").patterns().collect::<Vec<_>>(), ["entityCreated", "*"]);
        assert_eq!(event_type("a.b:").patterns().collect::<Vec<_>>(), ["a.b:", "a.*", "*"]);
    }

    #[test]
    fn a_prefix_ends_a_segment() {
        let pattern: TypePattern = "consent:*".parse().unwrap();
        assert!(pattern.matches(&event_type("consent:approved")));
        assert!(pattern.matches(&event_type("consent:payment:approved")));
        assert!(!pattern.matches(&event_type("consents:approved")));
        assert!(!pattern.matches(&event_type("consent.approved")));
    }

    #[test]
    fn what_is_no_pattern() {
        use PatternError::{Character, Empty, Star, TooLong, TooManySegments};
        let many = "a.".repeat(SEGMENTS_MAX);
        let long = "a".repeat(TYPE_BYTES_MAX + 1);
        for (text, error) in [
            ("", Empty),
            ("consent*", Star),
            ("**", Star),
            ("*.created", Star),
            ("a.*.b", Star),
            ("a b", Character),
            ("a\u{0}", Character),
            (long.as_str(), TooLong),
            (many.as_str(), TooManySegments),
        ] {
            assert_eq!(text.parse::<TypePattern>(), Err(error), "{text:?}");
        }
        assert_eq!("consent:*".parse::<EventType>(), Err(Star));
    }

    proptest! {
        /// Fan-out looks rows up by these texts: a pattern matches a type exactly when its text is among them.
        #[test]
        fn looking_up_finds_what_matches(text in "[ab.:]{1,9}", pattern in "[ab.:]{0,8}\\*?") {
            let (Ok(event_type), Ok(pattern)) = (text.parse::<EventType>(), pattern.parse::<TypePattern>()) else {
                return Ok(());
            };
            prop_assert_eq!(pattern.matches(&event_type), event_type.patterns().any(|p| p == pattern.to_string()));
        }
    }
}
