//! `redrive`: works off the jobs of the job queue, each in steps that may be done twice.

mod batch;
mod deletion;
mod fanning;
mod ground;
mod redelivery;
mod replay;
mod work;

use lambda_runtime::{Error, LambdaEvent, service_fn};

use crate::ground::Stack;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let stack = Stack::from_environment().await?;
    let stack = &stack;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<_>| {
        Ok::<_, Error>(batch::handle(stack, event.payload, event.context.deadline).await)
    }))
    .await
}
