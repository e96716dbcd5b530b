//! Event types of workspaces' own. Their definitions are kept as JSON text: this module does not look into them.

use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::WorkspaceId;
use carillon_core::pattern::EventType;
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, Written, partition, read, unreadable};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;

const PREFIX: &str = "TYPE#";

/// How many types are read at once.
const PAGE: i32 = 200;

/// The most types of a workspace's own: all of them are read to know what may be subscribed to.
pub const TYPES_MAX: usize = 1000;

/// An event type of a workspace's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredType {
    /// Its name.
    pub name: EventType,
    /// Grows by one with each definition.
    pub version: u32,
    /// Its definition as JSON.
    pub definition: String,
}

impl ConfigTable {
    /// Where a type is.
    #[must_use]
    pub fn type_key(&self, workspace: &WorkspaceId, name: &EventType) -> Key {
        self.key(partition(workspace), format!("{PREFIX}{name}"))
    }

    /// A type by its name.
    pub async fn event_type(
        &self,
        workspace: &WorkspaceId,
        name: &EventType,
    ) -> Result<Option<StoredType>, AwsError> {
        self.get(self.type_key(workspace, name)).await?.map(stored).transpose()
    }

    /// All types of a workspace's own, in the order of their names.
    pub async fn types(&self, workspace: &WorkspaceId) -> Result<Vec<StoredType>, AwsError> {
        let mut types = Vec::new();
        let mut after = None;
        loop {
            let (items, next) = self.page(partition(workspace), PREFIX, PAGE, after).await?;
            types.extend(items.into_iter().map(stored).collect::<Result<Vec<_>, _>>()?);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(types),
            }
        }
    }

    /// The names of all types of a workspace's own.
    pub async fn type_names(&self, workspace: &WorkspaceId) -> Result<Vec<EventType>, AwsError> {
        self.type_names_page(workspace, i32::try_from(TYPES_MAX).unwrap_or(i32::MAX)).await
    }

    /// The first names of types of a workspace's own, from their entries: definitions are large.
    pub(super) async fn type_names_page(
        &self,
        workspace: &WorkspaceId,
        limit: i32,
    ) -> Result<Vec<EventType>, AwsError> {
        let (entries, _) = self.page(entries(workspace), "", limit, None).await?;
        let name = |entry| {
            let keys: Keys = read(entry)?;
            keys.sk.parse().map_err(|_| unreadable("its key is no event type's"))
        };
        entries.into_iter().map(name).collect()
    }

    /// Writes a type, in the place of its version before. [`Written::Stale`]: that is not the version before.
    /// [`Written::Missing`]: there is no such workspace, or not for long.
    pub async fn put_type(
        &self,
        workspace: &WorkspaceId,
        stored: &StoredType,
        (by, at): (By, UnixMillis),
    ) -> Result<Written, AwsError> {
        let item = TypeItem {
            keys: Keys::of(&self.type_key(workspace, &stored.name)),
            name: stored.name.clone(),
            revision: stored.version,
            definition: stored.definition.clone(),
        };
        let put = match stored.version {
            1 => self.put_new(&item)?,
            version => self.put_over(&item, u64::from(version - 1))?,
        };
        let entry = Keys::of(&self.entry_of_type(workspace, &stored.name));
        let (action, target) = (Action::EventTypeWritten, stored.name.to_string());
        let writes = vec![
            (self.change_matching(workspace, 0)?, Written::Missing),
            self.audited(workspace, AuditEntry { at, by, action, target, changes: Vec::new() })?,
            (put, Written::Stale),
            (self.put(&entry)?, Written::Stale),
        ];
        self.transact(writes).await
    }

    /// Deletes a type. Where nobody asks for that but its workspace's end, there is no entry of the audit.
    pub async fn delete_type(
        &self,
        workspace: &WorkspaceId,
        name: &EventType,
        by: Option<(By, UnixMillis)>,
    ) -> Result<Written, AwsError> {
        let there = Some(("attribute_exists(pk)", None));
        let delete = self.delete(&self.type_key(workspace, name), there)?;
        let entry = self.delete(&self.entry_of_type(workspace, name), None)?;
        let mut writes = vec![(delete, Written::Missing), (entry, Written::Missing)];
        if let Some((by, at)) = by {
            let (action, target) = (Action::EventTypeDeleted, name.to_string());
            writes.push(self.audited(workspace, AuditEntry { at, by, action, target, changes: Vec::new() })?);
        }
        self.transact(writes).await
    }

    fn entry_of_type(&self, workspace: &WorkspaceId, name: &EventType) -> Key {
        self.key(entries(workspace), name.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct TypeItem {
    #[serde(flatten)]
    keys: Keys,
    name: EventType,
    revision: u32,
    definition: String,
}

fn entries(workspace: &WorkspaceId) -> String {
    format!("TYPES#{workspace}")
}

fn stored(item: Item) -> Result<StoredType, AwsError> {
    let item: TypeItem = read(item)?;
    item.keys.readable()?;
    Ok(StoredType { name: item.name, version: item.revision, definition: item.definition })
}
