//! `clock`: each minute sends what is due, and what got stuck, and fires deadlines.

mod deadlines;
mod run;

use lambda_runtime::{Error, LambdaEvent, service_fn};

use crate::run::Clock;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let clock = Clock::from_environment().await?;
    let clock = &clock;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<serde_json::Value>| {
        Ok::<_, Error>(clock.run(event.context.deadline).await?)
    }))
    .await
}
