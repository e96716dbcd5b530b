//! Catalogues: which types of events there are, and what their data looks like.
//!
//! Each kind of workspace brings event types of its own, from the files in `events/catalogues`, and each workspace may add
//! its own: a name, a description, a JSON Schema of the data and a sample. Nothing here is parsed or compiled before it is
//! needed, since a function's first answer would wait for it.

mod builtin;
mod data;
mod definition;
mod derive;
mod rules;
mod tree;

use carillon_core::pattern::{EventType, TypePattern};

pub use crate::builtin::{builtin, builtin_rule, builtin_rules, builtin_type, operational};
pub use crate::data::DataRule;
pub use crate::definition::{
    DEFINITION_BYTES_MAX, DESCRIPTION_CHARS_MAX, EventTypeDefinition, NewEventType, RESERVED_PREFIX,
    TypeSource,
};
pub use crate::derive::{CASCADED_MAX, Parent};
pub use crate::rules::{
    CASCADES_DEEP_MAX, CascadeRule, DeadlineRule, NotARuleName, NotWithin, Plan, RULES_MAX, RuleName, Rules,
    TYPES_OF_RULE_MAX, WITHIN_MAX, Within,
};
pub use crate::tree::{NotAPointer, Path, Pointer};

/// Whether a pattern asks for at least one of these types. `*` always does: it asks for whatever comes to be.
pub fn knows<'a>(types: impl IntoIterator<Item = &'a EventType>, pattern: &TypePattern) -> bool {
    *pattern == TypePattern::All || types.into_iter().any(|event_type| pattern.matches(event_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_known_by_what_it_matches() {
        let types: Vec<EventType> =
            ["consent:approved", "token.issued"].iter().map(|name| name.parse().unwrap()).collect();
        for (pattern, known) in [
            ("*", true),
            ("consent:*", true),
            ("consent:approved", true),
            ("consent:rejected", false),
            ("client.*", false),
            ("consent.*", false),
        ] {
            assert_eq!(knows(&types, &pattern.parse().unwrap()), known, "{pattern}");
        }
        assert!(knows([], &TypePattern::All));
        assert!(!knows([], &"token.*".parse().unwrap()));
    }
}
