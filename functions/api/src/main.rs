//! `api`: wires [`api::router`] to its environment and to Lambda.

use std::sync::Arc;

use api::Desk;
use axum::routing::any;
use carillon_http::access::Access;
use carillon_http::problem::Problem;
use http::header::ALLOW;
use lambda_http::Error;

/// Where events are published.
const PUBLISHING: &str = "/v1/workspaces/{workspace}/events";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let desk = Arc::new(Desk::from_environment().await?);
    let access = Access::from_environment(api::DOCUMENT, desk.config().clone(), desk.sender().clone())?;
    // Events are published to a function of their own, by a route of the gateway's. Other methods come here: reading, and
    // those that the path does not have.
    let router = access
        .protect(api::router(desk))
        .route(PUBLISHING, any(async || ([(ALLOW, "GET,HEAD,POST")], Problem::MethodNotAllowed)));
    carillon_http::server::serve(router).await
}
