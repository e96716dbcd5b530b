//! Claims about what waits: for a subscription that is paused, and for its time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use carillon_aws::now;
use carillon_core::delivery::Ask;
use carillon_core::id::{DeliveryId, EventDigest, EventKey, SubscriptionId};
use carillon_core::task::{DeliveryTask, EventRef};
use carillon_core::time::UnixMillis;
use carillon_local::{Verdict, event};
use carillon_tests::{Scene, WORKSPACE, eventually};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

const PAUSED_EVENTS: usize = 2_000;
const BATCH: usize = 100;

/// How many deliveries `clock` reads and releases at once.
const RELEASE_PAGE: usize = 100;

const RETRIES: usize = 20_000;
const MINUTE: Duration = Duration::from_mins(1);

/// How many items a write of the local AWS takes.
const ITEMS_AT_ONCE: usize = 25;
const WRITES_AT_ONCE: usize = 4;

/// How long it may take to write them down before the first is due.
const PREPARATION: Duration = Duration::from_mins(3);

/// The shards of the schedule.
const SHARDS: u8 = 16;

const PATIENCE: Duration = Duration::from_mins(10);

/// 2,000 events for a subscription that is paused; then it goes on.
pub(crate) async fn pause() -> Result<()> {
    let scene = Scene::set("pause", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?;
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);
    scene.carillon.patch(&path, &json!({ "paused": true })).await?.expect_status(200)?;
    let events: Vec<_> = (0..PAUSED_EVENTS)
        .map(|number| event(&format!("e-{number}"), "consent:created", &json!({ "number": number })))
        .collect();
    for batch in events.chunks(BATCH) {
        scene.carillon.publish_batch(WORKSPACE, batch).await?.expect_status(202)?;
    }
    let began = Instant::now();
    let rows = loop {
        let rows = scene.deliveries().await?;
        if rows.len() == PAUSED_EVENTS && rows.iter().all(|row| row["held_by"]["S"] == "pause") {
            break rows;
        }
        ensure!(began.elapsed() < PATIENCE, "{} of {PAUSED_EVENTS} are held", rows.len());
        sleep(Duration::from_millis(500)).await;
    };
    println!("{PAUSED_EVENTS} deliveries are held, none was attempted.");
    ensure!(scene.receiver.received("/inbox").is_empty(), "an attempt was made");

    scene.carillon.patch(&path, &json!({ "paused": false })).await?.expect_status(200)?;
    let resumed = Instant::now();
    let _clock = scene.ring_clock();
    let received = scene.receiver.wait_for("/inbox", PAUSED_EVENTS, PATIENCE).await?;
    ensure!(received.iter().all(|request| request.verdict == Verdict::Verified), "a signature was refused");
    let took = received.iter().map(|request| request.at).max().unwrap_or(resumed) - resumed;
    let ranks = ranks(&rows, &subscription.id)?;
    let mut order = Vec::with_capacity(received.len());
    for request in &received {
        order.push(*ranks.get(request.webhook_id()).context("a delivery that was never held")?);
    }
    let inversion = order.iter().enumerate().map(|(place, rank)| place.abs_diff(*rank)).max().unwrap_or(0);
    println!(
        "All arrived within {:.1} s, the greatest inversion is {inversion} (a page of the release has {RELEASE_PAGE}).",
        took.as_secs_f64()
    );
    order.sort_unstable();
    order.dedup();
    ensure!(order.len() == PAUSED_EVENTS && received.len() == PAUSED_EVENTS, "one came twice");
    let rows = eventually("all to be delivered", || async {
        let rows = scene.deliveries().await?;
        Ok(rows.iter().all(|row| row["status"]["S"] == "delivered").then_some(rows))
    })
    .await?;
    let attempts: usize = rows.iter().filter_map(|row| row["attempts"]["L"].as_array().map(Vec::len)).sum();
    println!("The deliveries table has {} deliveries with {attempts} attempts.", rows.len());
    ensure!(attempts == PAUSED_EVENTS, "attempts were used up");
    ensure!(inversion <= RELEASE_PAGE, "older ones came later than a page");
    scene.break_off().await
}

/// Which place each delivery has by the time when its event was accepted.
fn ranks(rows: &[Value], subscription: &str) -> Result<HashMap<String, usize>> {
    let subscription: SubscriptionId = subscription.parse()?;
    let mut keys: Vec<_> = rows.iter().filter_map(|row| row["sk"]["S"].as_str()).collect();
    keys.sort_unstable();
    let ranked = keys.into_iter().enumerate().map(|(rank, key)| {
        let (_, digest) = key.split_once('#').context("a sort key without an event")?;
        let event = EventKey { workspace: WORKSPACE.parse()?, digest: digest.parse()? };
        Ok((DeliveryId::of(&event, subscription).to_string(), rank))
    });
    ranked.collect()
}

/// 20,000 retries that are due within one minute, and the clock once a minute as on AWS.
pub(crate) async fn clock() -> Result<()> {
    let scene = Scene::set("clock", &[]).await?;
    // What arrives in the queue is counted there and attempted by nobody.
    let mapping = mapping_of_deliveries(&scene)?;
    scene.aws.cli(&["lambda", "update-event-source-mapping", "--uuid", &mapping, "--no-enabled"])?;
    // It rings once a minute as the schedule does, but nobody else rings it.
    let schedule = scene.stack.function("clock");
    scene.aws.cli(&["scheduler", "delete-schedule", "--name", &schedule])?;
    let first_due = now() + PREPARATION;
    write_retries(&scene, first_due).await?;
    ensure!(now() < first_due, "writing them down took longer than until the first was due");

    // The run before the first is due takes what is due within the next 75 s, the next one the rest.
    sleep(first_due.minus(Duration::from_secs(30)).since(now())).await;
    let mut ticks = interval(MINUTE);
    let (mut sent, mut runs) = (0, 0);
    while sent < RETRIES {
        ticks.tick().await;
        let began = Instant::now();
        let done = scene.stack.invoke("clock", &json!({})).await?;
        let due = usize::try_from(done["due"].as_u64().context("it tells what it sent")?)?;
        (sent, runs) = (sent + due, runs + 1);
        println!(
            "Run {runs} sent {due} within {:.1} s, each held back to its second.",
            began.elapsed().as_secs_f64()
        );
        ensure!(runs < 10, "{sent} of {RETRIES} were sent by {runs} runs");
    }
    println!("{RETRIES} retries due within one minute are sent in {runs} runs.");
    let end = first_due + MINUTE + Duration::from_secs(2);
    sleep(end.since(now())).await;
    let visible = visible(&scene).await?;
    println!("Two seconds after the minute {visible} of them are there to be attempted.");
    ensure!(visible == RETRIES as u64, "some are held back for longer than their time");
    scene.break_off().await
}

/// Tasks of subscriptions that are no more, written as `deliver` writes them, evenly over a minute.
async fn write_retries(scene: &Scene, first_due: UnixMillis) -> Result<()> {
    let table = scene.stack.output("ScheduleTable");
    let items = (0..RETRIES).map(|number| item(number, first_due)).collect::<Result<Vec<_>>>()?;
    let writes = items.chunks(ITEMS_AT_ONCE).map(|items| {
        let puts: Vec<_> = items.iter().map(|item| json!({ "PutRequest": { "Item": item } })).collect();
        let input = json!({ "RequestItems": { table: puts } });
        async move { scene.stack.dynamodb("BatchWriteItem", input).await }
    });
    stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).try_for_each(async |_| Ok(())).await
}

fn item(number: usize, first_due: UnixMillis) -> Result<Value> {
    let offset = MINUTE * u32::try_from(number)? / u32::try_from(RETRIES)?;
    let at = first_due + offset;
    let digest = EventDigest::of("/retries", &number.to_string());
    let event = EventRef {
        key: EventKey { workspace: WORKSPACE.parse()?, digest },
        accepted_at: UnixMillis(0),
        event_type: "consent:created".parse()?,
        json: None,
        trace: None,
    };
    let first = DeliveryTask::first(event, SubscriptionId::new(UnixMillis(0), [0; 10]));
    let task = first.asking(Ask::Attempt { round: 1, attempt: 2 });
    Ok(json!({
        "pk": { "S": format!("due#{}", digest.shard(SHARDS)) },
        "sk": { "S": format!("{}#{}", at.sortable(), task.delivery()) },
        "v": { "N": "1" },
        "at": { "N": at.0.to_string() },
        "task": { "S": task.to_json()? },
        "group": { "S": task.subscription.to_string() },
    }))
}

fn mapping_of_deliveries(scene: &Scene) -> Result<String> {
    let function = scene.stack.function("deliver");
    let listed = scene.aws.cli(&["lambda", "list-event-source-mappings", "--function-name", &function])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let queue = scene.stack.output("DeliveryQueueArn");
    let mut mappings = listed["EventSourceMappings"].as_array().into_iter().flatten();
    let mapping = mappings.find(|mapping| mapping["EventSourceArn"] == queue);
    let uuid = mapping.and_then(|mapping| mapping["UUID"].as_str());
    Ok(uuid.context("the delivery queue has no mapping")?.to_owned())
}

/// How many messages of the delivery queue nothing holds back any more.
async fn visible(scene: &Scene) -> Result<u64> {
    let name = "ApproximateNumberOfMessages";
    let input = json!({ "QueueUrl": scene.stack.output("DeliveryQueueUrl"), "AttributeNames": [name] });
    let answer = scene.stack.sqs("GetQueueAttributes", input).await?;
    Ok(answer["Attributes"][name].as_str().context("it has a number of messages")?.parse()?)
}
