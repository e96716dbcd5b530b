//! What the functions on an event's way ask of AWS, counted by stand-ins that look at each call.

use std::collections::BTreeMap;

use anyhow::Result;
use carillon_tests::harness::{Matches, Stage, Tally};
use tokio::task::spawn_blocking;

const EVENTS: usize = 50;
const PUBLISH_BATCH: usize = 25;

/// Also the small version of `cargo xtask bench together`: an unoptimised build says nothing of time, but all of calls.
#[tokio::test]
async fn an_event_takes_one_write_and_a_delivery_another() -> Result<()> {
    let stage = Stage::set("calls", &[Matches::Ten]).await?;
    spawn_blocking(move || count_calls(&stage)).await?
}

/// Also the small version of `cargo xtask bench redrive`.
#[tokio::test]
async fn a_redelivery_takes_few_calls_for_each_delivery() -> Result<()> {
    let stage = Stage::set("calls-redrive", &[Matches::One]).await?;
    spawn_blocking(move || count_redelivery(&stage)).await?
}

fn count_redelivery(stage: &Stage) -> Result<()> {
    const COUNT: u64 = 1_000;
    const PAGES: usize = 10;
    let redrive = stage.start_with("redrive", &[("TASKS_PER_SECOND", "1000000")])?;
    let task = stage.redelivery(COUNT)?;
    let (runs, _) = stage.work_off(&redrive, &task)?;
    let tally = stage.stand_ins.tally()?;
    assert_eq!((runs, tally.of("SendMessageBatch delivery").items), (1, COUNT));
    assert_eq!(tally.of("SendMessageBatch delivery").calls, COUNT / 10);
    // For each page its rows, the subscription and where the job goes on; before all the job.
    assert_eq!(tally.of("BatchGetItem").calls, PAGES as u64);
    assert_eq!(
        (tally.of("PutItem config").calls, tally.of("GetItem config").calls),
        (PAGES as u64, PAGES as u64 + 1)
    );
    // All shards of the index for each page, some of them twice.
    let queries = tally.of("Query deliveries").calls;
    assert!((160..=250).contains(&queries), "{queries} queries for {PAGES} pages");
    Ok(())
}

fn count_calls(stage: &Stage) -> Result<()> {
    let deliveries = EVENTS * Matches::Ten.deliveries();
    stage.stand_ins.keep(true);

    stage.publish(&stage.start("publish")?, Matches::Ten, 0..EVENTS, PUBLISH_BATCH)?;
    let tally = stage.stand_ins.tally()?;
    // The workspace with its rules, the client's grant, and the type's definition, which is the workspace's own.
    expect(&tally, [("PutItem events", EVENTS)], [("BatchGetItem", 1), ("GetItem config", 2)]);
    let written = tally.total();
    assert_eq!((written.writes, written.index_writes), (EVENTS as u64, EVENTS as u64));

    let items = stage.stand_ins.sent().events;
    let tasks = stage.fan_out(&stage.start("fanout")?, &items)?.tasks;
    let tally = stage.stand_ins.tally()?;
    // The version before and after the rows of each pattern that an event's type can be asked for by.
    let once = [("BatchGetItem", 1), ("TransactGetItems config", 1), ("Query config", 3)];
    let sent = [("SendMessageBatch delivery", deliveries / 10)];
    expect(&tally, sent, once);
    assert_eq!((tally.total().writes, tasks.len()), (0, deliveries));

    stage.deliver(&stage.start("deliver")?, stage.task_records(&tasks).into_iter())?;
    let tally = stage.stand_ins.tally()?;
    // Rows that come at the same time are put together.
    let (alone, together) = (tally.of("PutItem deliveries"), tally.of("BatchExecuteStatement deliveries"));
    assert_eq!(alone.items + together.items, deliveries as u64);
    assert!(alone.calls + together.calls <= deliveries as u64 / 2);
    let rows = [
        ("PutItem deliveries", usize::try_from(alone.calls)?),
        ("BatchExecuteStatement deliveries", usize::try_from(together.calls)?),
    ];
    expect(&tally, [("BatchGetItem", deliveries / 10), ("Decrypt kms", 1), rows[0], rows[1]], []);
    let written = tally.total();
    assert_eq!((written.writes, written.index_writes), (deliveries as u64, 0));
    assert_eq!(stage.sink.take()?, deliveries as u64);
    assert!(stage.sink.verified() > 0);
    Ok(())
}

/// Checks that there were these calls and no others. What is kept for seconds may be read again on a machine that is so
/// slow, but never less often than once.
fn expect<const E: usize, const K: usize>(
    tally: &Tally,
    exactly: [(&str, usize); E],
    kept: [(&str, usize); K],
) {
    let mut calls: BTreeMap<_, _> = tally.kinds().map(|(kind, count)| (kind, count.calls)).collect();
    for (kind, least) in kept {
        let found = calls.remove(kind).unwrap_or_default();
        assert!(found >= least as u64 && found.is_multiple_of(least as u64), "{found} of {kind}");
    }
    let exactly = exactly
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| (kind, count as u64))
        .collect();
    assert_eq!(calls, exactly);
}
