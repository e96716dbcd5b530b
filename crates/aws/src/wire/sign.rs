//! Signatures of requests (AWS Signature Version 4): of the one kind of request that is made here.
//!
//! A request is a POST to `/`, so there is no path or query to bring into a canonical form, and what is signed of its
//! headers is always the same. The key is of a day, a region and a service, and derived once for them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use carillon_core::time::UnixMillis;
use data_encoding::HEXLOWER;
use http::header::HeaderValue;
use jiff::Timestamp;

use super::place::Place;
use super::{Failed, Service};

/// How long before they expire credentials are fetched anew.
const REFRESHED_AHEAD: Duration = Duration::from_mins(5);

/// How many signs of a time are its day.
const DAY_LENGTH: usize = 8;

/// The credentials that calls are signed with, as their provider gives them.
pub(super) struct Identities {
    provider: Option<SharedCredentialsProvider>,
    current: Mutex<Option<Arc<Identity>>>,
}

/// Some credentials, and the key that was made of them. It has no `Debug`, since it holds secrets.
pub(super) struct Identity {
    credentials: Credentials,
    pub(super) token: Option<HeaderValue>,
    key: Mutex<Option<Key>>,
}

/// The key of a day.
struct Key {
    day: String,
    key: hmac::Key,
}

/// What a signature adds to a request's headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) date: HeaderValue,
    pub(super) authorization: HeaderValue,
}

impl Identities {
    pub(super) fn new(provider: Option<SharedCredentialsProvider>) -> Self {
        Self { provider, current: Mutex::default() }
    }

    /// Those to sign with now. Where new ones cannot be had, the old ones do until they expire.
    pub(super) async fn current(&self, now: UnixMillis) -> Result<Arc<Identity>, Failed> {
        let kept = self.kept();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_valid(now + REFRESHED_AHEAD)) {
            return Ok(Arc::clone(kept));
        }
        let provider = self.provider.as_ref();
        let provider = provider.ok_or_else(|| Failed::NoCredentials("no provider is configured".into()))?;
        match provider.provide_credentials().await {
            Ok(credentials) => {
                let identity = Arc::new(Identity::new(credentials)?);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&identity));
                Ok(identity)
            }
            Err(error) => {
                kept.filter(|kept| kept.is_valid(now)).ok_or_else(|| Failed::NoCredentials(Box::new(error)))
            }
        }
    }

    fn kept(&self) -> Option<Arc<Identity>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Identity {
    fn new(credentials: Credentials) -> Result<Self, Failed> {
        let token = credentials.session_token().map(HeaderValue::try_from).transpose();
        let mut token =
            token.map_err(|_| Failed::NoCredentials("their token is no header's value".into()))?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self { credentials, token, key: Mutex::default() })
    }

    fn is_valid(&self, at: UnixMillis) -> bool {
        let expires =
            self.credentials.expiry().and_then(|expiry| expiry.duration_since(std::time::UNIX_EPOCH).ok());
        expires.is_none_or(|expires| Duration::from_millis(at.0) < expires)
    }

    /// Signs a request at this time, in seconds since the epoch.
    pub(super) fn sign(
        &self,
        place: &Place,
        service: &Service,
        target: &str,
        body: &[u8],
        at: u64,
    ) -> Signed {
        let time = stamp(at);
        let day = &time[..DAY_LENGTH];
        let Place { host, region, .. } = place;
        let scope = format!("{day}/{region}/{}/aws4_request", service.signing_name);
        let mut canonical = String::with_capacity(512 + self.credentials.session_token().map_or(0, str::len));
        let content_type = service.content_type.to_str().unwrap_or_default();
        let _ = write!(canonical, "POST\n/\n\ncontent-type:{content_type}\nhost:{host}\nx-amz-date:{time}\n");
        if let Some(token) = self.credentials.session_token() {
            let _ = writeln!(canonical, "x-amz-security-token:{token}");
        }
        let names = if self.token.is_some() {
            "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
        } else {
            "content-type;host;x-amz-date;x-amz-target"
        };
        let _ = write!(canonical, "x-amz-target:{target}\n\n{names}\n{}", hash(body));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
        let signature = self.signature(place, service, day, to_sign.as_bytes());
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            self.credentials.access_key_id(),
            HEXLOWER.encode(signature.as_ref())
        );
        let value = |text| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        Signed { authorization: value(authorization), date: value(time) }
    }

    fn signature(&self, place: &Place, service: &Service, day: &str, to_sign: &[u8]) -> hmac::Tag {
        let mut kept = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match kept.take() {
            Some(key) if key.day == day => key,
            _ => Key { day: day.to_owned(), key: self.key_of(day, &place.region, service.signing_name) },
        };
        hmac::sign(&kept.insert(key).key, to_sign)
    }

    fn key_of(&self, day: &str, region: &str, service: &str) -> hmac::Key {
        let secret = format!("AWS4{}", self.credentials.secret_access_key());
        let first = hmac::Key::new(HMAC_SHA256, secret.as_bytes());
        [day, region, service, "aws4_request"]
            .into_iter()
            .fold(first, |key, part| hmac::Key::new(HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref()))
    }
}

/// A time as requests have it, `20150830T123600Z`.
fn stamp(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or(Timestamp::MAX);
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use aws_credential_types::provider::{ProvideCredentials, future};
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4::SigningParams;

    use super::*;

    const ACCESS_KEY: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// 2015-08-30 12:36:00, as in AWS's test suite for signatures.
    const AT: u64 = 1_440_938_160;

    static SERVICE: Service = Service {
        signing_name: "service",
        id: "Service",
        content_type: HeaderValue::from_static("application/x-amz-json-1.0"),
        endpoint: |_| None,
    };

    fn place() -> Place {
        let host = "example.amazonaws.com".to_owned();
        Place { uri: "https://example.amazonaws.com".parse().unwrap(), host, region: "us-east-1".to_owned() }
    }

    fn identity(token: Option<&str>) -> Identity {
        let token = token.map(str::to_owned);
        Identity::new(Credentials::new(ACCESS_KEY, SECRET, token, None, "test")).unwrap()
    }

    /// What AWS's own library makes of the same request.
    fn reference(token: Option<&str>, body: &[u8], at: u64) -> String {
        let token = token.map(str::to_owned);
        let identity = Credentials::new(ACCESS_KEY, SECRET, token, None, "test").into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("service")
            .time(UNIX_EPOCH + Duration::from_secs(at))
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "Some_1.Call")];
        let request = SignableRequest::new(
            "POST",
            "https://example.amazonaws.com/",
            headers.into_iter(),
            SignableBody::Bytes(body),
        );
        let (instructions, _) = sign(request.unwrap(), &params).unwrap().into_parts();
        let mut headers = instructions.headers();
        headers.find(|(name, _)| *name == "authorization").unwrap().1.to_owned()
    }

    #[test]
    fn a_key_is_derived_as_aws_documents_it() {
        // "Examples of how to derive a signing key for Signature Version 4" of the AWS General Reference.
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
        let key = Identity::new(credentials).unwrap().key_of("20150830", "us-east-1", "iam");
        // The string to sign of that reference's example, and its signature.
        let to_sign = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                       f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(
            HEXLOWER.encode(hmac::sign(&key, to_sign.as_bytes()).as_ref()),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn a_request_is_signed_as_by_the_sdk() {
        for token in [None, Some("a+token/=")] {
            let identity = identity(token);
            for (body, at) in [("{}", AT), (r#"{"a":"ä"}"#, AT + 86_400), ("", AT + 1)] {
                let signed = identity.sign(&place(), &SERVICE, "Some_1.Call", body.as_bytes(), at);
                assert_eq!(signed.authorization, reference(token, body.as_bytes(), at), "{token:?} {body}");
            }
        }
        let signed = identity(None).sign(&place(), &SERVICE, "Some_1.Call", b"", AT);
        assert_eq!(signed.date, "20150830T123600Z");
    }

    /// Gives credentials that are valid until a time; none once there are no more.
    #[derive(Debug)]
    struct Provider(Mutex<Vec<u64>>);

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            use aws_credential_types::provider::error::CredentialsError;
            let until = self.0.lock().unwrap().pop();
            let credentials = |until| {
                let until: SystemTime = UNIX_EPOCH + Duration::from_secs(until);
                Credentials::new(format!("{until:?}"), SECRET, None, Some(until), "test")
            };
            future::ProvideCredentials::ready(
                until.map(credentials).ok_or_else(|| CredentialsError::not_loaded("no more")),
            )
        }
    }

    #[tokio::test]
    async fn credentials_are_fetched_anew_before_they_expire() {
        let provider = Provider(Mutex::new(vec![2000, 1000]));
        let identities = Identities::new(Some(SharedCredentialsProvider::new(provider)));
        let key = async |at: u64| {
            let identity = identities.current(UnixMillis(at * 1000)).await;
            identity.ok().map(|identity| identity.credentials.expiry().unwrap())
        };
        let until = |secs| Some(UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!((key(0).await, key(699).await), (until(1000), until(1000)));
        assert_eq!((key(701).await, key(1699).await), (until(2000), until(2000)));
        assert_eq!(key(1999).await, until(2000), "the old ones do, where there are no new ones");
        assert_eq!(key(2000).await, None);
    }
}
