//! `/v1/workspaces/{workspace}/keys`, and what receivers read of them: `/jwks.json`

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{StoredKeys, StoredWorkspace, Written};
use carillon_aws::now;
use carillon_aws::signing::NewKey;
use carillon_aws::vault::{Sealed, SecretName};
use carillon_core::keys::{Key, KeyAlgorithm, KeySet, PUBLIC_KEYS_KEPT, PublicJwk, SEALED_AS};
use carillon_core::subscription::Details;
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_http::access::Caller;
use carillon_http::body::read_json;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::desk::{Desk, List, by};
use crate::problems::Common;

/// How often a change is tried again that another one came before.
const TRIES_MAX: usize = 5;

/// Media type of a set of public keys (RFC 7517, section 8.5.2).
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// How long an empty set may be kept, in seconds: the first keys sign from the moment that they are made.
const EMPTY_KEPT_SECONDS: u64 = 60;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list)).routes(routes!(rotate)).routes(routes!(jwks))
}

/// Makes the workspace's keys if deliveries by these details need them and they are not there yet. The keys of all
/// algorithms are made together: who has read the public ones has read all that can sign within the hour.
pub(crate) async fn ensure(
    desk: &Desk,
    caller: &Caller,
    workspace: &StoredWorkspace,
    details: &Details,
) -> Result<(), Problem> {
    if details.key_algorithms().next().is_none() {
        return Ok(());
    }
    for _ in 0..TRIES_MAX {
        let stored = desk.config.keys(&workspace.workspace.id).await?;
        let lacking: Vec<_> = stored.keys.lacking().collect();
        if lacking.is_empty() || add(desk, caller, workspace, stored, &lacking).await?.is_some() {
            return Ok(());
        }
    }
    Err(Problem::Unavailable)
}

/// List the keys
///
/// Those that the workspace's deliveries are signed with where its subscriptions ask for tokens or for signatures `v1a`.
/// They are made when the first subscription does.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/keys",
    operation_id = "listKeys",
    tag = "keys",
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 200, description = "All of them, in the order in which they were made", body = List<Shown>), Common),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "support"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
) -> Result<Json<List<Shown>>, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace.id;
    Ok(Json(shown(&desk.config.keys(&workspace).await?.keys, now())))
}

/// Rotate the keys
///
/// Makes the next key of an algorithm, or of each. It is among the public keys at once, and signs what is accepted from
/// `signsFrom` on, when whoever keeps public keys as long as they may be kept has read it. The key of before stays among
/// them until the events that it signs are no longer kept. Where there are no keys yet, the first ones are made.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/keys/rotate",
    operation_id = "rotateKeys",
    tag = "keys",
    params(("workspace" = String, Path, description = "The workspace's id")),
    request_body = Rotation,
    responses(
        (status = 200, description = "Rotated: all keys", body = List<Shown>),
        (
            status = 409,
            description = "The next key does not sign yet, or too many are still needed, or the workspace is being deleted",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner"]))),
)]
async fn rotate(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<List<Shown>>, Problem> {
    let Rotation { algorithm } = read_json(&headers, &body)?;
    let workspace = desk.open_workspace(&workspace).await?;
    for _ in 0..TRIES_MAX {
        let mut stored = desk.config.keys(&workspace.workspace.id).await?;
        let mut algorithms: Vec<_> = stored.keys.lacking().collect();
        if algorithms.is_empty() {
            stored.keys.remove_unneeded(now(), desk.retention);
            algorithms = algorithm.map_or_else(|| KeyAlgorithm::ALL.to_vec(), |algorithm| vec![algorithm]);
        }
        if let Some(keys) = add(&desk, &caller, &workspace, stored, &algorithms).await? {
            return Ok(Json(shown(&keys, now())));
        }
    }
    Err(Problem::Unavailable)
}

/// Read the public keys
///
/// What receivers verify tokens and signatures `v1a` with, as a JSON Web Key Set (RFC 7517, section 5). A key is in it
/// before it signs for as long as an answer may be kept.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/jwks.json",
    operation_id = "getPublicKeys",
    tag = "public keys",
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses(
        (
            status = 200, description = "The set; empty if the workspace has no keys",
            body = JwkSet,
            content_type = "application/jwk-set+json",
            headers(("cache-control" = String, description = "How long it may be kept")),
        ),
        (
            status = 404, description = "There is no such workspace",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 503, description = "Not possible at the moment",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security(()),
)]
async fn jwks(State(desk): State<Arc<Desk>>, Path(workspace): Path<String>) -> Result<Response, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace.id;
    let keys = desk.config.keys(&workspace).await?.keys;
    let seconds = if keys.is_empty() { EMPTY_KEPT_SECONDS } else { PUBLIC_KEYS_KEPT.as_secs() };
    let headers = [
        (CONTENT_TYPE, JWK_SET),
        (
            CACHE_CONTROL,
            HeaderValue::try_from(format!("public, max-age={seconds}")).map_err(|_| Problem::Unavailable)?,
        ),
    ];
    let set = JwkSet { keys: keys.iter().map(Jwk::of).collect() };
    Ok((headers, Json(set)).into_response())
}

/// What to rotate.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = KeyRotation)]
struct Rotation {
    /// The keys of this algorithm; those of each if absent.
    #[serde(default)]
    #[schema(value_type = Option<KeyAlgorithmShown>)]
    algorithm: Option<KeyAlgorithm>,
}

/// What a key signs with.
#[derive(ToSchema)]
#[schema(as = KeyAlgorithm)]
#[expect(dead_code, reason = "describes KeyAlgorithm of the core, which knows no OpenAPI")]
enum KeyAlgorithmShown {
    /// RSA with SHA-256, for tokens.
    #[schema(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256, for tokens.
    #[schema(rename = "ES256")]
    Es256,
    /// Ed25519, for signatures `v1a`.
    #[schema(rename = "EdDSA")]
    EdDsa,
}

/// A key, without its private part.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Key)]
struct Shown {
    /// Its id: its thumbprint (RFC 7638).
    #[schema(example = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")]
    kid: String,
    /// What it signs with.
    #[schema(value_type = KeyAlgorithmShown)]
    algorithm: KeyAlgorithm,
    /// Whether what is accepted now is signed with it.
    status: KeyStatus,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = "date-time")]
    created_at: UnixMillis,
    /// What is accepted from then on is signed with it, until the next key of its algorithm takes over.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = "date-time")]
    signs_from: UnixMillis,
    /// Its public part (RFC 7517).
    #[schema(value_type = Object)]
    public_key: Jwk,
    /// The same as Standard Webhooks writes keys for signatures `v1a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, example = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")]
    webhook_key: Option<String>,
}

/// Whether what is accepted now is signed with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum KeyStatus {
    /// Not yet.
    Next,
    /// It is.
    Current,
    /// Not any more.
    Previous,
}

/// The public keys of a workspace.
#[derive(Debug, Serialize, ToSchema)]
struct JwkSet {
    #[schema(value_type = Vec<Object>)]
    keys: Vec<Jwk>,
}

/// A public key as receivers read it.
#[derive(Debug, Serialize)]
struct Jwk {
    #[serde(flatten)]
    public: PublicJwk,
    kid: String,
    alg: KeyAlgorithm,
    r#use: &'static str,
}

impl Jwk {
    fn of<P>(key: &Key<P>) -> Self {
        Self { public: key.public.clone(), kid: key.kid.clone(), alg: key.algorithm(), r#use: "sig" }
    }
}

impl KeyStatus {
    fn of<P>(key: &Key<P>, keys: &KeySet<P>, now: UnixMillis) -> Self {
        match keys.signing(key.algorithm(), now) {
            Some(signing) if signing.kid == key.kid => Self::Current,
            _ if key.signs_from > now => Self::Next,
            _ => Self::Previous,
        }
    }
}

fn shown<P>(keys: &KeySet<P>, now: UnixMillis) -> List<Shown> {
    let shown = keys.iter().map(|key| Shown {
        kid: key.kid.clone(),
        algorithm: key.algorithm(),
        status: KeyStatus::of(key, keys, now),
        created_at: key.created_at,
        signs_from: key.signs_from,
        public_key: Jwk::of(key),
        webhook_key: key.public.webhook_text(),
    });
    List { items: shown.collect(), next: None }
}

/// Adds a key of each algorithm to what is stored. `None`: another change came first.
async fn add(
    desk: &Desk,
    caller: &Caller,
    workspace: &StoredWorkspace,
    stored: StoredKeys,
    algorithms: &[KeyAlgorithm],
) -> Result<Option<KeySet<Sealed>>, Problem> {
    let StoredWorkspace { workspace, data_key } = workspace;
    let StoredKeys { mut keys, revision } = stored;
    let now = now();
    for algorithm in algorithms {
        // Asked before, since it takes a moment to make a key.
        keys.may_rotate(*algorithm, now).map_err(|_| Problem::TooEarlyToRotate)?;
    }
    for algorithm in algorithms {
        let NewKey { public, pkcs8 } = NewKey::generate(*algorithm)?;
        let name = SecretName { workspace: &workspace.id, owner: SEALED_AS, secret: &public.thumbprint() };
        let sealed = desk.vault.seal(data_key, name, pkcs8.expose_secret()).await?;
        keys.add(public, sealed, now).map_err(|_| Problem::TooEarlyToRotate)?;
    }
    let stored = StoredKeys { keys, revision: revision + 1 };
    match desk.config.put_keys(&workspace.id, &stored, (by(caller), now)).await? {
        Written::Done => Ok(Some(stored.keys)),
        Written::Missing => Err(Problem::WorkspaceDeleting),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::keys::PUBLISHED_BEFORE;
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_000);

    #[test]
    fn keys_are_shown_with_what_receivers_need() {
        let mut keys = KeySet::default();
        keys.add(PublicJwk::ed25519(&[1; 32]), "private", NOW).unwrap();
        keys.add(PublicJwk::ed25519(&[2; 32]), "private", NOW).unwrap();
        let show = |now| serde_json::to_value(shown(&keys, now)).unwrap();
        let statuses = |now| [0, 1].map(|at| show(now)["items"][at]["status"].clone());
        assert_eq!(statuses(NOW), ["current", "next"]);
        let takes_over = NOW + PUBLIC_KEYS_KEPT + PUBLISHED_BEFORE;
        assert_eq!(statuses(takes_over), ["previous", "current"]);
        let (kid, x) =
            (PublicJwk::ed25519(&[1; 32]).thumbprint(), "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE");
        assert_eq!(
            show(NOW)["items"][0],
            json!({
                "kid": kid,
                "algorithm": "EdDSA",
                "status": "current",
                "createdAt": "2026-11-22T09:30:00.000Z",
                "signsFrom": "2026-11-22T09:30:00.000Z",
                "publicKey": {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"},
                "webhookKey": format!("whpk_{x}="),
            })
        );
        assert!(!show(NOW).to_string().contains("private"));
    }
}
