//! Measurements.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{FUNCTIONS, event, profile_dir};
use carillon_tests::harness::{Matches, Stage, records};
use carillon_tests::payloads::stream_record;
use carillon_tests::{PATIENCE, Scene, WORKSPACE};
use serde_json::json;
use tokio::task::spawn_blocking;

const EVENTS: usize = 200;
/// Before the measured ones, so that every function is running.
const EVENTS_TO_WARM_UP: usize = 20;
const STARTS: usize = 11;

/// How many requests of each kind are made, and how many before the first that counts.
const REQUESTS: usize = 100;
const REQUESTS_TO_WARM_UP: usize = 10;

/// From the answer to publish to the receiver, one event after the other.
pub(crate) async fn latency() -> Result<()> {
    let scene = Scene::set("latency", &[]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    for number in 0..EVENTS_TO_WARM_UP {
        publish_and_wait(&scene, number).await?;
    }
    let before = processor_time(&scene, &ON_THE_WAY);
    let mut took = Vec::with_capacity(EVENTS);
    for number in 0..EVENTS {
        took.push(publish_and_wait(&scene, EVENTS_TO_WARM_UP + number).await?);
    }
    scene.all_deliveries(EVENTS_TO_WARM_UP + EVENTS, "delivered").await?;
    let own = processor_time(&scene, &ON_THE_WAY).saturating_sub(before) / u32::try_from(EVENTS)?;

    took.sort();
    let (median, late) = (percentile(&took, 50), percentile(&took, 95));
    println!("From the answer to publish (202) to the receiver, over {EVENTS} events on the local AWS:");
    println!("  p50  {:.1} ms", milliseconds(median));
    println!("  p95  {:.1} ms", milliseconds(late));
    let share = 100.0 * own.as_secs_f64() / median.as_secs_f64();
    println!(
        "Of this the functions' own is at most {:.0} %: fanout and deliver use {:.1} ms of processor time for an event, \
         part of it to record the outcome when the receiver has answered. The rest is the local AWS.",
        share.min(100.0),
        milliseconds(own),
    );
    println!("AWS adds the polling of its own stream and queue mappings, which the local AWS does not have.");
    scene.end().await
}

/// Creating, reading, listing and changing subscriptions, one request after the other.
pub(crate) async fn api() -> Result<()> {
    let scene = Scene::set("api-latency", &[]).await?;
    let subscriptions = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
    for number in 0..REQUESTS_TO_WARM_UP {
        scene.subscribe(&format!("/warm-{number}"), &["consent:*"]).await?;
    }
    println!("Requests of the API, {REQUESTS} of each kind, one after the other on the local AWS:");
    let mut paths = Vec::with_capacity(REQUESTS);
    measured(&scene, "create", async |number| {
        let subscription = scene.subscribe(&format!("/{number}"), &["consent:*"]).await?;
        paths.push(format!("{subscriptions}/{}", subscription.id));
        Ok(())
    })
    .await?;
    let read = async |number: usize| {
        scene.carillon.get(&paths[number]).await?.expect_status(200)?;
        Ok(())
    };
    measured(&scene, "read", read).await?;
    let list = async |_| {
        scene.carillon.get(&format!("{subscriptions}?limit=20")).await?.expect_status(200)?;
        Ok(())
    };
    measured(&scene, "list 20", list).await?;
    let patch = async |number: usize| {
        let patch = json!({ "types": ["consent:created"] });
        scene.carillon.patch(&paths[number], &patch).await?.expect_status(200)?;
        Ok(())
    };
    measured(&scene, "patch", patch).await?;
    scene.end().await
}

async fn measured(
    scene: &Scene,
    name: &str,
    mut request: impl AsyncFnMut(usize) -> Result<()>,
) -> Result<()> {
    let before = processor_time(scene, &["api"]);
    let mut took = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        let began = std::time::Instant::now();
        request(number).await?;
        took.push(began.elapsed());
    }
    let own = processor_time(scene, &["api"]).saturating_sub(before) / u32::try_from(REQUESTS)?;
    took.sort();
    let (median, late) = (percentile(&took, 50), percentile(&took, 95));
    println!(
        "  {name:<8}  p50 {:>5.1} ms, p95 {:>5.1} ms; the function's own: {:.1} ms of processor time, {:.0} %",
        milliseconds(median),
        milliseconds(late),
        milliseconds(own),
        100.0 * own.as_secs_f64() / median.as_secs_f64(),
    );
    Ok(())
}

/// Each function's binary as it deploys.
pub(crate) fn size() -> Result<()> {
    for function in FUNCTIONS {
        let bytes = fs::metadata(profile_dir()?.join(function))?.len();
        println!("  {function:<8}  {:>5.1} MB", f64::from(u32::try_from(bytes)?) / 1e6);
    }
    Ok(())
}

/// Each function from the start of its process to its first invocation, and to its first answer.
pub(crate) async fn coldstart() -> Result<()> {
    let stage = Stage::set("coldstart", &[Matches::One]).await?;
    spawn_blocking(move || coldstart_on(&stage)).await?
}

fn coldstart_on(stage: &Stage) -> Result<()> {
    println!("From the start of the process, median of {STARTS} (goal: ready after at most 12 ms):");
    let payloads = invocations(stage)?;
    for (function, payload) in payloads {
        let mut ready = Vec::with_capacity(STARTS);
        let mut answered = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let started = stage.start(function)?;
            let (_, took) = started.invoke_timed(payload.clone())?;
            ready.push(started.ready);
            answered.push(started.ready + took);
        }
        ready.sort();
        answered.sort();
        let median = |sorted: &[Duration]| milliseconds(percentile(sorted, 50));
        println!(
            "  {function:<8}  ready after {:>5.1} ms, first answer after {:>5.1} ms",
            median(&ready),
            median(&answered)
        );
    }
    stage.stand_ins.tally()?;
    Ok(())
}

async fn publish_and_wait(scene: &Scene, number: usize) -> Result<Duration> {
    scene.publish(&event(&format!("e-{number}"), "consent:created", &json!({ "number": number }))).await?;
    let answered = std::time::Instant::now();
    let received = scene.receiver.wait_for("/inbox", number + 1, PATIENCE).await?;
    Ok(received[number].at.saturating_duration_since(answered))
}

/// The functions between publish and receiver.
const ON_THE_WAY: [&str; 2] = ["fanout", "deliver"];

/// What functions have used of the processor so far.
fn processor_time(scene: &Scene, functions: &[&str]) -> Duration {
    let processes = functions.iter().flat_map(|function| scene.stack.processes(function));
    processes.map(time_on_processor).sum()
}

/// The first number of each thread's `schedstat` is its time on a processor, in nanoseconds.
fn time_on_processor(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let statistics = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        statistics.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// For each function an invocation that makes it do its usual work.
fn invocations(stage: &Stage) -> Result<Vec<(&'static str, Vec<u8>)>> {
    stage.stand_ins.keep(true);
    stage.publish(&stage.start("publish")?, Matches::One, 0..1, 1)?;
    let items = stage.stand_ins.sent().events;
    let tasks = stage.fan_out(&stage.start("fanout")?, &items)?.tasks;
    stage.stand_ins.keep(false);
    let event = stream_record(0, items.first().context("publish has written nothing")?).to_string();
    let invocation = |function| {
        let payload = match function {
            "fanout" => records(std::slice::from_ref(&event)),
            "deliver" => records(&stage.task_records(&tasks)),
            _ => stage.sample(function)?.to_string().into_bytes(),
        };
        Ok((function, payload))
    };
    FUNCTIONS.into_iter().map(invocation).collect()
}

/// Of sorted times, the one that so many percent do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let position = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(position).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
