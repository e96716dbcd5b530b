//! `api`: wires [`api::router`] to its environment and to Lambda.

use std::sync::Arc;

use api::Desk;
use carillon_http::access::Access;
use lambda_http::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let desk = Arc::new(Desk::from_environment().await?);
    let (router, document) = api::router(Arc::clone(&desk)).split_for_parts();
    let access = Access::from_environment(&document, desk.config().clone(), desk.sender().clone())?;
    carillon_http::server::serve(access.protect(router)).await
}
