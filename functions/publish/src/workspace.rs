//! The workspace that events are published to.

use std::sync::Arc;

use carillon_aws::accepting::Tenant;
use carillon_aws::config::ConfigTable;
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_catalogue::Rules;
use carillon_core::id::WorkspaceId;
use carillon_core::workspace::{AudienceRule, WorkspaceKind, WorkspaceStatus};
use carillon_http::problem::Problem;

use crate::recent::Recent;

/// How many workspaces are kept.
const WORKSPACES_MAX: usize = 10_000;

/// What publishing needs to know of a workspace that takes events.
#[derive(Clone, Debug)]
pub(crate) struct OpenWorkspace {
    /// Which.
    pub(crate) tenant: Arc<Tenant>,
    /// Picks the catalogue.
    pub(crate) kind: WorkspaceKind,
    /// Whether events must name their audience.
    pub(crate) audience: AudienceRule,
    /// What its event types have to do with one another.
    pub(crate) rules: Arc<Rules>,
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
        let (workspace, own) = config.workspace_and_rules(&id).await?.ok_or(Problem::NotFound)?;
        if workspace.status == WorkspaceStatus::Deleting {
            return Err(Problem::WorkspaceDeleting);
        }
        let rules = Rules::of(workspace.kind, own.as_ref().map(|own| own.rules.as_str()));
        let rules = rules.map_err(AwsError::rules)?;
        let tenant =
            Tenant { workspace: workspace.id, made_at: workspace.created_at, revisions: rules.revisions };
        let open = OpenWorkspace {
            tenant: Arc::new(tenant),
            kind: workspace.kind,
            audience: workspace.settings.audience,
            rules: Arc::new(rules),
        };
        self.seen.put(id, open.clone(), read_at);
        Ok(open)
    }
}
