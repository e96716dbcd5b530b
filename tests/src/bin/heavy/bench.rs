//! Measurements.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{FUNCTIONS, Moment, Proxy, event, profile_dir};
use carillon_tests::payloads::{queue_record, samples, stream_record};
use carillon_tests::{PATIENCE, Scene, WORKSPACE};
use serde_json::{Map, Value, json};

use crate::runtime_api::start;

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
    let scene = Scene::set("coldstart", &[]).await?;
    println!("From the start of the process, median of {STARTS}:");
    for (function, mut environment, payload) in invocations(&scene).await? {
        for (name, value) in [
            ("AWS_ENDPOINT_URL", scene.stack.endpoint()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_LAMBDA_FUNCTION_NAME", function),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ] {
            environment.insert(name.to_owned(), json!(value));
        }
        let binary = profile_dir()?.join(function);
        let starts = (0..STARTS).map(|_| start(&binary, &environment, &payload)).collect::<Result<Vec<_>>>();
        let starts = starts.with_context(|| function.to_owned())?;
        let median = |pick: fn(&crate::runtime_api::Start) -> Duration| {
            let mut times = starts.iter().map(pick).collect::<Vec<_>>();
            times.sort();
            milliseconds(percentile(&times, 50))
        };
        let (ready, answered) = (median(|start| start.ready), median(|start| start.answered));
        println!("  {function:<8}  ready after {ready:>5.1} ms, first answer after {answered:>5.1} ms");
    }
    // What the functions here were given is partly work of the stack's own, which has no proxy to reach its queues by now.
    scene.break_off().await
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

/// For each function its environment, and an invocation that makes it do its usual work.
async fn invocations(scene: &Scene) -> Result<Vec<(&'static str, Map<String, Value>, Value)>> {
    // Asked for first: the proxy changes one of them.
    let mut environments = BTreeMap::new();
    for function in FUNCTIONS {
        environments.insert(function, scene.stack.environment(function).await?);
    }
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "fanout").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    let sent = proxy.trap(Moment::Before, "SendMessageBatch", "");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let tasks: Value = serde_json::from_slice(&sent.sprung(PATIENCE).await?.body)?;
    let row = scene.rows("EventsTable").await?.into_iter().next().context("the event is in no row")?;
    scene.received("/inbox", 1).await?;

    let samples = samples(scene.carillon.token())?;
    let invocation = |(function, environment)| {
        let payload = match function {
            "fanout" => json!({ "Records": [stream_record(0, &row)] }),
            "deliver" => json!({ "Records": [queue_record(&scene.stack, &tasks["Entries"][0])] }),
            _ => {
                let sample = samples.iter().find(|(of, ..)| of == function);
                sample.with_context(|| format!("events/ has no sample for {function}"))?.2.clone()
            }
        };
        Ok((function, environment, payload))
    };
    environments.into_iter().map(invocation).collect()
}

/// Of sorted times, the one that so many percent do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let position = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(position).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
