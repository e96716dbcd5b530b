//! Cascades: the events that follow from an event are accepted before its own deliveries are sent.

use carillon_aws::accepting::{Acceptor, Incoming, Tenant};
use carillon_aws::config::ConfigTable;
use carillon_aws::error::AwsError;
use carillon_aws::events::Acceptance;
use carillon_aws::now;
use carillon_catalogue::{Parent, Rules};
use carillon_core::event::AcceptedEvent;
use carillon_core::invalid::Invalid;
use carillon_core::workspace::Workspace;

/// Where rules are read, and events accepted.
pub(crate) struct Cascades {
    config: ConfigTable,
    acceptor: Acceptor,
}

impl Cascades {
    pub(crate) fn new(config: ConfigTable, acceptor: Acceptor) -> Self {
        Self { config, acceptor }
    }

    /// Accepts what follows from an event; how many events of that are new. Doing it twice does no harm: they are the same
    /// each time. Rules are read anew, since few events have others follow.
    pub(crate) async fn follow(&self, event: &AcceptedEvent) -> Result<usize, AwsError> {
        let workspace = &event.key.workspace;
        let found = self.config.workspace_and_rules(workspace).await?;
        let Some((Workspace { kind, created_at: made_at, .. }, own)) = found else { return Ok(0) };
        if event.accepted_at < made_at {
            return Ok(0);
        }
        let rules = Rules::of(kind, own.as_ref().map(|own| own.rules.as_str())).map_err(AwsError::rules)?;
        let tenant = Tenant { workspace: workspace.clone(), made_at, revisions: rules.revisions };
        let incoming = match incoming(&rules, event) {
            Ok(incoming) => incoming,
            // It was tried when the event was published: the rules are others since.
            Err(error) => {
                tracing::error!(event = %event.key, %error, "what follows from an event cannot be made");
                return Ok(0);
            }
        };
        let mut new = 0;
        for accepted in self.acceptor.accept(&tenant, incoming).await {
            match accepted? {
                Acceptance::Accepted { .. } => new += 1,
                Acceptance::Duplicate { .. } => {}
                Acceptance::Conflict => {
                    tracing::error!(event = %event.key, "another event has the identity of one that follows");
                }
            }
        }
        tracing::info!(event = %event.key, new, "cascade");
        Ok(new)
    }
}

fn incoming(rules: &Rules, event: &AcceptedEvent) -> Result<Vec<Incoming>, Invalid> {
    let following = rules.brought_by(&event.event_type, &Parent::accepted(event))?;
    let incoming = |event| Ok(Incoming { effects: rules.effects(&event, now())?, event });
    following.into_iter().map(incoming).collect()
}
