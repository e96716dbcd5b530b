//! The keys of workspaces: all of a workspace's keys in one item, so that none is made twice.

use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::WorkspaceId;
use carillon_core::keys::{Key as SigningKey, KeySet, PublicJwk};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, Written, partition, read};
use crate::batch_read::{Key, batch_read};
use crate::error::AwsError;
use crate::vault::Sealed;

/// A workspace's keys, their private parts sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredKeys {
    /// The keys.
    pub keys: KeySet<Sealed>,
    /// Grows with each change; 0 before the first.
    pub revision: u64,
}

impl ConfigTable {
    /// Where the keys of a workspace are.
    #[must_use]
    pub fn keys_key(&self, workspace: &WorkspaceId) -> Key {
        self.key(partition(workspace), "keys")
    }

    /// A workspace's keys; none if there are none yet.
    pub async fn keys(&self, workspace: &WorkspaceId) -> Result<StoredKeys, AwsError> {
        let items = batch_read(&self.client, [self.keys_key(workspace)]).await?;
        let Some(item) = items.into_values().next() else { return Ok(StoredKeys::default()) };
        let item: KeysItem = read(item)?;
        item.keys.readable()?;
        Ok(StoredKeys { keys: item.set.into_iter().map(KeyItem::key).collect(), revision: item.revision })
    }

    /// Writes a workspace's keys in the place of those of the revision before. [`Written::Stale`]: they were changed
    /// since. [`Written::Missing`]: there is no such workspace, or not for long.
    pub async fn put_keys(
        &self,
        workspace: &WorkspaceId,
        stored: &StoredKeys,
        (by, at): (By, UnixMillis),
    ) -> Result<Written, AwsError> {
        let item = KeysItem {
            keys: Keys::of(&self.keys_key(workspace)),
            revision: stored.revision,
            set: stored.keys.iter().map(KeyItem::of).collect(),
        };
        let put = match stored.revision {
            1 => self.put_new(&item)?,
            revision => self.put_over(&item, revision - 1)?,
        };
        let (action, target) = (Action::KeysAdded, workspace.to_string());
        let entry = AuditEntry { at, by, action, target, changes: Vec::new() };
        let writes = vec![
            (self.change_matching(workspace, 0)?, Written::Missing),
            (put, Written::Stale),
            self.audited(workspace, entry)?,
        ];
        self.transact(writes).await
    }
}

#[derive(Serialize, Deserialize)]
struct KeysItem {
    #[serde(flatten)]
    keys: Keys,
    revision: u64,
    set: Vec<KeyItem>,
}

#[derive(Serialize, Deserialize)]
struct KeyItem {
    public: PublicJwk,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
    created_at: UnixMillis,
    signs_from: UnixMillis,
}

impl KeyItem {
    fn of(key: &SigningKey<Sealed>) -> Self {
        Self {
            public: key.public.clone(),
            sealed: key.private.0.clone(),
            created_at: key.created_at,
            signs_from: key.signs_from,
        }
    }

    fn key(self) -> SigningKey<Sealed> {
        SigningKey::new(self.public, Sealed(self.sealed), self.created_at, self.signs_from)
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::keys::KeyAlgorithm;

    use super::*;
    use crate::signing::NewKey;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let mut keys = KeySet::default();
        for algorithm in KeyAlgorithm::ALL {
            let public = NewKey::generate(algorithm).unwrap().public;
            keys.add(public, Sealed(vec![0, 255, 7]), UnixMillis(1_795_339_800_000)).unwrap();
        }
        let item = KeysItem {
            keys: Keys { pk: "WS#acme".to_owned(), sk: "keys".to_owned(), v: 1 },
            revision: 3,
            set: keys.iter().map(KeyItem::of).collect(),
        };
        let item: KeysItem = read(serde_dynamo::to_item(&item).unwrap()).unwrap();
        assert_eq!(item.set.into_iter().map(KeyItem::key).collect::<KeySet<_>>(), keys);
    }
}
