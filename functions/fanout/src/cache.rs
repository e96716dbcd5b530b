//! What was read of workspaces' subscriptions, kept for as long as nothing changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::matching::MatchRow;
use carillon_core::time::UnixMillis;

use crate::filters::Compiled;

/// The most that is kept, in bytes, about.
const WEIGHT_MAX: usize = 48 * 1024 * 1024;

/// The most filters of one step that are kept until it is known whether they are of one version, in bytes, about.
const NEW_FILTERS_WEIGHT_MAX: usize = 16 * 1024 * 1024;

/// What an entry weighs besides what is in it, in bytes: types that nobody asked for leave empty entries, perhaps many.
const ENTRY_WEIGHT: usize = 512;

/// What a row weighs besides its subscriber's name, in bytes.
const ROW_WEIGHT: usize = size_of::<MatchRow>() + 16;

/// How long after a version was first seen nothing that was read outlives its run.
///
/// DynamoDB makes a transaction's items visible one by one. A run that reads a version at the moment in which it comes
/// into being could, for all its waiting, still read rows of the one before, and nothing later would tell: the version
/// stays the same. The items
/// of a transaction follow each other within milliseconds, so after this span what is read belongs to the version.
const SETTLING: Duration = Duration::from_secs(2);

/// Rows by workspace and pattern, and filters by workspace and subscription, each workspace's as of one version.
#[derive(Default)]
pub(crate) struct Cache {
    workspaces: HashMap<WorkspaceId, Kept>,
    weight: usize,
}

/// What one step read, to be kept once it is known to be of one version.
#[derive(Default)]
pub(crate) struct NewlyRead {
    /// Whether anything was read at all, to be kept or not.
    pub(crate) any: bool,
    rows: Vec<(String, Arc<Vec<MatchRow>>)>,
    filters: Vec<(SubscriptionId, Arc<Compiled>)>,
    filters_weight: usize,
}

struct Kept {
    version: u64,
    first_seen: UnixMillis,
    /// Whether what is read now outlives the run.
    settled: bool,
    rows: HashMap<String, Arc<Vec<MatchRow>>>,
    filters: HashMap<SubscriptionId, Arc<Compiled>>,
    weight: usize,
}

impl Cache {
    /// From now on a workspace is at this version: a run begins with it, or has found that it moved there.
    pub(crate) fn begin(&mut self, workspace: &WorkspaceId, version: u64, now: UnixMillis) {
        match self.workspaces.get_mut(workspace) {
            Some(kept) if kept.version == version => {
                if !kept.settled {
                    self.weight -= kept.clear();
                    kept.settled = now.since(kept.first_seen) >= SETTLING;
                }
            }
            _ => self.renew(workspace, version, now),
        }
    }

    /// The rows of a pattern at a version.
    pub(crate) fn rows(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        pattern: &str,
    ) -> Option<Arc<Vec<MatchRow>>> {
        self.at(workspace, version)?.rows.get(pattern).cloned()
    }

    /// The filter of a subscription at a version.
    pub(crate) fn filter(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        subscription: SubscriptionId,
    ) -> Option<Arc<Compiled>> {
        self.at(workspace, version)?.filters.get(&subscription).cloned()
    }

    /// Keeps what was read, which must be known to be of this version: see [`crate::subscriptions`].
    pub(crate) fn keep(&mut self, workspace: &WorkspaceId, version: u64, read: NewlyRead, now: UnixMillis) {
        let weight = read.weight();
        if self.weight + weight > WEIGHT_MAX {
            *self = Self::default();
        }
        if weight > WEIGHT_MAX {
            return;
        }
        if self.at(workspace, version).is_none() {
            self.renew(workspace, version, now);
        }
        if let Some(kept) = self.workspaces.get_mut(workspace) {
            self.weight += kept.add(read);
        }
    }

    fn at(&self, workspace: &WorkspaceId, version: u64) -> Option<&Kept> {
        self.workspaces.get(workspace).filter(|kept| kept.version == version)
    }

    fn renew(&mut self, workspace: &WorkspaceId, version: u64, now: UnixMillis) {
        let kept = Kept {
            version,
            first_seen: now,
            settled: false,
            rows: HashMap::new(),
            filters: HashMap::new(),
            weight: ENTRY_WEIGHT,
        };
        self.weight += kept.weight;
        if let Some(old) = self.workspaces.insert(workspace.clone(), kept) {
            self.weight -= old.weight;
        }
    }
}

impl NewlyRead {
    /// Rows of a pattern, all there are.
    pub(crate) fn add_rows(&mut self, pattern: String, rows: &Arc<Vec<MatchRow>>) {
        self.rows.push((pattern, Arc::clone(rows)));
    }

    /// A filter, which is passed over if the step has read too many to hold them all.
    pub(crate) fn add_filter(&mut self, subscription: SubscriptionId, filter: &Arc<Compiled>) {
        let weight = filter_weight(filter);
        if self.filters_weight + weight <= NEW_FILTERS_WEIGHT_MAX {
            self.filters_weight += weight;
            self.filters.push((subscription, Arc::clone(filter)));
        }
    }

    fn weight(&self) -> usize {
        self.filters_weight + self.rows.iter().map(|(_, rows)| rows_weight(rows)).sum::<usize>()
    }
}

impl Kept {
    /// Forgets everything but the version; the weight of what is gone.
    fn clear(&mut self) -> usize {
        self.rows.clear();
        self.filters.clear();
        std::mem::replace(&mut self.weight, ENTRY_WEIGHT) - ENTRY_WEIGHT
    }

    /// The weight of what is new.
    fn add(&mut self, read: NewlyRead) -> usize {
        let mut weight = 0;
        for (pattern, rows) in read.rows {
            let added = rows_weight(&rows);
            // Of one version the rows of a pattern are always the same, and so is a filter.
            weight += if self.rows.insert(pattern, rows).is_none() { added } else { 0 };
        }
        for (subscription, filter) in read.filters {
            let added = filter_weight(&filter);
            weight += if self.filters.insert(subscription, filter).is_none() { added } else { 0 };
        }
        self.weight += weight;
        weight
    }
}

fn rows_weight(rows: &[MatchRow]) -> usize {
    let row = |row: &MatchRow| ROW_WEIGHT + row.subscriber.as_str().len();
    ENTRY_WEIGHT + rows.iter().map(row).sum::<usize>()
}

fn filter_weight(filter: &Compiled) -> usize {
    ENTRY_WEIGHT + filter.weight
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis(1_795_339_800_000);

    fn workspace(id: &str) -> WorkspaceId {
        id.parse().unwrap()
    }

    fn subscription(id: u64) -> SubscriptionId {
        SubscriptionId::new(UnixMillis(id), [0; 10])
    }

    fn rows(count: u64) -> Arc<Vec<MatchRow>> {
        let row = |id| MatchRow {
            subscription: subscription(id),
            subscriber: "tpp".parse().unwrap(),
            filtered: true,
            created_at: START,
        };
        Arc::new((0..count).map(row).collect())
    }

    /// Two filters, and these rows of the pattern `a`.
    fn read(rows: &Arc<Vec<MatchRow>>) -> NewlyRead {
        let mut read = NewlyRead::default();
        read.add_rows("a".to_owned(), rows);
        for id in 0..2 {
            read.add_filter(subscription(id), &Arc::new(Compiled::new(None)));
        }
        read
    }

    /// Its weight is the weight of what is in it.
    fn check(cache: &Cache) {
        let of = |kept: &Kept| {
            let rows = kept.rows.values().map(|rows| rows_weight(rows)).sum::<usize>();
            ENTRY_WEIGHT + rows + kept.filters.values().map(|filter| filter_weight(filter)).sum::<usize>()
        };
        assert_eq!(cache.weight, cache.workspaces.values().map(of).sum::<usize>());
        assert!(cache.weight <= WEIGHT_MAX + ENTRY_WEIGHT * (1 + cache.workspaces.len()));
    }

    #[test]
    fn what_is_kept_is_of_one_version() {
        let (mut cache, acme) = (Cache::default(), workspace("acme"));
        cache.begin(&acme, 7, START);
        cache.keep(&acme, 7, read(&rows(3)), START);
        assert_eq!(cache.rows(&acme, 7, "a").map(|rows| rows.len()), Some(3));
        assert!(cache.filter(&acme, 7, subscription(1)).is_some());
        assert!(cache.rows(&acme, 8, "a").is_none() && cache.rows(&workspace("b"), 7, "a").is_none());
        cache.begin(&acme, 8, START);
        assert!(cache.rows(&acme, 7, "a").is_none() && cache.rows(&acme, 8, "a").is_none());
        assert!(cache.filter(&acme, 8, subscription(1)).is_none());
        check(&cache);
    }

    #[test]
    fn what_was_read_under_a_young_version_does_not_outlive_its_run() {
        let (mut cache, acme) = (Cache::default(), workspace("acme"));
        let is_kept = |cache: &Cache| cache.rows(&acme, 7, "a").is_some();
        cache.begin(&acme, 7, START);
        cache.keep(&acme, 7, read(&rows(3)), START);
        assert!(is_kept(&cache), "for the rest of the run");
        cache.begin(&acme, 7, START + SETTLING);
        assert!(!is_kept(&cache), "it may have been read while the version came into being");
        check(&cache);
        cache.keep(&acme, 7, read(&rows(3)), START + SETTLING);
        cache.begin(&acme, 7, START + SETTLING * 2);
        assert!(is_kept(&cache), "that was read later");
        check(&cache);
    }

    #[test]
    fn the_weight_is_bounded() {
        let (mut cache, rows) = (Cache::default(), rows(100_000));
        for number in 0..20 {
            let id = workspace(&format!("w{number}"));
            cache.begin(&id, 1, START);
            cache.keep(&id, 1, read(&rows), START);
            cache.keep(&id, 1, read(&rows), START);
            assert!(cache.rows(&id, 1, "a").is_some());
            check(&cache);
        }
        let (large, mut read) = (workspace("large"), NewlyRead::default());
        for number in 0..10 {
            read.add_rows(format!("p{number}"), &rows);
        }
        cache.keep(&large, 1, read, START);
        assert!(cache.rows(&large, 1, "p0").is_none());
        check(&cache);
    }

    #[test]
    fn a_step_holds_no_more_filters_than_it_may() {
        let mut filter = Compiled::new(None);
        filter.weight = NEW_FILTERS_WEIGHT_MAX / 3;
        let filter = Arc::new(filter);
        let mut read = NewlyRead::default();
        for id in 0..10 {
            read.add_filter(subscription(id), &filter);
        }
        assert_eq!(read.filters.len(), 2);
    }
}
