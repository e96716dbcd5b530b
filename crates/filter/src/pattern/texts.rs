//! Sets of texts that a text is compared with at once.

use std::borrow::Cow;

/// What a text is compared with, and how: a search of logarithmic time, however many there are.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    how: Comparison,
    /// In ascending order, as the comparison reads them: from the end for suffixes, in lower case where case does not
    /// matter. Of prefixes (and suffixes) none begins with another one: the shorter one stands for both.
    keys: Vec<String>,
    /// The bytes of the longest one.
    longest: usize,
}

/// How a text is compared with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) part: Part,
    pub(super) any_case: bool,
}

/// Which part of a text is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Prefix,
    Suffix,
}

impl Texts {
    pub(super) fn new(how: Comparison) -> Self {
        Self { how, keys: Vec::new(), longest: 0 }
    }

    pub(super) fn how(&self) -> Comparison {
        self.how
    }

    /// Call [`sort`](Self::sort) when all are added.
    pub(super) fn add(&mut self, text: &str) {
        let key = self.how.read(text, usize::MAX).into_owned();
        self.longest = self.longest.max(key.len());
        self.keys.push(key);
    }

    pub(super) fn sort(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
        if self.how.part != Part::Whole {
            // What begins with another one stands behind it.
            self.keys.dedup_by(|key, shorter| key.starts_with(shorter.as_str()));
        }
    }

    /// Whether the text is one of these, or begins or ends with one.
    pub(super) fn contain(&self, text: &str) -> bool {
        let text = self.how.read(text, self.longest);
        // Whatever lies between a prefix of the text and the text begins with that prefix too, so that the only key
        // which can be one is the last that is not greater than the text.
        let behind = self.keys.partition_point(|key| *key.as_str() <= *text);
        let Some(key) = behind.checked_sub(1).and_then(|index| self.keys.get(index)) else { return false };
        match self.how.part {
            Part::Whole => *key == text,
            Part::Prefix | Part::Suffix => text.starts_with(key.as_str()),
        }
    }

    /// How many characters of a text may be looked at.
    pub(super) fn reach(&self, text: &str) -> usize {
        self.longest.min(text.len())
    }

    /// As they were written, but for their case where it does not matter.
    pub(super) fn shown(&self) -> impl Iterator<Item = String> + '_ {
        self.keys.iter().map(|key| match self.how.part {
            Part::Suffix => key.chars().rev().collect(),
            Part::Whole | Part::Prefix => key.clone(),
        })
    }
}

impl Comparison {
    /// A text in the order and the case in which it is compared; no more of it than tells it from texts of at most
    /// `longest` bytes.
    fn read(self, text: &str, longest: usize) -> Cow<'_, str> {
        match (self.part, self.any_case) {
            (Part::Suffix, true) => {
                begin(text.chars().rev().flat_map(|one| one.to_lowercase().rev()), longest)
            }
            (Part::Suffix, false) => begin(text.chars().rev(), longest),
            (_, true) => begin(text.chars().flat_map(char::to_lowercase), longest),
            (_, false) => Cow::Borrowed(text),
        }
    }
}

fn begin(characters: impl Iterator<Item = char>, longest: usize) -> Cow<'static, str> {
    let mut begin = String::new();
    for character in characters {
        begin.push(character);
        if begin.len() > longest {
            break;
        }
    }
    Cow::Owned(begin)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(part: Part, any_case: bool, all: &[&str]) -> Texts {
        let mut texts = Texts::new(Comparison { part, any_case });
        for text in all {
            texts.add(text);
        }
        texts.sort();
        texts
    }

    #[test]
    fn case_matters_or_not() {
        assert!(texts(Part::Whole, true, &["éA"]).contain("Éa"));
        assert!(!texts(Part::Whole, false, &["a"]).contain("A"));
        assert!(texts(Part::Prefix, true, &["eventb"]).contain("EventBridge"));
        assert!(texts(Part::Suffix, true, &["tBridge"]).contain("EVENTBRIDGE"));
        assert!(!texts(Part::Suffix, true, &["tBridge"]).contain("ridge"));
    }

    #[test]
    fn suffixes_are_shown_as_they_were_written() {
        assert_eq!(texts(Part::Suffix, false, &[".png"]).shown().collect::<Vec<_>>(), [".png"]);
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_scan_finds(
            all in prop::collection::vec("[abB]{0,3}", 0..8),
            text in "[abB]{0,5}",
        ) {
            let all: Vec<_> = all.iter().map(String::as_str).collect();
            let lower = |text: &str| text.to_lowercase();
            for any_case in [false, true] {
                let fold = |text: &str| if any_case { lower(text) } else { text.to_owned() };
                let text_folded = fold(&text);
                let scan = |fits: &dyn Fn(&str) -> bool| all.iter().any(|one| fits(&fold(one)));
                let contain = |part| texts(part, any_case, &all).contain(&text);
                prop_assert_eq!(contain(Part::Whole), scan(&|one| text_folded == one));
                prop_assert_eq!(contain(Part::Prefix), scan(&|one| text_folded.starts_with(one)));
                prop_assert_eq!(contain(Part::Suffix), scan(&|one| text_folded.ends_with(one)));
            }
        }
    }
}
