//! Texts with stars, each of which stands for any number of characters.

/// A compiled wildcard: the texts between its stars, at least one.
#[derive(Clone, Debug)]
pub(super) struct Wildcard {
    source: String,
    first: String,
    /// Those between two stars.
    inner: Vec<String>,
    /// `None` if there is no star at all.
    last: Option<String>,
    /// The bytes of all of them: no shorter text matches.
    bytes: usize,
}

impl Wildcard {
    /// `\*` stands for a star and `\\` for a backslash; the error says what is wrong.
    pub(super) fn parse(source: &str) -> Result<Self, &'static str> {
        let mut parts = vec![String::new()];
        let mut characters = source.chars();
        let mut after_star = false;
        while let Some(character) = characters.next() {
            let literal = match character {
                '*' if after_star => return Err("must not have two stars in a row"),
                '*' => {
                    parts.push(String::new());
                    after_star = true;
                    continue;
                }
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => escaped,
                    _ => return Err(r"must have a star or a backslash behind each backslash: `\*`, `\\`"),
                },
                other => other,
            };
            after_star = false;
            if let Some(part) = parts.last_mut() {
                part.push(literal);
            }
        }
        let bytes = parts.iter().map(String::len).sum();
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let last = parts.next_back();
        Ok(Self { source: source.to_owned(), first, inner: parts.collect(), last, bytes })
    }

    /// In a time that is linear in the length of the text: for each part the earliest place is the best one, so nothing
    /// is tried twice.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(last) = &self.last else { return self.first == text };
        if text.len() < self.bytes {
            return false;
        }
        let Some(rest) = text.strip_prefix(self.first.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(last.as_str()) else { return false };
        for part in &self.inner {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(wildcard: &str, text: &str) -> bool {
        Wildcard::parse(wildcard).unwrap().matches(text)
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (wildcard, text, expected) in [
            ("dir/*.png", "dir/a/b.png", true),
            ("dir/*.png", "dir/.png", true),
            ("dir/*.png", "dir.png", false),
            ("*/lib/*", "/usr/lib/x", true),
            ("*/lib/*", "/usr/libx", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*b*", "abb", true),
            ("*ab*b*", "bab", false),
            ("*ä*", "xäx", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\\*", r"a\b", true),
            (r"\**\*", "*x*", true),
            (r"\**\*", "*", false),
        ] {
            assert_eq!(matches(wildcard, text), expected, "{wildcard} {text}");
        }
    }

    #[test]
    fn what_eventbridge_refuses_is_refused() {
        for wrong in ["**", "a**b", r"\", r"a\b", r"a*\", r"\\\"] {
            assert!(Wildcard::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Wildcard::parse(r"*\**").is_ok());
    }

    proptest! {
        #[test]
        fn it_says_what_the_definition_says(wildcard in "[ab]{0,2}(\\*[ab]{1,2}){0,3}\\*?", text in "[ab]{0,9}") {
            prop_assert_eq!(matches(&wildcard, &text), by_definition(wildcard.as_bytes(), text.as_bytes()));
        }
    }

    fn by_definition(wildcard: &[u8], text: &[u8]) -> bool {
        match (wildcard, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| by_definition(rest, &text[skipped..])),
            ([a, wildcard @ ..], [b, text @ ..]) => a == b && by_definition(wildcard, text),
            _ => false,
        }
    }
}
