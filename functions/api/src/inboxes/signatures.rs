//! Whether what came to an inbox was signed by the workspace: what a receiver would find out that has the secrets.

use std::time::Duration;

use carillon_aws::config::{StoredSecret, StoredWorkspace};
use carillon_aws::error::AwsError;
use carillon_aws::inboxes::{Request, SUBSCRIPTIONS_MAX, StoredInbox};
use carillon_aws::signing::verifies;
use carillon_aws::vault::SecretName;
use carillon_core::id::DeliveryId;
use carillon_core::keys::{KeyAlgorithm, PublicJwk};
use carillon_core::signature::{SigningSecret, message, signature_by_key};
use carillon_core::subscription::SignatureScheme;
use carillon_core::time::UnixMillis;
use serde::Serialize;
use utoipa::ToSchema;

use super::token_of;
use crate::desk::Desk;

/// How far `webhook-timestamp` may be off (Standard Webhooks 1.0.0).
const TOLERANCE: Duration = Duration::from_mins(5);

/// How many signatures by keys are tried. Deliveries have one.
const SIGNATURES_BY_KEYS_MAX: usize = 5;

/// What a request's signature is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum SignatureStatus {
    /// It is by a secret of a subscription that posts to the inbox, or by a key of the workspace.
    Verified,
    /// It is by none of them, or too old, or of another body.
    Refused,
    /// There is none.
    Absent,
    /// There is nothing to verify it with: no subscription of the workspace posts to the inbox any more, or its secrets
    /// are newer than the request.
    Unknown,
}

/// What the subscriptions that post to an inbox are signed with.
#[derive(Default)]
pub(super) struct Verifier {
    secrets: Vec<KnownSecret>,
    keys: Vec<PublicJwk>,
    /// Whether there may be subscriptions that the inbox does not know.
    is_partial: bool,
}

struct KnownSecret {
    secret: SigningSecret,
    created_at: UnixMillis,
    expires_at: Option<UnixMillis>,
}

impl Verifier {
    pub(super) async fn of(
        desk: &Desk,
        StoredWorkspace { workspace, data_key }: &StoredWorkspace,
        stored: &StoredInbox,
    ) -> Result<Self, AwsError> {
        let is_partial = stored.subscriptions.len() >= SUBSCRIPTIONS_MAX;
        let mut found = Self { is_partial, ..Self::default() };
        let ids = stored.subscriptions.iter().copied();
        let subscriptions = desk.config.subscriptions_by_id(&workspace.id, ids).await?;
        let mut have_keys = false;
        for subscription in subscriptions.values() {
            let details = &subscription.subscription.details;
            if token_of(desk, &details.endpoint) != Some(stored.inbox.token) {
                continue;
            }
            have_keys |= details.signatures.include(SignatureScheme::V1a);
            let owner = subscription.subscription.id.to_string();
            for StoredSecret { name, sealed, created_at, expires_at } in &subscription.signing {
                let sealed_as = SecretName { workspace: &workspace.id, owner: &owner, secret: name };
                let secret = SigningSecret::from_bytes(desk.vault.open(data_key, sealed_as, sealed).await?);
                found.secrets.push(KnownSecret { secret, created_at: *created_at, expires_at: *expires_at });
            }
        }
        if have_keys {
            let keys = desk.config.keys(&workspace.id).await?.keys;
            let keys = keys.iter().filter(|key| key.algorithm() == KeyAlgorithm::EdDsa);
            found.keys = keys.map(|key| key.public.clone()).collect();
        }
        Ok(found)
    }

    /// What the signature of a request is worth that came at this time.
    pub(super) fn judge(&self, request: &Request, received_at: UnixMillis) -> SignatureStatus {
        let header = |name| request.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value);
        let Some(signatures) = header("webhook-signature") else { return SignatureStatus::Absent };
        let delivery = header("webhook-id").and_then(|id| id.parse().ok());
        let timestamp = header("webhook-timestamp").and_then(|timestamp| timestamp.parse().ok());
        let is_genuine = delivery.zip(timestamp).is_some_and(|(delivery, timestamp)| {
            received_at.as_secs().abs_diff(timestamp) <= TOLERANCE.as_secs()
                && self.verify(signatures, (delivery, timestamp), &request.body, received_at)
        });
        let was_there = |secret: &KnownSecret| secret.created_at <= received_at;
        if is_genuine {
            SignatureStatus::Verified
        } else if self.is_partial || self.keys.is_empty() && !self.secrets.iter().any(was_there) {
            SignatureStatus::Unknown
        } else {
            SignatureStatus::Refused
        }
    }

    fn verify(
        &self,
        signatures: &str,
        (delivery, timestamp): (DeliveryId, u64),
        body: &[u8],
        at: UnixMillis,
    ) -> bool {
        let is_live = |secret: &&KnownSecret| secret.expires_at.is_none_or(|expires_at| at < expires_at);
        let mut live = self.secrets.iter().filter(is_live);
        if live.any(|secret| secret.secret.verifies(signatures, delivery, timestamp, body)) {
            return true;
        }
        if self.keys.is_empty() {
            return false;
        }
        let message = message(delivery, timestamp, body);
        let mut by_keys = signatures.split(' ').filter_map(signature_by_key).take(SIGNATURES_BY_KEYS_MAX);
        by_keys.any(|signature| self.keys.iter().any(|key| verifies(key, &message, &signature)))
    }
}

#[cfg(test)]
mod tests {
    use carillon_aws::signing::{NewKey, PrivateKey};
    use carillon_core::signature::sign_with_key;
    use secrecy::ExposeSecret as _;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_000);
    const BODY: &[u8] = b"{}";

    fn delivery() -> DeliveryId {
        "dlv_00000000000000000000000000000000".parse().unwrap()
    }

    fn secret(byte: u8) -> SigningSecret {
        SigningSecret::from_bytes(vec![byte; 32])
    }

    fn kept(byte: u8, created_at: UnixMillis, expires_at: Option<UnixMillis>) -> KnownSecret {
        KnownSecret { secret: secret(byte), created_at, expires_at }
    }

    fn request(signature: &str, timestamp: u64) -> Request {
        let headers = [
            ("webhook-id", delivery().to_string()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature.to_owned()),
        ];
        Request {
            method: "POST".to_owned(),
            path: "/in/x".to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            body: BODY.to_vec(),
        }
    }

    fn signed(byte: u8, timestamp: u64) -> Request {
        request(&secret(byte).sign(delivery(), timestamp, BODY), timestamp)
    }

    #[test]
    fn a_signature_is_judged_as_a_receiver_would() {
        let verifier =
            Verifier { secrets: vec![kept(1, NOW, None), kept(2, NOW, None)], ..Verifier::default() };
        let now = NOW.as_secs();
        assert_eq!(verifier.judge(&signed(2, now), NOW), SignatureStatus::Verified);
        assert_eq!(verifier.judge(&signed(2, now - 300), NOW), SignatureStatus::Verified);
        assert_eq!(verifier.judge(&signed(2, now - 301), NOW), SignatureStatus::Refused);
        assert_eq!(verifier.judge(&signed(2, now + 301), NOW), SignatureStatus::Refused);
        assert_eq!(verifier.judge(&signed(3, now), NOW), SignatureStatus::Refused);
        let mut other = signed(1, now);
        other.body = b"{ }".to_vec();
        assert_eq!(verifier.judge(&other, NOW), SignatureStatus::Refused);
        let mut without = signed(1, now);
        without.headers.pop();
        assert_eq!(verifier.judge(&without, NOW), SignatureStatus::Absent);
        let mut nameless = signed(1, now);
        nameless.headers.remove(0);
        assert_eq!(verifier.judge(&nameless, NOW), SignatureStatus::Refused);
    }

    #[test]
    fn what_cannot_be_known_is_not_refused() {
        let now = NOW.as_secs();
        assert_eq!(Verifier::default().judge(&signed(1, now), NOW), SignatureStatus::Unknown);
        let second = Duration::from_secs(1);
        let rotated = Verifier { secrets: vec![kept(2, NOW + second, None)], ..Verifier::default() };
        assert_eq!(rotated.judge(&signed(1, now), NOW), SignatureStatus::Unknown);
        assert_eq!(rotated.judge(&signed(1, now), NOW + second), SignatureStatus::Refused);
        let partial = Verifier { secrets: vec![kept(2, NOW, None)], is_partial: true, ..Verifier::default() };
        assert_eq!(partial.judge(&signed(1, now), NOW), SignatureStatus::Unknown);
        let overlapping = Verifier { secrets: vec![kept(1, NOW, Some(NOW + second))], ..Verifier::default() };
        assert_eq!(overlapping.judge(&signed(1, now), NOW), SignatureStatus::Verified);
        assert_eq!(overlapping.judge(&signed(1, now), NOW + second), SignatureStatus::Refused);
    }

    #[test]
    fn a_signature_by_a_key_verifies_by_its_public_part() {
        let [ours, other] = [(); 2].map(|()| NewKey::generate(KeyAlgorithm::EdDsa).unwrap());
        let key = PrivateKey::from_pkcs8(KeyAlgorithm::EdDsa, ours.pkcs8.expose_secret()).unwrap();
        let signature = sign_with_key(&key, delivery(), NOW.as_secs(), BODY).unwrap();
        let judged = |keys| {
            Verifier { keys, ..Verifier::default() }
                .judge(&request(&format!("v1,AAAA {signature}"), NOW.as_secs()), NOW)
        };
        assert_eq!(judged(vec![other.public.clone(), ours.public.clone()]), SignatureStatus::Verified);
        assert_eq!(judged(vec![other.public]), SignatureStatus::Refused);
    }
}
