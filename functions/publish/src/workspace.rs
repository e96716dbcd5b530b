//! The workspace that events are published to.

use carillon_aws::config::ConfigTable;
use carillon_aws::now;
use carillon_core::id::WorkspaceId;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::{AudienceRule, WorkspaceKind, WorkspaceStatus};
use carillon_http::problem::Problem;

use crate::recent::Recent;

/// How many workspaces are kept.
const WORKSPACES_MAX: usize = 10_000;

/// What publishing needs to know of a workspace that takes events.
#[derive(Clone, Debug)]
pub(crate) struct OpenWorkspace {
    /// Which.
    pub(crate) id: WorkspaceId,
    /// When it was made.
    pub(crate) created_at: UnixMillis,
    /// Picks the catalogue.
    pub(crate) kind: WorkspaceKind,
    /// Whether events must name their audience.
    pub(crate) audience: AudienceRule,
}

/// The workspaces that were seen.
pub(crate) struct Workspaces {
    seen: Recent<WorkspaceId, OpenWorkspace>,
}

impl Workspaces {
    pub(crate) fn new() -> Self {
        Self { seen: Recent::new(WORKSPACES_MAX) }
    }

    /// The workspace of a path. One that is not there, or takes no more events, is looked for each time.
    pub(crate) async fn find(&self, config: &ConfigTable, path: &str) -> Result<OpenWorkspace, Problem> {
        let id: WorkspaceId = path.parse().map_err(|_| Problem::NotFound)?;
        // Its age counts from before the read: what changes while that is under way is not in it.
        let read_at = now();
        if let Some(seen) = self.seen.fresh(&id, read_at) {
            return Ok(seen);
        }
        let workspace = config.workspace(&id).await?.ok_or(Problem::NotFound)?.workspace;
        if workspace.status == WorkspaceStatus::Deleting {
            return Err(Problem::WorkspaceDeleting);
        }
        let open = OpenWorkspace {
            id: workspace.id,
            created_at: workspace.created_at,
            kind: workspace.kind,
            audience: workspace.settings.audience,
        };
        self.seen.put(id, open.clone(), read_at);
        Ok(open)
    }
}
