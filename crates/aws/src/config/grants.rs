//! Grants: which client has which role where.

use carillon_core::access::{Grant, Role, RoleName};
use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::{ClientId, SubscriberId, WorkspaceId};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, Page, Written, partition, read, unreadable};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;

const PREFIX: &str = "CLIENT#";

impl ConfigTable {
    /// A client's grant in a workspace.
    pub async fn grant(&self, workspace: &WorkspaceId, client: &ClientId) -> Result<Option<Grant>, AwsError> {
        self.get(self.grant_key(workspace, client)).await?.map(grant_of).transpose()
    }

    /// Gives a client a role, in the place of the one that it had. [`Written::Missing`]: there is no such workspace, or
    /// not for long.
    pub async fn put_grant(
        &self,
        workspace: &WorkspaceId,
        grant: &Grant,
        (by, now): (By, UnixMillis),
    ) -> Result<Written, AwsError> {
        let item = |key: &Key| GrantItem {
            keys: Keys::of(key),
            workspace: workspace.clone(),
            client: grant.client.clone(),
            role: grant.role.name(),
            subscriber: grant.role.subscriber().cloned(),
            created_at: grant.created_at,
        };
        let (action, target) = (Action::ClientGranted, grant.client.to_string());
        let entry = AuditEntry { at: now, by, action, target, changes: Vec::new() };
        let writes = vec![
            (self.change_matching(workspace, 0)?, Written::Missing),
            self.audited(workspace, entry)?,
            (self.put(&item(&self.grant_key(workspace, &grant.client)))?, Written::Missing),
            (self.put(&item(&self.held_key(&grant.client, workspace)))?, Written::Missing),
        ];
        self.transact(writes).await
    }

    /// Takes a client's role away. Where nobody asks for that but its workspace's end, there is no entry of the audit.
    pub async fn delete_grant(
        &self,
        workspace: &WorkspaceId,
        client: &ClientId,
        by: Option<(By, UnixMillis)>,
    ) -> Result<Written, AwsError> {
        let there = Some(("attribute_exists(pk)", None));
        let mut writes = vec![
            (self.delete(&self.grant_key(workspace, client), there)?, Written::Missing),
            (self.delete(&self.held_key(client, workspace), None)?, Written::Missing),
        ];
        if let Some((by, at)) = by {
            let (action, target) = (Action::ClientRevoked, client.to_string());
            writes.push(self.audited(workspace, AuditEntry { at, by, action, target, changes: Vec::new() })?);
        }
        self.transact(writes).await
    }

    /// The grants in a workspace, a page at a time.
    pub async fn grants(
        &self,
        workspace: &WorkspaceId,
        limit: i32,
        after: Option<ClientId>,
    ) -> Result<Page<Grant>, AwsError> {
        let after = after.map(|after| after.to_string());
        let (items, next) = self.page(partition(workspace), PREFIX, limit, after).await?;
        Ok(Page { items: items.into_iter().map(grant_of).collect::<Result<_, _>>()?, next })
    }

    /// The workspaces that a client has a role in, a page at a time.
    pub async fn workspaces_of(
        &self,
        client: &ClientId,
        limit: i32,
        after: Option<WorkspaceId>,
    ) -> Result<Page<WorkspaceId>, AwsError> {
        let after = after.map(|after| after.to_string());
        let (items, next) = self.page(format!("{PREFIX}{client}"), "", limit, after).await?;
        let workspace = |item| Ok(read::<GrantItem>(item)?.workspace);
        Ok(Page { items: items.into_iter().map(workspace).collect::<Result<_, AwsError>>()?, next })
    }

    fn grant_key(&self, workspace: &WorkspaceId, client: &ClientId) -> Key {
        self.key(partition(workspace), format!("{PREFIX}{client}"))
    }

    fn held_key(&self, client: &ClientId, workspace: &WorkspaceId) -> Key {
        self.key(format!("{PREFIX}{client}"), workspace.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct GrantItem {
    #[serde(flatten)]
    keys: Keys,
    workspace: WorkspaceId,
    client: ClientId,
    role: RoleName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscriber: Option<SubscriberId>,
    created_at: UnixMillis,
}

fn grant_of(item: Item) -> Result<Grant, AwsError> {
    let item: GrantItem = read(item)?;
    item.keys.readable()?;
    let role = match (item.role, item.subscriber) {
        (RoleName::Owner, None) => Role::Owner,
        (RoleName::Publisher, None) => Role::Publisher,
        (RoleName::Support, None) => Role::Support,
        (RoleName::Subscriber, Some(subscriber)) => Role::Subscriber(subscriber),
        // Never read as a wider role than was meant.
        _ => return Err(unreadable("its role and its subscriber do not fit together")),
    };
    Ok(Grant { client: item.client, role, created_at: item.created_at })
}
