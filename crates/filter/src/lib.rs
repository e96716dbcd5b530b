//! Filters of subscriptions: which events of the types that it asks for a subscription wants.
//!
//! A filter is written by a stranger and evaluated for each event, so all that it can cost is bounded: its size and depth
//! here, what evaluation takes in [`pattern`] and in `carillon_schema`. A filter that would take more is no match, and
//! says so.

mod matcher;
pub mod pattern;

use std::io;

use carillon_core::invalid::{FieldError, Invalid};
use carillon_core::subscription::FilterSource;
use carillon_schema::Schema;
use serde_json::Value;

use crate::pattern::Pattern;

pub use crate::matcher::Matcher;

/// The largest pattern or schema of a filter, in bytes as JSON without white space.
pub const FILTER_BYTES_MAX: usize = 16 * 1024;

/// How deep objects and arrays of a filter's pattern or schema may nest, itself included.
pub const FILTER_DEPTH_MAX: usize = 20;

/// A compiled filter.
#[derive(Debug)]
pub enum Filter {
    /// A pattern of EventBridge over the event.
    Pattern(Pattern),
    /// A JSON Schema over the event.
    Schema(Schema),
}

/// What a filter says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is wanted.
    Match,
    /// It is not: why, with pointers into the event. Never empty, and bounded in number and length.
    NoMatch(Vec<FieldError>),
    /// It could not be found out, which counts as no match: the reason.
    Failed(String),
}

/// Why a filter could not be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("evaluating the filter over this event takes more work than is allowed")]
pub struct TooCostly;

impl Filter {
    /// Checks and compiles a filter. Pointers of errors begin at the filter's root, as in `/pattern/data/state/0`.
    pub fn compile(source: &FilterSource) -> Result<Self, Invalid> {
        match source {
            FilterSource::Pattern(source) => {
                check_bounds(source, "/pattern")?;
                Pattern::compile(source, "/pattern").map(Self::Pattern)
            }
            FilterSource::Schema(source) => {
                check_bounds(source, "/schema")?;
                Schema::compile(source).map(Self::Schema).map_err(|error| error.at("/schema"))
            }
        }
    }

    /// Whether an event is wanted, without the reasons: what fan-out asks.
    pub fn matches(&self, event: &Value) -> Result<bool, TooCostly> {
        match self {
            Self::Pattern(pattern) => pattern.matches(event),
            Self::Schema(schema) => schema.try_match(event).map_err(|carillon_schema::TooCostly| TooCostly),
        }
    }

    /// Whether an event is wanted, and why not.
    #[must_use]
    pub fn evaluate(&self, event: &Value) -> Verdict {
        match self.matches(event) {
            Ok(true) => Verdict::Match,
            Ok(false) => Verdict::NoMatch(self.reasons(event)),
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    fn reasons(&self, event: &Value) -> Vec<FieldError> {
        match self {
            Self::Pattern(pattern) => pattern.reasons(event),
            Self::Schema(schema) => schema.check(event),
        }
    }
}

fn check_bounds(source: &Value, pointer: &str) -> Result<(), Invalid> {
    // The depth first: it bounds the recursion of everything that follows.
    if is_deeper(source, FILTER_DEPTH_MAX) {
        return Err(Invalid::field(pointer, format!("must nest at most {FILTER_DEPTH_MAX} levels deep")));
    }
    if size(source) > FILTER_BYTES_MAX {
        return Err(Invalid::field(pointer, format!("must have at most {FILTER_BYTES_MAX} bytes as JSON")));
    }
    Ok(())
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let within = |inner: &Value| is_deeper(inner, levels - 1);
    match value {
        Value::Object(_) | Value::Array(_) if levels == 0 => true,
        Value::Object(fields) => fields.values().any(within),
        Value::Array(elements) => elements.iter().any(within),
        _ => false,
    }
}

/// The size as JSON, in bytes, without a copy.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(source: &FilterSource) -> FieldError {
        Filter::compile(source).unwrap_err().0.swap_remove(0)
    }

    #[test]
    fn a_schema_filters_and_says_why_not() {
        let schema = json!({"properties": {"data": {"properties": {"amount": {"minimum": 10}}}}});
        let filter = Filter::compile(&FilterSource::Schema(schema)).unwrap();
        assert_eq!(filter.evaluate(&json!({"data": {"amount": 10}})), Verdict::Match);
        let Verdict::NoMatch(reasons) = filter.evaluate(&json!({"data": {"amount": 9}})) else { panic!() };
        assert_eq!(reasons[0].pointer, "/data/amount");
    }

    #[test]
    fn a_wrong_schema_is_told_with_its_place_in_the_filter() {
        let error = refused(&FilterSource::Schema(json!({"properties": {"a": {"type": "text"}}})));
        assert_eq!(error.pointer, "/schema/properties/a/type");
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let of_size =
            |size: usize| FilterSource::Pattern(json!({"a": ["x".repeat(size - r#"{"a":[""]}"#.len())]}));
        assert!(Filter::compile(&of_size(FILTER_BYTES_MAX)).is_ok());
        assert_eq!(refused(&of_size(FILTER_BYTES_MAX + 1)).pointer, "/pattern");

        let of_depth =
            |depth| FilterSource::Pattern((1..depth).fold(json!(["x"]), |inner, _| json!({"a": inner})));
        assert!(Filter::compile(&of_depth(FILTER_DEPTH_MAX)).is_ok());
        assert_eq!(refused(&of_depth(FILTER_DEPTH_MAX + 1)).pointer, "/pattern");

        let schema = (0..100).fold(json!(true), |inner, _| json!({"not": inner}));
        assert_eq!(refused(&FilterSource::Schema(schema)).pointer, "/schema");
    }
}
