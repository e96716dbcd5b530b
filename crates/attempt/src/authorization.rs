//! How a subscription's deliveries prove who sends them, made ready from its settings and its opened secret.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use carillon_core::endpoint::Endpoint;
use carillon_core::subscription::{Authorization, ClientAuthentication, ClientCredentials, RequestFormat};
use carillon_sender::NoIdentity;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::form_urlencoded;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is shown to the receiver besides the signature. It holds secrets, so it has no `Debug`.
pub(crate) enum Proof {
    /// Nothing.
    None,
    /// A header that is the same on every attempt.
    Header(HeaderName, HeaderValue),
    /// A token, to be asked for by this request.
    Token(TokenRequest),
}

/// A request for a token by client credentials (RFC 6749, section 4.4.2). It holds a secret, so it has no `Debug`.
pub(crate) struct TokenRequest {
    pub(crate) endpoint: Endpoint,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An authorization that cannot be used. API and table let none of these in, so they are no receiver's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("its authorization, or its client certificate, has no secret")]
    Secret,
    #[error("its authorization, or one of its headers, cannot stand in a header")]
    Header,
    #[error("its client certificate and its key are none")]
    Identity(#[from] NoIdentity),
}

impl Proof {
    /// `secret`: the API key, the password, the token or the client's secret.
    pub(crate) fn new(authorization: &Authorization, secret: Option<&str>) -> Result<Self, Unusable> {
        let secret = || secret.ok_or(Unusable::Secret);
        match authorization {
            Authorization::None => Ok(Self::None),
            Authorization::ApiKey { header } => {
                let name =
                    HeaderName::from_bytes(header.as_str().as_bytes()).map_err(|_| Unusable::Header)?;
                Ok(Self::Header(name, sensitive(secret()?)?))
            }
            Authorization::Basic { user } => Ok(Self::Header(AUTHORIZATION, basic(user, secret()?)?)),
            Authorization::Bearer => Ok(Self::Header(AUTHORIZATION, bearer(secret()?)?)),
            Authorization::OAuth2(credentials) => TokenRequest::new(credentials, secret()?).map(Self::Token),
        }
    }
}

impl TokenRequest {
    fn new(credentials: &ClientCredentials, secret: &str) -> Result<Self, Unusable> {
        let ClientCredentials { token_url, client_id, scope, audience, .. } = credentials;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, JSON);
        let mut parameters = vec![("grant_type", "client_credentials")];
        parameters.extend(scope.as_deref().map(|scope| ("scope", scope)));
        parameters.extend(audience.as_deref().map(|audience| ("audience", audience)));
        match credentials.client_authentication {
            // Both are form-urlencoded first, so that an id may hold a colon (RFC 6749, section 2.3.1).
            ClientAuthentication::Header => {
                let value = basic(&urlencoded(client_id), &urlencoded(secret))?;
                headers.insert(AUTHORIZATION, value);
            }
            ClientAuthentication::Body => {
                parameters.extend([("client_id", client_id.as_str()), ("client_secret", secret)]);
            }
        }
        let (content_type, body) = match credentials.request_format {
            RequestFormat::Form => {
                (FORM, form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish())
            }
            RequestFormat::Json => {
                let members = parameters.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
                (JSON, serde_json::Value::Object(members.collect()).to_string())
            }
        };
        headers.insert(CONTENT_TYPE, content_type);
        Ok(Self { endpoint: token_url.clone(), headers, body: body.into() })
    }
}

/// A token as it is shown (RFC 6750, section 2.1). One with white space in it, or none at all, is no token.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, Unusable> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unusable::Header);
    }
    sensitive(&format!("Bearer {token}"))
}

/// A user and a password in UTF-8 (RFC 7617, section 2).
fn basic(user: &str, password: &str) -> Result<HeaderValue, Unusable> {
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

/// Form-urlencoded, with a space written as `%20` and not as `+`: both are right, and some services, Authlib among them,
/// decode this one only.
fn urlencoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A value that is shown in no `Debug`, and kept out of the tables of HTTP/2's header compression.
fn sensitive(text: &str) -> Result<HeaderValue, Unusable> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Unusable::Header)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(authorization: &Authorization, secret: &str) -> (String, String) {
        let Ok(Proof::Header(name, value)) = Proof::new(authorization, Some(secret)) else {
            panic!("{authorization:?} is a header");
        };
        assert!(!format!("{value:?}").contains(secret), "a secret is not shown");
        (name.to_string(), value.to_str().unwrap().to_owned())
    }

    fn credentials(authentication: ClientAuthentication, format: RequestFormat) -> ClientCredentials {
        ClientCredentials {
            token_url: Endpoint::stored("https://id.example.com/token").unwrap(),
            client_id: "a client:1".to_owned(),
            scope: Some("hooks write".to_owned()),
            audience: Some("https://example.com/".to_owned()),
            client_authentication: authentication,
            request_format: format,
        }
    }

    fn request(credentials: &ClientCredentials) -> (TokenRequest, Option<String>) {
        let request = TokenRequest::new(credentials, "s&cret é").unwrap();
        let authorization = request.headers.get(AUTHORIZATION);
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        (request, authorization)
    }

    #[test]
    fn what_receivers_are_shown() {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let key = Authorization::ApiKey { header: "X-Api-Key".to_owned().try_into().unwrap() };
        assert_eq!(header(&key, "ck_123"), named("x-api-key", "ck_123"));
        // The example of RFC 7617, section 2.1: a password that is not in ASCII.
        let basic = Authorization::Basic { user: "test".to_owned() };
        assert_eq!(header(&basic, "123£"), named("authorization", "Basic dGVzdDoxMjPCow=="));
        assert_eq!(header(&Authorization::Bearer, "t.o-k"), named("authorization", "Bearer t.o-k"));
        assert!(matches!(Proof::new(&Authorization::None, None), Ok(Proof::None)));
    }

    #[test]
    fn what_cannot_be_used() {
        for authorization in [
            Authorization::Bearer,
            Authorization::Basic { user: "u".to_owned() },
            Authorization::OAuth2(credentials(ClientAuthentication::Body, RequestFormat::Form)),
        ] {
            assert!(matches!(Proof::new(&authorization, None), Err(Unusable::Secret)));
        }
        for token in ["", "a b", "a\r\nx: y", "é"] {
            assert!(matches!(Proof::new(&Authorization::Bearer, Some(token)), Err(Unusable::Header)));
        }
    }

    #[test]
    fn a_token_is_asked_for_with_the_secret_in_the_header() {
        let (request, authorization) =
            request(&credentials(ClientAuthentication::Header, RequestFormat::Form));
        let encoded = BASE64_STANDARD.encode("a%20client%3A1:s%26cret%20%C3%A9");
        assert_eq!(authorization.unwrap(), format!("Basic {encoded}"));
        assert_eq!(request.headers[CONTENT_TYPE], FORM);
        assert_eq!(
            request.body,
            "grant_type=client_credentials&scope=hooks+write&audience=https%3A%2F%2Fexample.com%2F"
        );
    }

    #[test]
    fn a_token_is_asked_for_with_the_secret_in_the_body() {
        let mut credentials = credentials(ClientAuthentication::Body, RequestFormat::Json);
        let (in_json, authorization) = request(&credentials);
        assert_eq!((authorization, &in_json.headers[CONTENT_TYPE]), (None, &JSON));
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&in_json.body).unwrap(),
            serde_json::json!({
                "grant_type": "client_credentials", "scope": "hooks write", "audience": "https://example.com/",
                "client_id": "a client:1", "client_secret": "s&cret é",
            })
        );
        credentials = ClientCredentials {
            scope: None,
            audience: None,
            request_format: RequestFormat::Form,
            ..credentials
        };
        assert_eq!(
            request(&credentials).0.body,
            "grant_type=client_credentials&client_id=a+client%3A1&client_secret=s%26cret+%C3%A9"
        );
    }
}
