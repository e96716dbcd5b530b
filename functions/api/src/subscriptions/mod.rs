//! `/v1/workspaces/{workspace}/subscriptions`

mod dry_run;
mod input;
mod interceptors;
mod secrets;
mod shown;
mod test_event;
mod verification;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{
    FIRST_SECRET, Made, Once, StoredSubscription, StoredWorkspace, Verification, Wanted, Written,
};
use carillon_aws::now;
use carillon_catalogue::{builtin, knows, operational};
use carillon_core::endpoint::Endpoint;
use carillon_core::id::{SubscriberId, SubscriptionId};
use carillon_core::invalid::{Findings, Invalid};
use carillon_core::pattern::EventType;
use carillon_core::subscription::{Authorization, Details, DisabledBy, Status, StatusName, Subscription};
use carillon_core::time::UnixMillis;
use carillon_core::workspace::Workspace;
use carillon_http::access::Caller;
use carillon_http::body::{read_json, read_merge_patch, read_patched};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use carillon_sender::Unresolved;
use http::header::{ETAG, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::conditional::{IdempotencyKey, IfMatch, etag, merge};
use crate::desk::{Desk, List, ListQuery, by, id_bytes};
use crate::problems::Common;
use crate::rules::rules;
use crate::{inboxes, keys};

pub(crate) use self::input::TypePatternShown;

use self::input::{Against, SubscriptionInput, Wish};
use self::secrets::Owner;
use self::shown::{Secrets, Shown, WithSecrets};
use self::verification::Question;

/// How many subscriptions a page has at most, whatever was asked for.
const PAGE_MAX: i32 = 50;

/// How often a change is tried again that another one came before.
const TRIES_MAX: usize = 5;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(read, replace, patch, delete))
        .merge(interceptors::router())
        .merge(secrets::router())
        .merge(verification::router())
        .merge(test_event::router())
        .merge(dry_run::router())
}

/// Create a subscription
///
/// Its secrets are in this answer and in no other. It gets the events that are accepted after it.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/subscriptions",
    operation_id = "createSubscription",
    tag = "subscriptions",
    params(("workspace" = String, Path, description = "The workspace's id"), IdempotencyKey),
    request_body(content = SubscriptionInput, example = json!({
        "endpoint": "https://tpp.example.com/webhooks",
        "title": "Consents, production",
        "subscriber": "tpp-1",
        "types": ["consent:*"],
        "filter": {"pattern": {"data": {"status": [{"anything-but": "draft"}]}}},
        "authorization": {
            "type": "oauth2",
            "tokenUrl": "https://tpp.example.com/oauth2/token",
            "clientId": "carillon",
            "clientSecret": "kept-and-never-shown",
        },
        "retryPolicy": {"waitsSeconds": [5, 300, 1800]},
    })),
    responses(
        (status = 201, description = "Created", body = WithSecrets, headers(
            ("location" = String, description = "Where it is"),
            ("etag" = String, description = "Its state, for `If-Match`"),
        )),
        (status = 409, description = "Its title is taken, or the workspace is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Another request came with this `Idempotency-Key`", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn create(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let path = format!("/v1/workspaces/{workspace}/subscriptions");
    let making = Making::of(&desk, &caller, &workspace, (&path, key, &body)).await?;
    if let Some(answer) = making.before().await? {
        return Ok(answer);
    }
    let input: SubscriptionInput = read_json(&headers, &body)?;
    let wish = check(&desk, &making.stored.workspace, input, None).await?;
    making.finish(wish).await
}

/// List subscriptions
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/subscriptions",
    operation_id = "listSubscriptions",
    tag = "subscriptions",
    params(("workspace" = String, Path, description = "The workspace's id"), ListQuery, WantedQuery),
    responses((status = 200, description = "A page of them, the oldest first. It may have fewer than `limit` though there is a `next`", body = List<Shown>), Common),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(page): Query<ListQuery>,
    Query(wanted): Query<WantedQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace.id;
    let wanted = wanted.check(&caller)?;
    // Subscriptions can be large: an answer of this many is one that a function can give.
    let (limit, after) = (page.limit()?.min(PAGE_MAX), page.after()?);
    let found = desk.config.wanted_subscriptions(&workspace, &wanted, limit, after).await?;
    let now = now();
    Ok(Json(List::of(found, |stored| Shown::of(&stored, now))))
}

/// Read a subscription
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}",
    operation_id = "getSubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
    ),
    responses((status = 200, description = "The subscription", body = Shown, headers(("etag" = String, description = "Its state, for `If-Match`"))), Common),
    security(("oauth2" = ["carillon/read"]), ("oauth2" = ["carillon/admin"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Response, Problem> {
    let stored = find(&desk, &caller, &path).await?;
    Ok(answered(&stored, Secrets::default()))
}

/// Replace a subscription
///
/// All that its owner says of it; what is left out takes its default. Secrets that are left out stay. The change holds
/// for every attempt that starts 5 s after the answer, also of deliveries that wait already.
#[utoipa::path(
    put,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}",
    operation_id = "replaceSubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        IfMatch,
    ),
    request_body(content = SubscriptionInput, example = json!({
        "endpoint": "https://tpp.example.com/webhooks",
        "title": "Consents, production",
        "subscriber": "tpp-1",
        "types": ["consent:*"],
        "filter": {"pattern": {"data": {"status": [{"anything-but": "draft"}]}}},
        "authorization": {
            "type": "oauth2",
            "tokenUrl": "https://tpp.example.com/oauth2/token",
            "clientId": "carillon",
            "clientSecret": "kept-and-never-shown",
        },
        "retryPolicy": {"waitsSeconds": [5, 300, 1800]},
    })),
    responses(
        (status = 200, description = "Replaced", body = WithSecrets, headers(("etag" = String, description = "Its state, for `If-Match`"))),
        (status = 409, description = "Its title is taken", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed since", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn replace(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let input: SubscriptionInput = read_json(&headers, &body)?;
    change(&desk, &caller, &path, &if_match, |_| Ok(input.clone())).await
}

/// Change a subscription
///
/// By a JSON Merge Patch (RFC 7396) of what `PUT` takes: members that are null are removed, arrays are replaced whole.
#[utoipa::path(
    patch,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}",
    operation_id = "patchSubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        IfMatch,
    ),
    request_body(content = Object, content_type = "application/merge-patch+json", example = json!({"types": ["consent:revoke"], "title": null})),
    responses(
        (status = 200, description = "Changed", body = WithSecrets, headers(("etag" = String, description = "Its state, for `If-Match`"))),
        (status = 409, description = "Its title is taken", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed since", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn patch(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let patch = read_merge_patch(&headers, &body)?;
    change(&desk, &caller, &path, &if_match, |input| {
        let whole = serde_json::to_value(input).map_err(|_| Problem::Unavailable)?;
        read_patched(&merge(whole, patch.clone()))
    })
    .await
}

/// Delete a subscription
///
/// Its deliveries that are under way end as `cancelled`.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/subscriptions/{subscription}",
    operation_id = "deleteSubscription",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("subscription" = String, Path, description = "The subscription's id"),
        IfMatch,
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 412, description = "It was changed since", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn delete(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    for _ in 0..TRIES_MAX {
        let stored = find_as(&desk, &caller, &path, &if_match).await?;
        if desk.config.delete_subscription(&stored.subscription, Some((by(&caller), now()))).await?
            == Written::Done
        {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    Err(Problem::Unavailable)
}

/// Which subscriptions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct WantedQuery {
    /// Those of this subscriber.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]+$")]
    subscriber: Option<String>,
    /// Those with this status.
    #[param(value_type = Option<shown::StatusShown>)]
    status: Option<String>,
    /// Those that ask for events of this type.
    #[param(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\s*\u0000-\u001f\u007f-\u009f]+$",
        example = "consent:approved"
    )]
    event_type: Option<String>,
}

impl WantedQuery {
    /// A client that is bound to a subscriber sees its subscriptions alone, whatever it asks for.
    fn check(self, caller: &Caller) -> Result<Wanted, Problem> {
        let mut findings = Findings::default();
        let subscriber = self.subscriber.map(|text| {
            text.parse().map_err(|_| Invalid::field("query:subscriber", "must be a subscriber's id"))
        });
        let subscriber: Option<SubscriberId> = subscriber.and_then(|subscriber| findings.take(subscriber));
        let status = self.status.map(|text| {
            let status = serde_json::from_value::<StatusName>(text.into());
            status.map_err(|_| {
                Invalid::field("query:status", "must be `pending`, `active`, `paused` or `disabled`")
            })
        });
        let status = status.and_then(|status| findings.take(status));
        let event_type = self.event_type.map(|text| {
            text.parse::<EventType>().map_err(|error| Invalid::field("query:eventType", error.to_string()))
        });
        let event_type = event_type.and_then(|event_type| findings.take(event_type));
        findings.into_result(())?;
        let subscriber = match (caller.subscriber(), subscriber) {
            (Some(bound), Some(asked)) if *bound != asked => return Err(Problem::NotFound),
            (Some(bound), _) => Some(bound.clone()),
            (None, asked) => asked,
        };
        Ok(Wanted { subscriber, status, event_type })
    }
}

/// A subscription that is being made.
struct Making<'a> {
    desk: &'a Desk,
    caller: &'a Caller,
    stored: StoredWorkspace,
    id: SubscriptionId,
    now: UnixMillis,
    /// By what a repetition of the request is known; absent if it has no key.
    once: Option<Once>,
}

impl<'a> Making<'a> {
    /// In this workspace, as a request to this path asks for it, with this key and this body.
    async fn of(
        desk: &'a Desk,
        caller: &'a Caller,
        workspace: &str,
        (path, key, body): (&str, Option<String>, &[u8]),
    ) -> Result<Self, Problem> {
        let stored = desk.open_workspace(workspace).await?;
        let (now, id) = (now(), SubscriptionId::new(now(), id_bytes()?));
        let once = key.map(|key| Once::new(caller.client.clone(), path, &key, body, id.to_string(), now));
        Ok(Self { desk, caller, stored, id, now, once })
    }

    /// What the request is answered if it was done before.
    async fn before(&self) -> Result<Option<Response>, Problem> {
        let Some(once) = &self.once else { return Ok(None) };
        let Some(made) = self.desk.config.made(once).await? else { return Ok(None) };
        repeated(self.desk, self.caller, &self.stored.workspace, once, &made).await.map(Some)
    }

    /// Makes it, asks its endpoint's owner if the workspace demands that, and shows it with its secrets.
    async fn finish(self, wish: Wish) -> Result<Response, Problem> {
        let Self { desk, caller, stored, id, now, once } = self;
        let subscriber = whose(caller, wish.subscriber.clone())?;
        keys::ensure(desk, caller, &stored, &wish.details).await?;
        let workspace = &stored.workspace;
        inboxes::note(desk, &workspace.id, &wish.details.endpoint, id).await?;
        let owner = Owner { desk, workspace: &stored, subscription: id };
        let (signing, signing_secret) = owner.signing_secret(FIRST_SECRET, now).await?;
        let (authorization, api_key) = owner.authorization_secret(wish.secret, None, 1, now).await?;
        let client_key = owner.client_key(wish.client_key, None, 1, now).await?;
        let status = status(workspace, (wish.enabled, wish.paused), &Verification::default())?;
        let question = Question::if_pending(workspace, id, &wish.details, status, now)?;
        let subscription = Subscription {
            id,
            workspace: workspace.id.clone(),
            subscriber,
            details: wish.details,
            status,
            created_at: now,
            updated_at: now,
            revision: 1,
        };
        let verification =
            Verification { asked: question.as_ref().map(Question::asked), ..Default::default() };
        let signing = vec![signing];
        let new = StoredSubscription { subscription, signing, authorization, client_key, verification };
        match desk.config.create_subscription(&new, once.as_ref(), by(caller)).await? {
            Written::Done => {}
            Written::TitleTaken => return Err(Problem::TitleTaken),
            // Its workspace was closed in this moment.
            Written::Missing => return Err(Problem::WorkspaceDeleting),
            Written::MadeBefore(made) => match &once {
                Some(once) => return repeated(desk, caller, workspace, once, &made).await,
                None => return Err(Problem::Unavailable),
            },
            // An id that exists is not for us to give out.
            Written::Exists | Written::InUse | Written::Stale => return Err(Problem::Unavailable),
        }
        let made = verification::ask(desk, workspace, new, question).await;
        Ok(created(&made, Secrets { signing_secret: Some(signing_secret), api_key }))
    }
}

/// A subscription that the caller may know of.
pub(crate) async fn find(
    desk: &Desk,
    caller: &Caller,
    (workspace, subscription): &(String, String),
) -> Result<StoredSubscription, Problem> {
    let not_found = |_| Problem::NotFound;
    let (workspace, subscription) =
        (workspace.parse().map_err(not_found)?, subscription.parse().map_err(not_found)?);
    let stored = desk.config.subscription(&workspace, subscription).await?.ok_or(Problem::NotFound)?;
    match caller.subscriber() {
        Some(bound) if *bound != stored.subscription.subscriber => Err(Problem::NotFound),
        _ => Ok(stored),
    }
}

/// The same, if it is in the state that the caller knows.
async fn find_as(
    desk: &Desk,
    caller: &Caller,
    path: &(String, String),
    if_match: &IfMatch,
) -> Result<StoredSubscription, Problem> {
    let stored = find(desk, caller, path).await?;
    if if_match.allows(stored.subscription.revision) { Ok(stored) } else { Err(Problem::PreconditionFailed) }
}

/// Changes a subscription into what `wish` makes of it; again, if another change came before.
async fn change(
    desk: &Desk,
    caller: &Caller,
    path: &(String, String),
    if_match: &IfMatch,
    wish: impl Fn(SubscriptionInput) -> Result<SubscriptionInput, Problem>,
) -> Result<Response, Problem> {
    let workspace = desk.open_workspace(&path.0).await?;
    for _ in 0..TRIES_MAX {
        let old = find_as(desk, caller, path, if_match).await?;
        let Subscription { subscriber, details, status, .. } = &old.subscription;
        let input = wish(SubscriptionInput::of(subscriber, details, *status))?;
        let wish = check(desk, &workspace.workspace, input, Some(&old)).await?;
        if let Some(changed) = write(desk, caller, &workspace, old, wish).await? {
            return Ok(changed);
        }
    }
    Err(Problem::Unavailable)
}

/// `None`: another change came first.
async fn write(
    desk: &Desk,
    caller: &Caller,
    stored: &StoredWorkspace,
    old: StoredSubscription,
    wish: Wish,
) -> Result<Option<Response>, Problem> {
    let workspace = &stored.workspace;
    let now = now();
    let was = &old.subscription;
    if wish.subscriber.as_ref().is_some_and(|subscriber| *subscriber != was.subscriber) {
        return Err(Invalid::field("/subscriber", "cannot be changed").into());
    }
    keys::ensure(desk, caller, stored, &wish.details).await?;
    inboxes::note(desk, &workspace.id, &wish.details.endpoint, was.id).await?;
    let revision = was.revision + 1;
    let before = old.authorization.as_ref();
    let owner = Owner { desk, workspace: stored, subscription: was.id };
    let (authorization, api_key) = owner.authorization_secret(wish.secret, before, revision, now).await?;
    let client_key = owner.client_key(wish.client_key, old.client_key.as_ref(), revision, now).await?;
    // Who owns the old endpoint has not spoken for the new one.
    let mut verification = if wish.details.endpoint == was.details.endpoint {
        old.verification.clone()
    } else {
        Verification::default()
    };
    let moved = wish.details.endpoint != was.details.endpoint;
    // That owners are asked holds for what begins then: what is in use stays so.
    let in_use = !moved && matches!(was.status, Status::Active | Status::Paused);
    let wanted = if in_use && wish.enabled {
        if wish.paused { Status::Paused } else { Status::Active }
    } else {
        status(workspace, (wish.enabled, wish.paused), &verification)?
    };
    let status = match (was.status, wanted) {
        // Whoever changes something else of one that Carillon disabled does not make that his own decision.
        (disabled @ Status::Disabled(_), Status::Disabled(_)) => disabled,
        (_, status) => status,
    };
    let same_secrets = authorization == old.authorization && client_key == old.client_key;
    if wish.details == was.details && status == was.status && same_secrets {
        return Ok(Some(answered(&old, Secrets::default())));
    }
    let question = match &verification.asked {
        None => Question::if_pending(workspace, was.id, &wish.details, status, now)?,
        Some(_) => None,
    };
    if let Some(question) = &question {
        verification.asked = Some(question.asked());
    }
    let subscription =
        Subscription { details: wish.details, status, updated_at: now, revision, ..was.clone() };
    let signing = old.signing.clone();
    let new = StoredSubscription { subscription, signing, authorization, client_key, verification };
    match desk.config.update_subscription(&old, &new, by(caller)).await? {
        Written::Done => {
            let made = verification::ask(desk, workspace, new, question).await;
            Ok(Some(answered(&made, Secrets { signing_secret: None, api_key })))
        }
        Written::TitleTaken => Err(Problem::TitleTaken),
        Written::Missing => Err(Problem::WorkspaceDeleting),
        Written::Stale => Ok(None),
        Written::Exists | Written::InUse | Written::MadeBefore(_) => Err(Problem::Unavailable),
    }
}

/// Checks all that can be wrong with a subscription, where its URLs lead included.
async fn check(
    desk: &Desk,
    workspace: &Workspace,
    input: SubscriptionInput,
    old: Option<&StoredSubscription>,
) -> Result<Wish, Problem> {
    let revisions = rules(desk, workspace).await?.revisions;
    let own = desk.config.type_names(&workspace.id).await?;
    let types: Vec<_> = builtin(workspace.kind)
        .iter()
        .chain(operational())
        .map(|definition| &definition.name)
        .chain(&own)
        .collect();
    let before = old.map(|old| &old.subscription.details);
    let wish = input.check(&Against {
        workspace: &workspace.id,
        rules: workspace.settings.endpoint_rules(&desk.rules),
        knows: &|pattern| knows(types.iter().copied(), pattern),
        before,
        revisions,
    })?;
    check_ways(desk, &wish.details, before).await?;
    Ok(wish)
}

/// Looks up where the URLs lead that were not there before.
async fn check_ways(desk: &Desk, details: &Details, before: Option<&Details>) -> Result<(), Problem> {
    fn urls(details: &Details) -> impl Iterator<Item = (&'static str, &Endpoint)> {
        let token_url = match &details.authorization {
            Authorization::OAuth2(credentials) => Some(("/authorization/tokenUrl", &credentials.token_url)),
            _ => None,
        };
        std::iter::once(("/endpoint", &details.endpoint)).chain(token_url)
    }
    let mut findings = Findings::default();
    for (pointer, url) in urls(details) {
        let known = before.is_some_and(|before| urls(before).any(|known| known == (pointer, url)));
        if !known && let Err(error) = desk.sender.resolves(url).await {
            findings.add(pointer, Unresolved::to_string(&error));
        }
    }
    Ok(findings.into_result(())?)
}

/// Whose a new subscription is: a client that is bound to a subscriber makes its own alone.
fn whose(caller: &Caller, given: Option<SubscriberId>) -> Result<SubscriberId, Problem> {
    match (caller.subscriber(), given) {
        (None, Some(given)) => Ok(given),
        (None, None) => Err(Invalid::field("/subscriber", "is required").into()),
        (Some(bound), Some(given)) if *bound != given => {
            Err(Invalid::field("/subscriber", "must be the one that this client is bound to").into())
        }
        (Some(bound), _) => Ok(bound.clone()),
    }
}

fn status(
    workspace: &Workspace,
    (enabled, paused): (bool, bool),
    verification: &Verification,
) -> Result<Status, Invalid> {
    let unconfirmed = verification.confirmed_at.is_none()
        && workspace.settings.verification != carillon_core::workspace::Verification::None;
    match (enabled, paused) {
        (false, _) => Ok(Status::Disabled(DisabledBy::Owner)),
        (true, true) if unconfirmed => {
            Err(Invalid::field("/paused", "must be false until the endpoint's owner has confirmed"))
        }
        (true, true) => Ok(Status::Paused),
        (true, false) if unconfirmed => Ok(Status::Pending),
        (true, false) => Ok(Status::Active),
    }
}

/// The answer to a request that came before: what it made, without its secrets.
async fn repeated(
    desk: &Desk,
    caller: &Caller,
    workspace: &Workspace,
    once: &Once,
    made: &Made,
) -> Result<Response, Problem> {
    if !once.repeats(made) {
        return Err(Problem::IdempotencyConflict);
    }
    let stored = find(desk, caller, &(workspace.id.to_string(), made.id.clone())).await?;
    Ok(created(&stored, Secrets::default()))
}

fn created(stored: &StoredSubscription, secrets: Secrets) -> Response {
    let Subscription { id, workspace, .. } = &stored.subscription;
    let location = [(LOCATION, format!("/v1/workspaces/{workspace}/subscriptions/{id}"))];
    (StatusCode::CREATED, location, answered(stored, secrets)).into_response()
}

fn answered(stored: &StoredSubscription, secrets: Secrets) -> Response {
    let shown = WithSecrets { shown: Shown::of(stored, now()), secrets };
    ([(ETAG, etag(stored.subscription.revision))], Json(shown)).into_response()
}
