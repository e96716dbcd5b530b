//! One try to match an event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::SubscriptionId;
use carillon_core::matching::{Expansion, MatchRow, Range, expand, matches};
use carillon_core::subscription::FilterSource;
use futures::future::try_join_all;
use serde_json::Value;

use super::{Matched, Subscriptions};
use crate::cache::NewlyRead;
use crate::filters::Compiled;
use crate::patience::Patience;
use crate::source::Source;

/// How many filters are read at once: as many as one call takes.
const FILTERS_READ_MAX: usize = 100;

/// One try to match an event, by what is kept of one version and what is read.
pub(super) struct Step<'a, S> {
    pub(super) of: &'a Subscriptions<S>,
    pub(super) version: u64,
    pub(super) event: &'a AcceptedEvent,
    pub(super) range: Range,
    /// Until when filters may be asked.
    pub(super) patience: Patience,
    /// How much time they may take besides, what is read for them not counted. If none, none is asked.
    pub(super) filtering_time: Duration,
    /// How much they took.
    pub(super) filtered_for: Duration,
    /// What was read, or is to be kept.
    pub(super) read: NewlyRead,
}

impl<S: Source> Step<'_, S> {
    /// Too many candidates are split before any filter is evaluated, so that no step has more filters than tasks.
    pub(super) async fn matched(&mut self) -> Result<Matched, AwsError> {
        let candidates = self.candidates().await?;
        match expand(candidates.keys().copied().collect(), self.range) {
            Expansion::Ranges(parts) => Ok(Matched { parts, ..Matched::default() }),
            Expansion::Deliveries(subscriptions) if !candidates.values().any(|filtered| *filtered) => {
                Ok(Matched { subscriptions, ..Matched::default() })
            }
            Expansion::Deliveries(_) => self.filtered(candidates).await,
        }
    }

    /// Whom the event concerns but for filters, and whether each has one.
    async fn candidates(&mut self) -> Result<BTreeMap<SubscriptionId, bool>, AwsError> {
        let mut rows = Vec::new();
        let mut missing = Vec::new();
        for pattern in self.event.event_type.patterns() {
            match self.of.kept().rows(&self.event.key.workspace, self.version, &pattern) {
                Some(kept) => rows.push(kept),
                None => missing.push(pattern),
            }
        }
        rows.extend(self.read_rows(missing).await?);
        Ok(matches(self.event, rows.iter().flat_map(|rows| rows.iter()), self.range))
    }

    /// All rows of the patterns, to be kept; or, for a part of them, no more than that part: a function that begins with
    /// it must not spend its time on reading the rest.
    async fn read_rows(&mut self, patterns: Vec<String>) -> Result<Vec<Arc<Vec<MatchRow>>>, AwsError> {
        self.read.any |= !patterns.is_empty();
        let (source, workspace, range) = (&self.of.source, &self.event.key.workspace, self.range);
        let read = try_join_all(patterns.iter().map(|pattern| source.rows(workspace, pattern, range)));
        let read: Vec<_> = read.await?.into_iter().map(Arc::new).collect();
        if range == Range::default() {
            patterns.into_iter().zip(&read).for_each(|(pattern, rows)| self.read.add_rows(pattern, rows));
        }
        Ok(read)
    }

    /// Asks the filters of the candidates that have one, in the order of their ids.
    async fn filtered(&mut self, candidates: BTreeMap<SubscriptionId, bool>) -> Result<Matched, AwsError> {
        let mut matched = Matched::default();
        if self.filtering_time.is_zero() {
            matched.parts.push(self.range);
            return Ok(matched);
        }
        // Its numbers and its depth were not looked at when it was accepted, so it need not have a value.
        let event: Result<Value, _> = serde_json::from_str(&self.event.json);
        let event = event.map_err(|error| format!("the event's JSON has no value: {error}"));
        let candidates: Vec<_> = candidates.into_iter().collect();
        let mut last = None;
        let mut asked = false;
        for candidates in candidates.chunks(FILTERS_READ_MAX) {
            let filters = if event.is_ok() { self.filters(candidates).await? } else { BTreeMap::new() };
            for (subscription, filtered) in candidates.iter().copied() {
                if !filtered {
                    matched.subscriptions.push(subscription);
                } else if asked && (self.filtered_for >= self.filtering_time || self.patience.is_over()) {
                    matched.parts.push(Range { after: last, up_to: self.range.up_to });
                    return Ok(matched);
                } else {
                    asked = true;
                    let began = now();
                    let verdict = event
                        .as_ref()
                        .map_err(Clone::clone)
                        .and_then(|event| self.filter(subscription, &filters).matches(event));
                    self.filtered_for += now().since(began);
                    matched.add(subscription, verdict);
                }
                last = Some(subscription);
            }
        }
        Ok(matched)
    }

    /// What these candidates' filters are compiled from, as far as they are not kept.
    async fn filters(&mut self, candidates: &[(SubscriptionId, bool)]) -> Result<Filters, AwsError> {
        let workspace = &self.event.key.workspace;
        let mut filters = Filters::new();
        let mut missing = Vec::new();
        for (subscription, _) in candidates.iter().copied().filter(|(_, filtered)| *filtered) {
            match self.of.kept().filter(workspace, self.version, subscription) {
                Some(kept) => _ = filters.insert(subscription, Found::Compiled(kept)),
                None => missing.push(subscription),
            }
        }
        if !missing.is_empty() {
            self.read.any = true;
            let read = self.of.source.filters(workspace, &missing).await?;
            filters
                .extend(read.into_iter().map(|(subscription, filter)| (subscription, Found::Source(filter))));
        }
        Ok(filters)
    }

    /// A candidate's filter, compiled now if it is not kept: compiling takes time, too.
    fn filter(&mut self, subscription: SubscriptionId, filters: &Filters) -> Arc<Compiled> {
        let source = match filters.get(&subscription) {
            Some(Found::Compiled(filter)) => return Arc::clone(filter),
            Some(Found::Source(source)) => Some(source),
            None => None,
        };
        let filter = Arc::new(Compiled::new(source));
        self.read.add_filter(subscription, &filter);
        filter
    }
}

/// The filters of candidates.
type Filters = BTreeMap<SubscriptionId, Found>;

enum Found {
    Compiled(Arc<Compiled>),
    Source(FilterSource),
}
