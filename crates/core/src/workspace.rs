//! Workspaces: the tenants.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::endpoint::EndpointRules;
use crate::id::WorkspaceId;
use crate::subscription::Rate;
use crate::time::UnixMillis;

/// A tenant: events are published to it, subscriptions belong to it, and nothing passes from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its name in URLs and keys.
    pub id: WorkspaceId,
    /// Its name for people.
    pub name: WorkspaceName,
    /// Which catalogues it may use.
    pub kind: WorkspaceKind,
    /// What it allows and demands.
    pub settings: Settings,
    /// Whether it is there to stay.
    pub status: WorkspaceStatus,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it was last changed.
    pub updated_at: UnixMillis,
    /// Grows with each change: its `ETag`.
    pub revision: u64,
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

/// Whether a workspace is there to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkspaceStatus {
    /// It is.
    Active,
    /// A job is taking it apart: nothing new comes in.
    Deleting,
}

/// What a workspace allows and demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Whether endpoints must be HTTPS.
    pub https_required: bool,
    /// Whether endpoints' certificates go unchecked.
    pub developer_mode: bool,
    /// Whether events must name whom they are for.
    pub audience: AudienceRule,
    /// How a new endpoint's owner confirms that it wants to be called.
    pub verification: Verification,
    /// The rate of subscriptions that name none; without bound if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_rate_per_minute: Option<Rate>,
    /// Whether deliveries are shown with the begin of what receivers answered.
    #[serde(default = "shown")]
    pub show_responses: bool,
}

/// What held before there was a choice.
fn shown() -> bool {
    true
}

/// Whether events must name their audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AudienceRule {
    /// An event without one is for every subscriber.
    Open,
    /// An event without one is refused.
    Required,
}

/// How a new endpoint's owner confirms that it wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verification {
    /// Not at all.
    None,
    /// By the abuse protection of CloudEvents (HTTP webhook 1.0, section 4).
    Handshake,
    /// By visiting a URL that is posted to it.
    Challenge,
}

impl Settings {
    /// What holds for a new workspace of this kind. Of a consent, no third party must hear but its own.
    #[must_use]
    pub fn default_of(kind: WorkspaceKind) -> Self {
        let audience =
            if kind == WorkspaceKind::Consent { AudienceRule::Required } else { AudienceRule::Open };
        Self {
            https_required: true,
            developer_mode: false,
            audience,
            verification: Verification::None,
            default_rate_per_minute: None,
            show_responses: shown(),
        }
    }

    /// Whether they are looser than those with which every request is encrypted and every receiver known.
    #[must_use]
    pub fn are_insecure(&self) -> bool {
        !self.https_required || self.developer_mode
    }

    /// What endpoints of the workspace may be, within the rules of the deployment.
    #[must_use]
    pub fn endpoint_rules(&self, deployment: &EndpointRules) -> EndpointRules {
        EndpointRules {
            reach: deployment.reach.clone(),
            allow_insecure: deployment.allow_insecure && !self.https_required,
        }
    }
}

/// A workspace's name for people: 1 to 100 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspaceName(String);

impl WorkspaceName {
    /// The longest, in characters.
    pub const CHARS_MAX: usize = 100;
}

/// A text that is no name of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {} characters, none of them a control character", WorkspaceName::CHARS_MAX)]
pub struct NotAName;

impl TryFrom<String> for WorkspaceName {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        let length = text.trim().chars().count();
        let fits = length > 0 && text.chars().count() <= Self::CHARS_MAX && !text.contains(char::is_control);
        if fits { Ok(Self(text)) } else { Err(NotAName) }
    }
}

impl From<WorkspaceName> for String {
    fn from(name: WorkspaceName) -> Self {
        name.0
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
