//! The subscriptions of workspaces, as matching needs them, kept for as long as nothing changed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use carillon_aws::DynamoDb;
use carillon_aws::batch_read::batch_read;
use carillon_aws::config::{ConfigTable, read_matching_version};
use carillon_aws::error::AwsError;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::matching::{MatchRow, Range, matches};
use futures::future::try_join_all;

/// The most rows that are kept, some 25 MB with what is around them.
const ROWS_MAX: usize = 500_000;

/// What an entry weighs besides its rows, in rows: types that nobody asked for leave empty entries, perhaps many.
const ENTRY_WEIGHT: usize = 16;

/// Matching rows by workspace and pattern, each workspace's as of one version.
pub(crate) struct Subscriptions {
    dynamodb: DynamoDb,
    config: ConfigTable,
    kept: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    workspaces: HashMap<WorkspaceId, Kept>,
    weight: usize,
}

/// The versions of a batch's workspaces, read once, at its beginning; an error where what was read makes no sense. A
/// workspace that is no more has none.
pub(crate) type Versions = HashMap<WorkspaceId, Result<u64, String>>;

struct Kept {
    version: u64,
    rows: HashMap<String, Arc<Vec<MatchRow>>>,
}

impl Subscriptions {
    pub(crate) fn new(dynamodb: DynamoDb, config: ConfigTable) -> Self {
        Self { dynamodb, config, kept: Mutex::default() }
    }

    /// Reads the versions that a batch goes by.
    pub(crate) async fn versions(&self, workspaces: &HashSet<WorkspaceId>) -> Result<Versions, AwsError> {
        let keys = workspaces.iter().map(|workspace| self.config.matching_key(workspace));
        let mut read = batch_read(&self.dynamodb, keys).await?;
        let mut versions = Versions::with_capacity(workspaces.len());
        for workspace in workspaces {
            if let Some(item) = read.remove(&self.config.matching_key(workspace)) {
                versions.insert(
                    workspace.clone(),
                    read_matching_version(item).map_err(|error| error.to_string()),
                );
            }
        }
        Ok(versions)
    }

    /// The subscriptions in a range that get an event.
    pub(crate) async fn matching(
        &self,
        versions: &Versions,
        event: &AcceptedEvent,
        range: Range,
    ) -> Result<BTreeSet<SubscriptionId>, AwsError> {
        let workspace = &event.key.workspace;
        let version = match versions.get(workspace) {
            None => return Ok(BTreeSet::new()),
            Some(Ok(version)) => *version,
            Some(Err(detail)) => return Err(AwsError::Item { table: "config", detail: detail.clone() }),
        };
        let rows = try_join_all(
            event.event_type.patterns().map(|pattern| self.rows(workspace, version, pattern, range)),
        );
        let rows = rows.await?;
        Ok(matches(event, rows.iter().flat_map(|rows| rows.iter()), range))
    }

    /// All rows of a pattern, from what is kept or to be kept; or, for a part of them, no more than that part: a function
    /// that begins with it must not spend its time on reading the rest.
    async fn rows(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        pattern: String,
        range: Range,
    ) -> Result<Arc<Vec<MatchRow>>, AwsError> {
        if let Some(rows) = self.kept(workspace, version, &pattern) {
            return Ok(rows);
        }
        let rows = Arc::new(self.config.match_rows(workspace, &pattern, range).await?);
        if range == Range::default() {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(workspace, version, pattern, &rows);
        }
        Ok(rows)
    }

    fn kept(&self, workspace: &WorkspaceId, version: u64, pattern: &str) -> Option<Arc<Vec<MatchRow>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = kept.workspaces.get(workspace).filter(|entry| entry.version == version)?;
        entry.rows.get(pattern).cloned()
    }
}

impl Cache {
    fn keep(&mut self, workspace: &WorkspaceId, version: u64, pattern: String, rows: &Arc<Vec<MatchRow>>) {
        let known = self.workspaces.get(workspace).map(|kept| kept.version);
        if known.is_some_and(|known| known > version) {
            return;
        }
        if known.is_some_and(|known| known < version)
            && let Some(old) = self.workspaces.remove(workspace)
        {
            self.weight -= old.rows.values().map(|rows| weight(rows)).sum::<usize>();
        }
        if self.weight + weight(rows) > ROWS_MAX {
            *self = Self::default();
        }
        let kept = self
            .workspaces
            .entry(workspace.clone())
            .or_insert_with(|| Kept { version, rows: HashMap::new() });
        // Of one version the rows of a pattern are always as many.
        if kept.rows.insert(pattern, Arc::clone(rows)).is_none() {
            self.weight += weight(rows);
        }
    }
}

fn weight(rows: &[MatchRow]) -> usize {
    rows.len() + ENTRY_WEIGHT
}
