//! The issuer's keys: found by OpenID Connect Discovery, kept, and renewed when a token names one that is not among them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use carillon_core::endpoint::{Endpoint, EndpointError};
use carillon_core::outcome::Failure;
use carillon_core::time::UnixMillis;
use carillon_sender::{Request, Sender};
use http::{HeaderMap, Method, StatusCode};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

/// How long keys are kept before they are fetched anew, so that a key that the issuer has withdrawn ends.
const KEPT: Duration = Duration::from_hours(1);

/// How long after a fetch the next one begins at the earliest: tokens that name unknown keys cost nothing to forge.
const FETCHED_EVERY: Duration = Duration::from_secs(30);

/// The same as long as there are no keys at all, and no token can be verified.
const TRIED_EVERY: Duration = Duration::from_secs(1);

/// How long the issuer has for each answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// How many keys of the issuer are looked at.
const KEYS_MAX: usize = 64;

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoKey {
    /// The issuer has none of this name.
    #[error("names no key of the issuer")]
    Unknown,
    /// The key is not for this algorithm.
    #[error("names a key that is not for its algorithm")]
    OtherAlgorithm,
    /// The issuer has not told its keys yet.
    #[error("cannot be verified, since the issuer's keys are not known")]
    NotFetched,
}

/// The keys that tokens are verified by. Nothing is fetched before the first token comes.
pub(super) struct Keys {
    issuer: Issuer,
    held: RwLock<Held>,
    /// Whoever has it fetches; the others wait for what it finds.
    turn: Mutex<()>,
}

impl Keys {
    pub(super) fn new(issuer: Issuer) -> Self {
        Self { issuer, held: RwLock::default(), turn: Mutex::default() }
    }

    /// The name of the issuer, as it stands in tokens.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer.name
    }

    /// The key that a token names, for the algorithm that it names.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: UnixMillis,
    ) -> Result<DecodingKey, NoKey> {
        let held = self.held();
        if held.is_fresh(now) {
            match held.find(id, algorithm) {
                Err(NoKey::Unknown) => {}
                found => return found,
            }
        }
        self.renew(now).await;
        self.held().find(id, algorithm)
    }

    /// Fetches the keys, unless that was tried a moment ago. When the issuer does not answer, those that are held stay.
    async fn renew(&self, now: UnixMillis) {
        let _turn = self.turn.lock().await;
        if !self.held().may_be_renewed(now) {
            return;
        }
        let fetched = self.issuer.fetch().await;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.tried_at = Some(now);
        match fetched {
            Ok(keys) => {
                held.keys = keys.into();
                held.fetched_at = Some(now);
            }
            Err(error) => tracing::error!(%error, "the issuer's keys cannot be fetched"),
        }
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone, Default)]
struct Held {
    keys: Arc<[Key]>,
    fetched_at: Option<UnixMillis>,
    tried_at: Option<UnixMillis>,
}

impl Held {
    fn is_fresh(&self, now: UnixMillis) -> bool {
        self.fetched_at.is_some_and(|at| now.since(at) < KEPT)
    }

    fn may_be_renewed(&self, now: UnixMillis) -> bool {
        let pause = if self.fetched_at.is_some() { FETCHED_EVERY } else { TRIED_EVERY };
        self.tried_at.is_none_or(|at| now.since(at) >= pause)
    }

    /// A token without a key's name is the only fitting key's.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, NoKey> {
        if self.fetched_at.is_none() {
            return Err(NoKey::NotFetched);
        }
        let mut named = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        if named.peek().is_none() {
            return Err(NoKey::Unknown);
        }
        let fitting: Vec<_> = named.filter(|key| key.algorithms.contains(&algorithm)).collect();
        match &fitting[..] {
            [] => Err(NoKey::OtherAlgorithm),
            [key] => Ok(key.public.clone()),
            _ => Err(NoKey::Unknown),
        }
    }
}

/// A public key and what it may verify, which its own type decides and never a token.
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

impl Key {
    /// `None` for a key that is for something else, or of a type that is not taken.
    fn read(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
                && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let is_for = |algorithm: &Algorithm| {
            common.key_algorithm.is_none_or(|only| only == KeyAlgorithm::from(*algorithm))
        };
        let by_type: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                &[Algorithm::ES256]
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => &[],
        };
        let algorithms: Vec<_> = by_type.iter().copied().filter(is_for).collect();
        if !is_for_signatures || algorithms.is_empty() {
            return None;
        }
        Some(Self { id: common.key_id.clone(), algorithms, public: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// Where the keys come from.
pub(super) struct Issuer {
    name: String,
    discovery: Endpoint,
    sender: Sender,
}

/// The keys cannot be fetched.
#[derive(Debug, thiserror::Error)]
enum NotFetched {
    #[error("{0} gave no answer: {1:?}")]
    Unanswered(Endpoint, Failure),
    #[error("{0} answered {1}")]
    Status(Endpoint, u16),
    #[error("{0} answered with something else: {1}")]
    Unreadable(Endpoint, serde_json::Error),
    #[error("the configuration is of the issuer `{0}`")]
    OtherIssuer(String),
    #[error("the address of the keys {0}")]
    Address(#[from] EndpointError),
    #[error("there is no key that can be used")]
    NoKeys,
}

/// What counts of the issuer's configuration (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// A JWK set (RFC 7517, section 5): members that make no sense are skipped.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Issuer {
    /// `name` is what tokens call it, `discovery` where its configuration lies.
    pub(super) fn new(name: String, discovery: &str, sender: Sender) -> Result<Self, EndpointError> {
        Ok(Self { name, discovery: sender.rules().check(discovery)?, sender })
    }

    async fn fetch(&self) -> Result<Vec<Key>, NotFetched> {
        let configuration: Configuration = self.get(&self.discovery).await?;
        if configuration.issuer != self.name {
            return Err(NotFetched::OtherIssuer(configuration.issuer));
        }
        let set: KeySet = self.get(&self.sender.rules().check(&configuration.jwks_uri)?).await?;
        let jwks = set.keys.into_iter().take(KEYS_MAX).filter_map(|jwk| serde_json::from_value(jwk).ok());
        let keys: Vec<_> = jwks.filter_map(|jwk| Key::read(&jwk)).collect();
        if keys.is_empty() { Err(NotFetched::NoKeys) } else { Ok(keys) }
    }

    async fn get<T: DeserializeOwned>(&self, endpoint: &Endpoint) -> Result<T, NotFetched> {
        let request = Request {
            method: Method::GET,
            endpoint,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: FETCH_TIMEOUT,
            check_certificates: true,
            identity: None,
        };
        let answer = self.sender.request(request).await;
        let answer = answer.map_err(|failure| NotFetched::Unanswered(endpoint.clone(), failure))?;
        if answer.status != StatusCode::OK.as_u16() {
            return Err(NotFetched::Status(endpoint.clone(), answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| NotFetched::Unreadable(endpoint.clone(), error))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use serde_json::json;

    use super::super::testing::{FakeIssuer, NOW, Secret};
    use super::*;

    const RS256: Algorithm = Algorithm::RS256;

    fn later(secs: u64) -> UnixMillis {
        NOW + Duration::from_secs(secs)
    }

    async fn found(keys: &Keys, id: &str, now: UnixMillis) -> Result<(), NoKey> {
        keys.find(Some(id), RS256, now).await.map(drop)
    }

    #[tokio::test]
    async fn keys_are_fetched_once_and_kept_for_an_hour() {
        let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("a")]).await;
        let keys = issuer.keys();
        assert_eq!(issuer.fetched(), 0, "nothing before the first token");
        for secs in [0, 1, 3599] {
            assert_eq!(found(&keys, "a", later(secs)).await, Ok(()));
            assert_eq!(issuer.fetched(), 1);
        }
        issuer.tells(vec![Secret::rsa().jwk("b")]);
        assert_eq!(found(&keys, "a", later(3600)).await, Err(NoKey::Unknown), "it was withdrawn");
        assert_eq!(issuer.fetched(), 2);
    }

    #[tokio::test]
    async fn an_unknown_key_has_them_renewed_but_not_at_once_again() {
        let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("a")]).await;
        let keys = issuer.keys();
        assert_eq!(found(&keys, "a", NOW).await, Ok(()));
        issuer.tells(vec![Secret::rsa().jwk("b")]);
        assert_eq!(found(&keys, "b", later(29)).await, Err(NoKey::Unknown));
        assert_eq!(issuer.fetched(), 1);
        assert_eq!(found(&keys, "b", later(30)).await, Ok(()));
        assert_eq!(issuer.fetched(), 2);
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_is_one_fetch() {
        let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("a")]).await;
        let keys = issuer.keys();
        let names: Vec<_> = (0..100).map(|n| format!("forged-{n}")).collect();
        let all = join_all(names.iter().map(|name| found(&keys, name, NOW))).await;
        assert!(all.iter().all(|found| *found == Err(NoKey::Unknown)));
        assert_eq!(issuer.fetched(), 1);
    }

    #[tokio::test]
    async fn the_old_keys_stay_while_the_issuer_does_not_answer() {
        let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("a")]).await;
        let keys = issuer.keys();
        assert_eq!(found(&keys, "a", NOW).await, Ok(()));
        issuer.goes_down();
        assert_eq!(found(&keys, "a", later(4000)).await, Ok(()));
        assert_eq!(found(&keys, "b", later(8000)).await, Err(NoKey::Unknown));
        issuer.tells(vec![]);
        assert_eq!(found(&keys, "a", later(12_000)).await, Ok(()), "a set without keys is no answer");
    }

    #[tokio::test]
    async fn without_keys_the_issuer_is_asked_again_soon() {
        let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("a")]).await;
        let keys = issuer.keys();
        issuer.goes_down();
        assert_eq!(found(&keys, "a", NOW).await, Err(NoKey::NotFetched));
        issuer.tells(vec![Secret::rsa().jwk("a")]);
        assert_eq!(found(&keys, "a", NOW).await, Err(NoKey::NotFetched));
        assert_eq!(found(&keys, "a", later(1)).await, Ok(()));
    }

    #[tokio::test]
    async fn the_configuration_of_another_issuer_is_not_used() {
        let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("a")]).await;
        let keys = issuer.keys_as("https://issuer.example");
        assert_eq!(found(&keys, "a", NOW).await, Err(NoKey::NotFetched));
        assert_eq!(issuer.fetched(), 0);
    }

    #[tokio::test]
    async fn keys_for_something_else_are_skipped() {
        let rsa = |changes: Value| {
            let mut jwk = Secret::rsa().jwk("a");
            jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            jwk
        };
        for (jwk, fits) in [
            (rsa(json!({})), true),
            (rsa(json!({"use": "sig", "alg": "RS256", "key_ops": ["verify"]})), true),
            (rsa(json!({"use": "enc"})), false),
            (rsa(json!({"key_ops": ["encrypt"]})), false),
            (rsa(json!({"alg": "RS512"})), false),
            (rsa(json!({"alg": "RSA-OAEP"})), false),
            (rsa(json!({"n": "!"})), false),
            (rsa(json!({"kty": "unheard-of"})), false),
            (json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0"}), false),
            (json!("nonsense"), false),
        ] {
            let issuer = FakeIssuer::with(vec![jwk.clone(), Secret::ec().jwk("other")]).await;
            let expected = if fits { Ok(()) } else { Err(NoKey::Unknown) };
            assert_eq!(found(&issuer.keys(), "a", NOW).await, expected, "{jwk}");
        }
        let only_pss = FakeIssuer::with(vec![rsa(json!({"alg": "PS256"}))]).await;
        assert_eq!(found(&only_pss.keys(), "a", NOW).await, Err(NoKey::OtherAlgorithm));
    }

    #[tokio::test]
    async fn a_token_without_a_name_of_a_key_is_the_only_fitting_ones() {
        let find = async |jwks: Vec<Value>| {
            FakeIssuer::with(jwks).await.keys().find(None, RS256, NOW).await.map(drop)
        };
        assert_eq!(find(vec![Secret::rsa().jwk("a"), Secret::ec().jwk("b")]).await, Ok(()));
        assert_eq!(find(vec![Secret::ec().jwk("b")]).await, Err(NoKey::OtherAlgorithm));
        let two = vec![Secret::rsa().jwk("a"), Secret::rsa().jwk("b")];
        assert_eq!(find(two).await, Err(NoKey::Unknown));
    }
}
