//! `/v1/workspaces/{workspace}/clients`: who may do what there.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::Written;
use carillon_aws::now;
use carillon_core::access::{Grant, Role, RoleName};
use carillon_core::id::{ClientId, SubscriberId};
use carillon_core::invalid::Invalid;
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_http::access::Caller;
use carillon_http::body::read_json;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::desk::{Desk, List, ListQuery, by};
use crate::problems::Common;

pub(crate) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(list)).routes(routes!(read, put, delete))
}

/// What a client is to be in a workspace.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "role", rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RoleInput)]
enum Input {
    /// May do everything but what only an administrator may.
    Owner {},
    /// May publish events.
    Publisher {},
    /// May read everything but secrets.
    Support {},
    /// May manage the subscriptions of one subscriber and read what concerns it. Nothing else is there for it.
    Subscriber {
        /// Which one.
        #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]+$", example = "tpp-1")]
        subscriber: String,
    },
}

/// What a client is in a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Grant)]
struct Shown {
    /// The client, as the issuer of its tokens names it.
    #[schema(value_type = String, example = "2v9k1ofb7tq0c4m8s6h3n5d1e7")]
    client: ClientId,
    /// As what.
    #[schema(value_type = RoleShown)]
    role: RoleName,
    /// The one subscriber that the client is bound to, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "tpp-1")]
    subscriber: Option<SubscriberId>,
    /// Since when it has a role.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixMillis,
}

/// A role without whom it is bound to.
#[derive(ToSchema)]
#[schema(as = Role, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes RoleName of the core, which knows no OpenAPI")]
enum RoleShown {
    /// May do everything but what only an administrator may.
    Owner,
    /// May publish events.
    Publisher,
    /// May read everything but secrets.
    Support,
    /// May manage the subscriptions of one subscriber.
    Subscriber,
}

impl Input {
    fn check(self) -> Result<Role, Invalid> {
        Ok(match self {
            Self::Owner {} => Role::Owner,
            Self::Publisher {} => Role::Publisher,
            Self::Support {} => Role::Support,
            Self::Subscriber { subscriber } => Role::Subscriber(subscriber.parse().map_err(|_| {
                Invalid::field("/subscriber", "must be 1 to 64 of letters, digits and `. _ : ~ -`")
            })?),
        })
    }
}

impl From<Grant> for Shown {
    fn from(grant: Grant) -> Self {
        let (role, subscriber) = (grant.role.name(), grant.role.subscriber().cloned());
        Self { client: grant.client, role, subscriber, created_at: grant.created_at }
    }
}

/// List the clients of a workspace
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/clients",
    operation_id = "listClients",
    tag = "clients",
    params(("workspace" = String, Path, description = "The workspace's id"), ListQuery),
    responses(
        (status = 200, description = "A page of them, in the order of their ids", body = List<Shown>),
        Common,
    ),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn list(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let (limit, after) = (query.limit()?, query.after()?);
    let workspace = desk.workspace(&workspace).await?.workspace.id;
    let page = desk.config.grants(&workspace, limit, after).await?;
    Ok(Json(List::of(page, Shown::from)))
}

/// Read a client's role
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/clients/{client}",
    operation_id = "getClient",
    tag = "clients",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("client" = String, Path, description = "The client, as the issuer of its tokens names it"),
    ),
    responses((status = 200, description = "Its role", body = Shown), Common),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn read(
    State(desk): State<Arc<Desk>>,
    Path((workspace, client)): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let (workspace, client) = (workspace.parse().map_err(not_found)?, client.parse().map_err(not_found)?);
    let grant = desk.config.grant(&workspace, &client).await?.ok_or(Problem::NotFound)?;
    Ok(Json(grant.into()))
}

/// Give a client a role
///
/// In the place of the one that it had. The change holds for every request that comes 5 s after the answer.
#[utoipa::path(
    put,
    path = "/v1/workspaces/{workspace}/clients/{client}",
    operation_id = "putClient",
    tag = "clients",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("client" = String, Path, description = "The client, as the issuer of its tokens names it"),
    ),
    request_body(content = Input, example = json!({"role": "subscriber", "subscriber": "tpp-1"})),
    responses(
        (status = 200, description = "Its role, instead of the one that it had", body = Shown),
        (status = 201, description = "Its role; it had none", body = Shown),
        (
            status = 409, description = "The workspace is being deleted",
            body = Problem,
            content_type = "application/problem+json",
        ),
        Common,
    ),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn put(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, client)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let client: ClientId = client.parse().map_err(|_| {
        let fit = format!("must be 1 to {} of letters, digits and `. _ : ~ - @ | + =`", ClientId::CHARS_MAX);
        Invalid::field("path:client", fit)
    })?;
    let role = read_json::<Input>(&headers, &body)?.check()?;
    let workspace = desk.open_workspace(&workspace).await?.workspace.id;
    let before = desk.config.grant(&workspace, &client).await?;
    let created_at = before.as_ref().map_or_else(now, |before| before.created_at);
    let grant = Grant { client, role, created_at };
    match desk.config.put_grant(&workspace, &grant, (by(&caller), now())).await? {
        Written::Done => {}
        // The workspace was closed in this moment.
        Written::Missing => return Err(Problem::WorkspaceDeleting),
        _ => return Err(Problem::Unavailable),
    }
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Shown::from(grant))).into_response())
}

/// Take a client's role away
///
/// The change holds for every request that comes 5 s after the answer.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/clients/{client}",
    operation_id = "deleteClient",
    tag = "clients",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        ("client" = String, Path, description = "The client, as the issuer of its tokens names it"),
    ),
    responses((status = 204, description = "It has none any more"), Common),
    security(("oauth2" = ["carillon/admin"])),
)]
async fn delete(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((workspace, client)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (workspace, client) = (workspace.parse().map_err(not_found)?, client.parse().map_err(not_found)?);
    match desk.config.delete_grant(&workspace, &client, Some((by(&caller), now()))).await? {
        Written::Done => Ok(StatusCode::NO_CONTENT),
        _ => Err(Problem::NotFound),
    }
}

fn not_found<E>(_: E) -> Problem {
    Problem::NotFound
}

#[cfg(test)]
mod tests {
    use carillon_http::body::read_patched;
    use serde_json::{Value, json};

    use super::*;

    fn read(input: &Value) -> Result<Role, String> {
        match read_patched::<Input>(input).and_then(|input| Ok(input.check()?)) {
            Ok(role) => Ok(role),
            Err(Problem::Invalid(Invalid(errors))) => Err(errors[0].pointer.clone()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_subscriber_is_bound_to_one() {
        assert_eq!(read(&json!({"role": "owner"})), Ok(Role::Owner));
        assert_eq!(
            read(&json!({"role": "subscriber", "subscriber": "tpp-1"})),
            Ok(Role::Subscriber("tpp-1".parse().unwrap()))
        );
        assert_eq!(read(&json!({"role": "subscriber"})), Err("/subscriber".to_owned()));
        assert_eq!(read(&json!({"role": "subscriber", "subscriber": "a b"})), Err("/subscriber".to_owned()));
        for wrong in [
            json!({"role": "owner", "subscriber": "tpp-1"}),
            json!({"role": "support", "subscriber": null}),
            json!({"role": "king"}),
            json!({}),
            json!([]),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
