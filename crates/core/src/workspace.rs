//! Workspaces: the tenants.

use serde::{Deserialize, Serialize};

use crate::id::WorkspaceId;
use crate::invalid::{Findings, Invalid};
use crate::time::UnixMillis;

/// The longest name of a workspace, in characters.
pub const NAME_CHARS_MAX: usize = 100;

/// A tenant: events are published to it, subscriptions belong to it, and nothing passes from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its name in URLs and keys.
    pub id: WorkspaceId,
    /// Its name for people.
    pub name: String,
    /// Which catalogues it may use.
    pub kind: WorkspaceKind,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// What a workspace is for: picks its catalogues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkspaceKind {
    /// Consents of open finance.
    Consent,
    /// User accounts.
    Identity,
    /// A directory of organisations.
    Directory,
    /// Event types of its own.
    Custom,
}

/// A workspace as its creator describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWorkspace {
    id: Option<String>,
    name: String,
    kind: WorkspaceKind,
}

impl NewWorkspace {
    /// Checks every field. `fallback` becomes the id if none was given.
    pub fn check(self, fallback: WorkspaceId, created_at: UnixMillis) -> Result<Workspace, Invalid> {
        let mut findings = Findings::default();
        let id = self.id.as_deref().map_or_else(|| Ok(fallback), str::parse).map_err(|_| {
            Invalid::field(
                "/id",
                "must be 1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter or digit",
            )
        });
        let id = findings.take(id);
        let length = self.name.trim().chars().count();
        if !(1..=NAME_CHARS_MAX).contains(&length) || self.name.contains(char::is_control) {
            findings.add(
                "/name",
                format!("must have 1 to {NAME_CHARS_MAX} characters, none of them a control character"),
            );
        }
        findings.into_result(())?;
        let id = id.ok_or_else(|| Invalid::field("/id", "is required"))?;
        Ok(Workspace { id, name: self.name, kind: self.kind, created_at })
    }
}
