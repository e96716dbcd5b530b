//! `/v1/workspaces/{workspace}/audit`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use carillon_aws::config::{AuditCursor, AuditSpan};
use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::ClientId;
use carillon_core::invalid::{Findings, Invalid};
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::desk::{Desk, List, ListQuery};
use crate::problems::Common;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list))
}

/// A change of a workspace or of something in it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
struct Shown {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: UnixMillis,
    by: ByShown,
    /// Which client of the API, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "consent-service")]
    client: Option<ClientId>,
    /// What was done.
    #[schema(value_type = ActionShown)]
    action: Action,
    /// To what: its id or name.
    #[schema(example = "sub_06f1cap7jhsrabd4kwnrvf2rhr")]
    target: String,
    /// Which of its members changed, where it was there before and after. What they said is not kept.
    #[schema(example = json!(["endpoint", "types"]))]
    changes: Vec<String>,
}

/// Who made a change.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditBy)]
enum ByShown {
    /// A client of the API.
    Client,
    /// Whom the endpoint belongs to.
    EndpointOwner,
    /// Carillon itself, which disables subscriptions whose receivers are gone.
    Carillon,
}

/// What was done.
#[derive(ToSchema)]
#[schema(as = AuditAction)]
#[expect(dead_code, reason = "describes Action of the core, which knows no OpenAPI")]
enum ActionShown {
    #[schema(rename = "workspace.created")]
    WorkspaceCreated,
    #[schema(rename = "workspace.updated")]
    WorkspaceUpdated,
    #[schema(rename = "workspace.deleted")]
    WorkspaceDeleted,
    #[schema(rename = "client.granted")]
    ClientGranted,
    #[schema(rename = "client.revoked")]
    ClientRevoked,
    #[schema(rename = "eventType.written")]
    EventTypeWritten,
    #[schema(rename = "eventType.deleted")]
    EventTypeDeleted,
    #[schema(rename = "rules.written")]
    RulesWritten,
    #[schema(rename = "keys.added")]
    KeysAdded,
    #[schema(rename = "subscription.created")]
    SubscriptionCreated,
    #[schema(rename = "subscription.updated")]
    SubscriptionUpdated,
    #[schema(rename = "subscription.deleted")]
    SubscriptionDeleted,
}

impl From<AuditEntry> for Shown {
    fn from(AuditEntry { at, by, action, target, changes }: AuditEntry) -> Self {
        let (by, client) = match by {
            By::Client(client) => (ByShown::Client, Some(client)),
            By::EndpointOwner => (ByShown::EndpointOwner, None),
            By::Carillon => (ByShown::Carillon, None),
        };
        Self { at, by, client, action, target, changes }
    }
}

/// Of which time.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SpanQuery {
    /// Changes made then or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Changes made before.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
}

/// List the changes
///
/// Who changed what of the workspace, its clients, event types, keys and subscriptions, the latest first. An entry is
/// written with its change, or neither is, and kept for a year.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/audit",
    operation_id = "listChanges",
    tag = "audit",
    params(("workspace" = String, Path, description = "The workspace's id"), SpanQuery, ListQuery),
    responses((status = 200, description = "A page of changes", body = List<Shown>), Common),
    security(("oauth2" = ["carillon/read"])),
    extensions(("x-carillon-roles" = json!(["owner", "support"]))),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
    Query(span): Query<SpanQuery>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let mut findings = Findings::default();
    let since = findings.take(time(span.since.as_deref(), "query:since")).flatten();
    let until = findings.take(time(span.until.as_deref(), "query:until")).flatten();
    let limit = findings.take(query.limit()).unwrap_or_default();
    let after = findings.take(query.after::<AuditCursor>()).flatten();
    findings.into_result(())?;
    let workspace = desk.workspace(&workspace).await?.workspace;
    // What came before it is of another one, which had its id.
    let since = since.map_or(workspace.created_at, |since| since.max(workspace.created_at));
    let page = desk.config.audit(&workspace.id, AuditSpan { since, until }, limit, after).await?;
    Ok(Json(List::of(page, Shown::from)))
}

fn time(text: Option<&str>, pointer: &str) -> Result<Option<UnixMillis>, Invalid> {
    let time = text.map(str::parse).transpose();
    time.map_err(|_| Invalid::field(pointer, "must be a time as RFC 3339 has it"))
}
