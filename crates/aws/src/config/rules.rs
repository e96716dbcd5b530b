//! What workspaces say of their own event types among one another. It is kept as JSON text: this module does not look into
//! it.

use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::WorkspaceId;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::Workspace;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, Written, partition, read, read_workspace};
use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;

/// A workspace's own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRules {
    /// Grows by one with each change.
    pub revision: u64,
    /// The rules as JSON.
    pub rules: String,
}

impl ConfigTable {
    /// A workspace's own rules, if it ever had any.
    pub async fn rules(&self, workspace: &WorkspaceId) -> Result<Option<StoredRules>, AwsError> {
        self.get(self.rules_key(workspace)).await?.map(read_rules).transpose()
    }

    /// A workspace, and its own rules if it ever had any; `None`: there is no such workspace.
    pub async fn workspace_and_rules(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Option<(Workspace, Option<StoredRules>)>, AwsError> {
        let (workspace, rules) = (self.workspace_key(workspace), self.rules_key(workspace));
        let mut found = batch_read(&self.client, [workspace.clone(), rules.clone()]).await?;
        let Some(workspace) = found.remove(&workspace) else { return Ok(None) };
        Ok(Some((read_workspace(workspace)?.workspace, found.remove(&rules).map(read_rules).transpose()?)))
    }

    /// Writes rules in the place of those of the revision before. [`Written::Stale`]: that is not the one before.
    /// [`Written::Missing`]: there is no such workspace, or not for long.
    pub async fn put_rules(
        &self,
        workspace: &WorkspaceId,
        stored: &StoredRules,
        (by, at): (By, UnixMillis),
    ) -> Result<Written, AwsError> {
        let item = RulesItem {
            keys: Keys::of(&self.rules_key(workspace)),
            revision: stored.revision,
            rules: stored.rules.clone(),
        };
        let put = match stored.revision {
            1 => self.put_new(&item)?,
            revision => self.put_over(&item, revision - 1)?,
        };
        let (action, target) = (Action::RulesWritten, workspace.to_string());
        let writes = vec![
            (self.change_matching(workspace, 0)?, Written::Missing),
            self.audited(workspace, AuditEntry { at, by, action, target, changes: Vec::new() })?,
            (put, Written::Stale),
        ];
        self.transact(writes).await
    }

    pub(super) fn rules_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(partition(workspace), "rules")
    }
}

fn read_rules(item: Item) -> Result<StoredRules, AwsError> {
    let item: RulesItem = read(item)?;
    item.keys.readable()?;
    Ok(StoredRules { revision: item.revision, rules: item.rules })
}

#[derive(Serialize, Deserialize)]
struct RulesItem {
    #[serde(flatten)]
    keys: Keys,
    revision: u64,
    rules: String,
}
