//! What is wrong with an input, field by field.

use serde::Serialize;

/// One wrong field of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: a JSON Pointer into the input (RFC 6901), or `header:NAME` for a field that came as an HTTP header.
    pub pointer: String,
    /// What is wrong with it, and what would be right, as a sentence.
    pub detail: String,
}

/// An input that cannot be accepted: all of its wrong fields at once, never none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|e| format!("{}: {}", e.pointer, e.detail)).collect::<Vec<_>>().join("; "))]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    /// A single wrong field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }
}

/// The most wrong fields that are told at once: enough for people, and an answer of bounded size.
pub const FINDINGS_MAX: usize = 20;

/// Collects wrong fields while an input is checked, so that all are told at once, up to [`FINDINGS_MAX`].
#[derive(Debug, Default)]
pub struct Findings(Vec<FieldError>);

impl Findings {
    /// Notes a wrong field.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        }
    }

    /// Takes the value of a checked field, or notes why there is none.
    pub fn take<T>(&mut self, checked: Result<T, Invalid>) -> Option<T> {
        checked
            .map_err(|Invalid(errors)| {
                for FieldError { pointer, detail } in errors {
                    self.add(pointer, detail);
                }
            })
            .ok()
    }

    /// `Ok` with `value` if nothing was found.
    pub fn into_result<T>(self, value: T) -> Result<T, Invalid> {
        if self.0.is_empty() { Ok(value) } else { Err(Invalid(self.0)) }
    }
}
