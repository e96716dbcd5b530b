//! Filters of subscriptions, compiled and evaluated such that none of them can do harm to others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use carillon_core::id::{EventKey, SubscriptionId};
use carillon_core::subscription::FilterSource;
use carillon_filter::Filter;
use serde_json::Value;

/// How many filters of one event that cannot be evaluated are told, each in a log line.
const TOLD_MAX: usize = 10;

/// The longest reason in such a line, in characters.
const REASON_CHARS_MAX: usize = 300;

/// What a filter takes in memory, in bytes, about: each one, and a pattern for each byte of its source.
const FILTER_BYTES: usize = 1024;
const BYTES_PER_BYTE: usize = 64;

/// How a filter was compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Or why it could not be.
    filter: Result<Filter, String>,
    /// Its size in memory, in bytes, about.
    pub(crate) weight: usize,
}

/// Filters that could not be evaluated over an event.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Vec<(SubscriptionId, String)>,
    count: usize,
}

impl Compiled {
    /// Compiles a filter; `None`: the subscription has none, cannot be read or is not there, though its row
    /// says that it is filtered.
    pub(crate) fn new(source: Option<&FilterSource>) -> Self {
        let Some(source) = source else {
            let reason = "the subscription has no filter that can be read".to_owned();
            return Self { filter: Err(reason), weight: FILTER_BYTES };
        };
        let compiled = catch_unwind(AssertUnwindSafe(|| Filter::compile(source)));
        let filter = match compiled {
            Ok(compiled) => compiled.map_err(|invalid| format!("the filter cannot be compiled: {invalid}")),
            Err(_) => Err("compiling the filter panicked".to_owned()),
        };
        let weight = match (&filter, source) {
            (Ok(Filter::Schema(schema)), _) => schema.memory(),
            (Err(reason), _) => reason.len(),
            (_, FilterSource::Pattern(source) | FilterSource::Schema(source)) => {
                source.to_string().len() * BYTES_PER_BYTE
            }
        };
        Self { filter, weight: FILTER_BYTES + weight }
    }

    /// Whether the filter lets an event through, or why that cannot be found out. A panic is the filter's fault alone,
    /// and must not keep the event from the others.
    pub(crate) fn matches(&self, event: &Value) -> Result<bool, String> {
        let filter = self.filter.as_ref().map_err(Clone::clone)?;
        match catch_unwind(AssertUnwindSafe(|| filter.matches(event))) {
            Ok(verdict) => verdict.map_err(|error| error.to_string()),
            Err(_) => Err("evaluating the filter panicked".to_owned()),
        }
    }
}

impl Failures {
    /// Notes why a filter cannot be evaluated.
    pub(crate) fn add(&mut self, subscription: SubscriptionId, reason: &str) {
        self.count += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push((subscription, reason.chars().take(REASON_CHARS_MAX).collect()));
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Tells the first of them, and how many there are.
    pub(crate) fn log(&self, event: &EventKey) {
        for (subscription, reason) in &self.first {
            tracing::warn!(%event, %subscription, reason, "a filter failed, which counts as no match");
        }
        if self.count > self.first.len() {
            tracing::warn!(%event, count = self.count, "more filters failed than are told");
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::time::UnixMillis;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_decides() {
        let filter = Compiled::new(Some(&FilterSource::Pattern(json!({"data": {"amount": [7]}}))));
        assert_eq!(filter.matches(&json!({"data": {"amount": 7}})), Ok(true));
        assert_eq!(filter.matches(&json!({"data": {"amount": 8}})), Ok(false));
    }

    #[test]
    fn a_filter_that_cannot_be_compiled_says_so_each_time() {
        for source in [None, Some(FilterSource::Pattern(json!(7)))] {
            let filter = Compiled::new(source.as_ref());
            let reason = filter.matches(&json!({})).unwrap_err();
            assert_eq!(filter.matches(&json!({})), Err(reason));
        }
    }

    #[test]
    fn what_is_told_of_failures_is_bounded() {
        let mut failures = Failures::default();
        for id in 0..1000 {
            failures.add(SubscriptionId::new(UnixMillis(id), [0; 10]), &"long".repeat(1000));
        }
        assert_eq!((failures.count, failures.first.len()), (1000, TOLD_MAX));
        assert!(failures.first.iter().all(|(_, reason)| reason.len() == REASON_CHARS_MAX));
    }

    #[test]
    fn regular_expressions_weigh_what_they_can_take() {
        let weight = |schema| Compiled::new(Some(&FilterSource::Schema(schema))).weight;
        let words = weight(json!({"properties": {"id": {"const": "a-rather-long-constant"}}}));
        assert!(words < 8 * 1024, "{words}");
        let two = weight(json!({"patternProperties": {"^a": true}, "properties": {"id": {"pattern": "^a"}}}));
        let referred = json!({"$ref": "#/definitions/a", "definitions": {"a": {"pattern": "^a"}}});
        assert!(two > 2 * 1024 * 1024 && weight(referred) > 1024 * 1024);
    }
}
