//! `/v1/workspaces/{workspace}/subscriptions`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use carillon_aws::config::{FIRST_SECRET, StoredSubscription, StoredWorkspace, Written};
use carillon_aws::now;
use carillon_aws::vault::{SecretName, random_bytes};
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::pattern::TypePattern;
use carillon_core::signature::{SECRET_BYTES, SigningSecret};
use carillon_core::subscription::{NewSubscription, Subscription, SubscriptionStatus};
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_http::body::JsonBody;
use carillon_http::problem::Problem;
use http::StatusCode;
use http::header::LOCATION;
use serde::Serialize;

use crate::desk::{Desk, List, ListQuery, id_bytes};

/// A subscription as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    id: SubscriptionId,
    workspace: WorkspaceId,
    endpoint: String,
    types: Vec<TypePattern>,
    status: SubscriptionStatus,
    #[serde(serialize_with = "rfc3339")]
    created_at: UnixMillis,
}

/// What is shown at its creation, and its secret then alone. `Debug` would show that, so there is none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    #[serde(flatten)]
    shown: Shown,
    signing_secret: String,
}

impl From<Subscription> for Shown {
    fn from(Subscription { id, workspace, endpoint, types, status, created_at }: Subscription) -> Self {
        Self { id, workspace, endpoint: endpoint.to_string(), types, status, created_at }
    }
}

pub(crate) async fn create(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
    JsonBody(new): JsonBody<NewSubscription>,
) -> Result<Response, Problem> {
    let StoredWorkspace { workspace, data_key } = desk.workspace(&workspace).await?;
    let now = now();
    let id = SubscriptionId::new(now, id_bytes()?);
    let subscription = new.check(id, workspace.id.clone(), &desk.rules, now)?;
    let secret = SigningSecret::from_bytes(random_bytes(SECRET_BYTES)?);
    let name = SecretName { workspace: &workspace.id, owner: &id.to_string(), secret: FIRST_SECRET };
    let sealed = desk.vault.seal(&data_key, name, secret.expose_bytes()).await?;
    let stored = StoredSubscription { subscription, secrets: vec![(FIRST_SECRET.to_owned(), sealed)] };
    match desk.config.create_subscription(&stored).await? {
        // Its workspace was deleted in this moment.
        Written::Missing => Err(Problem::NotFound),
        // An id that exists is not for us to give out.
        Written::Exists | Written::InUse => Err(Problem::Unavailable),
        Written::Done => {
            let location = format!("/v1/workspaces/{}/subscriptions/{id}", workspace.id);
            let created = Created { shown: stored.subscription.into(), signing_secret: secret.expose_text() };
            Ok((StatusCode::CREATED, [(LOCATION, location)], Json(created)).into_response())
        }
    }
}

pub(crate) async fn list(
    State(desk): State<Arc<Desk>>,
    Path(workspace): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<Shown>>, Problem> {
    let workspace = desk.workspace(&workspace).await?.workspace.id;
    let page = desk.config.subscriptions(&workspace, query.limit()?, query.after()?).await?;
    Ok(Json(List::of(page, Shown::from)))
}

pub(crate) async fn read(
    State(desk): State<Arc<Desk>>,
    Path(path): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(find(&desk, path).await?.into()))
}

pub(crate) async fn delete(
    State(desk): State<Arc<Desk>>,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let subscription = find(&desk, path).await?;
    match desk.config.delete_subscription(&subscription).await? {
        Written::Done => Ok(StatusCode::NO_CONTENT),
        // Somebody else deleted it in this moment.
        Written::Missing | Written::Exists | Written::InUse => Err(Problem::NotFound),
    }
}

async fn find(desk: &Desk, (workspace, subscription): (String, String)) -> Result<Subscription, Problem> {
    let not_found = |_| Problem::NotFound;
    let (workspace, subscription) =
        (workspace.parse().map_err(not_found)?, subscription.parse().map_err(not_found)?);
    Ok(desk.config.subscription(&workspace, subscription).await?.ok_or(Problem::NotFound)?.subscription)
}
