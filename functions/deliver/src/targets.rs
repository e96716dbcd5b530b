//! Where deliveries go: a subscription's endpoint and its opened secrets, kept for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carillon_aws::batch_read::{Item, Key};
use carillon_aws::config::{
    ConfigTable, StoredSubscription, StoredWorkspace, read_subscription, read_workspace,
};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::vault::{SecretName, Vault};
use carillon_core::endpoint::Endpoint;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::signature::SigningSecret;
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;

/// How long a subscription is taken to be as it was read. A change holds for every attempt that starts 5 s after its
/// answer, so less than that.
const KEPT: Duration = Duration::from_secs(4);

/// What an attempt needs of its subscription.
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) secrets: Vec<SigningSecret>,
}

/// The subscriptions that were read of late.
#[derive(Default)]
pub(crate) struct Targets {
    kept: Mutex<HashMap<SubscriptionId, Kept>>,
}

/// When a subscription was read, and what it was then; `None`: it is no more.
type Kept = (UnixMillis, Option<Arc<Target>>);

impl Targets {
    /// The keys of what must be read for these tasks.
    pub(crate) fn missing(&self, config: &ConfigTable, tasks: &[&DeliveryTask]) -> Vec<Key> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (read_at, _)| now().since(*read_at) < KEPT);
        let missing = tasks.iter().filter(|task| !kept.contains_key(&task.subscription));
        let keys = missing.flat_map(|task| {
            let workspace = &task.event.key.workspace;
            [config.workspace_key(workspace), config.subscription_key(workspace, task.subscription)]
        });
        keys.collect()
    }

    /// The target of each task's subscription, from what was kept or was read just now. What cannot be opened is absent
    /// from the answer: its tasks come again.
    pub(crate) async fn of(
        &self,
        config: &ConfigTable,
        vault: &Vault,
        tasks: &[&DeliveryTask],
        read: &HashMap<Key, Item>,
    ) -> HashMap<SubscriptionId, Option<Arc<Target>>> {
        let wanted: HashSet<_> =
            tasks.iter().map(|task| (task.subscription, &task.event.key.workspace)).collect();
        let mut targets = HashMap::new();
        for (subscription, workspace) in wanted {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&subscription).cloned();
            if let Some((_, target)) = kept {
                targets.insert(subscription, target);
                continue;
            }
            match open(config, vault, workspace, subscription, read).await {
                Ok(target) => {
                    let target = target.map(Arc::new);
                    let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.insert(subscription, (now(), target.clone()));
                    targets.insert(subscription, target);
                }
                Err(error) => tracing::error!(%subscription, %error, "a subscription cannot be read"),
            }
        }
        targets
    }
}

async fn open(
    config: &ConfigTable,
    vault: &Vault,
    workspace: &WorkspaceId,
    subscription: SubscriptionId,
    read: &HashMap<Key, Item>,
) -> Result<Option<Target>, AwsError> {
    let item = |key| read.get(&key).cloned();
    let (Some(stored), Some(in_workspace)) =
        (item(config.subscription_key(workspace, subscription)), item(config.workspace_key(workspace)))
    else {
        return Ok(None);
    };
    let StoredSubscription { subscription, secrets } = read_subscription(stored)?;
    let StoredWorkspace { data_key, .. } = read_workspace(in_workspace)?;
    let owner = subscription.id.to_string();
    let mut opened = Vec::with_capacity(secrets.len());
    for (secret, sealed) in &secrets {
        let name = SecretName { workspace, owner: &owner, secret };
        opened.push(SigningSecret::from_bytes(vault.open(&data_key, name, sealed).await?));
    }
    Ok(Some(Target { endpoint: subscription.endpoint, secrets: opened }))
}
