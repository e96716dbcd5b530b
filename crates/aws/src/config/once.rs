//! Idempotency keys: what a request made is found again by the key that it came with.

use std::fmt::Write as _;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use carillon_core::id::ClientId;
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ConfigTable, Keys, Written, read};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;

/// How long a key is remembered.
const KEPT: Duration = Duration::from_hours(24);

/// A request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    client: ClientId,
    key: [u8; 32],
    made: Made,
    now: UnixMillis,
}

/// What a request with an idempotency key made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// A digest of the request's body: another body under the same key is another request.
    pub body: [u8; 32],
    /// The id of what it made.
    pub id: String,
}

impl Once {
    /// A request of `client` to `path` with `key` and `body`, which is about to make something with this id.
    #[must_use]
    pub fn new(client: ClientId, path: &str, key: &str, body: &[u8], id: String, now: UnixMillis) -> Self {
        let place = Sha256::new().chain_update(path).chain_update([0]).chain_update(key).finalize();
        let made = Made { body: Sha256::digest(body).into(), id };
        Self { client, key: place.into(), made, now }
    }

    /// Whether this is the same request as the one that made `made`.
    #[must_use]
    pub fn repeats(&self, made: &Made) -> bool {
        self.made.body == made.body
    }
}

impl ConfigTable {
    /// What a request with this key made before.
    pub async fn made(&self, once: &Once) -> Result<Option<Made>, AwsError> {
        let Some(item) = self.get(self.once_key(once)).await? else { return Ok(None) };
        let item: OnceItem = read(item)?;
        item.keys.readable()?;
        // Past its time to live it is gone, though DynamoDB deletes it days later.
        Ok((item.expires_at > once.now.as_secs()).then(|| Made { body: item.body.into_array(), id: item.id }))
    }

    /// Writes all or nothing, and notes what was made under the request's key, if it has one.
    pub(super) async fn transact_once(
        &self,
        once: Option<&Once>,
        writes: &mut Vec<(TransactWriteItem, Written)>,
    ) -> Result<Written, AwsError> {
        let Some(once) = once else { return self.transact(std::mem::take(writes)).await };
        let item = OnceItem {
            keys: Keys::of(&self.once_key(once)),
            body: serde_bytes::ByteArray::new(once.made.body),
            id: once.made.id.clone(),
            expires_at: (once.now + KEPT).as_secs(),
        };
        let now = Item::from([(":now".to_owned(), AttributeValue::N(once.now.as_secs().to_string()))]);
        let put = self.put_if(&item, Some("attribute_not_exists(pk) OR expires_at <= :now"), now)?;
        writes.insert(0, (put, Written::MadeBefore(once.made.clone())));
        match self.transact(std::mem::take(writes)).await? {
            Written::MadeBefore(_) => {
                // Read again: what stands there was made by another request.
                let made = self.made(once).await?.ok_or(AwsError::Conflict { operation: super::TRANSACT })?;
                Ok(Written::MadeBefore(made))
            }
            other => Ok(other),
        }
    }

    fn once_key(&self, once: &Once) -> Key {
        let mut digest = String::with_capacity(2 * once.key.len());
        for byte in once.key {
            _ = write!(digest, "{byte:02x}");
        }
        self.key(format!("ONCE#{}", once.client), digest)
    }
}

#[derive(Serialize, Deserialize)]
struct OnceItem {
    #[serde(flatten)]
    keys: Keys,
    body: serde_bytes::ByteArray<32>,
    id: String,
    expires_at: u64,
}
