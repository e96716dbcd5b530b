//! Fires the deadlines that are due.

use std::collections::HashMap;

use carillon_aws::accepting::{Acceptor, Fired, Incoming, Tenant};
use carillon_aws::config::ConfigTable;
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::schedule::DueDeadline;
use carillon_catalogue::Rules;
use carillon_core::id::{EventKey, WorkspaceId};
use carillon_core::matching::CLOCK_SKEW;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::Workspace;
use futures::stream::{self, StreamExt as _};

/// How many are taken at once.
const PAGE: i32 = 100;

/// How many fire at once.
const AT_ONCE: usize = 10;

/// The tables that firing needs.
pub(crate) struct Deadlines {
    config: ConfigTable,
    acceptor: Acceptor,
}

/// A workspace as it is, with its rules; none if it is no more.
type Known = Option<(Tenant, Rules)>;

impl Deadlines {
    pub(crate) fn new(config: ConfigTable, acceptor: Acceptor) -> Self {
        Self { config, acceptor }
    }

    /// Whether something of a shard is due.
    pub(crate) async fn any_due(&self, shard: u8) -> Result<bool, AwsError> {
        let (due, more) = self.acceptor.schedule().due_deadlines(shard, due_until(), 1, None).await?;
        Ok(!due.is_empty() || more.is_some())
    }

    /// Fires what of a shard is due; how many did.
    pub(crate) async fn fire(&self, shard: u8, until: UnixMillis) -> Result<usize, AwsError> {
        let (mut count, mut after, mut failed) = (0, None, None);
        let mut workspaces = HashMap::new();
        while now() < until {
            let (page, next) =
                self.acceptor.schedule().due_deadlines(shard, due_until(), PAGE, after).await?;
            for due in &page {
                self.learn(&due.workspace, &mut workspaces).await?;
            }
            let known = |due: &DueDeadline| workspaces.get(&due.workspace).and_then(Option::as_ref);
            let firing = page.iter().map(|due| self.fire_one(due, known(due)));
            for fired in stream::iter(firing).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
                match fired {
                    Ok(fired) => count += usize::from(fired),
                    // It stays, for the next run; the others wait for nothing of it.
                    Err(error) => {
                        tracing::error!(%error, "a deadline does not fire");
                        failed = Some(error);
                    }
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        failed.map_or(Ok(count), Err)
    }

    async fn learn(
        &self,
        workspace: &WorkspaceId,
        workspaces: &mut HashMap<WorkspaceId, Known>,
    ) -> Result<(), AwsError> {
        if workspaces.contains_key(workspace) {
            return Ok(());
        }
        let known = match self.config.workspace_and_rules(workspace).await? {
            None => None,
            Some((Workspace { kind, created_at: made_at, .. }, own)) => {
                let rules = Rules::of(kind, own.as_ref().map(|own| own.rules.as_str()));
                let rules = rules.map_err(AwsError::rules)?;
                Some((Tenant { workspace: workspace.clone(), made_at, revisions: rules.revisions }, rules))
            }
        };
        workspaces.insert(workspace.clone(), known);
        Ok(())
    }

    /// Whether it fired now. One that cannot any more is forgotten.
    async fn fire_one(&self, due: &DueDeadline, known: Option<&(Tenant, Rules)>) -> Result<bool, AwsError> {
        let Some((tenant, incoming)) = self.brings(due, known).await? else {
            self.acceptor.schedule().forget_due(due).await?;
            return Ok(false);
        };
        match self.acceptor.fire(tenant, due, incoming).await? {
            Fired::Now => Ok(true),
            Fired::Before => {
                self.acceptor.schedule().forget_due(due).await?;
                Ok(false)
            }
        }
    }

    /// The event that a deadline brings, if it is still to fire.
    async fn brings<'a>(
        &self,
        due: &DueDeadline,
        known: Option<&'a (Tenant, Rules)>,
    ) -> Result<Option<(&'a Tenant, Incoming)>, AwsError> {
        let Some((tenant, rules)) = known.filter(|(tenant, _)| tenant.made_at == due.made_at) else {
            return Ok(None);
        };
        let Some(start) = self.acceptor.armed_by(tenant, due).await? else { return Ok(None) };
        let key = EventKey { workspace: due.workspace.clone(), digest: start.event };
        let Some(started_by) = self.acceptor.events().event(&key).await? else {
            tracing::error!(event = %key, rule = due.deadline.rule, "what started a deadline is kept no more");
            return Ok(None);
        };
        let event = match rules.due_event(&due.deadline, &started_by, start.due) {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                tracing::error!(event = %key, rule = due.deadline.rule, %error, "a deadline brings no event");
                return Ok(None);
            }
            // The workspace has given the rule up.
            None => return Ok(None),
        };
        let effects = rules.effects(&event, now());
        let effects = effects.inspect_err(|error| {
            tracing::error!(event = %key, rule = due.deadline.rule, %error, "a deadline brings no event");
        });
        Ok(effects.ok().map(|effects| (tenant, Incoming { event, effects })))
    }
}

/// What was due then is due by whatever clock: none fires before its time.
fn due_until() -> UnixMillis {
    now().minus(CLOCK_SKEW)
}
