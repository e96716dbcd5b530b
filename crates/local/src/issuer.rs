//! An issuer of tokens whose every token, right or forged, is the test's to choose.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding,
};
use aws_lc_rs::{error::Unspecified, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long the claims that the issuer proposes are good.
const VALIDITY: Duration = Duration::from_mins(10);

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";

/// An OIDC issuer on a free port of this machine, until it is dropped: a discovery document and a key set.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

/// What a token is signed with (RFC 7518, section 3.1; RFC 8037 for `EdDSA`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The published RSA key, by `RS256`.
    Rs256,
    /// The published RSA key, by `PS256`.
    Ps256,
    /// The published P-256 key, by `ES256`.
    Es256,
    /// The published Ed25519 key, by `EdDSA`.
    EdDsa,
    /// An RSA key that was never published, by `RS256`.
    Stranger,
    /// The published RSA key's public half, taken for the secret of an `HS256`.
    PublicKeyAsSecret,
    /// Nothing: an empty signature, with the algorithm `none`.
    Nothing,
}

impl Issuer {
    /// Starts one, with new keys.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            url: format!("http://{address}"),
            keys: RwLock::new(Keys::generate(1)?),
            generations: AtomicUsize::new(1),
            stranger: rsa_key()?,
            discoveries: AtomicUsize::new(0),
            key_fetches: AtomicUsize::new(0),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, state, server })
    }

    /// The issuer's name, as it stands in `iss`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The claims of a good access token, valid from now on for ten minutes, to be changed at will. The scopes are
    /// separated by spaces (RFC 9068, section 2.2).
    #[must_use]
    pub fn claims(&self, client_id: &str, audience: &str, scopes: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url(),
            "aud": audience,
            "sub": client_id,
            "client_id": client_id,
            "scope": scopes,
            "iat": now,
            "nbf": now,
            "exp": now + VALIDITY.as_secs(),
        })
    }

    /// A token that says exactly this, rightly signed by `RS256`.
    pub fn token(&self, claims: &Value) -> Result<String> {
        self.sign(&self.header(Key::Rs256), claims, Key::Rs256)
    }

    /// The header that goes with a key: its algorithm, its id, and the type. A forged key claims to be the RSA key.
    #[must_use]
    pub fn header(&self, key: Key) -> Value {
        let algorithm = match key {
            Key::Rs256 | Key::Stranger => "RS256",
            Key::Ps256 => "PS256",
            Key::Es256 => "ES256",
            Key::EdDsa => "EdDSA",
            Key::PublicKeyAsSecret => "HS256",
            Key::Nothing => "none",
        };
        let generation = self.state.keys().generation;
        let kid = match key {
            Key::Es256 => ec_id(generation),
            Key::EdDsa => ed_id(generation),
            _ => rsa_id(generation),
        };
        json!({ "alg": algorithm, "kid": kid, "typ": "at+jwt" })
    }

    /// A token with any header and any claims, signed with this key whatever the header says (RFC 7515, section 3.1).
    pub fn sign(&self, header: &Value, claims: &Value, key: Key) -> Result<String> {
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.state.signature(signed.as_bytes(), key);
        let signature = signature.map_err(|_| anyhow!("{key:?} signs nothing"))?;
        Ok(format!("{signed}.{}", encoded(signature)))
    }

    /// Replaces the published keys by new ones, under new ids.
    pub fn rotate(&self) -> Result<()> {
        let generation = self.state.generations.fetch_add(1, Relaxed) + 1;
        let keys = Keys::generate(generation)?;
        *self.state.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// How often the discovery document was fetched.
    #[must_use]
    pub fn discoveries(&self) -> usize {
        self.state.discoveries.load(Relaxed)
    }

    /// How often the keys were fetched.
    #[must_use]
    pub fn key_fetches(&self) -> usize {
        self.state.key_fetches.load(Relaxed)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
struct State {
    url: String,
    keys: RwLock<Keys>,
    generations: AtomicUsize,
    stranger: RsaKeyPair,
    discoveries: AtomicUsize,
    key_fetches: AtomicUsize,
}

impl State {
    fn keys(&self) -> std::sync::RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn signature(&self, message: &[u8], key: Key) -> Result<Vec<u8>, Unspecified> {
        let keys = self.keys();
        match key {
            Key::Rs256 => rsa_signature(&keys.rsa, &RSA_PKCS1_SHA256, message),
            Key::Ps256 => rsa_signature(&keys.rsa, &RSA_PSS_SHA256, message),
            Key::Es256 => Ok(keys.ec.sign(&SystemRandom::new(), message)?.as_ref().to_vec()),
            Key::EdDsa => Ok(keys.ed.sign(message).as_ref().to_vec()),
            Key::Stranger => rsa_signature(&self.stranger, &RSA_PKCS1_SHA256, message),
            Key::PublicKeyAsSecret => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, keys.rsa.public_key().as_ref());
                Ok(hmac::sign(&secret, message).as_ref().to_vec())
            }
            Key::Nothing => Ok(Vec::new()),
        }
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let document = match path {
            DISCOVERY => {
                self.discoveries.fetch_add(1, Relaxed);
                json!({
                    "issuer": self.url,
                    "jwks_uri": format!("{}{KEYS}", self.url),
                    "token_endpoint": format!("{}/token", self.url),
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA"],
                })
            }
            KEYS => {
                self.key_fetches.fetch_add(1, Relaxed);
                self.keys().published()
            }
            _ => Value::Null,
        };
        let mut response = Response::new(Full::from(document.to_string()));
        if document.is_null() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// The published keys. Each generation has ids of its own.
#[derive(Debug)]
struct Keys {
    generation: usize,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Keys {
    fn generate(generation: usize) -> Result<Self> {
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok().context("no P-256 key")?;
        let ed = Ed25519KeyPair::generate().ok().context("no Ed25519 key")?;
        Ok(Self { generation, rsa: rsa_key()?, ec, ed })
    }

    /// The key set (RFC 7517, section 5).
    fn published(&self) -> Value {
        let rsa = self.rsa.public_key();
        // An uncompressed point: a byte that says so, then both coordinates (SEC 1, section 2.3.3).
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!({ "keys": [
            {
                // It names no algorithm, as it serves two.
                "kty": "RSA", "use": "sig", "kid": rsa_id(self.generation),
                "n": encoded(rsa.modulus().big_endian_without_leading_zero()),
                "e": encoded(rsa.exponent().big_endian_without_leading_zero()),
            },
            {
                "kty": "EC", "use": "sig", "alg": "ES256", "kid": ec_id(self.generation),
                "crv": "P-256", "x": encoded(x), "y": encoded(y),
            },
            {
                "kty": "OKP", "use": "sig", "alg": "EdDSA", "kid": ed_id(self.generation),
                "crv": "Ed25519", "x": encoded(self.ed.public_key()),
            },
        ] })
    }
}

fn rsa_id(generation: usize) -> String {
    format!("rsa-{generation}")
}

fn ec_id(generation: usize) -> String {
    format!("ec-{generation}")
}

fn ed_id(generation: usize) -> String {
    format!("ed-{generation}")
}

fn rsa_key() -> Result<RsaKeyPair> {
    RsaKeyPair::generate(KeySize::Rsa2048).ok().context("no RSA key")
}

fn rsa_signature(
    key: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    message: &[u8],
) -> Result<Vec<u8>, Unspecified> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature)?;
    Ok(signature)
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// In seconds since 1970, as tokens count.
fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "who checks the token reads the real time too")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, Arc::clone(&state)));
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let answer = state.answer(request.uri().path());
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    // An error is a client that went away.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

    use super::*;
    use crate::client::send;

    async fn fetched(url: &str) -> Value {
        let request = http::Request::get(url).body(Vec::new()).unwrap();
        send(request).await.unwrap().expect_status(200).unwrap().json()
    }

    /// Checks a token as whoever reads the discovery document does.
    async fn accepted(issuer: &Issuer, token: &str) -> Result<Value> {
        let discovery = fetched(&format!("{}{DISCOVERY}", issuer.url())).await;
        let keys: JwkSet = serde_json::from_value(fetched(discovery["jwks_uri"].as_str().unwrap()).await)?;
        let header = jsonwebtoken::decode_header(token)?;
        let key = keys.find(header.kid.as_deref().unwrap_or_default()).context("unknown key")?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[discovery["issuer"].as_str().unwrap()]);
        validation.set_audience(&["carillon"]);
        Ok(decode::<Value>(token, &DecodingKey::from_jwk(key)?, &validation)?.claims)
    }

    #[tokio::test]
    async fn every_published_key_signs_what_its_readers_accept() {
        let issuer = Issuer::start().await.unwrap();
        let claims = issuer.claims("client-1", "carillon", "carillon/read carillon/publish");
        for key in [Key::Rs256, Key::Ps256, Key::Es256, Key::EdDsa] {
            let token = issuer.sign(&issuer.header(key), &claims, key).unwrap();
            assert_eq!(accepted(&issuer, &token).await.unwrap(), claims, "{key:?}");
        }
        assert_eq!(accepted(&issuer, &issuer.token(&claims).unwrap()).await.unwrap(), claims);
        assert_eq!((issuer.discoveries(), issuer.key_fetches()), (5, 5));
    }

    #[tokio::test]
    async fn forged_tokens_are_refused() {
        let issuer = Issuer::start().await.unwrap();
        let claims = issuer.claims("client-1", "carillon", "carillon/read");
        for key in [Key::Stranger, Key::PublicKeyAsSecret, Key::Nothing] {
            let token = issuer.sign(&issuer.header(key), &claims, key).unwrap();
            assert!(accepted(&issuer, &token).await.is_err(), "{key:?}");
        }
        // A right signature by a key that the header does not name.
        let token = issuer.sign(&issuer.header(Key::Rs256), &claims, Key::Es256).unwrap();
        assert!(accepted(&issuer, &token).await.is_err());
    }

    #[tokio::test]
    async fn the_public_key_as_a_secret_would_fool_whoever_takes_the_header_at_its_word() {
        let issuer = Issuer::start().await.unwrap();
        let claims = issuer.claims("client-1", "carillon", "carillon/read");
        let key = Key::PublicKeyAsSecret;
        let token = issuer.sign(&issuer.header(key), &claims, key).unwrap();
        let public = issuer.state.keys().rsa.public_key().as_ref().to_vec();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["carillon"]);
        decode::<Value>(&token, &DecodingKey::from_secret(&public), &validation).unwrap();
    }

    #[tokio::test]
    async fn rotation_withdraws_the_old_keys() {
        let issuer = Issuer::start().await.unwrap();
        let claims = issuer.claims("client-1", "carillon", "carillon/read");
        let old = issuer.token(&claims).unwrap();
        issuer.rotate().unwrap();
        assert_eq!(accepted(&issuer, &old).await.unwrap_err().to_string(), "unknown key");
        accepted(&issuer, &issuer.token(&claims).unwrap()).await.unwrap();
    }
}
