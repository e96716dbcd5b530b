//! Secrets at rest: a data key per workspace under KMS, secrets sealed with it by AES-256-GCM.
//!
//! The workspace is the data key's encryption context, and workspace, subscription and secret are the associated data
//! of each secret: what was sealed for one place opens in no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use carillon_core::id::WorkspaceId;
use carillon_core::time::UnixMillis;

use crate::error::AwsError;
use crate::now;

/// How long an opened data key is kept in memory.
const DATA_KEY_KEPT: Duration = Duration::from_mins(5);

/// Opens and seals secrets.
#[derive(Debug)]
pub struct Vault {
    client: Client,
    key_arn: String,
    opened: Mutex<HashMap<Vec<u8>, Opened>>,
}

/// A workspace's data key as it is stored: encrypted by KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedDataKey(pub Vec<u8>);

/// A secret as it is stored: nonce, ciphertext and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

/// Which secret: bound to what is sealed.
#[derive(Clone, Copy, Debug)]
pub struct SecretName<'a> {
    /// Whose data key.
    pub workspace: &'a WorkspaceId,
    /// Of what in the workspace, such as a subscription's id.
    pub owner: &'a str,
    /// Which one of its secrets.
    pub secret: &'a str,
}

struct Opened {
    key: Arc<RandomizedNonceKey>,
    until: UnixMillis,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened(..)")
    }
}

impl Vault {
    /// With the KMS key that data keys are made under.
    #[must_use]
    pub fn new(client: Client, key_arn: String) -> Self {
        Self { client, key_arn, opened: Mutex::default() }
    }

    /// A new data key for a workspace. Its plain text never leaves KMS here.
    pub async fn new_data_key(&self, workspace: &WorkspaceId) -> Result<SealedDataKey, AwsError> {
        const OPERATION: &str = "kms GenerateDataKeyWithoutPlaintext";
        let request = self.client.generate_data_key_without_plaintext().key_id(&self.key_arn);
        let request =
            request.key_spec(DataKeySpec::Aes256).encryption_context("workspace", workspace.as_str());
        let answer = request.send().await.map_err(AwsError::call(OPERATION))?;
        let sealed = answer.ciphertext_blob.ok_or(AwsError::Undone { operation: OPERATION, count: 1 })?;
        Ok(SealedDataKey(sealed.into_inner()))
    }

    /// Seals a secret.
    pub async fn seal(
        &self,
        data_key: &SealedDataKey,
        name: SecretName<'_>,
        plain: &[u8],
    ) -> Result<Sealed, AwsError> {
        let key = self.data_key(data_key, name.workspace).await?;
        let mut in_out = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name.associated_data()), &mut in_out);
        let nonce = nonce.map_err(|_| AwsError::Secret("sealed"))?;
        Ok(Sealed([nonce.as_ref().as_slice(), &in_out].concat()))
    }

    /// Opens a secret that was sealed under the same name.
    pub async fn open(
        &self,
        data_key: &SealedDataKey,
        name: SecretName<'_>,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, AwsError> {
        let key = self.data_key(data_key, name.workspace).await?;
        let (nonce, ciphertext) = sealed.0.split_at_checked(NONCE_LEN).ok_or(AwsError::Secret("opened"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| AwsError::Secret("opened"))?;
        let mut in_out = ciphertext.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(name.associated_data()), &mut in_out);
        let length = plain.map_err(|_| AwsError::Secret("opened"))?.len();
        in_out.truncate(length);
        Ok(in_out)
    }

    async fn data_key(
        &self,
        sealed: &SealedDataKey,
        workspace: &WorkspaceId,
    ) -> Result<Arc<RandomizedNonceKey>, AwsError> {
        let now = now();
        {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.retain(|_, entry| entry.until > now);
            if let Some(entry) = opened.get(&sealed.0) {
                return Ok(entry.key.clone());
            }
        }
        let request =
            self.client.decrypt().key_id(&self.key_arn).ciphertext_blob(Blob::new(sealed.0.clone()));
        let request = request.encryption_context("workspace", workspace.as_str());
        let answer = request.send().await.map_err(AwsError::call("kms Decrypt"))?;
        let plain = answer.plaintext.ok_or(AwsError::Secret("opened"))?;
        let key =
            RandomizedNonceKey::new(&AES_256_GCM, plain.as_ref()).map_err(|_| AwsError::Secret("opened"))?;
        let key = Arc::new(key);
        let entry = Opened { key: key.clone(), until: now + DATA_KEY_KEPT };
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(sealed.0.clone(), entry);
        Ok(key)
    }
}

/// Random bytes for a new secret, from the system's source.
pub fn random_bytes(count: usize) -> Result<Vec<u8>, AwsError> {
    let mut bytes = vec![0; count];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AwsError::Secret("made"))?;
    Ok(bytes)
}

impl SecretName<'_> {
    /// None of the parts can hold the separator.
    fn associated_data(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.workspace, self.owner, self.secret).into_bytes()
    }
}
