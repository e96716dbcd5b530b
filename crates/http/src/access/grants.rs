//! Who has a role where: read from the table, and kept for a moment, so that publishing does not read it each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use carillon_aws::config::ConfigTable;
use carillon_aws::error::AwsError;
use carillon_core::access::{Grant, Role};
use carillon_core::id::{ClientId, WorkspaceId};
use carillon_core::time::UnixMillis;

/// How long a grant that was seen is taken to be there: changes hold after 5 s at the latest.
const KEPT: Duration = Duration::from_secs(4);

/// How many grants are kept at once.
const KEPT_MAX: usize = 1024;

/// Where grants are found.
pub trait Grants: Send + Sync + 'static {
    /// What the client may do in the workspace; `None` where either is unknown.
    fn grant(
        &self,
        workspace: &WorkspaceId,
        client: &ClientId,
    ) -> impl Future<Output = Result<Option<Grant>, AwsError>> + Send;
}

impl Grants for ConfigTable {
    async fn grant(&self, workspace: &WorkspaceId, client: &ClientId) -> Result<Option<Grant>, AwsError> {
        Self::grant(self, workspace, client).await
    }
}

/// Grants that were seen, before those that must be read.
pub(super) struct KnownGrants<G> {
    grants: G,
    known: Mutex<HashMap<(WorkspaceId, ClientId), (UnixMillis, Role)>>,
}

impl<G: Grants> KnownGrants<G> {
    pub(super) fn new(grants: G) -> Self {
        Self { grants, known: Mutex::default() }
    }

    /// The client's role in the workspace. That there is none is not kept: a new grant holds at once.
    pub(super) async fn role(
        &self,
        workspace: WorkspaceId,
        client: &ClientId,
        now: UnixMillis,
    ) -> Result<Option<Role>, AwsError> {
        let place = (workspace, client.clone());
        if let Some(role) = self.known(&place, now) {
            return Ok(Some(role));
        }
        let role = self.grants.grant(&place.0, client).await?.map(|grant| grant.role);
        if let Some(role) = role.clone() {
            self.keep(place, role, now);
        }
        Ok(role)
    }

    fn known(&self, place: &(WorkspaceId, ClientId), now: UnixMillis) -> Option<Role> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen_at, role) = known.get(place)?;
        (now.since(*seen_at) < KEPT).then(|| role.clone())
    }

    fn keep(&self, place: (WorkspaceId, ClientId), role: Role, now: UnixMillis) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (seen_at, _)| now.since(*seen_at) < KEPT);
        if known.len() < KEPT_MAX {
            known.insert(place, (now, role));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Knows one client, and counts how often it was asked.
    struct Counted(AtomicUsize);

    impl Grants for &'static Counted {
        async fn grant(&self, _: &WorkspaceId, client: &ClientId) -> Result<Option<Grant>, AwsError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let grant = Grant { client: client.clone(), role: Role::Publisher, created_at: UnixMillis(0) };
            Ok((client.as_str() == "known").then_some(grant))
        }
    }

    #[tokio::test]
    async fn a_grant_is_kept_for_a_moment_and_its_absence_is_not() {
        static COUNTED: Counted = Counted(AtomicUsize::new(0));
        let grants = KnownGrants::new(&COUNTED);
        let workspace: WorkspaceId = "ws_1".parse().unwrap();
        let ask = async |client: &str, at| {
            let role = grants.role(workspace.clone(), &client.parse().unwrap(), UnixMillis(at)).await;
            (role.unwrap(), COUNTED.0.load(Ordering::SeqCst))
        };
        let publisher = Some(Role::Publisher);
        assert_eq!(ask("known", 0).await, (publisher.clone(), 1));
        assert_eq!(ask("known", 3999).await, (publisher.clone(), 1));
        assert_eq!(ask("known", 4000).await, (publisher, 2));
        assert_eq!(ask("unknown", 4000).await, (None, 3));
        assert_eq!(ask("unknown", 4000).await, (None, 4));
    }
}
