//! Event patterns of EventBridge over the JSON of a CloudEvent.
//!
//! The syntax and what it means are those of the EventBridge User Guide ("Comparison operators for use in event
//! patterns"), and of aws/event-ruler where the guide is silent:
//!
//! - All fields of a pattern must match. Of the values and operators of a field one must.
//! - An array of the event stands for its elements, and those of the arrays in it: one that fits is enough. Array
//!   consistency: all that a pattern demands of fields within the objects of an array must hold for one object.
//! - Operators look at leaves. A field whose value is an object, or an array without elements, has no value: it does not
//!   exist. An absent field fits nothing but `{"exists": false}`; `anything-but` wants a value.
//! - `anything-but` fits a value of another kind than those that it excludes. Of an array it wants one element that fits.
//! - `null`, the empty text and absence are three different things; so are `1` and `"1"`.
//!
//! Where this differs from EventBridge:
//!
//! - Numbers are compared as JSON means them, without a bound on their magnitude or their decimals: `1`, `1.0` and `1e0`
//!   are equal.
//! - `{"exists": false}` speaks of the event, so that a further condition never makes a pattern match more: no element of
//!   an array may have the field. (event-ruler looks at all elements, or at the one that fits so far, by the alphabetical
//!   order of the fields.)
//! - A field that stands both beside an `$or` and in its alternatives must fulfil both. (event-ruler takes the last one,
//!   or refuses the pattern.)
//! - A dot in a name is a part of the name. A text that looks like an address is a text. Bits behind the prefix of a
//!   `cidr` are passed over.
//!
//! # Cost
//!
//! The alternatives of all `$or`s can be combined in at most [`BRANCHES_MAX`] ways (as in EventBridge, which multiplies
//! them out). The combinations are evaluated together, as sets of bits, in one pass over those parts of the event that the
//! pattern names; another pass looks for fields that may be absent. So the work is at most the number of the event's
//! values times the number of conditions on the field in which they stand: quadratic at the worst, never exponential. A
//! list of texts or numbers counts once, as it is searched in logarithmic time; a wildcard, of which there are at most
//! [`WILDCARDS_MAX`], is compared in linear time. [`STEPS_MAX`] bounds the product: a hostile pattern over a hostile event
//! fails there, after tens of milliseconds, and is no match. Recursion is as deep as the pattern, and memory is taken only
//! for the arrays that are open at a time.

mod branches;
mod budget;
mod condition;
mod number;
mod reasons;
mod source;
mod texts;
mod tree;
mod wildcard;

use carillon_core::invalid::{FieldError, Invalid};
use serde_json::Value;

use self::branches::Branches;
use self::reasons::Reasons;
use self::tree::{Evaluation, Node};
use crate::TooCostly;

pub use self::branches::BRANCHES_MAX;
pub use self::budget::STEPS_MAX;
pub use self::reasons::REASONS_MAX;
pub use self::source::WILDCARDS_MAX;

/// A compiled pattern.
#[derive(Debug)]
pub struct Pattern {
    root: Box<Node>,
    branches: Branches,
}

impl Pattern {
    /// Checks and compiles a pattern whose size and depth are bounded. Pointers of errors begin with `pointer`.
    pub(crate) fn compile(source: &Value, pointer: &str) -> Result<Self, Invalid> {
        let object = source::parse(source, pointer)?;
        let combinations = tree::combinations(&object);
        if combinations > BRANCHES_MAX {
            let detail =
                format!("must have at most {BRANCHES_MAX} combinations of the alternatives of its $or");
            return Err(Invalid::field(pointer, detail));
        }
        Ok(Self { root: Box::new(tree::build(object, combinations)), branches: Branches::all(combinations) })
    }

    /// Whether an event matches.
    pub(crate) fn matches(&self, event: &Value) -> Result<bool, TooCostly> {
        let Value::Object(fields) = event else { return Ok(false) };
        let mut evaluation = Evaluation::begin(&self.root, event)?;
        let matching = evaluation.of_object(&self.root, Some(fields), self.branches)?;
        Ok(!matching.is_empty())
    }

    /// Why an event does not match: at most [`REASONS_MAX`] conditions that do not hold, at least one.
    pub(crate) fn reasons(&self, event: &Value) -> Vec<FieldError> {
        Reasons::find(&self.root, event, self.branches)
    }
}
