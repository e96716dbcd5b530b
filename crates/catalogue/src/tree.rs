//! Parts of a JSON text, found by pointers and put together anew. What is not taken apart stays as it was written: numbers
//! keep their digits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The longest pointer, in bytes.
const POINTER_BYTES_MAX: usize = 512;

/// The most tokens of a pointer.
const TOKENS_MAX: usize = 20;

/// Where something stands in a JSON document (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(Vec<String>);

/// A pointer in which `*` stands for every member of an object, or every element of an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(Vec<String>);

/// A text that is no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a JSON Pointer (RFC 6901) such as /a/b, with at most {TOKENS_MAX} tokens and {POINTER_BYTES_MAX} bytes"
)]
pub struct NotAPointer;

/// A value that was found, and where.
pub(crate) struct Found<'a> {
    pub(crate) place: Vec<Step>,
    pub(crate) value: &'a RawValue,
}

/// One step down into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Element(usize),
}

/// A document that is being put together.
pub(crate) enum Tree<'a> {
    /// As it was written.
    Raw(Cow<'a, RawValue>),
    Object(BTreeMap<String, Tree<'a>>),
    /// By the place of elements where they were; those that are missing leave no gap.
    Array(BTreeMap<usize, Tree<'a>>),
}

impl Pointer {
    /// The value that stands there.
    pub(crate) fn find<'a>(&self, document: &'a RawValue) -> Option<Found<'a>> {
        find(document, &self.0, false).pop()
    }

    /// The same place as steps through objects.
    pub(crate) fn members(&self) -> Vec<Step> {
        self.0.iter().cloned().map(Step::Member).collect()
    }
}

impl Path {
    /// Every value that stands there, in the order of the document.
    pub(crate) fn find<'a>(&self, document: &'a RawValue) -> Vec<Found<'a>> {
        find(document, &self.0, true)
    }
}

fn find<'a>(document: &'a RawValue, tokens: &[String], stars: bool) -> Vec<Found<'a>> {
    let mut found = vec![Found { place: Vec::new(), value: document }];
    for token in tokens {
        found = found.into_iter().flat_map(|at| below(&at, token, stars && token == "*")).collect();
    }
    found
}

/// What stands one step below, under a token or under any.
fn below<'a>(at: &Found<'a>, token: &str, any: bool) -> Vec<Found<'a>> {
    let child = |step: Step, value: &'a RawValue| {
        let mut place = at.place.clone();
        place.push(step);
        Found { place, value }
    };
    match children(at.value) {
        Children::Object(members) => {
            let wanted = members.into_iter().filter(|(name, _)| any || name == token);
            wanted.map(|(name, value)| child(Step::Member(name), value)).collect()
        }
        Children::Array(elements) => {
            let wanted = elements.into_iter().enumerate().filter(|(n, _)| any || n.to_string() == token);
            wanted.map(|(n, value)| child(Step::Element(n), value)).collect()
        }
        Children::None => Vec::new(),
    }
}

enum Children<'a> {
    Object(BTreeMap<String, &'a RawValue>),
    Array(Vec<&'a RawValue>),
    None,
}

fn children(value: &RawValue) -> Children<'_> {
    match value.get().as_bytes().first() {
        Some(b'{') => serde_json::from_str(value.get()).map_or(Children::None, Children::Object),
        Some(b'[') => serde_json::from_str(value.get()).map_or(Children::None, Children::Array),
        _ => Children::None,
    }
}

impl<'a> Tree<'a> {
    /// An object without members.
    pub(crate) fn empty() -> Self {
        Self::Object(BTreeMap::new())
    }

    /// Puts a value at a place, over whatever stands there, with what is missing on the way.
    pub(crate) fn put(&mut self, place: &[Step], value: Cow<'a, RawValue>) {
        let Some((step, rest)) = place.split_first() else {
            *self = Self::Raw(value);
            return;
        };
        self.open(step);
        match (self, step) {
            (Self::Object(members), Step::Member(name)) => {
                members.entry(name.clone()).or_insert_with(Self::empty).put(rest, value);
            }
            (Self::Array(elements), Step::Element(n)) => {
                elements.entry(*n).or_insert_with(Self::empty).put(rest, value);
            }
            _ => {}
        }
    }

    /// Takes apart what stands as it was written, or replaces it, so that the step can be taken.
    fn open(&mut self, step: &Step) {
        let opened = match self {
            Self::Raw(Cow::Borrowed(raw)) => match children(raw) {
                Children::Object(members) => Some(Self::Object(
                    members
                        .into_iter()
                        .map(|(name, value)| (name, Self::Raw(Cow::Borrowed(value))))
                        .collect(),
                )),
                Children::Array(elements) => Some(Self::Array(
                    elements.into_iter().map(|value| Self::Raw(Cow::Borrowed(value))).enumerate().collect(),
                )),
                Children::None => None,
            },
            _ => None,
        };
        if let Some(opened) = opened {
            *self = opened;
        }
        match (&self, step) {
            (Self::Object(_), Step::Member(_)) | (Self::Array(_), Step::Element(_)) => {}
            (_, Step::Member(_)) => *self = Self::empty(),
            (_, Step::Element(_)) => *self = Self::Array(BTreeMap::new()),
        }
    }
}

/// As JSON.
impl fmt::Display for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(raw) => f.write_str(raw.get()),
            Self::Object(members) => {
                f.write_str("{")?;
                for (place, (name, value)) in members.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", serde_json::Value::from(name.as_str()))?;
                }
                f.write_str("}")
            }
            Self::Array(elements) => {
                f.write_str("[")?;
                for (place, value) in elements.values().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A place as a pointer.
pub(crate) fn pointer(place: &[Step]) -> String {
    let token = |step: &Step| match step {
        Step::Member(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Step::Element(n) => format!("/{n}"),
    };
    place.iter().map(token).collect()
}

fn tokens(text: &str) -> Result<Vec<String>, NotAPointer> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').filter(|_| text.len() <= POINTER_BYTES_MAX).ok_or(NotAPointer)?;
    let token = |token: &str| {
        // A tilde stands for itself only as `~0` (RFC 6901, section 3).
        let mut escapes = token.split('~').skip(1);
        let is_escaped = escapes.all(|rest| rest.starts_with(['0', '1']));
        is_escaped.then(|| token.replace("~1", "/").replace("~0", "~")).ok_or(NotAPointer)
    };
    let tokens = rest.split('/').map(token).collect::<Result<Vec<_>, _>>()?;
    if tokens.len() <= TOKENS_MAX { Ok(tokens) } else { Err(NotAPointer) }
}

/// Parsed from text, written as text.
macro_rules! pointer_text {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = NotAPointer;

            fn from_str(text: &str) -> Result<Self, NotAPointer> {
                tokens(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAPointer;

            fn try_from(text: String) -> Result<Self, NotAPointer> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(pointer: $name) -> Self {
                pointer.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let place: Vec<_> = self.0.iter().cloned().map(Step::Member).collect();
                f.write_str(&pointer(&place))
            }
        }
    };
}

pointer_text!(Pointer);
pointer_text!(Path);

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"a": {"x": [{"id": 1.50, "n": "p"}, {"id": 2}], "y": [{"id": 12345678901234567890.1}]}, "b/c": true}"#;

    fn document() -> Box<RawValue> {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn values_are_found_as_they_were_written() {
        let document = document();
        let at = |text: &str| {
            text.parse::<Pointer>().unwrap().find(&document).map(|found| found.value.get().to_owned())
        };
        assert_eq!(at("/a/x/0/id").as_deref(), Some("1.50"));
        assert_eq!(at("/b~1c").as_deref(), Some("true"));
        assert_eq!(at("").as_deref(), Some(DOCUMENT));
        assert_eq!(at("/a/*"), None, "a star is a name in a pointer");
        let path: Path = "/a/*/*/id".parse().unwrap();
        let found: Vec<_> = path
            .find(&document)
            .into_iter()
            .map(|found| (pointer(&found.place), found.value.get()))
            .collect();
        let expected = [("/a/x/0/id", "1.50"), ("/a/x/1/id", "2"), ("/a/y/0/id", "12345678901234567890.1")];
        assert_eq!(found, expected.map(|(place, value)| (place.to_owned(), value)));
    }

    #[test]
    fn a_tree_has_what_was_put_in_it_and_what_leads_there() {
        let document = document();
        let path: Path = "/a/*/*".parse().unwrap();
        let mut tree = Tree::empty();
        let second = path.find(&document).remove(1);
        tree.put(&second.place, Cow::Borrowed(second.value));
        assert_eq!(tree.to_string(), r#"{"a":{"x":[{"id": 2}]}}"#);
        let new: Box<RawValue> = serde_json::from_str(r#""q""#).unwrap();
        tree.put(&"/a/x".parse::<Pointer>().unwrap().members(), Cow::Owned(new.clone()));
        tree.put(&"/c/d".parse::<Pointer>().unwrap().members(), Cow::Owned(new));
        assert_eq!(tree.to_string(), r#"{"a":{"x":"q"},"c":{"d":"q"}}"#);
    }

    #[test]
    fn what_stands_as_it_was_is_taken_apart_where_something_is_put_into_it() {
        let document = document();
        let mut tree = Tree::empty();
        let a = "/a".parse::<Pointer>().unwrap().find(&document).unwrap();
        tree.put(&a.place, Cow::Borrowed(a.value));
        let place =
            [Step::Member("a".into()), Step::Member("x".into()), Step::Element(1), Step::Member("n".into())];
        tree.put(&place, Cow::Owned(serde_json::from_str("7").unwrap()));
        let expected =
            r#"{"a":{"x":[{"id": 1.50, "n": "p"},{"id":2,"n":7}],"y":[{"id": 12345678901234567890.1}]}}"#;
        assert_eq!(tree.to_string(), expected);
    }

    #[test]
    fn pointers_are_bounded_and_written_as_they_were_read() {
        for text in ["", "/", "/a~1b/~0/*", "/0"] {
            assert_eq!(text.parse::<Pointer>().unwrap().to_string(), text);
        }
        let (many, long) = ("/a".repeat(TOKENS_MAX + 1), format!("/{}", "a".repeat(POINTER_BYTES_MAX)));
        for wrong in ["a", "a/b", "/~", "/~2", "#/a", &many, &long] {
            assert_eq!(wrong.parse::<Pointer>(), Err(NotAPointer), "{wrong}");
        }
    }
}
