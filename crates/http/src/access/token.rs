//! Access tokens: JWTs (RFC 9068, and what Cognito, Azure and Okta make of it), verified.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_core::access::Scope;
use carillon_core::id::ClientId;
use carillon_core::time::UnixMillis;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde::Deserialize;

use super::keys::{Keys, NoKey};

/// The largest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the issuer's clock may be ahead of ours, in seconds.
const LEEWAY_SECS: f64 = 60.0;

/// The algorithms that are taken. Those by a shared secret are not among them: the issuer's key is public.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// The types of tokens that are taken, in lower case. Security events, logout tokens and the like are signed by the same
/// keys and say so here.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// What a deployment expects of tokens.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The issuer, exactly as in `iss`.
    pub issuer: String,
    /// Where the issuer's configuration lies: most often `issuer`/.well-known/openid-configuration.
    pub discovery: String,
    /// What `aud` must contain. `None`: tokens carry none, as those of Cognito's client credentials; they must then be
    /// access tokens by `token_use` and have one of our scopes.
    pub audience: Option<String>,
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) client: ClientId,
    /// Those of Carillon alone.
    pub(super) scopes: BTreeSet<Scope>,
}

/// Why a token is refused: for the log, never for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("cannot be read as a JWT")]
    Malformed,
    #[error("is of another type than access tokens")]
    Type,
    #[error("is signed by an algorithm that is not taken")]
    Algorithm,
    #[error("has extensions that must be understood")]
    Critical,
    #[error(transparent)]
    Key(#[from] NoKey),
    #[error("has a signature of something else")]
    Signature,
    #[error("has expired, or does not say when it expires")]
    Expired,
    #[error("is not valid yet")]
    NotYetValid,
    #[error("is from another issuer")]
    Issuer,
    #[error("is for another audience")]
    Audience,
    #[error("is no access token")]
    Use,
    #[error("has no scope of Carillon")]
    Scopes,
    #[error("names no client, or one whose name cannot be used")]
    Client,
}

/// Verifies tokens.
pub(super) struct Verifier {
    keys: Keys,
    audience: Option<String>,
}

impl Verifier {
    pub(super) fn new(keys: Keys, audience: Option<String>) -> Self {
        Self { keys, audience }
    }

    pub(super) async fn verify(&self, token: &str, now: UnixMillis) -> Result<Token, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        // A header with `alg: none` is none to this library.
        let header = decode_header(token).map_err(|_| Refused::Malformed)?;
        check_header(&header)?;
        let key = self.keys.find(header.kid.as_deref(), header.alg, now).await?;
        let claims = decode::<Claims>(token, &key, &signature_alone(header.alg));
        let claims = claims.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Refused::Signature,
            _ => Refused::Malformed,
        })?;
        self.check(claims.claims, now)
    }

    fn check(&self, claims: Claims, now: UnixMillis) -> Result<Token, Refused> {
        let now = Duration::from_millis(now.0).as_secs_f64();
        let is_future = |time: Option<f64>| time.is_some_and(|time| time > now + LEEWAY_SECS);
        let scopes = claims.scopes();
        if claims.iss.as_deref() != Some(self.keys.issuer()) {
            return Err(Refused::Issuer);
        }
        if claims.exp.is_none_or(|expires| expires <= now) {
            return Err(Refused::Expired);
        }
        if is_future(claims.nbf) || is_future(claims.iat) {
            return Err(Refused::NotYetValid);
        }
        if claims.token_use.as_ref().is_some_and(|it| it != "access") {
            return Err(Refused::Use);
        }
        match &self.audience {
            Some(audience) if !claims.aud.contains(audience) => return Err(Refused::Audience),
            None if claims.token_use.is_none() => return Err(Refused::Use),
            None if scopes.is_empty() => return Err(Refused::Scopes),
            _ => {}
        }
        let client = claims.client_id.or(claims.azp).or(claims.sub).ok_or(Refused::Client)?;
        Ok(Token { client: client.parse().map_err(|_| Refused::Client)?, scopes })
    }
}

fn check_header(header: &Header) -> Result<(), Refused> {
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Refused::Algorithm);
    }
    if header.crit.is_some() {
        return Err(Refused::Critical);
    }
    match &header.typ {
        Some(typ) if !TYPES.contains(&typ.to_ascii_lowercase().as_str()) => Err(Refused::Type),
        _ => Ok(()),
    }
}

/// The claims are checked here, by the clock that the caller has read.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// Times are seconds since 1970, with fractions at will (RFC 7519, section 2).
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(default)]
    aud: OneOrMore,
    token_use: Option<String>,
    scope: Option<String>,
    /// What Azure and Okta have in the place of `scope`.
    #[serde(default)]
    scp: OneOrMore,
    client_id: Option<String>,
    azp: Option<String>,
    sub: Option<String>,
}

impl Claims {
    fn scopes(&self) -> BTreeSet<Scope> {
        let names = self.scope.iter().chain(&self.scp.0).flat_map(|names| names.split(' '));
        names.filter_map(|name| name.parse().ok()).collect()
    }
}

/// A string or several.
#[derive(Default, Deserialize)]
#[serde(from = "Written")]
struct OneOrMore(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    More(Vec<String>),
}

impl From<Written> for OneOrMore {
    fn from(written: Written) -> Self {
        match written {
            Written::One(one) => Self(vec![one]),
            Written::More(more) => Self(more),
        }
    }
}

impl OneOrMore {
    fn contains(&self, sought: &str) -> bool {
        self.0.iter().any(|one| one == sought)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{FakeIssuer, NOW, Secret, jwt, secs};
    use super::*;

    struct World {
        issuer: FakeIssuer,
        verifier: Verifier,
    }

    impl World {
        async fn new(audience: Option<&str>) -> Self {
            let jwks = vec![Secret::rsa().jwk("rsa"), Secret::ec().jwk("ec"), Secret::ed().jwk("ed")];
            let issuer = FakeIssuer::with(jwks).await;
            let verifier = Verifier::new(issuer.keys(), audience.map(str::to_owned));
            Self { issuer, verifier }
        }

        /// The claims of a good token, changed; `null` takes one away.
        fn claims(&self, changes: &Value) -> Value {
            let mut claims = self.issuer.claims(NOW);
            for (name, value) in changes.as_object().unwrap() {
                match value {
                    Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                    value => claims[name] = value.clone(),
                }
            }
            claims
        }

        fn token(&self, header: &Value, changes: &Value) -> String {
            jwt(Secret::rsa(), header, &self.claims(changes))
        }

        async fn refusal(&self, token: &str) -> Option<Refused> {
            self.verifier.verify(token, NOW).await.err()
        }

        async fn refusal_of(&self, changes: Value) -> Option<Refused> {
            self.refusal(&self.token(&json!({"alg": "RS256", "kid": "rsa"}), &changes)).await
        }
    }

    #[tokio::test]
    async fn each_algorithm_is_taken_with_its_own_type_of_key() {
        let world = World::new(None).await;
        let claims = world.claims(&json!({}));
        for (algorithm, secret, own) in [
            ("RS256", Secret::rsa(), "rsa"),
            ("PS256", Secret::rsa(), "rsa"),
            ("ES256", Secret::ec(), "ec"),
            ("EdDSA", Secret::ed(), "ed"),
        ] {
            for id in ["rsa", "ec", "ed"] {
                let token = jwt(secret, &json!({"alg": algorithm, "kid": id}), &claims);
                let expected = (id != own).then_some(Refused::Key(NoKey::OtherAlgorithm));
                assert_eq!(world.refusal(&token).await, expected, "{algorithm} with the key {id}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_token_says() {
        let world = World::new(None).await;
        let says = async |changes: Value| {
            let token = world.token(&json!({"alg": "RS256", "kid": "rsa", "typ": "at+JWT"}), &changes);
            world.verifier.verify(&token, NOW).await
        };
        let token = |client: &str, scopes: &[Scope]| {
            Ok(Token { client: client.parse().unwrap(), scopes: scopes.iter().copied().collect() })
        };
        let (publish, read) = (Scope::Publish, Scope::Read);
        let one = json!({"scope": "openid carillon/read carillon/unheard-of"});
        assert_eq!(says(one).await, token("client-1", &[read]));
        let list = json!({"scope": null, "scp": ["carillon/read", "carillon/publish"]});
        assert_eq!(says(list).await, token("client-1", &[publish, read]));
        let text = json!({"scope": null, "scp": "carillon/read carillon/publish"});
        assert_eq!(says(text).await, token("client-1", &[publish, read]));
        let azp = json!({"client_id": null, "azp": "azp-1", "sub": "sub-1", "scope": "carillon/read"});
        assert_eq!(says(azp).await, token("azp-1", &[read]));
        let sub = json!({"client_id": null, "sub": "sub-1", "scope": "carillon/read"});
        assert_eq!(says(sub).await, token("sub-1", &[read]));
    }

    #[tokio::test]
    async fn claims_that_are_refused() {
        let world = World::new(None).await;
        let now = secs(NOW);
        for (changes, refused) in [
            (json!({"exp": now}), Some(Refused::Expired)),
            (json!({"exp": now + 1}), None),
            (json!({"exp": now + 1, "nbf": now + 60, "iat": now + 60}), None),
            (json!({"exp": null}), Some(Refused::Expired)),
            (json!({"exp": (now + 60).to_string()}), Some(Refused::Malformed)),
            (json!({"nbf": now + 61}), Some(Refused::NotYetValid)),
            (json!({"iat": now + 61}), Some(Refused::NotYetValid)),
            (json!({"iss": "https://issuer.example"}), Some(Refused::Issuer)),
            (json!({"iss": format!("{}/", world.issuer.url())}), Some(Refused::Issuer)),
            (json!({"iss": null}), Some(Refused::Issuer)),
            (json!({"token_use": null}), Some(Refused::Use)),
            (json!({"token_use": "id"}), Some(Refused::Use)),
            (json!({"scope": "openid"}), Some(Refused::Scopes)),
            (json!({"scope": null}), Some(Refused::Scopes)),
            (json!({"client_id": null}), Some(Refused::Client)),
            (json!({"client_id": "a/b"}), Some(Refused::Client)),
        ] {
            assert_eq!(world.refusal_of(changes.clone()).await, refused, "{changes}");
        }
    }

    #[tokio::test]
    async fn an_audience_that_is_demanded_must_be_there() {
        let world = World::new(Some("https://carillon.example")).await;
        for (changes, refused) in [
            (json!({"aud": "https://carillon.example", "token_use": null}), None),
            (json!({"aud": ["other", "https://carillon.example"]}), None),
            (json!({"aud": "https://carillon.example", "token_use": "id"}), Some(Refused::Use)),
            (json!({"aud": "other"}), Some(Refused::Audience)),
            (json!({"aud": ["https://carillon.example/"]}), Some(Refused::Audience)),
            (json!({"aud": []}), Some(Refused::Audience)),
            (json!({}), Some(Refused::Audience)),
        ] {
            assert_eq!(world.refusal_of(changes.clone()).await, refused, "{changes}");
        }
    }

    #[tokio::test]
    async fn headers_that_are_refused() {
        let world = World::new(None).await;
        for (header, refused) in [
            (json!({"alg": "RS256", "kid": "other"}), Refused::Key(NoKey::Unknown)),
            (json!({"alg": "RS512", "kid": "rsa"}), Refused::Algorithm),
            (json!({"alg": "ES384", "kid": "ec"}), Refused::Algorithm),
            (json!({"alg": "HS256", "kid": "rsa"}), Refused::Algorithm),
            (json!({"alg": "none", "kid": "rsa"}), Refused::Malformed),
            (json!({"alg": "None"}), Refused::Malformed),
            (json!({"kid": "rsa"}), Refused::Malformed),
            (json!({"alg": "RS256", "kid": "rsa", "typ": "logout+jwt"}), Refused::Type),
            (json!({"alg": "RS256", "kid": "rsa", "typ": "secevent+jwt"}), Refused::Type),
            (json!({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false}), Refused::Critical),
        ] {
            let token = world.token(&header, &json!({}));
            assert_eq!(world.refusal(&token).await, Some(refused), "{header}");
        }
    }

    #[tokio::test]
    async fn forgeries_are_refused() {
        let world = World::new(None).await;
        let header = json!({"alg": "RS256", "kid": "rsa"});
        let good = world.token(&header, &json!({}));
        assert_eq!(world.refusal(&good).await, None);
        let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
        let admin = world.token(&header, &json!({"scope": "carillon/admin"}));
        let wider = admin.split('.').nth(1).unwrap();
        let by_stranger = jwt(Secret::stranger(), &header, &world.claims(&json!({})));
        let unsigned = jwt(Secret::rsa(), &json!({"alg": "none"}), &world.claims(&json!({})));
        let unsigned = unsigned.rsplit_once('.').unwrap().0;
        for (token, refused) in [
            (by_stranger, Refused::Signature),
            (format!("{head}.{wider}.{signature}"), Refused::Signature),
            (format!("{head}.{claims}."), Refused::Signature),
            (format!("{head}.{claims}.AAAA"), Refused::Signature),
            (format!("{head}.{claims}"), Refused::Malformed),
            (format!("{good}.{signature}"), Refused::Malformed),
            (format!("{unsigned}."), Refused::Malformed),
            ("x".repeat(TOKEN_BYTES_MAX + 1), Refused::TooLong),
            (String::new(), Refused::Malformed),
        ] {
            assert_eq!(world.refusal(&token).await, Some(refused), "{token}");
        }
    }

    /// The oldest trick: the issuer's public key, which everybody knows, as the secret of an HMAC.
    #[tokio::test]
    async fn a_public_key_is_no_secret() {
        let world = World::new(None).await;
        let header = json!({"alg": "HS256", "kid": "rsa"});
        let claims = world.claims(&json!({}));
        for secret in Secret::rsa().as_hmac_secrets("rsa") {
            let token = jwt(&secret, &header, &claims);
            assert_eq!(world.refusal(&token).await, Some(Refused::Algorithm));
        }
    }
}
