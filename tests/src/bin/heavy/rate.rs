//! The claim that no receiver sees more than its rate.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carillon_local::{Verdict, event};
use carillon_tests::{Scene, WORKSPACE};
use serde_json::json;

const PER_MINUTE: usize = 600;
const EVENTS: usize = 1_500;
const BATCH: usize = 100;
const MINUTE: Duration = Duration::from_mins(1);

/// The rate gives two and a half minutes; what is late takes a slot behind the others.
const PATIENCE: Duration = Duration::from_mins(10);

/// 1,500 events at once, for a subscription that takes 600 a minute.
pub(crate) async fn rate() -> Result<()> {
    let scene = Scene::set("rate", &[]).await?;
    scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"], "ratePerMinute": PER_MINUTE })).await?;
    let events: Vec<_> = (0..EVENTS)
        .map(|number| event(&format!("e-{number}"), "consent:created", &json!({ "number": number })))
        .collect();
    let began = Instant::now();
    for batch in events.chunks(BATCH) {
        scene.carillon.publish_batch(WORKSPACE, batch).await?.expect_status(202)?;
    }
    println!("{EVENTS} events were accepted within {:.1} s.", began.elapsed().as_secs_f64());
    let _clock = scene.ring_clock();
    let received = scene.receiver.wait_for("/inbox", EVENTS, PATIENCE).await?;
    ensure!(received.iter().all(|request| request.verdict == Verdict::Verified), "a signature was refused");
    let mut times: Vec<_> = received.iter().map(|request| request.at).collect();
    times.sort_unstable();
    let in_a_minute =
        |first: usize| times[first..].iter().take_while(|at| **at - times[first] < MINUTE).count();
    let most = (0..times.len()).map(in_a_minute).max().unwrap_or_default();
    let took = *times.last().unwrap_or(&began) - began;
    println!("All arrived within {:.1} s, at most {most} in any minute.", took.as_secs_f64());
    ensure!(most <= PER_MINUTE, "{most} arrived within a minute, {PER_MINUTE} are allowed");

    let rows = scene.all_deliveries(EVENTS, "delivered").await?;
    let attempts: usize = rows.iter().filter_map(|row| row["attempts"]["L"].as_array().map(Vec::len)).sum();
    println!("The deliveries table has {} deliveries with {attempts} attempts.", rows.len());
    ensure!(attempts == EVENTS, "attempts were used up");
    scene.break_off().await
}
