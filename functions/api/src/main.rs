//! `api`: workspaces and subscriptions over HTTP. Handlers are thin: they parse, call the domain and the tables, and
//! say what came of it.

mod desk;
mod subscriptions;
mod workspaces;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use lambda_http::Error;

use crate::desk::Desk;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let desk = Arc::new(Desk::from_environment().await?);
    let router = Router::new()
        .route("/v1/health", get(async || Json(serde_json::json!({ "status": "ok" }))))
        .route("/v1/workspaces", get(workspaces::list).post(workspaces::create))
        .route("/v1/workspaces/{workspace}", get(workspaces::read).delete(workspaces::delete))
        .route(
            "/v1/workspaces/{workspace}/subscriptions",
            get(subscriptions::list).post(subscriptions::create),
        )
        .route(
            "/v1/workspaces/{workspace}/subscriptions/{subscription}",
            get(subscriptions::read).delete(subscriptions::delete),
        )
        .with_state(desk);
    carillon_http::server::serve(router).await
}
