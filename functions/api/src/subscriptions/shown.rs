//! Subscriptions as the API shows them: never with a secret, but for the answer to the request that made it.

use std::borrow::Cow;

use carillon_aws::config::StoredSubscription;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::subscription::{DisabledBy, Status, StatusName};
use carillon_core::time::{UnixMillis, rfc3339};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, Serializer};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::input::SubscriptionInput;

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Subscription)]
pub(crate) struct Shown {
    #[schema(value_type = String, example = "sub_06h02h91rss6dfwpq1vvgwp3d8")]
    id: SubscriptionId,
    #[schema(value_type = String, example = "acme")]
    workspace: WorkspaceId,
    #[serde(flatten)]
    #[schema(value_type = SaidShown)]
    said: SubscriptionInput,
    /// `pending` until its endpoint's owner has confirmed it, if the workspace demands that; `active` then; `disabled` if
    /// no deliveries are made.
    #[schema(value_type = StatusShown)]
    status: StatusName,
    /// Why it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "owner")]
    status_reason: Option<DisabledBy>,
    /// The signing secrets that are in use, the newest last: deliveries are signed with each.
    signing_secrets: Vec<SecretShown>,
    /// When its client certificate expires, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_rfc3339")]
    #[schema(value_type = Option<String>, format = "date-time")]
    client_certificate_expires_at: Option<UnixMillis>,
    /// How its endpoint's owner was asked, if the workspace demands that.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationShown>,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = "date-time")]
    created_at: UnixMillis,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = "date-time")]
    updated_at: UnixMillis,
}

/// What its owner says of a subscription, among what else is shown of it: other members stand beside it.
struct SaidShown;

impl PartialSchema for SaidShown {
    fn schema() -> RefOr<Schema> {
        match SubscriptionInput::schema() {
            RefOr::T(Schema::Object(mut said)) => {
                said.description = Some("What its owner says of a subscription.".to_owned());
                said.additional_properties = None;
                let always = [
                    "subscriber",
                    "format",
                    "signatures",
                    "authorization",
                    "timeoutSeconds",
                    "enabled",
                    "paused",
                ];
                said.required.extend(always.map(str::to_owned));
                RefOr::T(Schema::Object(said))
            }
            other => other,
        }
    }
}

impl ToSchema for SaidShown {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("SubscriptionDetails")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SubscriptionInput::schemas(schemas);
    }
}

/// Whether a subscription gets its events.
#[derive(ToSchema)]
#[schema(as = SubscriptionStatus, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes StatusName of the core, which knows no OpenAPI")]
pub(crate) enum StatusShown {
    Pending,
    Active,
    Paused,
    Disabled,
}

/// A signing secret, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SigningSecret)]
pub(crate) struct SecretShown {
    /// Its number.
    name: String,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = "date-time")]
    created_at: UnixMillis,
    /// When it goes out of use.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_rfc3339")]
    #[schema(value_type = Option<String>, format = "date-time")]
    expires_at: Option<UnixMillis>,
}

/// What is known of an endpoint owner's consent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SubscriptionVerification)]
pub(crate) struct VerificationShown {
    /// When the owner confirmed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_rfc3339")]
    #[schema(value_type = Option<String>, format = "date-time")]
    confirmed_at: Option<UnixMillis>,
    /// Until when the owner can confirm.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_rfc3339")]
    #[schema(value_type = Option<String>, format = "date-time")]
    open_until: Option<UnixMillis>,
    /// How many requests in a minute the owner allows; any number if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    granted_rate_per_minute: Option<u32>,
}

/// A subscription with the secrets that the request made: shown in this answer and never again.
// `Debug` would show them, so there is none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SubscriptionWithSecrets)]
pub(crate) struct WithSecrets {
    #[serde(flatten)]
    pub(super) shown: Shown,
    #[serde(flatten)]
    pub(super) secrets: Secrets,
}

/// What a request made, if it made any.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Secrets {
    /// What deliveries are signed with (Standard Webhooks, `v1`).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    #[schema(value_type = Option<String>, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub(super) signing_secret: Option<SecretString>,
    /// The API key that is sent with each delivery.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    #[schema(value_type = Option<String>)]
    pub(super) api_key: Option<SecretString>,
}

impl Shown {
    /// As it is `now`.
    pub(super) fn of(stored: &StoredSubscription, now: UnixMillis) -> Self {
        let subscription = &stored.subscription;
        let status_reason = match subscription.status {
            Status::Disabled(by) => Some(by),
            Status::Pending | Status::Active | Status::Paused => None,
        };
        let signing_secrets = stored.live(now).map(|secret| SecretShown {
            name: secret.name.clone(),
            created_at: secret.created_at,
            expires_at: secret.expires_at,
        });
        let asked = &stored.verification;
        let verification =
            (asked.asked.is_some() || asked.confirmed_at.is_some()).then(|| VerificationShown {
                confirmed_at: asked.confirmed_at,
                open_until: match (asked.confirmed_at, &asked.asked) {
                    (None, Some(asked)) => Some(asked.until),
                    _ => None,
                },
                granted_rate_per_minute: asked.granted_rate.map(u32::from),
            });
        Self {
            id: subscription.id,
            workspace: subscription.workspace.clone(),
            said: SubscriptionInput::of(&subscription.subscriber, &subscription.details, subscription.status),
            status: subscription.status.name(),
            status_reason,
            signing_secrets: signing_secrets.collect(),
            client_certificate_expires_at: subscription
                .details
                .client_certificate
                .as_ref()
                .map(|certificate| certificate.expires_at),
            verification,
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde passes fields so")]
fn optional_rfc3339<S: Serializer>(time: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::ref_option, reason = "serde passes fields so")]
fn exposed<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => serializer.serialize_some(secret.expose_secret()),
        None => serializer.serialize_none(),
    }
}
