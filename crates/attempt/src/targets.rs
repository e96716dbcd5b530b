//! Where deliveries go, and how: all that an attempt needs of a subscription, its secrets opened, kept for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carillon_aws::batch_read::{Item, Key};
use carillon_aws::config::{
    ConfigTable, StoredSecret, StoredSubscription, StoredWorkspace, Verification, read_subscription,
    read_workspace,
};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::vault::{SecretName, Vault};
use carillon_core::endpoint::Endpoint;
use carillon_core::id::{SubscriberId, SubscriptionId, WorkspaceId};
use carillon_core::keys::{KeyAlgorithm, NotSigned};
use carillon_core::payload::{Form, NoPayload, Payload, Token, payload};
use carillon_core::retry::RetryPolicy;
use carillon_core::signature::{SigningSecret, sign_with_key};
use carillon_core::subscription::{
    CustomHeaders, Details, Format, Rate, SignatureScheme, Signatures, Status, Subscription, TokenSettings,
};
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::Settings;
use carillon_sender::ClientIdentity;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::authorization::{Proof, Unusable};
use crate::keyring::{KeyRing, KeyRings, has_all};

/// How long a subscription is taken to be as it was read. A change holds for every attempt that starts 5 s after its
/// answer, and an attempt may wait some seconds for its slot once its subscription is read.
const KEPT: Duration = Duration::from_secs(2);

/// What an attempt needs of its subscription. It holds secrets, so it has no `Debug`.
pub struct Target {
    /// Whether it gets anything.
    pub status: Status,
    /// Grows with each change of it.
    pub revision: u64,
    /// Whose it is.
    pub subscriber: SubscriberId,
    /// When its workspace was made.
    pub made_at: UnixMillis,
    /// How many attempts a minute it is for: what is configured, and no more than its endpoint's owner granted.
    pub rate: Option<Rate>,
    /// Until when a question to the endpoint's owner is open.
    asked_until: Option<UnixMillis>,
    /// Whether the endpoint's owner consented.
    pub(crate) confirmed: bool,
    pub(crate) endpoint: Endpoint,
    format: Format,
    /// What the tokens say that events are delivered in.
    token: Option<TokenSettings>,
    signatures: Signatures,
    pub(crate) headers: HeaderMap,
    pub(crate) proof: Proof,
    /// What a receiver is shown that demands a client certificate.
    pub(crate) identity: Option<ClientIdentity>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// When to try again; the default policy if absent.
    pub policy: Option<RetryPolicy>,
    /// What its workspace allows and demands.
    settings: Settings,
    signing: Signing,
}

/// What deliveries are signed with.
struct Signing {
    secrets: Vec<SigningKey>,
    /// The workspace's keys, if any are needed.
    keys: Arc<KeyRing>,
    /// In whose name tokens are signed: the workspace's URL.
    issuer: String,
}

/// A signing secret, and when it goes out of use.
struct SigningKey {
    secret: SigningSecret,
    expires_at: Option<UnixMillis>,
}

/// The subscriptions that were read of late.
pub struct Targets {
    kept: Mutex<HashMap<SubscriptionId, Kept>>,
    rings: KeyRings,
    /// Where the API is.
    public_url: String,
}

/// When a subscription was read, and what it was then; `None`: it is no more.
type Kept = (UnixMillis, Option<Arc<Target>>);

impl Targets {
    /// For a deployment whose API is at this URL.
    #[must_use]
    pub fn new(public_url: &str) -> Self {
        let public_url = public_url.trim_end_matches('/').to_owned();
        Self { kept: Mutex::default(), rings: KeyRings::default(), public_url }
    }

    /// The keys of what must be read for these tasks.
    #[must_use]
    pub fn missing(&self, config: &ConfigTable, tasks: &[&DeliveryTask]) -> Vec<Key> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        kept.retain(|_, (read_at, _)| now.since(*read_at) < KEPT);
        let missing = tasks.iter().filter(|task| !kept.contains_key(&task.subscription));
        let keys = missing.flat_map(|task| {
            let workspace = &task.event.key.workspace;
            [config.workspace_key(workspace), config.subscription_key(workspace, task.subscription)]
        });
        keys.collect()
    }

    /// The target of each task's subscription, from what was kept or was read just now, at the earliest at `read_at`. What
    /// cannot be opened is absent from the answer: its tasks come again.
    pub async fn of(
        &self,
        config: &ConfigTable,
        vault: &Vault,
        tasks: &[&DeliveryTask],
        read: &HashMap<Key, Item>,
        read_at: UnixMillis,
    ) -> HashMap<SubscriptionId, Option<Arc<Target>>> {
        let wanted: HashSet<_> =
            tasks.iter().map(|task| (task.subscription, &task.event.key.workspace)).collect();
        let mut targets = HashMap::new();
        for (subscription, workspace) in wanted {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&subscription).cloned();
            if let Some((_, target)) = kept {
                targets.insert(subscription, target);
                continue;
            }
            match self.open(config, vault, (workspace, subscription), read).await {
                Ok(target) => {
                    let target = target.map(Arc::new);
                    // One that gets nothing is read anew each time: once it is enabled, what it is sent must not fail.
                    if target.as_ref().is_none_or(|target| target.is_active()) {
                        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.insert(subscription, (read_at, target.clone()));
                    }
                    targets.insert(subscription, target);
                }
                Err(error) => tracing::error!(%subscription, %error, "a subscription cannot be read"),
            }
        }
        targets
    }

    /// The target of a subscription among what was read; `None`: it is no more.
    async fn open(
        &self,
        config: &ConfigTable,
        vault: &Vault,
        (workspace, subscription): (&WorkspaceId, SubscriptionId),
        read: &HashMap<Key, Item>,
    ) -> Result<Option<Target>, Unopened> {
        let item = |key| read.get(&key).cloned();
        let (Some(stored), Some(in_workspace)) =
            (item(config.subscription_key(workspace, subscription)), item(config.workspace_key(workspace)))
        else {
            return Ok(None);
        };
        let stored = read_subscription(stored)?;
        let StoredWorkspace { workspace: in_workspace, data_key } = read_workspace(in_workspace)?;
        let owner = stored.subscription.id.to_string();
        let open = async |secret: &StoredSecret| {
            let name = SecretName { workspace, owner: &owner, secret: &secret.name };
            vault.open(&data_key, name, &secret.sealed).await
        };
        let mut secrets = Vec::with_capacity(stored.signing.len());
        for key in stored.live(now()) {
            let secret = SigningSecret::from_bytes(open(key).await?);
            secrets.push(SigningKey { secret, expires_at: key.expires_at });
        }
        let StoredSubscription { subscription, authorization, client_key, verification, .. } = stored;
        let text = async |secret: &StoredSecret| {
            String::from_utf8(open(secret).await?).map_err(|_| Unopened::from(Unusable::Secret))
        };
        let secret = match &authorization {
            Some(secret) => Some(text(secret).await?),
            None => None,
        };
        let identity = match (&subscription.details.client_certificate, &client_key) {
            (Some(certificate), Some(key)) => {
                let identity = ClientIdentity::from_pem(&certificate.chain, &text(key).await?);
                Some(identity.map_err(Unusable::from)?)
            }
            (Some(_), None) => return Err(Unusable::Secret.into()),
            (None, _) => None,
        };
        let algorithms: Vec<_> = subscription.details.key_algorithms().collect();
        let mut keys = Arc::default();
        if !algorithms.is_empty() {
            keys = self.rings.of(config, vault, (workspace, &data_key), &algorithms).await?;
            if !has_all(&keys, &algorithms) {
                return Err(Unopened::NoKey);
            }
        }
        let issuer = format!("{}/v1/workspaces/{workspace}", self.public_url);
        let signing = Signing { secrets, keys, issuer };
        Ok(Some(Target::new(
            subscription,
            &verification,
            (in_workspace.settings, in_workspace.created_at),
            signing,
            (secret.as_deref(), identity),
        )?))
    }
}

impl Target {
    fn new(
        subscription: Subscription,
        verification: &Verification,
        (settings, made_at): (Settings, UnixMillis),
        signing: Signing,
        (secret, identity): (Option<&str>, Option<ClientIdentity>),
    ) -> Result<Self, Unusable> {
        let Details { endpoint, format, token, signatures, authorization, headers, .. } =
            subscription.details;
        let Details { retry_policy, timeout, rate_per_minute, .. } = subscription.details;
        let configured = rate_per_minute.or(settings.default_rate_per_minute);
        Ok(Self {
            status: subscription.status,
            revision: subscription.revision,
            subscriber: subscription.subscriber,
            made_at,
            rate: configured.into_iter().chain(verification.granted_rate).min(),
            asked_until: verification.asked.as_ref().map(|asked| asked.until),
            confirmed: verification.confirmed_at.is_some(),
            endpoint,
            format,
            token,
            signatures,
            headers: header_map(&headers)?,
            proof: Proof::new(&authorization, secret)?,
            identity,
            timeout: timeout.span(),
            policy: retry_policy,
            settings,
            signing,
        })
    }

    /// Whether it holds what it gets.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.status == Status::Paused
    }

    /// Whether it gets anything: neither paused nor disabled, nor waiting for its endpoint's owner.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    /// Whether it may get something soon: its endpoint's owner can still consent.
    #[must_use]
    pub fn is_awaited(&self, now: UnixMillis) -> bool {
        self.status == Status::Pending && self.asked_until.is_some_and(|until| now < until)
    }

    /// What a delivery says of its event: the same on every attempt.
    pub fn payload(&self, task: &DeliveryTask, json: String) -> Result<Payload, NoPayload> {
        let accepted_at = task.event.accepted_at;
        let form = match self.format {
            Format::CloudEvents => Form::CloudEvents,
            Format::CloudEventsBinary => Form::CloudEventsBinary,
            Format::StandardWebhooks => Form::StandardWebhooks,
            Format::Resource => Form::Resource,
            Format::SecurityEventToken => {
                let TokenSettings { audience, algorithm } = self.token.as_ref().ok_or(NotSigned)?;
                let key = self.signing.keys.signing((*algorithm).into(), accepted_at).ok_or(NotSigned)?;
                Form::SecurityEventToken(Token {
                    issuer: &self.signing.issuer,
                    audience,
                    delivery: task.delivery(),
                    event: task.event.key.digest,
                    key: key.with(key.private.as_ref()),
                })
            }
        };
        payload(form, json, accepted_at)
    }

    /// The signatures of an attempt that begins `now` with this body: by every secret that is live then, and by the key
    /// that signs what was accepted when the event was.
    pub(crate) fn signatures(
        &self,
        task: &DeliveryTask,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<Vec<String>, NotSigned> {
        let (delivery, timestamp) = (task.delivery(), now.as_secs());
        let mut signatures = Vec::new();
        if self.signatures.include(SignatureScheme::V1) {
            let live = |key: &&SigningKey| key.expires_at.is_none_or(|expires_at| now < expires_at);
            let live = self.signing.secrets.iter().filter(live);
            signatures.extend(live.map(|key| key.secret.sign(delivery, timestamp, body)));
        }
        if self.signatures.include(SignatureScheme::V1a) {
            let key = self.signing.keys.signing(KeyAlgorithm::EdDsa, task.event.accepted_at);
            let key = key.ok_or(NotSigned)?.private.as_ref();
            signatures.push(sign_with_key(key, delivery, timestamp, body)?);
        }
        Ok(signatures)
    }

    /// Whether a certificate that is not valid is refused. In its developer mode a workspace takes any.
    pub(crate) fn check_certificates(&self) -> bool {
        !self.settings.developer_mode
    }

    /// Whether the workspace lets a request go there now. It may demand HTTPS since the URL was written.
    pub(crate) fn permits(&self, endpoint: &Endpoint) -> bool {
        !self.settings.https_required || endpoint.url().scheme() == "https"
    }
}

/// Why a subscription's target cannot be made: never the receiver's doing.
#[derive(Debug, thiserror::Error)]
enum Unopened {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("its workspace has no key that it is to be signed with")]
    NoKey,
}

fn header_map(headers: &CustomHeaders) -> Result<HeaderMap, Unusable> {
    let header = |(name, value): (&carillon_core::subscription::HeaderName, &str)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| Unusable::Header)?;
        Ok((name, HeaderValue::from_str(value).map_err(|_| Unusable::Header)?))
    };
    headers.iter().map(header).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use carillon_aws::config::Asked;
    use carillon_core::invalid::Findings;
    use carillon_core::subscription::{AttemptTimeout, Authorization, DisabledBy};
    use carillon_core::workspace::WorkspaceKind;

    use super::*;

    /// The signing secret of targets in tests.
    pub(crate) const SECRET: &[u8] = b"a secret of at least 24 bytes";

    /// The secret of their authorization.
    pub(crate) const PROOF: &str = "the-secret-of-the-proof";

    /// In whose name they sign tokens.
    pub(crate) const ISSUER: &str = "https://carillon.example.com/v1/workspaces/acme";

    /// What tests vary of a target.
    pub(crate) struct Parts {
        pub(crate) signing: Vec<(Vec<u8>, Option<UnixMillis>)>,
        pub(crate) format: Format,
        pub(crate) token: Option<TokenSettings>,
        pub(crate) signatures: Signatures,
        pub(crate) keys: KeyRing,
        pub(crate) authorization: Authorization,
        pub(crate) headers: BTreeMap<String, String>,
        pub(crate) https_required: bool,
        pub(crate) developer_mode: bool,
        pub(crate) status: Status,
        pub(crate) asked_until: Option<UnixMillis>,
        pub(crate) confirmed: bool,
    }

    pub(crate) fn target(endpoint: &str) -> Target {
        with(endpoint, |_| {})
    }

    pub(crate) fn with(endpoint: &str, vary: impl FnOnce(&mut Parts)) -> Target {
        let mut parts = Parts {
            signing: vec![(SECRET.to_vec(), None)],
            format: Format::CloudEvents,
            token: None,
            signatures: Signatures::default(),
            keys: KeyRing::default(),
            authorization: Authorization::None,
            headers: BTreeMap::new(),
            https_required: false,
            developer_mode: false,
            status: Status::Active,
            asked_until: None,
            confirmed: false,
        };
        vary(&mut parts);
        let mut findings = Findings::default();
        let headers = CustomHeaders::read(parts.headers, "", &mut findings);
        findings.into_result(()).unwrap();
        let details = Details {
            endpoint: Endpoint::stored(endpoint).unwrap(),
            title: None,
            types: vec!["*".parse().unwrap()],
            filter: None,
            format: parts.format,
            token: parts.token,
            signatures: parts.signatures,
            authorization: parts.authorization,
            client_certificate: None,
            headers,
            retry_policy: None,
            timeout: AttemptTimeout::default(),
            rate_per_minute: None,
        };
        let subscription = Subscription {
            id: "sub_00000000000000000000000000".parse().unwrap(),
            workspace: "acme".parse().unwrap(),
            subscriber: "tpp-1".parse().unwrap(),
            details,
            status: parts.status,
            created_at: UnixMillis(0),
            updated_at: UnixMillis(0),
            revision: 1,
        };
        let Parts { https_required, developer_mode, asked_until, .. } = parts;
        let settings =
            Settings { https_required, developer_mode, ..Settings::default_of(WorkspaceKind::Custom) };
        let verification = Verification {
            asked: asked_until.map(|until| Asked { token: Vec::new(), until, rate: None }),
            confirmed_at: parts.confirmed.then_some(UnixMillis(0)),
            granted_rate: None,
        };
        let signing = parts
            .signing
            .into_iter()
            .map(|(secret, expires_at)| SigningKey { secret: SigningSecret::from_bytes(secret), expires_at });
        let target = Target::new(
            subscription,
            &verification,
            (settings, UnixMillis(0)),
            Signing { secrets: signing.collect(), keys: Arc::new(parts.keys), issuer: ISSUER.to_owned() },
            (Some(PROOF), None),
        );
        target.unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_waits_for_consent_is_awaited_as_long_as_that_may_come() {
        let awaited = |status, asked_until, now| {
            let target = with("https://example.com", |parts| {
                (parts.status, parts.asked_until) = (status, asked_until);
            });
            target.is_awaited(now)
        };
        let until = UnixMillis(1000);
        assert!(awaited(Status::Pending, Some(until), UnixMillis(999)));
        assert!(!awaited(Status::Pending, Some(until), until), "too late");
        assert!(!awaited(Status::Pending, None, UnixMillis(0)), "nobody was asked");
        assert!(!awaited(Status::Disabled(DisabledBy::Owner), Some(until), UnixMillis(0)));
    }

    #[test]
    fn only_a_workspace_in_developer_mode_takes_any_certificate() {
        assert!(target("https://example.com").check_certificates());
        assert!(!with("https://example.com", |parts| parts.developer_mode = true).check_certificates());
    }

    #[test]
    fn a_workspace_may_demand_https_since_the_url_was_written() {
        let endpoint = |url: &str| Endpoint::stored(url).unwrap();
        let strict = with("http://example.com", |parts| parts.https_required = true);
        assert!(!strict.permits(&strict.endpoint) && strict.permits(&endpoint("https://example.com")));
        let loose = target("http://example.com");
        assert!(loose.permits(&loose.endpoint));
    }
}
