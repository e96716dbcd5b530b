//! Secrets of subscriptions: made or taken, sealed, shown once. `/secrets/rotate`

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use carillon_aws::config::{StoredSecret, StoredSubscription, StoredWorkspace, Written};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::vault::{SecretName, random_bytes};
use carillon_core::id::SubscriptionId;
use carillon_core::invalid::Invalid;
use carillon_core::signature::{SECRET_BYTES, SigningSecret, api_key_text};
use carillon_core::subscription::Subscription;
use carillon_core::time::UnixMillis;
use carillon_http::access::Caller;
use carillon_http::body::{read_json, whole};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::conditional::IfMatch;
use crate::desk::{Desk, by};
use crate::problems::Common;

use super::input::Given;
use super::shown::{Secrets, WithSecrets};
use super::{TRIES_MAX, answered, find_as};

/// How long a secret that was replaced stays in use unless its owner says otherwise, and at most, in seconds.
const OVERLAP_DEFAULT_SECONDS: u64 = 24 * 60 * 60;
const OVERLAP_SECONDS_MAX: u64 = 7 * OVERLAP_DEFAULT_SECONDS;

/// How many secrets are in use at once: each signs every delivery.
const LIVE_MAX: usize = 5;

pub(super) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(rotate))
}

/// How to rotate.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rotation {
    /// How long the secrets of before still sign beside the new one.
    #[serde(default = "overlap_default", deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 604_800, default = 86_400)]
    overlap_seconds: u64,
}

/// Rotate the signing secret
///
/// Makes a new one, which is in this answer alone. Deliveries are signed with it and with those of before, until their
/// overlap is over.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/secrets/rotate",
    operation_id = "rotateSigningSecret",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        IfMatch,
    ),
    request_body = Rotation,
    responses(
        (status = 200, description = "Rotated", body = WithSecrets, headers(("etag" = String, description = "Its state, for `If-Match`"))),
        (status = 409, description = "Too many secrets are in use: wait until one's overlap is over", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed since", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn rotate(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let Rotation { overlap_seconds } = read_json(&headers, &body)?;
    if overlap_seconds > OVERLAP_SECONDS_MAX {
        let detail = format!("must be 0 to {OVERLAP_SECONDS_MAX} seconds");
        return Err(Invalid::field("/overlapSeconds", detail).into());
    }
    let workspace = desk.open_workspace(&path.0).await?;
    for _ in 0..TRIES_MAX {
        let old = find_as(&desk, &caller, &path, &if_match).await?;
        let now = now();
        let owner = Owner { desk: &desk, workspace: &workspace, subscription: old.subscription.id };
        let (new, secret) = owner.signing_secret(&next_name(&old.signing), now).await?;
        let until = now + Duration::from_secs(overlap_seconds);
        let rotated = rotated(&old, new, until, now).ok_or(Problem::TooManySecrets)?;
        match desk.config.update_subscription(&old, &rotated, by(&caller)).await? {
            Written::Done => {
                return Ok(answered(&rotated, Secrets { signing_secret: Some(secret), api_key: None }));
            }
            Written::Missing => return Err(Problem::WorkspaceDeleting),
            _ => {}
        }
    }
    Err(Problem::Unavailable)
}

/// Whose secrets are sealed.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) desk: &'a Desk,
    pub(super) workspace: &'a StoredWorkspace,
    pub(super) subscription: SubscriptionId,
}

impl Owner<'_> {
    /// A new signing secret of this name: sealed, and as its owner is shown it.
    pub(super) async fn signing_secret(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<(StoredSecret, SecretString), AwsError> {
        let secret = SigningSecret::from_bytes(random_bytes(SECRET_BYTES)?);
        let sealed = self.seal(name.to_owned(), secret.expose_bytes(), now).await?;
        Ok((sealed, secret.expose_text().into()))
    }

    /// What becomes of the authorization's secret: sealed, and as its owner is shown it if Carillon made it.
    pub(super) async fn authorization_secret(
        &self,
        given: Given,
        before: Option<&StoredSecret>,
        revision: u64,
        now: UnixMillis,
    ) -> Result<(Option<StoredSecret>, Option<SecretString>), AwsError> {
        let name = format!("authorization-{revision}");
        match given {
            Given::Nothing => Ok((None, None)),
            Given::Kept => Ok((before.cloned(), None)),
            Given::Text(secret) => Ok((Some(self.seal(name, secret.expose().as_bytes(), now).await?), None)),
            Given::Made => {
                let key = SecretString::from(api_key_text(&random_bytes(SECRET_BYTES)?));
                let sealed = self.seal(name, key.expose_secret().as_bytes(), now).await?;
                Ok((Some(sealed), Some(key)))
            }
        }
    }

    /// What becomes of the key of the client certificate, sealed.
    pub(super) async fn client_key(
        &self,
        given: Given,
        before: Option<&StoredSecret>,
        revision: u64,
        now: UnixMillis,
    ) -> Result<Option<StoredSecret>, AwsError> {
        match given {
            Given::Text(key) => {
                let name = format!("client-key-{revision}");
                self.seal(name, key.expose().as_bytes(), now).await.map(Some)
            }
            Given::Kept => Ok(before.cloned()),
            Given::Nothing | Given::Made => Ok(None),
        }
    }

    async fn seal(&self, name: String, plain: &[u8], now: UnixMillis) -> Result<StoredSecret, AwsError> {
        let StoredWorkspace { workspace, data_key } = self.workspace;
        let owner = self.subscription.to_string();
        let sealed_as = SecretName { workspace: &workspace.id, owner: &owner, secret: &name };
        let sealed = self.desk.vault.seal(data_key, sealed_as, plain).await?;
        Ok(StoredSecret { name, sealed, created_at: now, expires_at: None })
    }
}

/// The subscription with a new signing secret, those of before in use until `until` at the latest; `None` if there are
/// too many.
fn rotated(
    old: &StoredSubscription,
    new: StoredSecret,
    until: UnixMillis,
    now: UnixMillis,
) -> Option<StoredSubscription> {
    let ending = |secret: &StoredSecret| StoredSecret {
        expires_at: Some(secret.expires_at.map_or(until, |expires_at| expires_at.min(until))),
        ..secret.clone()
    };
    let mut signing: Vec<_> = old.live(now).map(ending).collect();
    signing.retain(|secret| secret.expires_at.is_some_and(|expires_at| expires_at > now));
    signing.push(new);
    let subscription =
        Subscription { updated_at: now, revision: old.subscription.revision + 1, ..old.subscription.clone() };
    (signing.len() <= LIVE_MAX).then(|| StoredSubscription { subscription, signing, ..old.clone() })
}

/// Never one that stands already: it is part of what a secret is sealed under.
fn next_name(signing: &[StoredSecret]) -> String {
    let last = signing.iter().filter_map(|secret| secret.name.parse::<u64>().ok()).max();
    last.map_or(1, |last| last + 1).to_string()
}

fn overlap_default() -> u64 {
    OVERLAP_DEFAULT_SECONDS
}
