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

/// The most rows that are kept, some 25 MB.
const ROWS_MAX: usize = 1_000_000;

/// Matching rows by workspace and pattern, each workspace's as of one version.
pub(crate) struct Subscriptions {
    dynamodb: DynamoDb,
    config: ConfigTable,
    kept: Mutex<HashMap<WorkspaceId, Kept>>,
}

/// The versions of a batch's workspaces, read once, at its beginning. A workspace that is no more has none.
pub(crate) type Versions = HashMap<WorkspaceId, u64>;

struct Kept {
    version: u64,
    rows: HashMap<String, Arc<Vec<MatchRow>>>,
}

impl Subscriptions {
    pub(crate) fn new(dynamodb: DynamoDb, config: ConfigTable) -> Self {
        Self { dynamodb, config, kept: Mutex::default() }
    }

    /// Reads the versions that a batch goes by.
    pub(crate) async fn versions(&self, workspaces: HashSet<WorkspaceId>) -> Result<Versions, AwsError> {
        let keys = workspaces.iter().map(|workspace| self.config.matching_key(workspace));
        let mut read = batch_read(&self.dynamodb, keys).await?;
        let mut versions = Versions::with_capacity(workspaces.len());
        for workspace in workspaces {
            if let Some(item) = read.remove(&self.config.matching_key(&workspace)) {
                versions.insert(workspace, read_matching_version(item)?);
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
        let Some(version) = versions.get(workspace) else { return Ok(BTreeSet::new()) };
        let rows =
            try_join_all(event.event_type.patterns().map(|pattern| self.rows(workspace, *version, pattern)));
        let rows = rows.await?;
        Ok(matches(event, rows.iter().flat_map(|rows| rows.iter()), range))
    }

    async fn rows(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        pattern: String,
    ) -> Result<Arc<Vec<MatchRow>>, AwsError> {
        if let Some(rows) = self.kept(workspace, version, &pattern) {
            return Ok(rows);
        }
        let rows = Arc::new(self.config.match_rows(workspace, &pattern).await?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = kept.values().flat_map(|kept| kept.rows.values()).map(|rows| rows.len() + 1).sum();
        if held + rows.len() >= ROWS_MAX {
            kept.clear();
        }
        let entry = kept.entry(workspace.clone()).or_insert_with(|| Kept { version, rows: HashMap::new() });
        if entry.version < version {
            *entry = Kept { version, rows: HashMap::new() };
        }
        if entry.version == version {
            entry.rows.insert(pattern, Arc::clone(&rows));
        }
        Ok(rows)
    }

    fn kept(&self, workspace: &WorkspaceId, version: u64, pattern: &str) -> Option<Arc<Vec<MatchRow>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = kept.get(workspace).filter(|entry| entry.version == version)?;
        entry.rows.get(pattern).cloned()
    }
}
