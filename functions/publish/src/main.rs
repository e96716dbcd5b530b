//! `publish`: wires [`publish::router`] to its environment and to Lambda.

use std::sync::Arc;

use carillon_aws::environment::setting;
use carillon_core::endpoint::EndpointRules;
use carillon_http::access::Access;
use carillon_sender::Sender;
use lambda_http::Error;
use publish::Publisher;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let publisher = Arc::new(Publisher::from_environment().await?);
    let grants = publisher.config().clone();
    let document = publish::document().to_json()?;
    // Where the keys of the tokens' issuer may be fetched.
    let rules = EndpointRules {
        reach: setting("ALLOWED_PRIVATE_CIDRS")?,
        allow_insecure: setting("ALLOW_INSECURE")?,
    };
    let access = Access::from_environment(&document, grants, Sender::new(&rules))?;
    carillon_http::server::serve(access.protect(publish::router(publisher))).await
}
