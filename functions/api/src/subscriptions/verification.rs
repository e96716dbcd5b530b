//! The consent of endpoints' owners: asked for by the handshake of CloudEvents (HTTP webhook 1.0, section 4) or by a
//! challenge, given in the answer or by visiting a URL. `/verify`, `/v1/confirmations`

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carillon_aws::config::{Asked, StoredSubscription, Verification, Written};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_aws::vault::random_bytes;
use carillon_core::audit::By;
use carillon_core::endpoint::{Endpoint, request_origin};
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::subscription::{Details, Rate, Status, Subscription};
use carillon_core::time::UnixMillis;
use carillon_core::workspace::{Verification as Demanded, Workspace};
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use carillon_sender::{Answer, Request};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use crate::desk::{Desk, by};
use crate::inboxes;
use crate::problems::Common;

use super::shown::{Secrets, WithSecrets};
use super::{TRIES_MAX, answered, find};

/// How long an owner can confirm.
const OPEN: Duration = Duration::from_hours(3 * 24);

/// How long a handshake or a challenge may take: the API's answer waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many random bytes a token has.
const TOKEN_BYTES: usize = 32;

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_CALLBACK: HeaderName = HeaderName::from_static("webhook-request-callback");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

pub(super) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(verify)).routes(routes!(visit, confirm))
}

/// Ask the endpoint's owner again
///
/// As it was asked when the subscription was made, with a new URL. Nothing is asked of an owner who has confirmed.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}/verify",
    operation_id = "verifySubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    responses(
        (status = 200, description = "The subscription, as it is after the question", body = WithSecrets),
        (status = 409, description = "The workspace is being deleted", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn verify(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Response, Problem> {
    let workspace = desk.open_workspace(&path.0).await?.workspace;
    for _ in 0..TRIES_MAX {
        let old = find(&desk, &caller, &path).await?;
        let Subscription { id, details, status, .. } = &old.subscription;
        if *status == Status::Pending && workspace.settings.verification == Demanded::None {
            // Nobody needs to be asked any more.
            let mut active = next(&old, now());
            active.subscription.status = Status::Active;
            if desk.config.update_subscription(&old, &active, by(&caller)).await? == Written::Done {
                return Ok(answered(&active, Secrets::default()));
            }
            continue;
        }
        let Some(question) = Question::if_pending(&workspace, *id, details, *status, now())? else {
            return Ok(answered(&old, Secrets::default()));
        };
        let verification = Verification { asked: Some(question.asked()), ..Verification::default() };
        let new = StoredSubscription { verification, ..next(&old, now()) };
        match desk.config.update_subscription(&old, &new, by(&caller)).await? {
            Written::Done => {
                let asked = ask(&desk, &workspace, new, Some(question)).await;
                return Ok(answered(&asked, Secrets::default()));
            }
            Written::Missing => return Err(Problem::WorkspaceDeleting),
            _ => {}
        }
    }
    Err(Problem::Unavailable)
}

/// Confirm a subscription
///
/// The URL that a challenge or a handshake brought to the endpoint's owner. Visiting it is the owner's consent.
#[utoipa::path(
    get,
    path = "/v1/confirmations",
    operation_id = "visitConfirmation",
    tag = "confirmations",
    params(TokenQuery),
    responses(
        (status = 200, description = "Confirmed, now or before", body = String, content_type = "text/plain"),
        (status = 404, description = "The URL is wrong or too old, or the subscription is no more", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at the moment", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn visit(
    State(desk): State<Arc<Desk>>,
    method: Method,
    Query(asked): Query<TokenQuery>,
) -> Result<Response, Problem> {
    // A look at the headers is no visit.
    if method == Method::HEAD {
        return Err(Problem::MethodNotAllowed);
    }
    consent(&desk, &asked.token, Allowed::Asked).await
}

/// Confirm a subscription by the callback of CloudEvents
///
/// `WebHook-Allowed-Rate` grants another rate than the one that was asked for.
#[utoipa::path(
    post,
    path = "/v1/confirmations",
    operation_id = "confirmSubscription",
    tag = "confirmations",
    params(
        TokenQuery,
        ("webhook-allowed-rate" = Option<String>, Header, description = "Requests per minute, or `*`"),
    ),
    responses(
        (status = 200, description = "Confirmed, now or before", body = String, content_type = "text/plain"),
        (status = 404, description = "The URL is wrong or too old, or the subscription is no more", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at the moment", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn confirm(
    State(desk): State<Arc<Desk>>,
    Query(asked): Query<TokenQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    consent(&desk, &asked.token, Allowed::read(&headers)).await
}

/// What the URL holds: in the query, since paths are logged.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TokenQuery {
    /// What answers the question.
    #[param(max_length = 256)]
    token: String,
}

/// A question to an endpoint's owner, with the token that answers it.
pub(super) struct Question {
    token: String,
    digest: [u8; 32],
    until: UnixMillis,
    rate: Option<Rate>,
}

impl Question {
    /// What is to be asked about a subscription with this status.
    pub(super) fn if_pending(
        workspace: &Workspace,
        subscription: SubscriptionId,
        details: &Details,
        status: Status,
        now: UnixMillis,
    ) -> Result<Option<Self>, AwsError> {
        if status != Status::Pending {
            return Ok(None);
        }
        let secret = BASE64_URL_SAFE_NO_PAD.encode(random_bytes(TOKEN_BYTES)?);
        let rate = details.rate_per_minute.or(workspace.settings.default_rate_per_minute);
        Ok(Some(Self {
            digest: Sha256::digest(&secret).into(),
            // Neither id has a dot in it.
            token: format!("{}.{subscription}.{secret}", workspace.id),
            until: now + OPEN,
            rate,
        }))
    }

    /// What is kept of it.
    pub(super) fn asked(&self) -> Asked {
        Asked { token: self.digest.to_vec(), until: self.until, rate: self.rate }
    }

    fn url(&self, desk: &Desk) -> String {
        format!("{}/v1/confirmations?token={}", desk.public_url, self.token)
    }
}

/// Asks, if there is a question, and notes a consent that comes with the answer. An owner who cannot be asked now, or
/// whose consent cannot be noted, can be asked again: what was written before stands, and its secrets must be shown.
pub(super) async fn ask(
    desk: &Desk,
    workspace: &Workspace,
    stored: StoredSubscription,
    question: Option<Question>,
) -> StoredSubscription {
    let Some(question) = question else { return stored };
    let (id, endpoint) = (stored.subscription.id, &stored.subscription.details.endpoint);
    let answer = match workspace.settings.verification {
        Demanded::None => return stored,
        Demanded::Handshake => shake_hands(desk, workspace, endpoint, &question).await,
        Demanded::Challenge => challenge(desk, workspace, endpoint, id, &question).await,
    };
    let rate = match answer.filter(|answer| consents(desk, answer)) {
        Some(answer) => Allowed::read(&answer.headers).or_asked(question.rate),
        None if inboxes::is_own(desk, workspace, &stored.subscription).await => question.rate,
        None => return stored,
    };
    match grant(desk, stored.clone(), rate).await {
        Ok(granted) => granted,
        Err(problem) => {
            tracing::error!(subscription = %id, ?problem, "a consent could not be noted");
            stored
        }
    }
}

async fn shake_hands(
    desk: &Desk,
    workspace: &Workspace,
    endpoint: &Endpoint,
    question: &Question,
) -> Option<Answer> {
    let mut headers = HeaderMap::new();
    headers.insert(REQUEST_ORIGIN, HeaderValue::from_str(&origin(desk)).ok()?);
    headers.insert(REQUEST_CALLBACK, HeaderValue::from_str(&question.url(desk)).ok()?);
    if let Some(rate) = question.rate {
        headers.insert(REQUEST_RATE, HeaderValue::from(u32::from(rate)));
    }
    send(desk, workspace, Method::OPTIONS, endpoint, headers, Bytes::new()).await
}

/// Whatever the endpoint answers: it is the visit that counts.
async fn challenge(
    desk: &Desk,
    workspace: &Workspace,
    endpoint: &Endpoint,
    subscription: SubscriptionId,
    question: &Question,
) -> Option<Answer> {
    let body = json!({
        "type": "carillon.subscription.challenge",
        "subscription": subscription,
        "confirmationUrl": question.url(desk),
        "expiresAt": question.until.to_string(),
    });
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    send(desk, workspace, Method::POST, endpoint, headers, Bytes::from(body.to_string())).await;
    None
}

async fn send(
    desk: &Desk,
    workspace: &Workspace,
    method: Method,
    endpoint: &Endpoint,
    headers: HeaderMap,
    body: Bytes,
) -> Option<Answer> {
    // The workspace's rules may be stricter now than when the endpoint was written.
    workspace.settings.endpoint_rules(&desk.rules).check(endpoint.url().as_str()).ok()?;
    let check_certificates = !workspace.settings.developer_mode;
    // Who asks for consent needs none: what a subscription shows of itself goes with its deliveries alone.
    let identity = None;
    let request = Request { method, endpoint, headers, body, timeout: TIMEOUT, check_certificates, identity };
    let sent = desk.sender.request(request).await;
    sent.inspect_err(|failure| tracing::info!(?failure, "an endpoint's owner could not be asked")).ok()
}

/// Consent never depends on the status (section 4.2).
fn consents(desk: &Desk, answer: &Answer) -> bool {
    let allowed = answer.headers.get(ALLOWED_ORIGIN).and_then(|value| value.to_str().ok());
    allowed.is_some_and(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(&origin(desk)))
}

/// The host that requests come in the name of.
fn origin(desk: &Desk) -> String {
    request_origin(&desk.public_url).unwrap_or_default()
}

/// What `WebHook-Allowed-Rate` says (section 4.2.2).
enum Allowed {
    /// Nothing: what was asked for.
    Asked,
    /// `*`
    Any,
    /// So many requests in a minute.
    Rate(Rate),
}

impl Allowed {
    fn read(headers: &HeaderMap) -> Self {
        let text = headers.get(ALLOWED_RATE).and_then(|value| value.to_str().ok()).map(str::trim);
        let rate = |text: &str| {
            let rate = text.parse::<u32>().ok()?;
            Rate::try_from(rate.min(Rate::PER_MINUTE_MAX)).ok()
        };
        match text {
            Some("*") => Self::Any,
            text => text.and_then(rate).map_or(Self::Asked, Self::Rate),
        }
    }

    /// The rate that the subscription has then; none: any.
    fn or_asked(self, asked: Option<Rate>) -> Option<Rate> {
        match self {
            Self::Asked => asked,
            Self::Any => None,
            Self::Rate(rate) => Some(rate),
        }
    }
}

/// The owner's consent, by the token that only it has.
async fn consent(desk: &Desk, token: &str, allowed: Allowed) -> Result<Response, Problem> {
    let (workspace, subscription, secret) = read_token(token).ok_or(Problem::NotFound)?;
    let digest: [u8; 32] = Sha256::digest(secret).into();
    let stored = desk.config.subscription(&workspace, subscription).await?.ok_or(Problem::NotFound)?;
    let asked = stored.verification.asked.as_ref().ok_or(Problem::NotFound)?;
    if asked.token != digest || asked.until <= now() {
        return Err(Problem::NotFound);
    }
    let rate = allowed.or_asked(asked.rate);
    grant(desk, stored, rate).await?;
    let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    let text = "Confirmed. Deliveries to this endpoint begin with the next event.\n";
    Ok((StatusCode::OK, plain, text).into_response())
}

/// Notes the consent, whatever else changes at the same time, as long as it is to the question that is open.
async fn grant(
    desk: &Desk,
    mut stored: StoredSubscription,
    rate: Option<Rate>,
) -> Result<StoredSubscription, Problem> {
    let asked = stored.verification.asked.clone();
    for _ in 0..TRIES_MAX {
        if stored.verification.confirmed_at.is_some() || stored.verification.asked != asked {
            return Ok(stored);
        }
        let mut granted = next(&stored, now());
        granted.verification.confirmed_at = Some(now());
        granted.verification.granted_rate = rate;
        if granted.subscription.status == Status::Pending {
            granted.subscription.status = Status::Active;
        }
        if desk.config.update_subscription(&stored, &granted, By::EndpointOwner).await? == Written::Done {
            return Ok(granted);
        }
        let Subscription { workspace, id, .. } = &stored.subscription;
        stored = desk.config.subscription(workspace, *id).await?.ok_or(Problem::NotFound)?;
    }
    Err(Problem::Unavailable)
}

fn next(stored: &StoredSubscription, now: UnixMillis) -> StoredSubscription {
    let mut next = stored.clone();
    next.subscription.revision += 1;
    next.subscription.updated_at = now;
    next
}

fn read_token(token: &str) -> Option<(WorkspaceId, SubscriptionId, &str)> {
    let mut parts = token.splitn(3, '.');
    let (workspace, subscription, secret) = (parts.next()?, parts.next()?, parts.next()?);
    Some((workspace.parse().ok()?, subscription.parse().ok()?, secret))
}
