//! `deliver`: makes one attempt for each task of the delivery queue and the slow queue.
//!
//! What a task may do, and in which order, is told in [`carillon_core::delivery`]; [`attempt`] follows it step by step. Where an
//! attempt goes is read by [`targets`], and the keys that sign it by [`keyring`]; what it sends is made by [`request`], and [`exchange`] sends it, with a token of
//! [`tokens`] where the receiver wants one. [`gate`] holds back what an open circuit or a rate does not let through, and
//! [`receiver`] keeps what attempts teach.

mod attempt;
mod authorization;
mod batch;
mod courier;
mod exchange;
mod gate;
mod holders;
mod keyring;
mod receiver;
mod request;
mod targets;
mod tokens;

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, service_fn};

use crate::courier::Courier;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let courier = Arc::new(Courier::from_environment().await?);
    let courier = &courier;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<_>| {
        Ok::<_, Error>(batch::handle(courier, event.payload, event.context.deadline).await)
    }))
    .await
}
