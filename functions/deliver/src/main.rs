//! `deliver`: makes one attempt for each task of the delivery queue and the slow queue.
//!
//! What a task may do, and in which order, is told in [`carillon_core::delivery`]; [`attempt`] follows it step by step, and
//! [`carillon_attempt`] makes the request. [`gate`] holds back what a pause, an open circuit or a rate does not let through,
//! [`holders`] remembers for whom, [`receiver`] keeps what attempts teach, and [`log`] tells of each.

mod attempt;
mod batch;
mod courier;
mod gate;
mod holders;
mod log;
mod receiver;

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, service_fn};

use crate::courier::Courier;

/// A delivery takes two hundred allocations, which are a sixth of its processor time with the platform's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let courier = Arc::new(Courier::from_environment().await?);
    let courier = &courier;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<_>| {
        Ok::<_, Error>(batch::handle(courier, event).await)
    }))
    .await
}
