//! Signatures of deliveries: Standard Webhooks 1.0.0, schemes `v1` and `v1a`.

use std::fmt;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use crate::id::DeliveryId;
use crate::keys::{NotSigned, Sign};

/// How many random bytes a signing secret of ours has; Standard Webhooks wants 24 to 64.
pub const SECRET_BYTES: usize = 32;

/// The secret that Carillon and one subscription's receiver share. Redacted in `Debug`, wiped from memory on drop.
#[derive(Clone, Debug)]
pub struct SigningSecret(SecretSlice<u8>);

impl SigningSecret {
    /// From its raw bytes: random ones when it is made, unsealed ones later.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The raw bytes, to be sealed.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// `whsec_` and base 64: what its owner is shown, once.
    #[must_use]
    pub fn expose_text(&self) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(self.0.expose_secret()))
    }

    /// The entry of `webhook-signature` for a delivery that is posted at `timestamp` (Unix seconds) with this body.
    #[must_use]
    pub fn sign(&self, delivery: DeliveryId, timestamp: u64, body: &[u8]) -> String {
        self.sign_message(&delivery, timestamp, body)
    }

    /// Whether one of the entries of `webhook-signature` is this secret's.
    #[must_use]
    pub fn verifies(&self, signatures: &str, delivery: DeliveryId, timestamp: u64, body: &[u8]) -> bool {
        let code = self.code(&delivery, timestamp, body);
        signatures.split(' ').filter_map(|entry| BASE64_STANDARD.decode(entry.strip_prefix("v1,")?).ok()).any(
            // In a time that tells nothing of how much of it is right.
            |claimed| code.clone().verify_slice(&claimed).is_ok(),
        )
    }

    fn sign_message(&self, id: &dyn fmt::Display, timestamp: u64, body: &[u8]) -> String {
        let code = self.code(id, timestamp, body).finalize().into_bytes();
        format!("v1,{}", BASE64_STANDARD.encode(code))
    }

    fn code(&self, id: &dyn fmt::Display, timestamp: u64, body: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("any length is a key");
        mac.update(preamble(id, timestamp).as_bytes());
        mac.update(body);
        mac
    }
}

/// The same entry by a key whose public part everybody can read (`v1a`).
pub fn sign_with_key(
    key: &dyn Sign,
    delivery: DeliveryId,
    timestamp: u64,
    body: &[u8],
) -> Result<String, NotSigned> {
    let message = message(delivery, timestamp, body);
    Ok(format!("v1a,{}", BASE64_STANDARD.encode(key.sign(&message)?)))
}

/// What a key signs, and verifies, of a delivery that is posted at `timestamp` (Unix seconds) with this body.
#[must_use]
pub fn message(delivery: DeliveryId, timestamp: u64, body: &[u8]) -> Vec<u8> {
    [preamble(&delivery, timestamp).as_bytes(), body].concat()
}

/// The signature by a key that an entry of `webhook-signature` has.
#[must_use]
pub fn signature_by_key(entry: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(entry.strip_prefix("v1a,")?).ok()
}

/// What is signed before the body.
fn preamble(id: &dyn fmt::Display, timestamp: u64) -> String {
    format!("{id}.{timestamp}.")
}

/// A key that Carillon makes for a receiver to know it by: `ck_` and these random bytes, as text that can stand in a
/// header.
#[must_use]
pub fn api_key_text(random: &[u8]) -> String {
    format!("ck_{}", BASE64_URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_vectors_of_standard_webhooks() {
        for (secret, id, timestamp, body, signature) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            let bytes = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
            let key = SigningSecret::from_bytes(bytes);
            assert_eq!(key.sign_message(&id, timestamp, body.as_bytes()), signature);
            assert_eq!(key.expose_text(), secret);
            assert!(!format!("{key:?}").contains("MfKQ"));
        }
    }

    #[test]
    fn verifies_what_it_signed_and_nothing_else() {
        let [key, other] = [b"a secret of at least 24 bytes", b"another one of more than that"]
            .map(|secret| SigningSecret::from_bytes(secret.to_vec()));
        let [delivery, another]: [DeliveryId; 2] =
            ["dlv_00000000000000000000000000000000", "dlv_0000000000000000000000000000000g"]
                .map(|id| id.parse().unwrap());
        let entry = key.sign(delivery, 7, b"{}");
        assert!(key.verifies(&entry, delivery, 7, b"{}"));
        let several = format!("{} v1a,AAAA {entry}", other.sign(delivery, 7, b"{}"));
        assert!(key.verifies(&several, delivery, 7, b"{}"));
        assert!(!other.verifies(&entry, delivery, 7, b"{}"));
        assert!(!key.verifies(&entry, another, 7, b"{}"));
        assert!(!key.verifies(&entry, delivery, 8, b"{}"));
        assert!(!key.verifies(&entry, delivery, 7, b"{ }"));
        for entry in ["", "v1,", "v1,%", &entry[..20], &entry.replace("v1,", "v1a,")] {
            assert!(!key.verifies(entry, delivery, 7, b"{}"), "{entry}");
        }
    }
}
