//! `fanout`: accepts the events that follow from an event, finds the subscriptions that it concerns, and enqueues a
//! delivery task for each.
//!
//! It is woken by the stream of the events table, and by the expansion queue for events with many matches. Of both it
//! makes [`woken::Record`]s, works them off in order while its time lasts, and reports what it did not finish.

mod cache;
mod cascades;
mod filters;
mod patience;
mod source;
mod subscriptions;
mod woken;
mod work;

use lambda_runtime::{Error, LambdaEvent, service_fn};

use crate::woken::Woken;
use crate::work::Fanout;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let fanout = Fanout::from_environment().await?;
    let fanout = &fanout;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Woken>| {
        Ok::<_, Error>(fanout.handle(event.payload, event.context.deadline).await)
    }))
    .await
}
