//! What the functions on an event's way cost: time on the processor, calls to AWS, units, memory.
//!
//! Only the function's own process is measured. What it calls, and what it delivers to, is of the harness.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use carillon_tests::harness::{Fanned, Function, Matches, QUEUE_BATCH, Stage, Tally, Used};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::bare;

/// An unoptimised build is only to show that all of it runs.
const SCALE: usize = if cfg!(debug_assertions) { 50 } else { 1 };

const DELIVERIES: usize = 100_000 / SCALE;
/// The function and the bare loop take turns, since a machine's speed changes within a minute.
const TURNS: usize = 10;
const TURN_DELIVERIES: usize = DELIVERIES / TURNS;
const TURN_POSTS: usize = TURN_DELIVERIES / 2;
const EVENTS: usize = 10_000 / SCALE;
/// Where each event makes a thousand deliveries, or asks ten thousand filters.
const FEW_EVENTS: usize = 200 / SCALE;
const PUBLISH_BATCH: usize = 25;

/// Before what is measured, in events or tasks: connections are made, and keys fetched.
const WARM_UP: usize = 500 / SCALE;

/// How long AWS takes to answer in the second run, about.
const DELAY: Duration = Duration::from_millis(5);

/// What some work of a function came to.
#[derive(Clone, Default)]
struct Cost {
    seconds: f64,
    used: Used,
    tally: Tally,
}

/// `deliver` with everything on, beside a loop that does nothing but sign and post.
pub(crate) async fn deliver() -> Result<()> {
    let stage = Stage::set("bench-deliver", &[Matches::Ten]).await?;
    spawn_blocking(move || deliver_on(&stage)).await?
}

fn deliver_on(stage: &Stage) -> Result<()> {
    let tasks = Tasks::made(stage)?;
    let deliver = stage.start("deliver")?;
    let mut begin = 0;
    let mut run = |count: usize| {
        let numbers = begin..begin + count;
        begin += count;
        let cost = measured(stage, &deliver, || stage.deliver(&deliver, numbers.map(|n| tasks.record(n))))?;
        let received = stage.sink.take()?;
        ensure!(received == count as u64, "{received} requests for {count} deliveries");
        Ok(cost)
    };
    run(WARM_UP)?;
    let (mut turns, mut bare, mut bare_seconds) = (Vec::with_capacity(TURNS), 0.0, 0.0);
    for _ in 0..TURNS {
        turns.push(run(TURN_DELIVERIES)?);
        let (processor, seconds) = bare_loop(stage, &tasks)?;
        bare += processor;
        bare_seconds += seconds;
    }
    let all = turns.iter().fold(Cost::default(), Cost::with);
    println!(
        "deliver, batches of {QUEUE_BATCH} for {QUEUE_BATCH} subscriptions, events of {} bytes, AWS answering at once:",
        tasks.event_bytes
    );
    print("delivery", DELIVERIES, &all);
    println!(
        "  peak memory {:.1} MiB after {TURN_DELIVERIES} deliveries, {:.1} MiB after {DELIVERIES}",
        mebibytes(turns[0].used),
        mebibytes(all.used),
    );
    println!(
        "  KMS calls per 1,000 deliveries: {:.3}",
        per(all.tally.of("Decrypt kms").calls, DELIVERIES) * 1e3
    );

    stage.stand_ins.delay(DELAY);
    println!("The same, AWS answering after {} ms:", DELAY.as_millis());
    print("delivery", TURN_DELIVERIES, &run(TURN_DELIVERIES)?);
    stage.stand_ins.delay(Duration::ZERO);
    println!("{} signatures were verified.", stage.sink.verified());

    let posts = TURNS * TURN_POSTS;
    let bare = bare / thousands(posts);
    println!("A bare loop that signs the same bytes and posts them, ten at once, in turn with the function:");
    println!("  {:.0} a second, {bare:.3} s of processor time per 1,000", per_second(posts, bare_seconds));
    let ratio = all.used.processor / thousands(DELIVERIES) / bare;
    println!("deliver takes {ratio:.1} times that (goal: at most 3).");
    Ok(())
}

/// In a process of its own, as the function is: its seconds on the processor, and on the clock.
fn bare_loop(stage: &Stage, tasks: &Tasks) -> Result<(f64, f64)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([bare::COMMAND, &stage.sink.url("/bare"), &TURN_POSTS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("the loop has no input")?;
    std::io::Write::write_all(&mut stdin, tasks.body.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the bare loop failed");
    let printed = String::from_utf8(output.stdout)?;
    let mut numbers = printed.split_ascii_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().context("the loop has printed too little");
    stage.sink.take()?;
    Ok((next()??, next()??))
}

/// `publish`, with one event by request and with batches.
pub(crate) async fn publish() -> Result<()> {
    let stage = Stage::set("bench-publish", &[Matches::One]).await?;
    spawn_blocking(move || publish_on(&stage)).await?
}

fn publish_on(stage: &Stage) -> Result<()> {
    let publish = stage.start("publish")?;
    let mut begin = 0;
    let mut run = |count: usize, batch: usize| {
        let numbers = begin..begin + count;
        begin += count;
        measured(stage, &publish, || stage.publish(&publish, Matches::One, numbers, batch))
    };
    for batch in [1, PUBLISH_BATCH] {
        stage.stand_ins.delay(Duration::ZERO);
        run(WARM_UP, batch)?;
        println!("publish, {batch} by request, AWS answering at once:");
        print("event", EVENTS, &run(EVENTS, batch)?);
        stage.stand_ins.delay(DELAY);
        println!("The same, AWS answering after {} ms:", DELAY.as_millis());
        print("event", EVENTS / 10, &run(EVENTS / 10, batch)?);
    }
    Ok(())
}

/// `fanout`, by how many subscriptions an event concerns.
pub(crate) async fn fanout() -> Result<()> {
    let stage = Stage::set("bench-fanout", &Matches::ALL).await?;
    spawn_blocking(move || fanout_on(&stage)).await?
}

fn fanout_on(stage: &Stage) -> Result<()> {
    let publish = stage.start("publish")?;
    let fanout = stage.start("fanout")?;
    for case in Matches::ALL {
        let count = match case {
            Matches::One | Matches::Ten => EVENTS,
            _ => FEW_EVENTS,
        };
        let items = published(stage, &publish, case, count)?;
        fan_out(stage, &fanout, &items[..items.len().min(WARM_UP)])?;
        let matches = case.deliveries();
        println!(
            "fanout, {} of {} subscriptions match ({case:?}), stream batches, AWS answering at once:",
            matches,
            case.subscriptions()
        );
        let (cost, runs) = fan_out(stage, &fanout, &items)?;
        let sent = cost.tally.of("SendMessageBatch delivery").items;
        ensure!(sent == (count * matches) as u64, "{sent} tasks for {count} events with {matches} matches");
        print("event", count, &cost);
        println!(
            "  {:.3} s of processor time per 1,000 tasks, {runs} runs",
            cost.used.processor / thousands(count * matches)
        );
        stage.stand_ins.delay(DELAY);
        let few = &items[..items.len().min(FEW_EVENTS)];
        println!("The same, AWS answering after {} ms:", DELAY.as_millis());
        print("event", few.len(), &fan_out(stage, &fanout, few)?.0);
        stage.stand_ins.delay(Duration::ZERO);
    }
    Ok(())
}

/// All functions on the way of events that are published in batches.
pub(crate) async fn together() -> Result<()> {
    let stage = Stage::set("bench-together", &[Matches::One, Matches::Ten]).await?;
    spawn_blocking(move || together_on(&stage)).await?
}

fn together_on(stage: &Stage) -> Result<()> {
    let [publish, fanout, deliver] = ["publish", "fanout", "deliver"].map(|name| stage.start(name));
    let (publish, fanout, deliver) = (publish?, fanout?, deliver?);
    for (case, goal) in [(Matches::One, 0.5), (Matches::Ten, 0.15)] {
        let mut costs = Vec::new();
        for count in [WARM_UP, EVENTS] {
            stage.stand_ins.keep(true);
            let numbers = (costs.len() * EVENTS)..(costs.len() * EVENTS + count);
            let accepting =
                measured(stage, &publish, || stage.publish(&publish, case, numbers, PUBLISH_BATCH))?;
            let items = stage.stand_ins.sent().events;
            let mut fanned = Fanned::default();
            let spreading = measured(stage, &fanout, || {
                fanned = stage.fan_out(&fanout, &items)?;
                Ok(fanned.seconds)
            })?;
            stage.stand_ins.keep(false);
            let records = stage.task_records(&fanned.tasks);
            let delivering = measured(stage, &deliver, || stage.deliver(&deliver, records.into_iter()))?;
            let received = stage.sink.take()?;
            ensure!(received == (count * case.deliveries()) as u64, "{received} requests for {count} events");
            costs = vec![("publish", accepting), ("fanout", spreading), ("deliver", delivering)];
        }
        let deliveries = EVENTS * case.deliveries();
        println!(
            "All functions, {EVENTS} events in batches of {PUBLISH_BATCH} at fan-out {}:",
            case.deliveries()
        );
        let mut sum = Cost::default();
        for (name, cost) in costs {
            println!(
                "  {name:<8} {:.3} s of processor time per 1,000 deliveries",
                cost.used.processor / thousands(deliveries)
            );
            sum = sum.with(&cost);
        }
        print("delivery", deliveries, &sum);
        let all = sum.used.processor / thousands(deliveries);
        println!("Together {all:.3} s per 1,000 deliveries (goal: at most {goal}).");
    }
    Ok(())
}

/// The items of events that were published.
fn published(stage: &Stage, publish: &Function, case: Matches, count: usize) -> Result<Vec<Value>> {
    stage.stand_ins.keep(true);
    stage.publish(publish, case, 0..count, PUBLISH_BATCH)?;
    stage.stand_ins.keep(false);
    stage.stand_ins.tally()?;
    Ok(stage.stand_ins.sent().events)
}

/// What fanning these events out costs, and in how many runs. Parts of events are kept, since they come back; tasks too.
fn fan_out(stage: &Stage, fanout: &Function, items: &[Value]) -> Result<(Cost, usize)> {
    let mut runs = 0;
    stage.stand_ins.keep(true);
    let cost = measured(stage, fanout, || {
        let fanned = stage.fan_out(fanout, items)?;
        runs = fanned.runs;
        Ok(fanned.seconds)
    })?;
    stage.stand_ins.keep(false);
    Ok((cost, runs))
}

/// Tasks of as many deliveries as are wanted, made from some that fan-out has sent.
struct Tasks {
    /// Records of the queue, each with the digest of its event.
    models: Vec<(String, String)>,
    /// What one of them delivers.
    body: String,
    event_bytes: usize,
}

impl Tasks {
    fn made(stage: &Stage) -> Result<Self> {
        let publish = stage.start("publish")?;
        let fanout = stage.start("fanout")?;
        let items = published(stage, &publish, Matches::Ten, QUEUE_BATCH)?;
        stage.stand_ins.keep(true);
        let fanned = stage.fan_out(&fanout, &items)?;
        stage.stand_ins.keep(false);
        let digest = |task: &Value| {
            let body: Value = serde_json::from_str(task["MessageBody"].as_str().unwrap_or_default())?;
            let digest = body["event"].as_str().context("a task names no event")?;
            Ok((digest.to_owned(), body["body"].to_string()))
        };
        let digests = fanned.tasks.iter().map(digest).collect::<Result<Vec<_>>>()?;
        let body = digests.first().context("fan-out has sent nothing")?.1.clone();
        let digests = digests.into_iter().map(|(digest, _)| digest);
        let models = stage.task_records(&fanned.tasks).into_iter().zip(digests).collect();
        Ok(Self { models, event_bytes: body.len(), body })
    }

    /// The record of a task that no other number has.
    fn record(&self, number: usize) -> String {
        let (record, digest) = &self.models[number % self.models.len()];
        record.replace(digest.as_str(), &other_digest(number / self.models.len(), digest))
    }
}

/// Another digest for each number: as long, of the same signs, and spread as digests are.
fn other_digest(number: usize, digest: &str) -> String {
    const SIGNS: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
    // The golden ratio spreads numbers that follow each other (Knuth, volume 3, section 6.4).
    let mut left = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut other = String::with_capacity(digest.len());
    for _ in 0..12 {
        other.push(char::from(SIGNS[(left >> 59) as usize]));
        left <<= 5;
    }
    other.push_str(&digest[12..]);
    other
}

fn measured(stage: &Stage, function: &Function, work: impl FnOnce() -> Result<f64>) -> Result<Cost> {
    stage.stand_ins.tally()?;
    let before = function.used()?;
    let seconds = work()?;
    let after = function.used()?;
    let used = Used {
        processor: after.processor - before.processor,
        printed: after.printed - before.printed,
        peak_memory: after.peak_memory,
    };
    Ok(Cost { seconds, used, tally: stage.stand_ins.tally()? })
}

impl Cost {
    fn with(self, other: &Self) -> Self {
        let used = Used {
            processor: self.used.processor + other.used.processor,
            printed: self.used.printed + other.used.printed,
            peak_memory: self.used.peak_memory.max(other.used.peak_memory),
        };
        Self { seconds: self.seconds + other.seconds, used, tally: self.tally.with(&other.tally) }
    }
}

fn print(what: &str, count: usize, cost: &Cost) {
    let Cost { seconds, used, tally } = cost;
    println!(
        "  {count}: {:.0} a second, {:.3} s of processor time per 1,000, peak memory {:.1} MiB, {:.0} bytes of log each",
        per_second(count, *seconds),
        used.processor / thousands(count),
        mebibytes(*used),
        per(used.printed, count),
    );
    let total = tally.total();
    println!(
        "  per {what}: {:.3} calls, {:.2} write units and {:.2} of indexes, {:.2} read units, {:.3} requests to SQS",
        per(total.calls, count),
        per(total.writes, count),
        per(total.index_writes, count),
        total.reads / thousands(count) / 1e3,
        per(total.requests, count),
    );
    let mut kinds = String::new();
    for (kind, calls) in tally.kinds() {
        let _ = write!(
            kinds,
            "{}{kind} {:.4}",
            if kinds.is_empty() { "" } else { ", " },
            per(calls.calls, count)
        );
    }
    println!("    {kinds}");
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is small")]
fn per(count: u64, of: usize) -> f64 {
    count as f64 / of as f64
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is small")]
fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is small")]
fn thousands(count: usize) -> f64 {
    count as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "memory in KiB is a small number")]
fn mebibytes(used: Used) -> f64 {
    used.peak_memory as f64 / 1024.0
}
