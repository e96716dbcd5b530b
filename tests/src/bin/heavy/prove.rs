//! Claims about many events and many subscribers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carillon_local::{Verdict, event};
use carillon_tests::{Scene, WORKSPACE};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

const BATCH: usize = 100;
const LOAD_EVENTS: usize = 1_000;
const LOAD_SUBSCRIPTIONS: usize = 5;
const MANY_SUBSCRIBERS: usize = 20_000;

/// How many requests are made at once where many must be made: more would only wait for the local AWS.
const REQUESTS_AT_ONCE: usize = 8;

/// Far more than either takes on a slow machine.
const HEAVY_PATIENCE: Duration = Duration::from_mins(20);

/// 1,000 events for 5 subscriptions are 5,000 deliveries: all arrive, and the table says so.
pub(crate) async fn load() -> Result<()> {
    let scene = Scene::set("load", &[]).await?;
    let paths = (0..LOAD_SUBSCRIPTIONS).map(|number| format!("/inbox/{number}")).collect::<Vec<_>>();
    for path in &paths {
        scene.subscribe(path, &["consent:*"]).await?;
    }
    let events = (0..LOAD_EVENTS)
        .map(|number| event(&format!("e-{number}"), "consent:created", &json!({ "number": number })))
        .collect::<Vec<_>>();

    println!(
        "Publishing {LOAD_EVENTS} events in batches of {BATCH} for {LOAD_SUBSCRIPTIONS} subscriptions ..."
    );
    let began = Instant::now();
    for batch in events.chunks(BATCH) {
        scene.carillon.publish_batch(WORKSPACE, batch).await?.expect_status(202)?;
    }
    println!("Accepted after {:.1} s.", began.elapsed().as_secs_f64());

    let mut last = began;
    let mut repeated = 0;
    for path in &paths {
        let all = |received: &[_]| distinct_events(received).len() == LOAD_EVENTS;
        let received = scene.receiver.wait_until(path, HEAVY_PATIENCE, all).await?;
        ensure!(
            received.iter().all(|request| request.verdict == Verdict::Verified),
            "a signature was refused"
        );
        repeated += received.len() - LOAD_EVENTS;
        last = received.iter().map(|request| request.at).fold(last, Instant::max);
    }
    let deliveries = LOAD_EVENTS * LOAD_SUBSCRIPTIONS;
    let seconds = (last - began).as_secs_f64();
    println!(
        "{deliveries} of {deliveries} deliveries arrived after {seconds:.1} s ({:.0} a second), \
         all signatures verified, {repeated} sent more than once.",
        rate(deliveries, seconds),
    );
    let rows = scene.all_deliveries(deliveries, "delivered").await?;
    println!("The deliveries table says the same: {} rows, all delivered.", rows.len());
    scene.end().await
}

/// One event for 20,000 subscribers, with a function time-out that cannot cover them at once.
pub(crate) async fn many() -> Result<()> {
    // What a run could not finish comes again after the visibility timeout.
    let times =
        [("FanoutTimeoutSeconds", "3"), ("DeliverTimeoutSeconds", "10"), ("QueueVisibilitySeconds", "10")];
    let scene = Scene::set("many", &times).await?;
    println!("Subscribing {MANY_SUBSCRIBERS} endpoints ...");
    let began = Instant::now();
    stream::iter(0..MANY_SUBSCRIBERS)
        .map(|number| {
            let scene = &scene;
            async move { scene.subscribe(&format!("/subscribers/{number}"), &["consent:*"]).await }
        })
        .buffer_unordered(REQUESTS_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    println!("Subscribed after {:.0} s. Publishing one event ...", began.elapsed().as_secs_f64());

    let began = Instant::now();
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let mut attempts = BTreeMap::<usize, usize>::new();
    for number in 0..MANY_SUBSCRIBERS {
        let received = scene.receiver.wait_for(&format!("/subscribers/{number}"), 1, HEAVY_PATIENCE).await?;
        ensure!(received[0].verdict == Verdict::Verified, "a signature was refused");
        *attempts.entry(received.len()).or_default() += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{MANY_SUBSCRIBERS} of {MANY_SUBSCRIBERS} subscribers received it after {seconds:.0} s ({:.0} a second), \
         all signatures verified.",
        rate(MANY_SUBSCRIBERS, seconds),
    );
    println!("Subscribers by how often they received it: {attempts:?}");
    scene.all_deliveries(MANY_SUBSCRIBERS, "delivered").await?;
    println!("The deliveries table says the same.");
    scene.end().await
}

fn distinct_events(received: &[carillon_local::Received]) -> BTreeSet<String> {
    received.iter().map(|request| request.json()["id"].to_string()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of deliveries are small")]
fn rate(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}
