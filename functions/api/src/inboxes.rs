//! `/v1/workspaces/{workspace}/inboxes`: receiving URLs to try webhooks with. What comes to them is kept by a function of
//! its own, which has no keys: whether signatures are genuine is found out here, when somebody reads.

mod signatures;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carillon_aws::config::StoredWorkspace;
use carillon_aws::error::AwsError;
use carillon_aws::inboxes::{InboxTable, KeptRequest, StoredInbox};
use carillon_aws::now;
use carillon_aws::vault::random_bytes;
use carillon_core::access::Role;
use carillon_core::endpoint::Endpoint;
use carillon_core::id::{InboxId, SubscriberId, SubscriptionId, WorkspaceId};
use carillon_core::inbox::{Answer, AnswerError, INBOXES_OF_SUBSCRIBER_MAX, Inbox, InboxToken, OPEN};
use carillon_core::invalid::{Findings, Invalid};
use carillon_core::subscription::Subscription;
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_core::workspace::Workspace;
use carillon_http::access::Caller;
use carillon_http::body::{optional_object, read_json, read_merge_patch, read_patched, whole};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use self::signatures::{SignatureStatus, Verifier};
use crate::conditional::merge;
use crate::desk::{Desk, List, id_bytes};
use crate::problems::Common;

/// How many requests a page has unless the caller says, and at most: they are up to 64 KiB each.
const REQUESTS_DEFAULT: i32 = 20;
const REQUESTS_MAX: i32 = 50;

/// The headers whose values everybody sees who may see the inbox. What others say may be a secret of the subscriber's, which
/// is not shown to support.
const PUBLIC_HEADERS: [&str; 6] =
    ["content-length", "content-type", "traceparent", "tracestate", "user-agent", "host"];
const PUBLIC_PREFIXES: [&str; 2] = ["webhook-", "ce-"];

/// What stands in the place of the values of the others.
const HIDDEN: &str = "(hidden)";

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(read, patch, delete))
        .routes(routes!(list_requests))
}

/// Notes at an inbox of the workspace, if this endpoint is one, that the subscription posts to it: by its secrets, what
/// comes can be verified.
pub(crate) async fn note(
    desk: &Desk,
    workspace: &WorkspaceId,
    endpoint: &Endpoint,
    subscription: SubscriptionId,
) -> Result<(), AwsError> {
    match (&desk.inboxes, token_of(desk, endpoint)) {
        (Some(table), Some(token)) => table.note_subscription(workspace, token, subscription).await,
        _ => Ok(()),
    }
}

/// Whether a subscription posts to an inbox of its own workspace, and not to another subscriber's: who made it wants what
/// comes to it, and nobody has to be asked.
pub(crate) async fn is_own(desk: &Desk, workspace: &Workspace, subscription: &Subscription) -> bool {
    let (Some(table), Some(token)) = (&desk.inboxes, token_of(desk, &subscription.details.endpoint)) else {
        return false;
    };
    match table.of_workspace(&workspace.id, workspace.created_at, now()).await {
        Ok(found) => found.inboxes.iter().map(|stored| &stored.inbox).any(|inbox| {
            let is_anybodys = inbox.subscriber.as_ref().is_none_or(|owner| *owner == subscription.subscriber);
            inbox.token == token && is_anybodys
        }),
        Err(error) => {
            tracing::error!(subscription = %subscription.id, %error, "its inbox could not be looked for");
            false
        }
    }
}

/// What an inbox is to do.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InboxInput {
    /// What it answers.
    #[serde(default, deserialize_with = "optional_object")]
    #[schema(required = false)]
    answer: Option<AnswerInput>,
}

/// What an inbox is to answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = InboxAnswerInput)]
struct AnswerInput {
    /// The status.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 200, maximum = 599, default = 200, required = false)]
    status: Option<u32>,
    /// How long the answer waits, in milliseconds.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 10_000, default = 0, required = false)]
    delay_ms: Option<u32>,
}

impl InboxInput {
    fn check(self) -> Result<Answer, Invalid> {
        let AnswerInput { status, delay_ms } = self.answer.unwrap_or_default();
        let (default, mut findings) = (Answer::default(), Findings::default());
        let status = status.map_or(Ok(default.status()), |status| {
            let status = u16::try_from(status).map_err(|_| AnswerError::Status);
            status.and_then(|status| Answer::new(status, 0)).map(Answer::status)
        });
        let delay = delay_ms.map_or(Ok(default.delay_millis()), |delay| {
            Answer::new(default.status(), delay).map(Answer::delay_millis)
        });
        let at = |pointer: &'static str| move |error: AnswerError| Invalid::field(pointer, error.to_string());
        let status = findings.take(status.map_err(at("/answer/status")));
        let delay = findings.take(delay.map_err(at("/answer/delayMs")));
        let answer = Answer::new(status.unwrap_or_default(), delay.unwrap_or_default());
        findings.into_result(())?;
        answer.map_err(at("/answer"))
    }
}

/// A receiving URL.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Inbox)]
struct Shown {
    /// Its id.
    #[schema(value_type = String, example = "inbox_06f1cap7jhsrabd4kwnrvf2rhr")]
    id: InboxId,
    /// Where it receives: an endpoint for subscriptions. Who has it can send to the inbox.
    #[schema(example = "https://carillon.example.com/in/0w3k5d8n1rq7v2yb9m4hs6ptcg")]
    url: String,
    /// Whose it is, if a client made it that is bound to a subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "tpp-1")]
    subscriber: Option<SubscriberId>,
    /// What it answers.
    answer: AnswerShown,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixMillis,
    /// From when on it is no more: seven days after it was made or last changed.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: UnixMillis,
}

/// What an inbox answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxAnswer)]
struct AnswerShown {
    /// The status.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// How long the answer waits, in milliseconds.
    #[schema(minimum = 0, maximum = 10_000)]
    delay_ms: u32,
}

impl Shown {
    fn of(desk: &Desk, inbox: &Inbox) -> Self {
        Self {
            id: inbox.id,
            url: format!("{}{}", urls_begin_with(desk), inbox.token),
            subscriber: inbox.subscriber.clone(),
            answer: AnswerShown { status: inbox.answer.status(), delay_ms: inbox.answer.delay_millis() },
            created_at: inbox.created_at,
            expires_at: inbox.expires_at,
        }
    }
}

/// A request that came to an inbox.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxRequest)]
struct RequestShown {
    /// Its number, from 1 on in the order in which they came.
    #[schema(example = "7")]
    id: String,
    /// When it came.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    received_at: UnixMillis,
    /// Its method.
    #[schema(example = "POST")]
    method: String,
    /// Its path and query.
    path: String,
    /// Names, in lower case, and values, as they came. The role `support` does not see values that may be secrets.
    headers: Vec<[String; 2]>,
    /// Its body.
    body: String,
    /// How the body is written here.
    encoding: Encoding,
    /// What its signature is worth.
    signature: SignatureStatus,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxRequestEncoding)]
enum Encoding {
    /// As it is.
    Text,
    /// In base 64, as it is no text.
    Base64,
}

impl RequestShown {
    fn of(kept: KeptRequest, verifier: &Verifier, is_support: bool) -> Self {
        let signature = verifier.judge(&kept.request, kept.received_at);
        let (body, encoding) = written(kept.request.body);
        let header = |(name, value): (String, String)| {
            let value = if is_support && !is_public(&name) { HIDDEN.to_owned() } else { value };
            [name, value]
        };
        Self {
            id: kept.number.to_string(),
            received_at: kept.received_at,
            method: kept.request.method,
            path: kept.request.path,
            headers: kept.request.headers.into_iter().map(header).collect(),
            body,
            encoding,
            signature,
        }
    }
}

/// Create an inbox
///
/// A URL that keeps what is sent to it for a day, the latest 500 requests of up to 64 KiB, and answers as it is told. It is
/// there for seven days. As an endpoint of subscriptions of its workspace it needs no consent.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/inboxes",
    operation_id = "createInbox",
    tag = "inboxes",
    params(("workspace" = String, Path, description = "The workspace's id")),
    request_body(content = InboxInput, example = json!({"answer": {"status": 503, "delayMs": 500}})),
    responses(
        (status = 201, description = "Created", body = Shown, headers(("location" = String, description = "Where it is"))),
        (
            status = 409, description = "There are as many as there may be, or the workspace is being deleted",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn create(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let table = table(&desk)?;
    let answer = read_json::<InboxInput>(&headers, &body)?.check()?;
    let workspace = desk.open_workspace(&workspace).await?.workspace;
    let now = now();
    let known = table.of_workspace(&workspace.id, workspace.created_at, now).await?;
    let subscriber = caller.subscriber().cloned();
    let of_subscriber = known.inboxes.iter().filter(|stored| stored.inbox.subscriber == subscriber).count();
    if subscriber.is_some() && of_subscriber >= INBOXES_OF_SUBSCRIBER_MAX {
        return Err(Problem::TooManyInboxes);
    }
    let (id, token) = (InboxId::new(now, id_bytes()?), new_token()?);
    let inbox = Inbox { id, token, subscriber, answer, created_at: now, expires_at: ends(now) };
    if !table.create((&workspace.id, workspace.created_at), &inbox, &known).await? {
        return Err(Problem::TooManyInboxes);
    }
    let location = [(LOCATION, format!("/v1/workspaces/{}/inboxes/{id}", workspace.id))];
    Ok((StatusCode::CREATED, location, Json(Shown::of(&desk, &inbox))).into_response())
}

/// List inboxes
///
/// A client that is bound to a subscriber sees those that this subscriber's clients have made.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/inboxes",
    operation_id = "listInboxes",
    tag = "inboxes",
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 200, description = "All of them, the oldest first", body = List<Shown>), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<Json<List<Shown>>, Problem> {
    let table = table(&desk)?;
    let workspace = desk.workspace(&workspace).await?.workspace;
    let found = table.of_workspace(&workspace.id, workspace.created_at, now()).await?;
    let inboxes = found.inboxes.iter().map(|stored| &stored.inbox).filter(|inbox| may_see(&caller, inbox));
    Ok(Json(List { items: inboxes.map(|inbox| Shown::of(&desk, inbox)).collect(), next: None }))
}

/// Read an inbox
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/inboxes/{inbox}",
    operation_id = "getInbox",
    tag = "inboxes",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("inbox" = String, Path, description = "The inbox's id"),
    ),
    responses((status = 200, description = "The inbox", body = Shown), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let Found { stored, .. } = find(&desk, &caller, &path).await?;
    Ok(Json(Shown::of(&desk, &stored.inbox)))
}

/// Change an inbox
///
/// By a JSON Merge Patch (RFC 7396). The change holds for every request that comes after the answer, and the inbox is there
/// for another seven days.
#[utoipa::path(
    patch,
    path = "/v1/workspaces/{workspace}/inboxes/{inbox}",
    operation_id = "patchInbox",
    tag = "inboxes",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("inbox" = String, Path, description = "The inbox's id"),
    ),
    request_body(content = Object, content_type = "application/merge-patch+json", example = json!({"answer": {"status": 204}})),
    responses((status = 200, description = "Changed", body = Shown), Common),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn patch(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Shown>, Problem> {
    let patch = read_merge_patch(&headers, &body)?;
    let Found { table, workspace, mut stored } = find(&desk, &caller, &path).await?;
    let answer = stored.inbox.answer;
    let whole = json!({"answer": {"status": answer.status(), "delayMs": answer.delay_millis()}});
    stored.inbox.answer = read_patched::<InboxInput>(&merge(whole, patch))?.check()?;
    let now = now();
    stored.inbox.expires_at = ends(now);
    if table.change(&workspace.workspace.id, &stored, now).await? {
        Ok(Json(Shown::of(&desk, &stored.inbox)))
    } else {
        Err(Problem::NotFound)
    }
}

/// Delete an inbox
///
/// What it has received can be read by nobody from then on, and is removed when its day is over.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/inboxes/{inbox}",
    operation_id = "deleteInbox",
    tag = "inboxes",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("inbox" = String, Path, description = "The inbox's id"),
    ),
    responses((status = 204, description = "Deleted"), Common),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn delete(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let Found { table, workspace, stored } = find(&desk, &caller, &path).await?;
    table.delete(&workspace.workspace.id, &stored).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List what an inbox has received
///
/// The oldest first, so that a client learns what is new by asking for what came after the last one that it knows. A page
/// may have fewer than `limit` though there is more.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/inboxes/{inbox}/requests",
    operation_id = "listInboxRequests",
    tag = "inboxes",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("inbox" = String, Path, description = "The inbox's id"),
        RequestsQuery,
    ),
    responses((status = 200, description = "A page of them. `next` is there whenever there are any: `after` for what comes later", body = List<RequestShown>), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support", "subscriber"]))),
)]
async fn list_requests(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Query(query): Query<RequestsQuery>,
) -> Result<Json<List<RequestShown>>, Problem> {
    let (limit, after) = (query.limit()?, query.after()?);
    let Found { table, workspace, stored } = find(&desk, &caller, &path).await?;
    let found = table.requests(&stored, after, limit, now()).await?;
    let next = found.last().map(|last| last.number.to_string());
    let verifier =
        if found.is_empty() { Verifier::default() } else { Verifier::of(&desk, &workspace, &stored).await? };
    let is_support = matches!(caller.role, Some(Role::Support));
    let items = found.into_iter().map(|kept| RequestShown::of(kept, &verifier, is_support)).collect();
    Ok(Json(List { items, next }))
}

/// Which requests to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RequestsQuery {
    /// How many requests the page has at most.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 50, default = 20)]
    limit: Option<String>,
    /// Those that came after this one: `next` of a page before. Without it the page begins with the oldest that is kept.
    #[param(min_length = 1, max_length = 19, pattern = "^[0-9]+$", example = "7")]
    after: Option<String>,
}

/// The most digits of a request's number.
const AFTER_CHARS_MAX: usize = 19;

impl RequestsQuery {
    fn limit(&self) -> Result<i32, Invalid> {
        let Some(text) = &self.limit else { return Ok(REQUESTS_DEFAULT) };
        let limit = number(text).filter(|limit| (1..=REQUESTS_MAX).contains(limit));
        limit.ok_or_else(|| {
            Invalid::field("query:limit", format!("must be a number from 1 to {REQUESTS_MAX}"))
        })
    }

    fn after(&self) -> Result<u64, Invalid> {
        let bounded = |text: &str| number(text).filter(|_| text.len() <= AFTER_CHARS_MAX);
        let after = self.after.as_deref().map_or(Some(0), bounded);
        after.ok_or_else(|| Invalid::field("query:after", "must be the `next` of a page before"))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An inbox that the caller may know of.
struct Found<'a> {
    table: &'a InboxTable,
    workspace: StoredWorkspace,
    stored: StoredInbox,
}

async fn find<'a>(
    desk: &'a Desk,
    caller: &Caller,
    (workspace, inbox): &(String, String),
) -> Result<Found<'a>, Problem> {
    let table = table(desk)?;
    let inbox: InboxId = inbox.parse().map_err(|_| Problem::NotFound)?;
    let workspace = desk.workspace(workspace).await?;
    let Workspace { id, created_at, .. } = &workspace.workspace;
    let stored = table.inbox((id, *created_at), inbox, now()).await?;
    let stored = stored.filter(|stored| may_see(caller, &stored.inbox)).ok_or(Problem::NotFound)?;
    Ok(Found { table, workspace, stored })
}

/// Where the deployment has none, there is nothing of it.
fn table(desk: &Desk) -> Result<&InboxTable, Problem> {
    desk.inboxes.as_ref().ok_or(Problem::NotFound)
}

/// A client that is bound to a subscriber sees this one's inboxes alone.
fn may_see(caller: &Caller, inbox: &Inbox) -> bool {
    caller.subscriber().is_none_or(|bound| inbox.subscriber.as_ref() == Some(bound))
}

/// When an inbox ends that is made or changed now: at a whole second, as DynamoDB's time to live has it.
fn ends(now: UnixMillis) -> UnixMillis {
    UnixMillis((now + OPEN).as_secs() * 1000)
}

fn new_token() -> Result<InboxToken, AwsError> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&random_bytes(16)?);
    Ok(InboxToken::from_bytes(bytes))
}

/// What the URLs of inboxes begin with, up to the token.
fn urls_begin_with(desk: &Desk) -> String {
    format!("{}/in/", desk.public_url)
}

/// The token of an endpoint that is an inbox of this deployment.
fn token_of(desk: &Desk, endpoint: &Endpoint) -> Option<InboxToken> {
    token_in(&urls_begin_with(desk), endpoint.url().as_str())
}

fn token_in(beginning: &str, url: &str) -> Option<InboxToken> {
    url.strip_prefix(beginning)?.split('?').next()?.parse().ok()
}

fn is_public(name: &str) -> bool {
    PUBLIC_HEADERS.contains(&name) || PUBLIC_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A body as text if it is one, without characters that a terminal obeys.
fn written(body: Vec<u8>) -> (String, Encoding) {
    let is_plain = |text: &String| !text.chars().any(|char| char.is_control() && !"\t\n\r".contains(char));
    match String::from_utf8(body) {
        Ok(text) if is_plain(&text) => (text, Encoding::Text),
        Ok(text) => (BASE64_STANDARD.encode(text), Encoding::Base64),
        Err(error) => (BASE64_STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn checked(input: &Value) -> Result<(u16, u32), Vec<String>> {
        match read_patched::<InboxInput>(input).and_then(|input| Ok(input.check()?)) {
            Ok(answer) => Ok((answer.status(), answer.delay_millis())),
            Err(Problem::Invalid(Invalid(errors))) => {
                Err(errors.into_iter().map(|error| error.pointer).collect())
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_read_within_its_bounds() {
        for (input, answer) in [
            (json!({}), (200, 0)),
            (json!({"answer": null}), (200, 0)),
            (json!({"answer": {"status": 503}}), (503, 0)),
            (json!({"answer": {"delayMs": 10_000}}), (200, 10_000)),
            (json!({"answer": {"status": 599.0, "delayMs": null}}), (599, 0)),
        ] {
            assert_eq!(checked(&input), Ok(answer), "{input}");
        }
        for (input, pointers) in [
            (
                json!({"answer": {"status": 199, "delayMs": 10_001}}),
                vec!["/answer/status", "/answer/delayMs"],
            ),
            (json!({"answer": {"status": 65_736}}), vec!["/answer/status"]),
            (json!({"answer": {"status": "200"}}), vec!["/answer/status"]),
            (json!({"answer": {"delayMs": -1}}), vec!["/answer/delayMs"]),
            (json!({"answer": {"body": "<html>"}}), vec!["/answer/body"]),
            (json!({"answer": 200}), vec!["/answer"]),
            (json!({"status": 200}), vec!["/status"]),
        ] {
            assert_eq!(checked(&input), Err(pointers.into_iter().map(str::to_owned).collect()), "{input}");
        }
    }

    #[test]
    fn a_query_is_read_within_its_bounds() {
        let asked = |limit: Option<&str>, after: Option<&str>| {
            let query = RequestsQuery { limit: limit.map(str::to_owned), after: after.map(str::to_owned) };
            (query.limit().ok(), query.after().ok())
        };
        assert_eq!(asked(None, None), (Some(20), Some(0)));
        let greatest = 9_999_999_999_999_999_999;
        assert_eq!(asked(Some("50"), Some("9999999999999999999")), (Some(50), Some(greatest)));
        for wrong in ["", "-1", "+1", "x", "1.0", "18446744073709551615"] {
            assert_eq!(asked(Some(wrong), Some(wrong)), (None, None), "{wrong}");
        }
        assert_eq!(asked(Some("0"), Some("0")), (None, Some(0)));
    }

    #[test]
    fn an_inbox_is_known_by_its_url() {
        let token = InboxToken::from_bytes([7; 16]);
        for beginning in
            ["https://carillon.example.com/in/", "http://127.0.0.1:4566/_aws/execute-api/a1/$default/in/"]
        {
            let of = |url: String| token_in(beginning, Endpoint::stored(&url).unwrap().url().as_str());
            assert_eq!(of(format!("{beginning}{token}")), Some(token));
            assert_eq!(of(format!("{beginning}{token}?tenant=7")), Some(token));
            assert_eq!(of(format!("{beginning}{token}/more")), None);
            assert_eq!(of(beginning.to_owned()), None);
            assert_eq!(of(format!("https://elsewhere.example/in/{token}")), None);
        }
    }

    #[test]
    fn a_body_is_text_if_it_can_be_shown_as_that() {
        let text = |body: &[u8]| written(body.to_vec());
        assert_eq!(
            text("{\"a\":\t\"\u{fc}\"}\r\n".as_bytes()),
            ("{\"a\":\t\"\u{fc}\"}\r\n".to_owned(), Encoding::Text)
        );
        assert_eq!(text(b"\xff"), ("/w==".to_owned(), Encoding::Base64));
        assert_eq!(text(b"\x1b[2J"), ("G1sySg==".to_owned(), Encoding::Base64));
        assert_eq!(text(b""), (String::new(), Encoding::Text));
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown_to_support() {
        for name in ["webhook-signature", "ce-id", "content-type"] {
            assert!(is_public(name), "{name}");
        }
        for name in ["authorization", "x-api-key", "cookie"] {
            assert!(!is_public(name), "{name}");
        }
    }
}
