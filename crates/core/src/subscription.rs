//! Subscriptions: who wants to hear of what, where, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::id::{SubscriberId, SubscriptionId, WorkspaceId};
use crate::invalid::Findings;
use crate::keys::KeyAlgorithm;
use crate::matching::MatchRow;
use crate::pattern::{PATTERNS_MAX, PatternError, TypePattern};
use crate::retry::RetryPolicy;
use crate::time::UnixMillis;

/// An endpoint and the events that are posted to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The tenant that it belongs to.
    pub workspace: WorkspaceId,
    /// The third party that it belongs to.
    pub subscriber: SubscriberId,
    /// What its owner says of it.
    pub details: Details,
    /// Whether it gets anything.
    pub status: Status,
    /// When it was made: earlier events are none of its concern.
    pub created_at: UnixMillis,
    /// When it was last changed.
    pub updated_at: UnixMillis,
    /// Grows with each change: its `ETag`.
    pub revision: u64,
}

/// What the owner of a subscription says of it, and may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Where deliveries go.
    pub endpoint: Endpoint,
    /// Its name for people, unlike those of its subscriber's other subscriptions.
    pub title: Option<Title>,
    /// The event types that it asks for, each pattern once.
    pub types: Vec<TypePattern>,
    /// Which of their events.
    pub filter: Option<FilterSource>,
    /// In what form they are delivered.
    pub format: Format,
    /// What the tokens say that they are delivered in; there is one exactly where the format is that of tokens.
    pub token: Option<TokenSettings>,
    /// How deliveries are signed.
    pub signatures: Signatures,
    /// How deliveries prove to the receiver who sends them, besides their signature.
    pub authorization: Authorization,
    /// What they show to a receiver that demands a client certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// What else is sent with each delivery.
    pub headers: CustomHeaders,
    /// When to try again; the default schedule if absent.
    pub retry_policy: Option<RetryPolicy>,
    /// How long an attempt may take.
    pub timeout: AttemptTimeout,
    /// How many attempts in a minute; the workspace's default if absent.
    pub rate_per_minute: Option<Rate>,
}

/// Whether a subscription gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "status", content = "reason")]
pub enum Status {
    /// Its endpoint's owner has not confirmed it yet: it matches nothing.
    Pending,
    /// It does.
    Active,
    /// Its deliveries are held.
    Paused,
    /// Its deliveries are kept as failed.
    Disabled(DisabledBy),
}

/// Why a subscription is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DisabledBy {
    /// Whoever manages it said so.
    Owner,
    /// Its receiver answered that it is gone (410).
    Gone,
    /// Its receiver accepted nothing for 120 hours.
    Failing,
}

/// A status without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StatusName {
    /// [`Status::Pending`]
    Pending,
    /// [`Status::Active`]
    Active,
    /// [`Status::Paused`]
    Paused,
    /// [`Status::Disabled`]
    Disabled,
}

/// In what form events are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// The whole event as one JSON object (CloudEvents HTTP protocol binding 1.0, section 3.2).
    #[default]
    CloudEvents,
    /// The event's data as the body, its attributes as `ce-` headers (section 3.1).
    CloudEventsBinary,
    /// `type`, `timestamp` and `data` (Standard Webhooks 1.0.0, "Payload structure").
    StandardWebhooks,
    /// `apiResource`, `updateTimestamp`, `resourcePayload` and `revision`: for events that have a revision.
    Resource,
    /// A signed token (RFC 8417), pushed as RFC 8935 says.
    SecurityEventToken,
}

/// What deliveries show to a receiver that demands a client certificate (mTLS). Its key is a secret and kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// The certificate and those that vouch for it, in PEM.
    pub chain: String,
    /// When it expires.
    pub expires_at: UnixMillis,
}

/// What the tokens of a subscription say besides their events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSettings {
    /// Whom they are for.
    pub audience: String,
    /// What they are signed with.
    pub algorithm: TokenAlgorithm,
}

/// What a token is signed with (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// By [`KeyAlgorithm::Rs256`].
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    /// By [`KeyAlgorithm::Es256`].
    #[serde(rename = "ES256")]
    Es256,
}

impl From<TokenAlgorithm> for KeyAlgorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::Rs256 => Self::Rs256,
            TokenAlgorithm::Es256 => Self::Es256,
        }
    }
}

/// A scheme of the signatures in `webhook-signature` (Standard Webhooks 1.0.0, "Signature scheme").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureScheme {
    /// HMAC by the secrets that Carillon and the receiver share.
    V1,
    /// Ed25519 by the workspace's key, whose public part everybody can read.
    V1a,
}

/// The schemes that deliveries are signed by: at least one, each once; `v1` by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<SignatureScheme>", into = "Vec<SignatureScheme>")]
pub struct Signatures(Vec<SignatureScheme>);

/// A list that is no list of schemes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have `v1`, `v1a` or both, each once")]
pub struct NotSignatures;

impl Signatures {
    /// Whether deliveries are signed by this scheme.
    #[must_use]
    pub fn include(&self, scheme: SignatureScheme) -> bool {
        self.0.contains(&scheme)
    }
}

impl Default for Signatures {
    fn default() -> Self {
        Self(vec![SignatureScheme::V1])
    }
}

impl TryFrom<Vec<SignatureScheme>> for Signatures {
    type Error = NotSignatures;

    fn try_from(schemes: Vec<SignatureScheme>) -> Result<Self, NotSignatures> {
        match schemes[..] {
            [_] => Ok(Self(schemes)),
            [one, other] if one != other => Ok(Self(schemes)),
            _ => Err(NotSignatures),
        }
    }
}

impl From<Signatures> for Vec<SignatureScheme> {
    fn from(signatures: Signatures) -> Self {
        signatures.0
    }
}

/// Which events of the asked-for types a subscription wants, as its owner wrote it. Compiled elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FilterSource {
    /// A pattern of `EventBridge` over the event.
    Pattern(Value),
    /// A JSON Schema (draft-07) over the event.
    Schema(Value),
}

/// How deliveries prove who sends them. The secret of each is stored beside it, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Authorization {
    /// By the signature alone.
    None,
    /// A key that Carillon made.
    ApiKey {
        /// The header that it is sent in.
        header: HeaderName,
    },
    /// A user and a password (RFC 7617).
    Basic {
        /// The user, without a colon.
        user: String,
    },
    /// A token that the owner gave (RFC 6750).
    Bearer,
    /// A token from the subscriber's own service by client credentials (RFC 6749, section 4.4).
    #[serde(rename = "oauth2")]
    OAuth2(ClientCredentials),
}

/// How a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCredentials {
    /// Whom to ask.
    pub token_url: Endpoint,
    /// As whom.
    pub client_id: String,
    /// For what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// To be shown to whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Where the secret stands.
    pub client_authentication: ClientAuthentication,
    /// How the request is written.
    pub request_format: RequestFormat,
}

/// Where a token request carries the client's id and secret (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientAuthentication {
    /// As HTTP Basic.
    #[default]
    Header,
    /// Among the parameters.
    Body,
}

/// How a token request's parameters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded`, as the standard says.
    #[default]
    Form,
    /// A JSON object, as some services want it.
    Json,
}

impl Details {
    /// The algorithms that deliveries are signed with by keys of the workspace.
    pub fn key_algorithms(&self) -> impl Iterator<Item = KeyAlgorithm> {
        let token = self.token.as_ref().map(|token| token.algorithm.into());
        let v1a = self.signatures.include(SignatureScheme::V1a).then_some(KeyAlgorithm::EdDsa);
        token.into_iter().chain(v1a)
    }
}

impl Subscription {
    /// What fan-out knows of it, under each of its patterns; nothing until it is confirmed.
    #[must_use]
    pub fn match_row(&self) -> Option<MatchRow> {
        (self.status != Status::Pending).then(|| MatchRow {
            subscription: self.id,
            subscriber: self.subscriber.clone(),
            filtered: self.details.filter.is_some(),
            created_at: self.created_at,
        })
    }
}

impl Status {
    /// Without its reason.
    #[must_use]
    pub fn name(self) -> StatusName {
        match self {
            Self::Pending => StatusName::Pending,
            Self::Active => StatusName::Active,
            Self::Paused => StatusName::Paused,
            Self::Disabled(_) => StatusName::Disabled,
        }
    }
}

/// Reads patterns, each of which may stand once; notes at `pointer` what is wrong with them.
pub fn read_types(texts: &[String], pointer: &str, findings: &mut Findings) -> Vec<TypePattern> {
    if !(1..=PATTERNS_MAX).contains(&texts.len()) {
        findings.add(pointer, format!("must have 1 to {PATTERNS_MAX} patterns"));
        return Vec::new();
    }
    let mut types = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        match text.parse() {
            Ok(pattern) if types.contains(&pattern) => findings.add(pointer, "stands twice"),
            Ok(pattern) => types.push(pattern),
            Err(error) => findings.add(pointer, PatternError::to_string(&error)),
        }
    }
    types
}

/// A subscription's name for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Title(String);

impl Title {
    /// The shortest, in characters.
    pub const CHARS_MIN: usize = 2;
    /// The longest, in characters.
    pub const CHARS_MAX: usize = 200;

    /// The title as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no title.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have {} to {} characters, none of them a control character, and no white space around them",
    Title::CHARS_MIN,
    Title::CHARS_MAX
)]
pub struct NotATitle;

impl TryFrom<String> for Title {
    type Error = NotATitle;

    fn try_from(text: String) -> Result<Self, NotATitle> {
        let fits = (Self::CHARS_MIN..=Self::CHARS_MAX).contains(&text.chars().count())
            && text.trim() == text
            && !text.contains(char::is_control);
        if fits { Ok(Self(text)) } else { Err(NotATitle) }
    }
}

impl From<Title> for String {
    fn from(title: Title) -> Self {
        title.0
    }
}

/// How many requests in a minute: 1 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Rate(u32);

impl Rate {
    /// The highest, in requests per minute.
    pub const PER_MINUTE_MAX: u32 = 100_000;
}

/// A number that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {} requests per minute", Rate::PER_MINUTE_MAX)]
pub struct NotARate;

impl TryFrom<u32> for Rate {
    type Error = NotARate;

    fn try_from(per_minute: u32) -> Result<Self, NotARate> {
        if (1..=Self::PER_MINUTE_MAX).contains(&per_minute) { Ok(Self(per_minute)) } else { Err(NotARate) }
    }
}

impl From<Rate> for u32 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

/// How long an attempt may take: whole seconds, 1 to 30; 15 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct AttemptTimeout(u64);

impl AttemptTimeout {
    /// The longest, in seconds.
    pub const SECONDS_MAX: u64 = 30;

    /// As a span.
    #[must_use]
    pub fn span(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Default for AttemptTimeout {
    fn default() -> Self {
        Self(15)
    }
}

/// A number that is no time-out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {} seconds", AttemptTimeout::SECONDS_MAX)]
pub struct NotATimeout;

impl TryFrom<u64> for AttemptTimeout {
    type Error = NotATimeout;

    fn try_from(seconds: u64) -> Result<Self, NotATimeout> {
        if (1..=Self::SECONDS_MAX).contains(&seconds) { Ok(Self(seconds)) } else { Err(NotATimeout) }
    }
}

impl From<AttemptTimeout> for u64 {
    fn from(timeout: AttemptTimeout) -> Self {
        timeout.0
    }
}

/// The name of a header that a subscription may set: a token (RFC 9110, section 5.6.2) in lower case, and none of those
/// that deliveries, HTTP itself or what stands between speak with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(String);

/// Why a text is no name of a header that may be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderNameError {
    /// No token, or too long.
    #[error("must be a header's name of at most {} characters", HeaderName::CHARS_MAX)]
    Malformed,
    /// Not for subscriptions to set.
    #[error("must not be set by a subscription")]
    Denied,
}

/// Headers that only Carillon or HTTP itself may set.
const HEADERS_DENIED: [&str; 27] = [
    "accept",
    "accept-encoding",
    "authorization",
    "baggage",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "referer",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// The beginnings of families of such headers.
const HEADER_FAMILIES_DENIED: [&str; 11] = [
    "access-control-",
    "ce-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "webhook-",
    "x-amz-",
    "x-amzn-",
    "x-forwarded-",
    "x-real-",
];

impl HeaderName {
    /// The longest, in characters.
    pub const CHARS_MAX: usize = 64;

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HeaderName {
    type Error = HeaderNameError;

    fn try_from(text: String) -> Result<Self, HeaderNameError> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !(1..=Self::CHARS_MAX).contains(&text.len()) || !text.bytes().all(token) {
            return Err(HeaderNameError::Malformed);
        }
        let name = text.to_ascii_lowercase();
        let denied = HEADERS_DENIED.contains(&name.as_str())
            || HEADER_FAMILIES_DENIED.iter().any(|family| name.starts_with(family));
        if denied { Err(HeaderNameError::Denied) } else { Ok(Self(name)) }
    }
}

impl From<HeaderName> for String {
    fn from(name: HeaderName) -> Self {
        name.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Headers of a subscription's own, sent with each delivery. They are shown to whoever may read the subscription, so
/// that secrets belong into its authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CustomHeaders(BTreeMap<HeaderName, String>);

impl CustomHeaders {
    /// The most of them.
    pub const COUNT_MAX: usize = 20;
    /// The longest value, in bytes.
    pub const VALUE_BYTES_MAX: usize = 1024;

    /// Reads them; notes at `pointer` what is wrong with them.
    pub fn read(given: BTreeMap<String, String>, pointer: &str, findings: &mut Findings) -> Self {
        if given.len() > Self::COUNT_MAX {
            findings.add(pointer, format!("must have at most {} headers", Self::COUNT_MAX));
            return Self::default();
        }
        let mut headers = BTreeMap::new();
        for (name, value) in given {
            let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            match HeaderName::try_from(name) {
                Err(error) => findings.add(pointer, error.to_string()),
                Ok(_) if !is_header_value(&value) => findings.add(
                    pointer,
                    format!(
                        "must be at most {} printable ASCII characters without white space around them",
                        Self::VALUE_BYTES_MAX
                    ),
                ),
                Ok(name) if headers.contains_key(&name) => findings.add(pointer, "stands twice"),
                Ok(name) => _ = headers.insert(name, value),
            }
        }
        Self(headers)
    }

    /// Each with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// Whether a header of this name is among them.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains_key(name)
    }
}

/// Printable ASCII as it can stand in a header (RFC 9110, section 5.5), without white space around it.
#[must_use]
pub fn is_header_value(text: &str) -> bool {
    text.len() <= CustomHeaders::VALUE_BYTES_MAX
        && text.trim() == text
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(findings: Findings) -> Vec<String> {
        let invalid = findings.into_result(()).err();
        invalid.into_iter().flat_map(|invalid| invalid.0).map(|error| error.pointer).collect()
    }

    #[test]
    fn all_wrong_patterns_are_told_at_once() {
        let mut findings = Findings::default();
        let texts = ["consent:*", "a b", "consent:*"].map(str::to_owned);
        read_types(&texts, "/types", &mut findings);
        assert_eq!(pointers(findings), ["/types/1", "/types/2"]);
    }

    #[test]
    fn the_number_of_patterns_is_bounded() {
        let many: Vec<_> = (0..=PATTERNS_MAX).map(|n| format!("type.{n}")).collect();
        let read = |texts: &[String]| {
            let mut findings = Findings::default();
            let types = read_types(texts, "/types", &mut findings);
            findings.into_result(types)
        };
        assert!(read(&many).is_err() && read(&[]).is_err());
        assert_eq!(read(&many[1..]).unwrap().len(), PATTERNS_MAX);
    }

    #[test]
    fn deliveries_are_signed_by_at_least_one_scheme() {
        let read = |json| serde_json::from_str::<Signatures>(json);
        for wrong in ["[]", r#"["v1","v1"]"#, r#"["v2"]"#, r#"["v1","v1a","v1"]"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let both = read(r#"["v1a","v1"]"#).unwrap();
        assert!(both.include(SignatureScheme::V1) && both.include(SignatureScheme::V1a));
        assert_eq!(Signatures::default(), read(r#"["v1"]"#).unwrap());
        assert!(!Signatures::default().include(SignatureScheme::V1a));
    }

    #[test]
    fn headers_that_others_speak_with_cannot_be_set() {
        for name in ["Host", "AUTHORIZATION", "webhook-id", "Ce-Type", "Content-Length", "X-Forwarded-For"] {
            assert_eq!(HeaderName::try_from(name.to_owned()), Err(HeaderNameError::Denied), "{name}");
        }
        for name in ["", "a b", "a:b", "ä", &"a".repeat(65)] {
            assert_eq!(HeaderName::try_from(name.to_owned()), Err(HeaderNameError::Malformed), "{name}");
        }
        assert_eq!(HeaderName::try_from("X-Tenant".to_owned()).unwrap().as_str(), "x-tenant");
    }

    #[test]
    fn custom_headers_are_checked_one_by_one() {
        let mut findings = Findings::default();
        let given = [("X-A", "1"), ("x-a", "2"), ("Host", "h"), ("X-B", "a\r\nHost: h"), ("X-C", " c")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        CustomHeaders::read(BTreeMap::from(given), "/headers", &mut findings);
        assert_eq!(pointers(findings), ["/headers/Host", "/headers/X-B", "/headers/X-C", "/headers/x-a"]);
    }

    #[test]
    fn a_title_is_for_people() {
        for text in ["a", " ab", "a\nb", &"a".repeat(201)] {
            assert!(Title::try_from(text.to_owned()).is_err(), "{text:?}");
        }
        assert!(Title::try_from("é".repeat(200)).is_ok());
    }
}
