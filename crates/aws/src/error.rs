//! What can go wrong between a function and AWS.

use std::error::Error;
use std::fmt::Display;

/// A call that failed, or an answer that made no sense.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// The call failed with all its tries.
    #[error("{operation} failed{}", causes(&**source))]
    Call {
        /// Service and operation.
        operation: &'static str,
        /// What went wrong, with its causes.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A batch answer left entries undone, retries and all.
    #[error("{operation} left {count} entries undone")]
    Undone {
        /// Service and operation.
        operation: &'static str,
        /// How many.
        count: usize,
    },
    /// An item does not have the shape that its table's module writes.
    #[error("an item of {table} cannot be read: {detail}")]
    Item {
        /// The table's name in the design.
        table: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A secret could not be sealed or opened.
    #[error("a secret cannot be {0}")]
    Secret(&'static str),
    /// Other writers were faster every time.
    #[error("{operation} met a conflict each time")]
    Conflict {
        /// Service and operation.
        operation: &'static str,
    },
}

/// The SDK says what happened in the causes of its errors, each a level deeper.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| Error::source(*error));
    causes.map(|cause| format!(": {cause}")).collect::<Vec<_>>().concat()
}

impl AwsError {
    pub(crate) fn call<E: Error + Send + Sync + 'static>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Call { operation, source: Box::new(source) }
    }

    /// A workspace's own rules cannot be read. They are checked before they are stored: that is a fault of ours.
    pub fn rules(error: impl Display) -> Self {
        Self::Item { table: "config", detail: format!("rules: {error}") }
    }

    pub(crate) fn item(table: &'static str) -> impl Fn(serde_dynamo::Error) -> Self {
        move |error| Self::Item { table, detail: error.to_string() }
    }
}
