//! The claims that a redelivery of many misses nothing though it is killed, and costs little memory and few calls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Answer, Verdict, event, kill};
use carillon_tests::harness::{Function, Matches, Stage};
use carillon_tests::{Scene, WORKSPACE};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const DELIVERIES: usize = 5_000;
const BATCH: usize = 100;

/// When the function is killed: so many were asked for by then.
const HALF_WAY: u64 = 2_000;

const LOOK_PERIOD: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_mins(10);

/// What a dead function held comes back within seconds, and a run is short enough that there are several.
const TIMES: [(&str, &str); 2] = [("RedriveTimeoutSeconds", "15"), ("JobVisibilitySeconds", "15")];

/// An unoptimised build is only to show that all of it runs.
const MILLION: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };

/// 5,000 deliveries that failed are delivered again by a job whose function is killed half-way.
pub(crate) async fn redelivery() -> Result<()> {
    let scene = Scene::set("redelivery", &TIMES).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?.id;
    // Refused for good at once.
    scene.receiver.answer("/inbox", [Answer::status(413)]);
    let events: Vec<_> = (0..DELIVERIES)
        .map(|number| event(&format!("e-{number}"), "consent:created", &json!({ "number": number })))
        .collect();
    for batch in events.chunks(BATCH) {
        scene.carillon.publish_batch(WORKSPACE, batch).await?.expect_status(202)?;
    }
    scene.receiver.wait_for("/inbox", DELIVERIES, PATIENCE).await?;
    scene.all_deliveries(DELIVERIES, "failed").await?;
    scene.quiet().await?;
    let before = scene.receiver.received("/inbox").len();
    println!("{DELIVERIES} deliveries have failed.");

    scene.receiver.answer("/inbox", [Answer::status(204)]);
    let began = Instant::now();
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{subscription}/redeliveries");
    let accepted = scene.carillon.post(&path, "application/json", &json!({})).await?.expect_status(202)?;
    let job = accepted.headers.get("location").context("no location")?.to_str()?.to_owned();
    let at_kill = progress(&scene, &job, |job| done(job) >= HALF_WAY).await?;
    let killed = scene.stack.processes("redrive");
    for process in &killed {
        kill(*process)?;
    }
    println!(
        "Killed redrive ({} processes) after {:.1} s, when {} were asked for.",
        killed.len(),
        began.elapsed().as_secs_f64(),
        done(&at_kill)
    );
    ensure!(!killed.is_empty() && at_kill["status"] == "running", "there was nothing to kill");
    let ended = progress(&scene, &job, |job| job["status"] == "completed").await?;
    println!(
        "The job was completed after {:.1} s: {} were asked for, {} looked at.",
        began.elapsed().as_secs_f64(),
        done(&ended),
        ended["looked"]
    );
    let rows = all_delivered(&scene).await?;
    let mut rounds = BTreeMap::<(String, usize), usize>::new();
    for row in &rows {
        let attempts = row["attempts"]["L"].as_array().map_or(0, Vec::len);
        *rounds.entry((row["round"]["N"].as_str().unwrap_or_default().to_owned(), attempts)).or_default() +=
            1;
    }
    let received = scene.receiver.received("/inbox");
    ensure!(received.iter().all(|request| request.verdict == Verdict::Verified), "a signature was refused");
    println!(
        "{} of {DELIVERIES} are delivered after {:.1} s. Deliveries by (round, attempts): {rounds:?}. Requests since: {}.",
        rows.len(),
        began.elapsed().as_secs_f64(),
        received.len() - before
    );
    ensure!(
        rounds.keys().all(|(round, attempts)| round == "2" && *attempts == 2),
        "one new round of each, with one attempt"
    );
    scene.break_off().await
}

async fn progress(scene: &Scene, job: &str, is_there: impl Fn(&Value) -> bool) -> Result<Value> {
    let began = Instant::now();
    loop {
        let shown = scene.carillon.get(job).await?.expect_status(200)?.json();
        if is_there(&shown) {
            return Ok(shown);
        }
        ensure!(began.elapsed() < PATIENCE, "the job stands still: {shown}");
        sleep(LOOK_PERIOD).await;
    }
}

fn done(job: &Value) -> u64 {
    job["done"].as_u64().unwrap_or_default()
}

async fn all_delivered(scene: &Scene) -> Result<Vec<Value>> {
    let began = Instant::now();
    loop {
        let rows = scene.deliveries().await?;
        let delivered = rows.iter().filter(|row| row["status"]["S"] == "delivered").count();
        if delivered == DELIVERIES && rows.len() == DELIVERIES {
            return Ok(rows);
        }
        ensure!(began.elapsed() < PATIENCE, "only {delivered} are delivered");
        sleep(LOOK_PERIOD * 5).await;
    }
}

/// What a redelivery of 1,000,000 costs, without the pace that it keeps.
pub(crate) async fn cost() -> Result<()> {
    let stage = Stage::set("bench-redrive", &[Matches::One]).await?;
    spawn_blocking(move || cost_on(&stage)).await?
}

fn cost_on(stage: &Stage) -> Result<()> {
    let redrive = stage.start_with("redrive", &[("TASKS_PER_SECOND", "1000000")])?;
    for count in [MILLION / 100, MILLION] {
        run(stage, &redrive, count)?;
    }
    Ok(())
}

fn run(stage: &Stage, redrive: &Function, count: u64) -> Result<()> {
    let task = stage.redelivery(count)?;
    stage.stand_ins.tally()?;
    let before = redrive.used()?;
    let (runs, seconds) = stage.work_off(redrive, &task)?;
    let (used, tally) = (redrive.used()?, stage.stand_ins.tally()?);
    let sent = tally.of("SendMessageBatch delivery").items;
    ensure!(sent == count, "{sent} tasks for {count} deliveries");
    #[expect(clippy::cast_precision_loss, reason = "what is counted here is small")]
    let per = |number: u64| number as f64 / count as f64;
    #[expect(clippy::cast_precision_loss, reason = "memory in KiB is a small number")]
    let mebibytes = used.peak_memory as f64 / 1024.0;
    let total = tally.total();
    println!(
        "A redelivery of {count}: {runs} runs, {seconds:.1} s without its pace, peak memory {mebibytes:.1} MiB, {:.3} s of \
         processor time per 1,000.",
        (used.processor - before.processor) * 1e3 * per(1),
    );
    println!(
        "  per delivery: {:.4} calls, {:.4} write units, {:.4} read units, {:.4} requests to SQS",
        per(total.calls),
        per(total.writes),
        total.reads * per(1),
        per(total.requests)
    );
    let kinds: Vec<_> =
        tally.kinds().map(|(kind, calls)| format!("{kind} {:.4}", per(calls.calls))).collect();
    println!("    {}", kinds.join(", "));
    Ok(())
}
