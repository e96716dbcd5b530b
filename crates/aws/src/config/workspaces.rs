//! Workspaces, and the version by which matching knows what changed.

use aws_sdk_dynamodb::types::{AttributeValue, Get, TransactGetItem, TransactWriteItem};
use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::WorkspaceId;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::{Settings, Workspace, WorkspaceKind, WorkspaceName, WorkspaceStatus};
use serde::{Deserialize, Serialize};

use super::audit::changes;
use super::{ConfigTable, Keys, Once, Page, Written, partition, read};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;
use crate::now;
use crate::vault::SealedDataKey;

/// The partition of the list of all workspaces.
const LISTED: &str = "WORKSPACES";

/// How many items a step of taking a workspace apart reads.
const STEP: i32 = 100;

/// A workspace with its sealed data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWorkspace {
    /// The workspace.
    pub workspace: Workspace,
    /// What its secrets are sealed with.
    pub data_key: SealedDataKey,
}

/// The version of what matching reads of a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchingVersion {
    /// Moves with every change, and never comes again.
    pub number: u64,
    /// When it came into being.
    pub changed_at: UnixMillis,
}

impl ConfigTable {
    /// Where a workspace is.
    #[must_use]
    pub fn workspace_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(partition(workspace), "workspace")
    }

    /// Where the version of what matching reads is.
    #[must_use]
    pub fn matching_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(partition(workspace), "matching")
    }

    /// A workspace by its id.
    pub async fn workspace(&self, workspace: &WorkspaceId) -> Result<Option<StoredWorkspace>, AwsError> {
        self.get(self.workspace_key(workspace)).await?.map(read_workspace).transpose()
    }

    /// The version of what matching reads; `None`: there is no such workspace. Read as a transaction, which fails while
    /// another one changes the rows: to plain reads, those may show themselves one by one.
    pub async fn matching_version(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Option<MatchingVersion>, AwsError> {
        const OPERATION: &str = "dynamodb TransactGetItems";
        let key = Some(self.matching_key(workspace).attributes());
        let get = Get::builder().table_name(&self.table).set_key(key).build();
        let get = TransactGetItem::builder().get(get.map_err(AwsError::call(OPERATION))?).build();
        let answer = self.client.transact_get_items().transact_items(get).send().await;
        let found = answer.map_err(AwsError::call(OPERATION))?.responses.unwrap_or_default();
        found.into_iter().find_map(|found| found.item).map(read_matching_version).transpose()
    }

    /// The workspaces, a page at a time.
    pub async fn workspaces(
        &self,
        limit: i32,
        after: Option<WorkspaceId>,
    ) -> Result<Page<Workspace>, AwsError> {
        let after = after.map(|after| after.to_string());
        let (items, next) = self.page(LISTED.to_owned(), "", limit, after).await?;
        let items = items.into_iter().map(|item| read::<WorkspaceItem>(item)?.workspace());
        Ok(Page { items: items.collect::<Result<_, _>>()?, next })
    }

    /// Creates a workspace.
    pub async fn create_workspace(
        &self,
        stored: &StoredWorkspace,
        once: Option<&Once>,
        by: By,
    ) -> Result<Written, AwsError> {
        let id = &stored.workspace.id;
        let matching = MatchingItem {
            keys: Keys::of(&self.matching_key(id)),
            // Not from 0: a workspace that is made anew under an old id must not repeat the versions of the old one, by
            // which functions still know its rows.
            version: stored.workspace.created_at.0,
            changed_at: stored.workspace.created_at,
            subscriptions: 0,
        };
        let mut writes = vec![
            (self.put_new(&WorkspaceItem::of(stored, &self.workspace_key(id)))?, Written::Exists),
            (self.put_new(&WorkspaceItem::listed(stored, &self.listed_key(id)))?, Written::Exists),
            (self.put_new(&matching)?, Written::Exists),
            self.workspace_audited(stored, by, Action::WorkspaceCreated, Vec::new())?,
        ];
        self.transact_once(once, &mut writes).await
    }

    /// Writes a workspace in the place of `old`, as that was read.
    pub async fn update_workspace(
        &self,
        old: &Workspace,
        stored: &StoredWorkspace,
        by: By,
    ) -> Result<Written, AwsError> {
        let (id, key) = (&stored.workspace.id, self.workspace_key(&stored.workspace.id));
        let item = WorkspaceItem::of(stored, &key);
        let was = StoredWorkspace { workspace: old.clone(), data_key: stored.data_key.clone() };
        let changes = changes(&WorkspaceItem::of(&was, &key), &item)?;
        let writes = vec![
            (self.put_over(&item, old.revision)?, Written::Stale),
            (self.put(&WorkspaceItem::listed(stored, &self.listed_key(id)))?, Written::Stale),
            self.workspace_audited(stored, by, Action::WorkspaceUpdated, changes)?,
        ];
        self.transact(writes).await
    }

    /// Closes a workspace, so that nothing new comes in while it is taken apart. `empty`: only if it has no
    /// subscriptions.
    pub async fn close_workspace(
        &self,
        stored: &StoredWorkspace,
        revision: u64,
        empty: bool,
        by: By,
    ) -> Result<Written, AwsError> {
        let id = &stored.workspace.id;
        let condition =
            if empty { "attribute_exists(pk) AND subscriptions = :none" } else { "attribute_exists(pk)" };
        let mut values = Item::from([(":closed".to_owned(), AttributeValue::Bool(true))]);
        if empty {
            values.insert(":none".to_owned(), AttributeValue::N("0".to_owned()));
        }
        let writes = vec![
            (self.put_over(&WorkspaceItem::of(stored, &self.workspace_key(id)), revision)?, Written::Stale),
            (self.put(&WorkspaceItem::listed(stored, &self.listed_key(id)))?, Written::Stale),
            (self.update(&self.matching_key(id), "SET closed = :closed", condition, values)?, Written::InUse),
            self.workspace_audited(stored, by, Action::WorkspaceDeleted, Vec::new())?,
        ];
        self.transact(writes).await
    }

    /// A step of taking a closed workspace apart: how many subscriptions went, or `None` when nothing is left of it. A
    /// step that is done twice does no harm.
    pub async fn take_apart(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError> {
        let subscriptions = self.subscriptions(workspace, STEP, None).await?.items;
        for subscription in &subscriptions {
            self.delete_subscription(subscription, None).await?;
        }
        if !subscriptions.is_empty() {
            return Ok(Some(u64::try_from(subscriptions.len()).unwrap_or(u64::MAX)));
        }
        let grants = self.grants(workspace, STEP, None).await?.items;
        for grant in &grants {
            self.delete_grant(workspace, &grant.client, None).await?;
        }
        let types = self.type_names_page(workspace, STEP).await?;
        for name in &types {
            self.delete_type(workspace, name, None).await?;
        }
        if !grants.is_empty() || !types.is_empty() {
            return Ok(Some(0));
        }
        let values = Item::from([
            (":none".to_owned(), AttributeValue::N("0".to_owned())),
            (":closed".to_owned(), AttributeValue::Bool(true)),
        ]);
        // Not one that was made anew under the same id meanwhile.
        let is_closed = "attribute_not_exists(pk) OR (closed = :closed AND subscriptions = :none)";
        let writes = vec![
            (self.delete(&self.matching_key(workspace), Some((is_closed, Some(values))))?, Written::InUse),
            (self.delete(&self.workspace_key(workspace), None)?, Written::Missing),
            (self.delete(&self.keys_key(workspace), None)?, Written::Missing),
            (self.delete(&self.rules_key(workspace), None)?, Written::Missing),
            (self.delete(&self.listed_key(workspace), None)?, Written::Missing),
        ];
        Ok((self.transact(writes).await? != Written::Done).then_some(0))
    }

    /// Moves the version that matching goes by, and counts the workspace's subscriptions. Only an open workspace gets
    /// more of them.
    pub(super) fn change_matching(
        &self,
        workspace: &WorkspaceId,
        subscriptions: i8,
    ) -> Result<TransactWriteItem, AwsError> {
        let condition = if subscriptions < 0 {
            "attribute_exists(pk)"
        } else {
            "attribute_exists(pk) AND attribute_not_exists(closed)"
        };
        let numbers =
            [(":one", 1.to_string()), (":change", subscriptions.to_string()), (":now", now().0.to_string())];
        let values = numbers.map(|(name, number)| (name.to_owned(), AttributeValue::N(number)));
        self.update(
            &self.matching_key(workspace),
            "SET changed_at = :now ADD version :one, subscriptions :change",
            condition,
            values.into(),
        )
    }

    fn workspace_audited(
        &self,
        stored: &StoredWorkspace,
        by: By,
        action: Action,
        changes: Vec<String>,
    ) -> Result<(TransactWriteItem, Written), AwsError> {
        let Workspace { id, updated_at, .. } = &stored.workspace;
        let entry = AuditEntry { at: *updated_at, by, action, target: id.to_string(), changes };
        self.audited(id, entry)
    }

    fn listed_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(LISTED, workspace.to_string())
    }
}

/// Reads a workspace's item.
pub fn read_workspace(item: Item) -> Result<StoredWorkspace, AwsError> {
    let item: WorkspaceItem = read(item)?;
    let data_key = SealedDataKey(item.data_key.clone());
    Ok(StoredWorkspace { workspace: item.workspace()?, data_key })
}

/// Reads the version of what matching reads.
pub fn read_matching_version(item: Item) -> Result<MatchingVersion, AwsError> {
    let item: MatchingItem = read(item)?;
    item.keys.readable()?;
    Ok(MatchingVersion { number: item.version, changed_at: item.changed_at })
}

#[derive(Serialize, Deserialize)]
struct WorkspaceItem {
    #[serde(flatten)]
    keys: Keys,
    id: WorkspaceId,
    name: WorkspaceName,
    kind: WorkspaceKind,
    settings: Settings,
    state: WorkspaceStatus,
    created_at: UnixMillis,
    updated_at: UnixMillis,
    revision: u64,
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    data_key: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct MatchingItem {
    #[serde(flatten)]
    keys: Keys,
    version: u64,
    changed_at: UnixMillis,
    subscriptions: u64,
}

impl WorkspaceItem {
    fn of(stored: &StoredWorkspace, key: &Key) -> Self {
        let StoredWorkspace { workspace, data_key } = stored;
        Self {
            keys: Keys::of(key),
            id: workspace.id.clone(),
            name: workspace.name.clone(),
            kind: workspace.kind,
            settings: workspace.settings,
            state: workspace.status,
            created_at: workspace.created_at,
            updated_at: workspace.updated_at,
            revision: workspace.revision,
            data_key: data_key.0.clone(),
        }
    }

    /// Without the key: lists are read by more than need it.
    fn listed(stored: &StoredWorkspace, key: &Key) -> Self {
        Self { data_key: Vec::new(), ..Self::of(stored, key) }
    }

    fn workspace(self) -> Result<Workspace, AwsError> {
        self.keys.readable()?;
        Ok(Workspace {
            id: self.id,
            name: self.name,
            kind: self.kind,
            settings: self.settings,
            status: self.state,
            created_at: self.created_at,
            updated_at: self.updated_at,
            revision: self.revision,
        })
    }
}
