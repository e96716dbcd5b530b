//! For tests: an issuer of tokens with keys of its own, which are made anew in each run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{encoding::AsDer as _, hmac};
use carillon_core::endpoint::EndpointRules;
use carillon_core::time::UnixMillis;
use carillon_sender::Sender;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::keys::{Issuer, Keys};

pub(super) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(super) fn secs(time: UnixMillis) -> u64 {
    time.as_secs()
}

/// What tokens are signed by.
pub(super) enum Secret {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Hmac(Vec<u8>),
}

impl Secret {
    pub(super) fn rsa() -> &'static Self {
        static RSA: LazyLock<Secret> = LazyLock::new(new_rsa);
        &RSA
    }

    /// Another RSA key, which the issuer knows nothing of.
    pub(super) fn stranger() -> &'static Self {
        static STRANGER: LazyLock<Secret> = LazyLock::new(new_rsa);
        &STRANGER
    }

    pub(super) fn ec() -> &'static Self {
        static EC: LazyLock<Secret> =
            LazyLock::new(|| Secret::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()));
        &EC
    }

    pub(super) fn ed() -> &'static Self {
        static ED: LazyLock<Secret> = LazyLock::new(|| Secret::Ed(Ed25519KeyPair::generate().unwrap()));
        &ED
    }

    /// The public key as a JWK (RFC 7517; OKP: RFC 8037).
    pub(super) fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": id, "n": text(&public.n), "e": text(&public.e)})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": text(x), "y": text(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": text(pair.public_key().as_ref())})
            }
            Self::Hmac(_) => panic!("it has no public key"),
        }
    }

    /// The public key in the forms that a careless verifier may take for the secret of an HMAC.
    pub(super) fn as_hmac_secrets(&self, id: &str) -> Vec<Self> {
        let Self::Rsa(pair) = self else { panic!("not an RSA key") };
        let jwk = self.jwk(id);
        let modulus = BASE64URL_NOPAD.decode(jwk["n"].as_str().unwrap().as_bytes()).unwrap();
        let pkcs1 = pair.public_key().as_ref().to_vec();
        let x509 = pair.public_key().as_der().unwrap().as_ref().to_vec();
        [modulus, pkcs1, x509, jwk.to_string().into_bytes()].map(Self::Hmac).into()
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                    if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Hmac(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
        }
    }
}

fn new_rsa() -> Secret {
    Secret::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// A token in the compact form (RFC 7515, section 7.1), whatever its header says.
pub(super) fn jwt(secret: &Secret, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = secret.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// An issuer on 127.0.0.1 that tells its configuration and its keys.
pub(super) struct FakeIssuer {
    url: String,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    keys: Mutex<Vec<Value>>,
    down: AtomicBool,
    fetched: AtomicUsize,
}

impl FakeIssuer {
    pub(super) async fn with(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::new(Told { keys: keys.into(), ..Told::default() });
        tokio::spawn(serve(listener, url.clone(), told.clone()));
        Self { url, told }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn discovery(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.url)
    }

    /// From now on it has these keys, and answers.
    pub(super) fn tells(&self, keys: Vec<Value>) {
        *self.told.keys.lock().unwrap() = keys;
        self.told.down.store(false, Ordering::SeqCst);
    }

    pub(super) fn goes_down(&self) {
        self.told.down.store(true, Ordering::SeqCst);
    }

    /// How often its keys were fetched.
    pub(super) fn fetched(&self) -> usize {
        self.told.fetched.load(Ordering::SeqCst)
    }

    pub(super) fn keys(&self) -> Keys {
        self.keys_as(&self.url)
    }

    /// Its keys, as seen by somebody who expects an issuer of this name.
    pub(super) fn keys_as(&self, name: &str) -> Keys {
        Keys::new(Issuer::new(name.to_owned(), &self.discovery(), sender()).unwrap())
    }

    /// What a good token of a Cognito user pool says.
    pub(super) fn claims(&self, now: UnixMillis) -> Value {
        json!({
            "iss": self.url,
            "client_id": "client-1",
            "token_use": "access",
            "scope": "carillon/publish carillon/read",
            "iat": secs(now) - 10,
            "exp": secs(now) + 3600,
        })
    }
}

/// A sender that reaches the issuer.
pub(super) fn sender() -> Sender {
    Sender::new(&EndpointRules { reach: "127.0.0.0/8".parse().unwrap(), allow_insecure: true })
}

async fn serve(listener: TcpListener, url: String, told: Arc<Told>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..read]);
        let (status, body) = match request.split(' ').nth(1) {
            _ if told.down.load(Ordering::SeqCst) => ("500 Down", json!({})),
            Some("/.well-known/openid-configuration") => {
                ("200 OK", json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
            }
            Some("/keys") => {
                told.fetched.fetch_add(1, Ordering::SeqCst);
                ("200 OK", json!({"keys": *told.keys.lock().unwrap()}))
            }
            _ => ("404 Not Found", json!({})),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    }
}
