//! Subscriptions as their owners write them: read field by field, all wrong ones told at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use carillon_aws::now;
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::id::{SubscriberId, WorkspaceId};
use carillon_core::invalid::{FieldError, Findings, Invalid};
use carillon_core::pattern::TYPE_BYTES_MAX;
use carillon_core::pattern::TypePattern;
use carillon_core::retry::RetryPolicy;
use carillon_core::subscription::{
    AttemptTimeout, Authorization, ClientAuthentication, ClientCertificate, ClientCredentials, CustomHeaders,
    Details, FilterSource, Format, HeaderName, Rate, RequestFormat, Signatures, Status, Title,
    TokenAlgorithm, TokenSettings, read_types,
};
use carillon_core::time::UnixMillis;
use carillon_filter::Filter;
use carillon_http::body::{object, optional_object, whole};
use carillon_sender::{ClientIdentity, NoIdentity};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// The header of an API key unless its owner names another.
const API_KEY_HEADER: &str = "x-api-key";

/// The longest user name, client id and the like, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// The longest password, token or client secret, in bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// The longest client certificate with its chain, in bytes of PEM.
const CERTIFICATE_BYTES_MAX: usize = 32 * 1024;

/// The longest private key, in bytes of PEM.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// What the owner of a subscription says of it. Secrets are written, never read: where one is left out, the one that was
/// given before stays, unless the endpoint (or the token URL) is now another host's. Then it must be given again, since
/// whoever changes a subscription need not know its secrets; an API key is made anew.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubscriptionInput {
    /// Where deliveries are posted: an HTTPS URL without credentials or fragment, whose host has public addresses.
    #[schema(max_length = 2048, format = "uri", example = "https://tpp.example.com/webhooks")]
    pub(super) endpoint: String,
    /// Its name for people, unlike those of its subscriber's other subscriptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 2,
        max_length = 200,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f]$",
        example = "Consents, production"
    )]
    pub(super) title: Option<String>,
    /// Whose it is: a third party's application, as the platform names it. It cannot be changed later. A client that is
    /// bound to a subscriber need not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]+$", example = "tpp-1")]
    pub(super) subscriber: Option<String>,
    /// The event types: exact ones, prefixes that end a segment (`consent:*`), or `*`.
    #[schema(value_type = Vec<TypePatternShown>, min_items = 1, max_items = 40, example = json!(["consent:*"]))]
    pub(super) types: Vec<String>,
    /// Which events of these types; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FilterInput>)]
    pub(super) filter: Option<FilterSource>,
    /// In what form events are delivered.
    #[serde(default)]
    #[schema(value_type = FormatInput, default = "cloudEvents")]
    pub(super) format: Format,
    /// What the tokens say that events are delivered in: with the format `securityEventToken`, and with no other.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<TokenInput>,
    /// How deliveries are signed (Standard Webhooks): `v1` by the subscription's secrets, `v1a` by the workspace's key for
    /// EdDSA, or both.
    #[serde(default)]
    #[schema(
        value_type = Vec<SignatureSchemeInput>, min_items = 1, max_items = 2,
        default = json!(["v1"]), example = json!(["v1", "v1a"]),
    )]
    pub(super) signatures: Signatures,
    /// How deliveries prove to the receiver who sends them, besides their signature.
    #[serde(default, deserialize_with = "object")]
    #[schema(default = json!({"type": "none"}))]
    pub(super) authorization: AuthorizationInput,
    /// What deliveries show to a receiver that demands a client certificate (mTLS). Its token service, if it has one, is
    /// not shown it.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub(super) client_certificate: Option<ClientCertificateInput>,
    /// Headers that are sent with each delivery: not for secrets, since they are shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"x-tenant": "eu-1"}))]
    pub(super) headers: BTreeMap<String, String>,
    /// When to try again; 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h after the attempt before if absent.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub(super) retry_policy: Option<RetryPolicyInput>,
    /// How long an attempt may take.
    #[serde(default = "default_timeout", deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 30, default = 15)]
    pub(super) timeout_seconds: u64,
    /// How many attempts are made in a minute; the workspace's default if absent.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub(super) rate_per_minute: Option<u32>,
    /// Whether deliveries are made. Those of a disabled subscription are kept as failed.
    #[serde(default = "default_enabled")]
    #[schema(default = true)]
    pub(super) enabled: bool,
    /// Whether deliveries are held: nothing is lost, and no attempt is made, until this is `false` again. Then they
    /// are made within minutes, those of the oldest events first.
    #[serde(default)]
    #[schema(default = false)]
    pub(super) paused: bool,
}

/// One of the two languages.
#[derive(ToSchema)]
#[schema(as = Filter, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes FilterSource of the core, which knows no OpenAPI")]
pub(crate) enum FilterInput {
    /// A pattern as Amazon EventBridge has them, over the event.
    #[schema(value_type = Object, example = json!({"pattern": {"data": {"amount": [{"numeric": [">", 100]}]}}}))]
    Pattern(BTreeMap<String, String>),
    /// A JSON Schema (draft-07, without remote references) over the event.
    #[schema(value_type = JsonSchema)]
    Schema(JsonSchema),
}

/// A pattern of event types.
pub(crate) struct TypePatternShown;

impl PartialSchema for TypePatternShown {
    fn schema() -> RefOr<Schema> {
        let pattern = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(TYPE_BYTES_MAX))
            .pattern(Some(
                r"^(\*|[^\s*\u0000-\u001f\u007f-\u009f]+|[^\s*\u0000-\u001f\u007f-\u009f]*[.:]\*)$",
            ));
        Schema::from(pattern).into()
    }
}

impl ToSchema for TypePatternShown {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("TypePattern")
    }
}

/// A JSON Schema, of which no more is said than its types.
pub(crate) struct JsonSchema;

impl PartialSchema for JsonSchema {
    fn schema() -> RefOr<Schema> {
        let types = SchemaType::from_iter([Type::Object, Type::Boolean]);
        Schema::from(ObjectBuilder::new().schema_type(types)).into()
    }
}

impl ToSchema for JsonSchema {}

/// The form of deliveries.
#[derive(ToSchema)]
#[schema(as = Format, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes Format of the core, which knows no OpenAPI")]
pub(crate) enum FormatInput {
    /// The event as one JSON object (CloudEvents, structured mode).
    CloudEvents,
    /// The event's data as the body, its attributes as headers (CloudEvents, binary mode).
    CloudEventsBinary,
    /// `type`, `timestamp` and `data` (Standard Webhooks).
    StandardWebhooks,
    /// `apiResource`, `updateTimestamp`, `resourcePayload` and `revision`: in workspaces whose catalogue has revisions.
    Resource,
    /// A signed token (RFC 8417), pushed as RFC 8935 says. The workspace's public keys verify it.
    SecurityEventToken,
}

/// A client certificate and its key.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ClientCertificate)]
pub(crate) struct ClientCertificateInput {
    /// The certificate in PEM, followed by those that vouch for it, if any. It must not have expired.
    #[schema(min_length = 1, max_length = 32_768)]
    certificate: String,
    /// Its private key in PEM: RSA, ECDSA or Ed25519, without a passphrase. It must be given again with another certificate.
    #[serde(default, skip_serializing_if = "is_never_shown", serialize_with = "nothing")]
    #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 16_384)]
    private_key: Option<Secret>,
}

/// What tokens say besides their events.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = TokenSettings)]
pub(crate) struct TokenInput {
    /// Whom they are for: the claim `aud`.
    #[schema(
        min_length = 1,
        max_length = 512,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$",
        example = "https://tpp.example.com"
    )]
    audience: String,
    /// What they are signed with.
    #[serde(default)]
    #[schema(value_type = TokenAlgorithmInput, default = "RS256")]
    algorithm: TokenAlgorithm,
}

/// What a token is signed with.
#[derive(ToSchema)]
#[schema(as = TokenAlgorithm)]
#[expect(dead_code, reason = "describes TokenAlgorithm of the core, which knows no OpenAPI")]
pub(crate) enum TokenAlgorithmInput {
    /// RSA with SHA-256.
    #[schema(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[schema(rename = "ES256")]
    Es256,
}

/// A scheme of signatures.
#[derive(ToSchema)]
#[schema(as = SignatureScheme, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes SignatureScheme of the core, which knows no OpenAPI")]
pub(crate) enum SignatureSchemeInput {
    /// HMAC-SHA256 by the secrets of the subscription.
    V1,
    /// Ed25519 by the key of the workspace.
    V1a,
}

/// How deliveries prove who sends them.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
#[schema(as = Authorization)]
pub(crate) enum AuthorizationInput {
    /// By the signature alone.
    None {},
    /// By a key that Carillon makes, and shows once.
    ApiKey {
        /// The header that it is sent in.
        #[serde(default = "api_key_header")]
        #[schema(
            min_length = 1,
            max_length = 64,
            pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
            default = "x-api-key"
        )]
        header: String,
    },
    /// HTTP Basic.
    Basic {
        /// The user, without a colon.
        #[schema(min_length = 1, max_length = 512, pattern = r"^[^:\u0000-\u001f\u007f-\u009f]+$")]
        user: String,
        /// The password.
        #[serde(default, skip_serializing_if = "is_never_shown", serialize_with = "nothing")]
        #[schema(
            value_type = Option<String>, write_only,
            min_length = 1, max_length = 4096, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$",
        )]
        password: Option<Secret>,
    },
    /// A bearer token.
    Bearer {
        /// The token.
        #[serde(default, skip_serializing_if = "is_never_shown", serialize_with = "nothing")]
        #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 4096, pattern = "^[!-~]+$")]
        token: Option<Secret>,
    },
    /// A token from the subscriber's own service (OAuth 2.0, client credentials).
    #[serde(rename = "oauth2", rename_all = "camelCase")]
    OAuth2 {
        /// Where tokens are asked for: as endpoints, an HTTPS URL with public addresses.
        #[schema(max_length = 2048, format = "uri", example = "https://tpp.example.com/oauth2/token")]
        token_url: String,
        /// The client.
        #[schema(min_length = 1, max_length = 512, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
        client_id: String,
        /// Its secret. It must be given again with another token URL.
        #[serde(default, skip_serializing_if = "is_never_shown", serialize_with = "nothing")]
        #[schema(
            value_type = Option<String>, write_only,
            min_length = 1, max_length = 4096, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$",
        )]
        client_secret: Option<Secret>,
        /// The scope that is asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(min_length = 1, max_length = 512, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
        scope: Option<String>,
        /// The audience that is asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(min_length = 1, max_length = 512, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
        audience: Option<String>,
        /// Where the client's id and secret stand.
        #[serde(default)]
        #[schema(value_type = ClientAuthenticationInput, default = "header")]
        client_authentication: ClientAuthentication,
        /// How the request is written.
        #[serde(default)]
        #[schema(value_type = RequestFormatInput, default = "form")]
        request_format: RequestFormat,
    },
}

/// Where a token request carries the client's id and secret.
#[derive(ToSchema)]
#[schema(as = ClientAuthentication, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes ClientAuthentication of the core, which knows no OpenAPI")]
pub(crate) enum ClientAuthenticationInput {
    /// As HTTP Basic.
    Header,
    /// Among the parameters.
    Body,
}

/// How a token request is written.
#[derive(ToSchema)]
#[schema(as = RequestFormat, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes RequestFormat of the core, which knows no OpenAPI")]
pub(crate) enum RequestFormatInput {
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/json`
    Json,
}

/// When to try again.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RetryPolicy)]
pub(crate) struct RetryPolicyInput {
    /// The waits between attempts, each spread by a fifth; together at most 14 days. None: one attempt.
    #[serde(deserialize_with = "whole")]
    #[schema(max_items = 20, example = json!([5, 300, 1800]))]
    pub(super) waits_seconds: Vec<u64>,
}

/// A secret that was given. Redacted in `Debug`, never serialised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secret(SecretString);

impl Secret {
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.into()))
    }
}

/// What an input is checked against.
pub(super) struct Against<'a> {
    /// The workspace.
    pub(super) workspace: &'a WorkspaceId,
    /// What endpoints of the workspace may be.
    pub(super) rules: EndpointRules,
    /// Whether the workspace has event types that a pattern matches.
    pub(super) knows: &'a dyn Fn(&TypePattern) -> bool,
    /// What was said up to now: the authorization's secret can stay.
    pub(super) before: Option<&'a Details>,
    /// Whether the workspace's events have revisions.
    pub(super) revisions: bool,
}

/// A checked input.
pub(super) struct Wish {
    pub(super) details: Details,
    pub(super) subscriber: Option<SubscriberId>,
    pub(super) enabled: bool,
    pub(super) paused: bool,
    /// What becomes of the authorization's secret.
    pub(super) secret: Given,
    /// What becomes of the key of the client certificate.
    pub(super) client_key: Given,
}

/// What becomes of a secret.
pub(super) enum Given {
    /// There is none.
    Nothing,
    /// The one from before stays.
    Kept,
    /// Carillon makes one.
    Made,
    /// This one.
    Text(Secret),
}

impl SubscriptionInput {
    /// Of what must be said; all else takes its default.
    pub(super) fn new(endpoint: String, types: Vec<String>) -> Self {
        Self {
            endpoint,
            title: None,
            subscriber: None,
            types,
            filter: None,
            format: Format::default(),
            token: None,
            signatures: Signatures::default(),
            authorization: AuthorizationInput::default(),
            client_certificate: None,
            headers: BTreeMap::new(),
            retry_policy: None,
            timeout_seconds: default_timeout(),
            rate_per_minute: None,
            enabled: default_enabled(),
            paused: false,
        }
    }

    /// As it would have to be written to say what a subscription says already, its secrets left out.
    pub(super) fn of(subscriber: &SubscriberId, details: &Details, status: Status) -> Self {
        let waits = |policy: &RetryPolicy| policy.steps().iter().map(Duration::as_secs).collect();
        Self {
            endpoint: details.endpoint.to_string(),
            title: details.title.clone().map(String::from),
            subscriber: Some(subscriber.to_string()),
            types: details.types.iter().map(ToString::to_string).collect(),
            filter: details.filter.clone(),
            format: details.format,
            token: details.token.clone().map(TokenInput::from),
            signatures: details.signatures.clone(),
            authorization: AuthorizationInput::of(&details.authorization),
            client_certificate: details.client_certificate.as_ref().map(ClientCertificateInput::of),
            headers: details
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_owned()))
                .collect(),
            retry_policy: details
                .retry_policy
                .as_ref()
                .map(|policy| RetryPolicyInput { waits_seconds: waits(policy) }),
            timeout_seconds: details.timeout.into(),
            rate_per_minute: details.rate_per_minute.map(u32::from),
            enabled: !matches!(status, Status::Disabled(_)),
            paused: status == Status::Paused,
        }
    }

    /// Checks every field.
    pub(super) fn check(self, against: &Against<'_>) -> Result<Wish, Invalid> {
        let mut findings = Findings::default();
        let before = against.before;
        // What stands already may stay in a subscription that makes no deliveries, whatever has become of the rules.
        let stays = |url: &Endpoint, text: &str| !self.enabled && url.to_string() == text;
        let endpoint = match before.map(|before| &before.endpoint) {
            Some(url) if stays(url, &self.endpoint) => Some(url.clone()),
            _ => findings.take(read_endpoint(&against.rules, &self.endpoint, "/endpoint")),
        };
        let title = self.title.map(|title| at("/title", Title::try_from(title)));
        let title = title.and_then(|title| findings.take(title));
        let subscriber = self.subscriber.map(|text| {
            at("/subscriber", text.parse().map_err(|_| "must be 1 to 64 of letters, digits and `. _ : ~ -`"))
        });
        let subscriber = subscriber.and_then(|subscriber| findings.take(subscriber));
        let types = read_types(&self.types, "/types", &mut findings);
        for (place, text) in self.types.iter().enumerate() {
            let known = |pattern: &TypePattern| {
                before.is_some_and(|before| before.types.contains(pattern)) || (against.knows)(pattern)
            };
            if text.parse().is_ok_and(|pattern| !known(&pattern)) {
                let detail = format!(
                    "the workspace has no event type that `{text}` matches: those that it has are listed at \
                     /v1/workspaces/{}/event-types",
                    against.workspace
                );
                findings.add(format!("/types/{place}"), detail);
            }
        }
        if let Some(filter) = &self.filter {
            findings.take(Filter::compile(filter).map_err(|invalid| under("/filter", invalid)));
        }
        if self.format == Format::Resource && !against.revisions {
            findings.add("/format", "must be another one: the workspace's catalogue has no revisions");
        }
        let token = findings.take(TokenInput::check(self.token, self.format)).flatten();
        let same_receiver = against.before.is_some_and(|before| {
            endpoint.as_ref().is_some_and(|url| url.origin() == before.endpoint.origin())
        });
        let before = against.before.filter(|_| same_receiver);
        let authorization =
            findings.take(self.authorization.check(against, before.map(|before| &before.authorization)));
        if self.client_certificate.is_some()
            && endpoint.as_ref().is_some_and(|endpoint| endpoint.url().scheme() != "https")
        {
            findings.add("/clientCertificate", "must not be given without HTTPS");
        }
        let known = before.and_then(|before| before.client_certificate.as_ref());
        let certificate = self.client_certificate.map(|certificate| certificate.check(known));
        let certificate = certificate.and_then(|certificate| findings.take(certificate));
        let (client_certificate, client_key) = match certificate {
            Some((certificate, key)) => (Some(certificate), key),
            None => (None, Given::Nothing),
        };
        let headers = CustomHeaders::read(self.headers, "/headers", &mut findings);
        if let Some((Authorization::ApiKey { header }, _)) = &authorization
            && headers.contains(header)
        {
            findings.add("/authorization/header", "must not be one of `headers`");
        }
        let retry_policy = self.retry_policy.map(RetryPolicyInput::check);
        let retry_policy = retry_policy.and_then(|policy| findings.take(policy));
        let timeout = findings.take(at("/timeoutSeconds", AttemptTimeout::try_from(self.timeout_seconds)));
        let rate = self.rate_per_minute.map(|rate| at("/ratePerMinute", Rate::try_from(rate)));
        let rate_per_minute = rate.and_then(|rate| findings.take(rate));
        findings.into_result(())?;
        let (Some(endpoint), Some((authorization, secret)), Some(timeout)) =
            (endpoint, authorization, timeout)
        else {
            return Err(Invalid::field("", "must be a subscription"));
        };
        let details = Details {
            endpoint,
            title,
            types,
            filter: self.filter,
            format: self.format,
            token,
            signatures: self.signatures,
            authorization,
            client_certificate,
            headers,
            retry_policy,
            timeout,
            rate_per_minute,
        };
        Ok(Wish { details, subscriber, enabled: self.enabled, paused: self.paused, secret, client_key })
    }
}

impl Default for AuthorizationInput {
    fn default() -> Self {
        Self::None {}
    }
}

impl AuthorizationInput {
    pub(super) fn of(authorization: &Authorization) -> Self {
        match authorization.clone() {
            Authorization::None => Self::None {},
            Authorization::ApiKey { header } => Self::ApiKey { header: header.into() },
            Authorization::Basic { user } => Self::Basic { user, password: None },
            Authorization::Bearer => Self::Bearer { token: None },
            Authorization::OAuth2(credentials) => Self::OAuth2 {
                token_url: credentials.token_url.to_string(),
                client_id: credentials.client_id,
                client_secret: None,
                scope: credentials.scope,
                audience: credentials.audience,
                client_authentication: credentials.client_authentication,
                request_format: credentials.request_format,
            },
        }
    }

    /// `before` is absent if there is none, or if deliveries now go to somebody else: a secret that was given for one
    /// receiver must not be sent to another.
    fn check(
        self,
        against: &Against<'_>,
        before: Option<&Authorization>,
    ) -> Result<(Authorization, Given), Invalid> {
        match self {
            Self::None {} => Ok((Authorization::None, Given::Nothing)),
            Self::ApiKey { header } => {
                let header = at("/authorization/header", HeaderName::try_from(header))?;
                let kept = matches!(before, Some(Authorization::ApiKey { .. }));
                Ok((Authorization::ApiKey { header }, if kept { Given::Kept } else { Given::Made }))
            }
            Self::Basic { user, password } => {
                let mut findings = Findings::default();
                if !is_name(&user) || user.contains(':') {
                    findings.add(
                        "/authorization/user",
                        format!("must have 1 to {NAME_BYTES_MAX} bytes, no colon and no control character"),
                    );
                }
                let kept = matches!(before, Some(Authorization::Basic { .. }));
                let secret = findings.take(given(password, kept, "/authorization/password", is_password));
                let secret = findings.into_result(secret)?.unwrap_or(Given::Nothing);
                Ok((Authorization::Basic { user }, secret))
            }
            Self::Bearer { token } => {
                let kept = matches!(before, Some(Authorization::Bearer));
                Ok((Authorization::Bearer, given(token, kept, "/authorization/token", is_token)?))
            }
            Self::OAuth2 {
                token_url,
                client_id,
                client_secret,
                scope,
                audience,
                client_authentication,
                request_format,
            } => {
                let mut findings = Findings::default();
                let pointer = "/authorization/tokenUrl";
                let token_url = findings.take(read_endpoint(&against.rules, &token_url, pointer));
                let names = [
                    ("clientId", Some(&client_id)),
                    ("scope", scope.as_ref()),
                    ("audience", audience.as_ref()),
                ];
                for (name, text) in names {
                    if text.is_some_and(|text| !is_name(text)) {
                        findings.add(
                            format!("/authorization/{name}"),
                            format!("must have 1 to {NAME_BYTES_MAX} bytes and no control character"),
                        );
                    }
                }
                let kept = matches!((before, &token_url), (Some(Authorization::OAuth2(before)), Some(url)) if before.token_url == *url);
                let secret =
                    findings.take(given(client_secret, kept, "/authorization/clientSecret", is_password));
                let secret = findings.into_result(secret)?.unwrap_or(Given::Nothing);
                let token_url = token_url.ok_or_else(|| Invalid::field(pointer, "is required"))?;
                let credentials = ClientCredentials {
                    token_url,
                    client_id,
                    scope,
                    audience,
                    client_authentication,
                    request_format,
                };
                Ok((Authorization::OAuth2(credentials), secret))
            }
        }
    }
}

impl ClientCertificateInput {
    fn of(certificate: &ClientCertificate) -> Self {
        Self { certificate: certificate.chain.clone(), private_key: None }
    }

    /// `known`: the certificate that deliveries to this receiver show already. Its key may stay, and it may have expired
    /// meanwhile.
    fn check(self, known: Option<&ClientCertificate>) -> Result<(ClientCertificate, Given), Invalid> {
        const CERTIFICATE: &str = "/clientCertificate/certificate";
        const KEY: &str = "/clientCertificate/privateKey";
        if self.certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(Invalid::field(
                CERTIFICATE,
                format!("must have at most {CERTIFICATE_BYTES_MAX} bytes"),
            ));
        }
        let Some(key) = self.private_key else {
            let known = known.filter(|known| known.chain == self.certificate);
            return known
                .map(|known| (known.clone(), Given::Kept))
                .ok_or_else(|| Invalid::field(KEY, "is required"));
        };
        if key.expose().len() > KEY_BYTES_MAX {
            return Err(Invalid::field(KEY, format!("must have at most {KEY_BYTES_MAX} bytes")));
        }
        let identity = ClientIdentity::from_pem(&self.certificate, key.expose()).map_err(|error| {
            let pointer = match error {
                NoIdentity::Certificate => CERTIFICATE,
                NoIdentity::Key | NoIdentity::Mismatch => KEY,
            };
            Invalid::field(pointer, error.to_string())
        })?;
        let expires_at = UnixMillis(u64::try_from(identity.not_after()).unwrap_or(0) * 1000);
        if expires_at <= now() {
            return Err(Invalid::field(CERTIFICATE, "must not have expired"));
        }
        Ok((ClientCertificate { chain: self.certificate, expires_at }, Given::Text(key)))
    }
}

impl TokenInput {
    /// There are tokens in one format alone.
    fn check(given: Option<Self>, format: Format) -> Result<Option<TokenSettings>, Invalid> {
        match (format, given) {
            (Format::SecurityEventToken, None) => {
                Err(Invalid::field("/token", "is required with the format `securityEventToken`"))
            }
            (Format::SecurityEventToken, Some(Self { audience, .. })) if !is_name(&audience) => {
                let detail = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control character");
                Err(Invalid::field("/token/audience", detail))
            }
            (Format::SecurityEventToken, Some(Self { audience, algorithm })) => {
                Ok(Some(TokenSettings { audience, algorithm }))
            }
            (_, Some(_)) => {
                Err(Invalid::field("/token", "must not be given but with the format `securityEventToken`"))
            }
            (_, None) => Ok(None),
        }
    }
}

impl From<TokenSettings> for TokenInput {
    fn from(TokenSettings { audience, algorithm }: TokenSettings) -> Self {
        Self { audience, algorithm }
    }
}

impl RetryPolicyInput {
    fn check(self) -> Result<RetryPolicy, Invalid> {
        let steps = self.waits_seconds.into_iter().map(Duration::from_secs).collect();
        at("/retryPolicy/waitsSeconds", RetryPolicy::new(steps))
    }
}

fn read_endpoint(rules: &EndpointRules, text: &str, pointer: &str) -> Result<Endpoint, Invalid> {
    at(pointer, rules.check(text))
}

fn given(
    secret: Option<Secret>,
    kept: bool,
    pointer: &str,
    is_fit: fn(&str) -> bool,
) -> Result<Given, Invalid> {
    match secret {
        None if kept => Ok(Given::Kept),
        None => Err(Invalid::field(pointer, "is required")),
        Some(secret) if is_fit(secret.expose()) => Ok(Given::Text(secret)),
        Some(_) => Err(Invalid::field(
            pointer,
            format!("must have 1 to {SECRET_BYTES_MAX} bytes that can stand in a header"),
        )),
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// Passwords are encoded before they are sent, so all but control characters can stand in them (RFC 7617, section 2).
fn is_password(text: &str) -> bool {
    (1..=SECRET_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// Visible ASCII: what can stand behind `Bearer` in a header.
fn is_token(text: &str) -> bool {
    (1..=SECRET_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn at<T, E: ToString>(pointer: &str, result: Result<T, E>) -> Result<T, Invalid> {
    result.map_err(|error| Invalid::field(pointer, error.to_string()))
}

pub(super) fn under(pointer: &str, Invalid(errors): Invalid) -> Invalid {
    let moved = |error: FieldError| FieldError { pointer: format!("{pointer}{}", error.pointer), ..error };
    Invalid(errors.into_iter().map(moved).collect())
}

fn api_key_header() -> String {
    API_KEY_HEADER.to_owned()
}

fn default_timeout() -> u64 {
    AttemptTimeout::default().into()
}

fn default_enabled() -> bool {
    true
}

/// Secrets are written and never read. (Serde's own way to say so would leave them out of the document as well.)
#[expect(clippy::ref_option, reason = "serde hands over the field")]
fn is_never_shown(_: &Option<Secret>) -> bool {
    true
}

#[expect(clippy::ref_option, reason = "serde hands over the field")]
fn nothing<S: Serializer>(_: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_none()
}
