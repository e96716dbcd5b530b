//! Key sets: the asymmetric keys that a workspace's deliveries are signed with, and when each of them is.
//!
//! Which key signs depends on nothing but the time when the event was accepted, so that every attempt has the same bytes.
//! A key is published longer than receivers may keep what they have read before it signs, and stays published until
//! nothing that it has signed is needed.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::time::UnixMillis;

/// How long receivers may keep a workspace's public keys before they read them anew.
pub const PUBLIC_KEYS_KEPT: Duration = Duration::from_hours(1);

/// How much longer than that the next key is published before it signs: for caches and clocks that run late, and for
/// functions that keep a key set in memory.
pub const PUBLISHED_BEFORE: Duration = Duration::from_mins(10);

/// How long a task with its event inline can wait in a queue, beyond the time that the event itself is kept.
const QUEUED_AFTER: Duration = Duration::from_hours(14 * 24);

/// The most keys of an algorithm: the one that signs, the next one, and those whose signatures are still needed. All of a
/// workspace's keys are one item of the table.
pub const KEYS_MAX: usize = 32;

/// What private keys are sealed as parts of, under their ids: the name of no subscription.
pub const SEALED_AS: &str = "keys";

/// What a key signs with (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, of 2048 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256, deterministic (RFC 6979).
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl KeyAlgorithm {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// As the header of a token names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A public key as receivers read it (RFC 7517; RFC 7518, section 6; RFC 8037, section 2). Numbers and points are in
/// base 64 for URLs, without padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum PublicJwk {
    /// For [`KeyAlgorithm::Rs256`].
    #[serde(rename = "RSA")]
    Rsa {
        /// The modulus.
        n: String,
        /// The exponent.
        e: String,
    },
    /// For [`KeyAlgorithm::Es256`].
    #[serde(rename = "EC")]
    P256 {
        /// The curve.
        crv: P256Curve,
        /// A point's coordinate.
        x: String,
        /// The other one.
        y: String,
    },
    /// For [`KeyAlgorithm::EdDsa`].
    #[serde(rename = "OKP")]
    Ed25519 {
        /// The curve.
        crv: Ed25519Curve,
        /// The public key.
        x: String,
    },
}

/// The one curve of keys for ES256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum P256Curve {
    /// NIST P-256.
    #[serde(rename = "P-256")]
    P256,
}

/// The one curve of keys for `EdDSA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ed25519Curve {
    /// Ed25519.
    Ed25519,
}

impl PublicJwk {
    /// Of an RSA key's modulus and exponent, without leading zeros.
    #[must_use]
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self::Rsa { n: base64_url(modulus), e: base64_url(exponent) }
    }

    /// Of the coordinates of a point on P-256.
    #[must_use]
    pub fn p256(x: &[u8; 32], y: &[u8; 32]) -> Self {
        Self::P256 { crv: P256Curve::P256, x: base64_url(x), y: base64_url(y) }
    }

    /// Of an Ed25519 key.
    #[must_use]
    pub fn ed25519(x: &[u8; 32]) -> Self {
        Self::Ed25519 { crv: Ed25519Curve::Ed25519, x: base64_url(x) }
    }

    /// What such a key signs with.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::Rsa { .. } => KeyAlgorithm::Rs256,
            Self::P256 { .. } => KeyAlgorithm::Es256,
            Self::Ed25519 { .. } => KeyAlgorithm::EdDsa,
        }
    }

    /// The key's thumbprint (RFC 7638, section 3): its id.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // Base 64 has no character that JSON escapes.
        let required = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::P256 { x, y, .. } => format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Ed25519 { x, .. } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
        };
        base64_url(&Sha256::digest(required))
    }

    /// The key as Standard Webhooks 1.0.0 writes it, `whpk_` and base 64, if it is one for `v1a`.
    #[must_use]
    pub fn webhook_text(&self) -> Option<String> {
        let Self::Ed25519 { x, .. } = self else { return None };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(x).ok()?;
        Some(format!("whpk_{}", BASE64_STANDARD.encode(bytes)))
    }
}

/// A key of a workspace with its private part `P`: sealed, or ready to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<P> {
    /// Its id: the thumbprint of its public part.
    pub kid: String,
    /// What receivers verify with.
    pub public: PublicJwk,
    /// What signs.
    pub private: P,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Events that were accepted from then on are signed with it, until the next key of its algorithm takes over.
    pub signs_from: UnixMillis,
}

impl<P> Key<P> {
    /// A key, by what is stored of it.
    #[must_use]
    pub fn new(public: PublicJwk, private: P, created_at: UnixMillis, signs_from: UnixMillis) -> Self {
        Self { kid: public.thumbprint(), public, private, created_at, signs_from }
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.public.algorithm()
    }

    /// The same key with another private part.
    #[must_use]
    pub fn with<Q>(&self, private: Q) -> Key<Q> {
        let Self { kid, public, created_at, signs_from, .. } = self;
        Key {
            kid: kid.clone(),
            public: public.clone(),
            private,
            created_at: *created_at,
            signs_from: *signs_from,
        }
    }
}

/// All keys of a workspace, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet<P>(Vec<Key<P>>);

/// An algorithm cannot have another key yet: its next one does not sign yet, or there are [`KEYS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next {} key does not sign yet, or too many are still needed", .0.as_str())]
pub struct TooEarly(pub KeyAlgorithm);

impl<P> Default for KeySet<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P> FromIterator<Key<P>> for KeySet<P> {
    fn from_iter<I: IntoIterator<Item = Key<P>>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl<P> KeySet<P> {
    /// Every key.
    pub fn iter(&self) -> impl Iterator<Item = &Key<P>> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The algorithms that have no key.
    pub fn lacking(&self) -> impl Iterator<Item = KeyAlgorithm> {
        KeyAlgorithm::ALL.into_iter().filter(|algorithm| self.of(*algorithm).next().is_none())
    }

    /// The key that signs an event that was accepted at this time: the newest that signs from then or before. What was
    /// accepted before any of them signed is the oldest one's. `None` if the algorithm has no key.
    #[must_use]
    pub fn signing(&self, algorithm: KeyAlgorithm, accepted_at: UnixMillis) -> Option<&Key<P>> {
        let begun = self.of(algorithm).filter(|key| key.signs_from <= accepted_at);
        begun.max_by_key(|key| key.signs_from).or_else(|| self.of(algorithm).min_by_key(|key| key.signs_from))
    }

    /// Whether an algorithm can have its next key `now`.
    pub fn may_rotate(&self, algorithm: KeyAlgorithm, now: UnixMillis) -> Result<(), TooEarly> {
        let waits = self.of(algorithm).any(|key| key.signs_from > now);
        if waits || self.of(algorithm).count() >= KEYS_MAX { Err(TooEarly(algorithm)) } else { Ok(()) }
    }

    /// Adds a key that was made `now`: the first of its algorithm signs at once, the next when receivers must have read
    /// it.
    pub fn add(&mut self, public: PublicJwk, private: P, now: UnixMillis) -> Result<(), TooEarly> {
        let algorithm = public.algorithm();
        self.may_rotate(algorithm, now)?;
        let is_first = self.of(algorithm).next().is_none();
        let signs_from = if is_first { now } else { now + PUBLIC_KEYS_KEPT + PUBLISHED_BEFORE };
        self.0.push(Key::new(public, private, now, signs_from));
        Ok(())
    }

    /// Removes the keys that nothing is signed with any more, and whose signatures nobody needs: every event that was
    /// accepted before their successors took over is gone, `retention` after it was accepted, and so are its tasks.
    pub fn remove_unneeded(&mut self, now: UnixMillis, retention: Duration) {
        let ends: Vec<_> = self.0.iter().map(|key| self.successor(key).map(|next| next.signs_from)).collect();
        let mut ends = ends.into_iter();
        self.0.retain(|_| {
            let end = ends.next().flatten();
            end.is_none_or(|end| end + retention + QUEUED_AFTER >= now)
        });
    }

    /// The key that takes over from this one.
    fn successor(&self, key: &Key<P>) -> Option<&Key<P>> {
        self.of(key.algorithm())
            .filter(|other| other.signs_from > key.signs_from)
            .min_by_key(|other| other.signs_from)
    }

    fn of(&self, algorithm: KeyAlgorithm) -> impl Iterator<Item = &Key<P>> {
        self.0.iter().filter(move |key| key.algorithm() == algorithm)
    }
}

/// A private key that is ready to sign: deterministic, since the same message must have the same bytes each time.
pub trait Sign {
    /// The signature of a message, as a token has it (RFC 7518, section 3; RFC 8037, section 3.1).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotSigned>;
}

/// A key could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key could not sign")]
pub struct NotSigned;

fn base64_url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_000);
    const RETENTION: Duration = Duration::from_hours(30 * 24);
    const LEAD: Duration = Duration::from_mins(70);

    fn p256(number: u8) -> PublicJwk {
        PublicJwk::p256(&[number; 32], &[0; 32])
    }

    /// A set with a first key for ES256 that was made then.
    fn set() -> KeySet<u8> {
        let mut set = KeySet::default();
        set.add(p256(1), 1, NOW).unwrap();
        set
    }

    fn signs(set: &KeySet<u8>, accepted_at: UnixMillis) -> Option<u8> {
        set.signing(KeyAlgorithm::Es256, accepted_at).map(|key| key.private)
    }

    #[test]
    fn thumbprints_are_those_of_the_standards() {
        // RFC 7638, section 3.1, and RFC 8037, appendix A.3.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
                 FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb\
                 9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls\
                 1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let rsa = PublicJwk::Rsa { n: n.to_owned(), e: "AQAB".to_owned() };
        assert_eq!(rsa.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned();
        let ed25519 = PublicJwk::Ed25519 { crv: Ed25519Curve::Ed25519, x };
        assert_eq!(ed25519.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(ed25519.webhook_text().unwrap(), "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(rsa.webhook_text(), None);
    }

    #[test]
    fn public_keys_are_json_web_keys() {
        for (public, json) in [
            (PublicJwk::rsa(&[255], &[1, 0, 1]), r#"{"kty":"RSA","n":"_w","e":"AQAB"}"#),
            (
                PublicJwk::ed25519(&[0; 32]),
                &format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, "A".repeat(43)),
            ),
        ] {
            assert_eq!(serde_json::to_string(&public).unwrap(), json);
            assert_eq!(serde_json::from_str::<PublicJwk>(json).unwrap(), public);
        }
        assert!(serde_json::from_str::<PublicJwk>(r#"{"kty":"EC","crv":"P-384","x":"","y":""}"#).is_err());
    }

    #[test]
    fn the_first_key_signs_from_the_beginning() {
        let set = set();
        assert_eq!(signs(&set, UnixMillis(0)), Some(1), "what was accepted before there was a key");
        assert_eq!(signs(&set, NOW + RETENTION), Some(1));
        assert_eq!(set.signing(KeyAlgorithm::Rs256, NOW), None);
        assert_eq!(set.lacking().collect::<Vec<_>>(), [KeyAlgorithm::Rs256, KeyAlgorithm::EdDsa]);
    }

    #[test]
    fn the_next_key_is_published_before_it_signs() {
        let mut set = set();
        let rotated_at = NOW + Duration::from_hours(1000);
        set.add(p256(2), 2, rotated_at).unwrap();
        assert_eq!(set.iter().count(), 2);
        assert!(LEAD > PUBLIC_KEYS_KEPT);
        assert_eq!(signs(&set, rotated_at), Some(1));
        assert_eq!(signs(&set, UnixMillis((rotated_at + LEAD).0 - 1)), Some(1));
        assert_eq!(signs(&set, rotated_at + LEAD), Some(2));
        assert_eq!(signs(&set, NOW), Some(1), "older events keep their key");
    }

    #[test]
    fn one_next_key_waits_at_a_time() {
        let mut set = set();
        set.add(p256(2), 2, NOW).unwrap();
        let too_early = Err(TooEarly(KeyAlgorithm::Es256));
        assert_eq!(set.add(p256(3), 3, UnixMillis((NOW + LEAD).0 - 1)), too_early);
        assert_eq!(set.may_rotate(KeyAlgorithm::EdDsa, NOW), Ok(()), "the others wait for nothing");
        set.add(p256(3), 3, NOW + LEAD).unwrap();
        assert_eq!(signs(&set, NOW + LEAD * 2), Some(3));
    }

    #[test]
    fn a_key_stays_until_nothing_that_it_signed_is_needed() {
        let mut set = set();
        set.add(PublicJwk::ed25519(&[9; 32]), 9, NOW).unwrap();
        set.add(p256(2), 2, NOW).unwrap();
        set.add(p256(3), 3, NOW + LEAD).unwrap();
        let left = |set: &KeySet<u8>| set.iter().map(|key| key.private).collect::<Vec<_>>();
        let needed_until = NOW + LEAD + RETENTION + QUEUED_AFTER;
        set.remove_unneeded(needed_until, RETENTION);
        assert_eq!(left(&set), [1, 9, 2, 3]);
        set.remove_unneeded(needed_until + Duration::from_millis(1), RETENTION);
        assert_eq!(left(&set), [9, 2, 3]);
        set.remove_unneeded(NOW + RETENTION * 100, RETENTION);
        assert_eq!(left(&set), [9, 3], "the last one of an algorithm stays");
        assert_eq!(signs(&set, NOW), Some(3));
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut set = set();
        let mut now = NOW;
        for number in 2..=u8::try_from(KEYS_MAX).unwrap() {
            now = now + LEAD * 2;
            set.add(p256(number), number, now).unwrap();
        }
        assert!(set.add(p256(100), 100, now + LEAD * 2).is_err());
        set.remove_unneeded(now + RETENTION * 2, RETENTION);
        assert_eq!(set.add(p256(100), 100, now + RETENTION * 2), Ok(()));
    }
}
