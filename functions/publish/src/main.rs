//! `publish`: accepts events, one or a batch. The hot path: one conditional put for each event.

mod accept;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use lambda_http::Error;

use crate::accept::Publisher;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let publisher = Arc::new(Publisher::from_environment().await?);
    let events = post(request::publish);
    carillon_http::server::serve(
        Router::new().route("/v1/workspaces/{workspace}/events", events).with_state(publisher),
    )
    .await
}
