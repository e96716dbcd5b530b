//! The keys of workspaces, opened and ready to sign. They are read for those alone that need them, and kept longer than
//! what else is read: reading an RSA key takes longer than all the rest of an attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carillon_aws::config::ConfigTable;
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::signing::PrivateKey;
use carillon_aws::vault::{SealedDataKey, SecretName, Vault};
use carillon_core::id::WorkspaceId;
use carillon_core::keys::{KeyAlgorithm, KeySet, PUBLISHED_BEFORE, SEALED_AS};
use carillon_core::time::UnixMillis;

/// How long a workspace's keys are taken to be as they were read: the next one does not sign as soon as that.
const KEPT: Duration = Duration::from_mins(5);

const _: () = assert!(KEPT.as_secs() < PUBLISHED_BEFORE.as_secs());

/// A workspace's keys, ready to sign.
pub(crate) type KeyRing = KeySet<Arc<PrivateKey>>;

/// The keys that were read of late.
#[derive(Default)]
pub(crate) struct KeyRings {
    kept: Mutex<HashMap<WorkspaceId, Kept>>,
}

#[derive(Clone)]
struct Kept {
    /// Tells a workspace from one that was made anew under the same id.
    data_key: SealedDataKey,
    read_at: UnixMillis,
    ring: Arc<KeyRing>,
}

impl KeyRings {
    /// The keys of a workspace, one of each of these algorithms at least if there are any of them at all.
    pub(crate) async fn of(
        &self,
        config: &ConfigTable,
        vault: &Vault,
        (workspace, data_key): (&WorkspaceId, &SealedDataKey),
        algorithms: &[KeyAlgorithm],
    ) -> Result<Arc<KeyRing>, AwsError> {
        let kept = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.get(workspace).filter(|kept| kept.data_key == *data_key).cloned()
        };
        let read_at = now();
        if let Some(kept) = &kept
            && read_at.since(kept.read_at) < KEPT
            && has_all(&kept.ring, algorithms)
        {
            return Ok(Arc::clone(&kept.ring));
        }
        let mut keys = Vec::new();
        for key in config.keys(workspace).await?.keys.iter() {
            let known = kept.iter().flat_map(|kept| kept.ring.iter()).find(|known| known.kid == key.kid);
            let private = if let Some(known) = known {
                Arc::clone(&known.private)
            } else {
                let name = SecretName { workspace, owner: SEALED_AS, secret: &key.kid };
                let pkcs8 = vault.open(data_key, name, &key.private).await?;
                Arc::new(PrivateKey::from_pkcs8(key.algorithm(), &pkcs8)?)
            };
            keys.push(key.with(private));
        }
        let ring: Arc<KeyRing> = Arc::new(keys.into_iter().collect());
        let read = Kept { data_key: data_key.clone(), read_at, ring: Arc::clone(&ring) };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| read_at.since(kept.read_at) < KEPT);
        kept.insert(workspace.clone(), read);
        Ok(ring)
    }
}

/// Whether none of the algorithms is without a key.
pub(crate) fn has_all(ring: &KeyRing, algorithms: &[KeyAlgorithm]) -> bool {
    !ring.lacking().any(|lacking| algorithms.contains(&lacking))
}
