//! What is kept of changes: who made them, of what, and when.

use serde::{Deserialize, Serialize};

use crate::id::ClientId;
use crate::time::UnixMillis;

/// A change of a workspace or of something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: UnixMillis,
    /// By whom.
    pub by: By,
    /// What was done.
    pub action: Action,
    /// To what: an id or a name, by the kind of the action.
    pub target: String,
    /// Which of its members are other than before; nothing where it was made or deleted. Never what they say, since that
    /// could be a secret.
    pub changes: Vec<String>,
}

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// A client of the API.
    Client(ClientId),
    /// Whom an endpoint belongs to, by the link or the answer that says so.
    EndpointOwner,
    /// Carillon itself.
    Carillon,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// A workspace was made.
    #[serde(rename = "workspace.created")]
    WorkspaceCreated,
    /// Its name or settings were changed.
    #[serde(rename = "workspace.updated")]
    WorkspaceUpdated,
    /// It was closed, to be deleted.
    #[serde(rename = "workspace.deleted")]
    WorkspaceDeleted,
    /// A client was given a role.
    #[serde(rename = "client.granted")]
    ClientGranted,
    /// Its role was taken away.
    #[serde(rename = "client.revoked")]
    ClientRevoked,
    /// An event type of the workspace's own was written.
    #[serde(rename = "eventType.written")]
    EventTypeWritten,
    /// It was deleted.
    #[serde(rename = "eventType.deleted")]
    EventTypeDeleted,
    /// What the workspace says of its event types among one another was written.
    #[serde(rename = "rules.written")]
    RulesWritten,
    /// Signing keys were made.
    #[serde(rename = "keys.added")]
    KeysAdded,
    /// A subscription was made.
    #[serde(rename = "subscription.created")]
    SubscriptionCreated,
    /// It was changed, which includes its secrets and its status.
    #[serde(rename = "subscription.updated")]
    SubscriptionUpdated,
    /// It was deleted.
    #[serde(rename = "subscription.deleted")]
    SubscriptionDeleted,
}
