//! What AWS delivers twice, Carillon does once.

use anyhow::{Context as _, Result, bail};
use carillon_local::{Answer, Moment, Proxy, event};
use carillon_tests::payloads::{queue_record, stream_record};
use carillon_tests::{PATIENCE, Scene};
use serde_json::{Value, json};

#[tokio::test]
async fn the_same_stream_batch_twice() -> Result<()> {
    let scene = Scene::set("stream-twice", &[]).await?;
    for path in ["/one", "/two", "/three"] {
        scene.subscribe(path, &["consent:*"]).await?;
    }
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.all_deliveries(3, "delivered").await?;

    let records = scene
        .rows("EventsTable")
        .await?
        .into_iter()
        .enumerate()
        .map(|(position, row)| stream_record(position, &row))
        .collect::<Vec<_>>();
    assert_eq!(records.len(), 1);
    let batch = json!({ "Records": records });
    for _ in 0..2 {
        let answer = scene.stack.invoke("fanout", &batch).await?;
        assert_eq!(answer["batchItemFailures"], json!([]));
    }
    scene.quiet().await?;
    for path in ["/one", "/two", "/three"] {
        assert_eq!(scene.receiver.received(path).len(), 1, "{path}");
    }
    assert_eq!(scene.deliveries().await?.len(), 3);
    scene.end().await
}

#[tokio::test]
async fn the_same_queue_batch_twice() -> Result<()> {
    let scene = Scene::set("queue-twice", &[]).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "fanout").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;

    // The tasks are read where they really pass: on their way from the fan-out to the queue.
    let sent = proxy.trap(Moment::Before, "SendMessageBatch", "");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let held = sent.sprung(PATIENCE).await?;
    let tasks: Value = serde_json::from_slice(&held.body)?;
    drop(held);
    scene.received("/inbox", 1).await?;
    scene.all_deliveries(1, "delivered").await?;

    let records =
        tasks["Entries"].as_array().into_iter().flatten().map(|entry| queue_record(&scene.stack, entry));
    let batch = json!({ "Records": records.collect::<Vec<_>>() });
    for _ in 0..2 {
        let answer = scene.stack.invoke("deliver", &batch).await?;
        assert_eq!(answer["batchItemFailures"], json!([]));
    }
    assert_eq!(scene.receiver.received("/inbox").len(), 1);
    scene.end().await
}

/// The copy that lost cannot know whether the other one's function lives long enough to send the dead letter.
#[tokio::test]
async fn a_copy_that_lost_comes_again_and_sees_to_the_dead_letter() -> Result<()> {
    let scene = Scene::set("letter-twice", &[]).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "fanout").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(415)]);

    let sent = proxy.trap(Moment::Before, "SendMessageBatch", "");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let held = sent.sprung(PATIENCE).await?;
    let tasks: Value = serde_json::from_slice(&held.body)?;
    let record = queue_record(&scene.stack, &tasks["Entries"][0]);
    let mut copy = record.clone();
    copy["messageId"] = json!("the-copy");

    let loser = the_one_that_lost(&scene, [record, copy]).await?;
    scene.all_deliveries(1, "failed").await?;
    let letters = scene.stack.queue_depth("DeadLetterQueueUrl").await?;
    let answer = scene.stack.invoke("deliver", &json!({ "Records": [loser] })).await?;
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!((letters, scene.stack.queue_depth("DeadLetterQueueUrl").await?), (1, 2));
    drop(held);
    scene.quiet().await?;
    scene.break_off().await
}

/// Two copies of a retry in one batch have one deadline, and maybe one millisecond: one of them makes the attempt.
#[tokio::test]
async fn the_same_retry_twice_in_one_batch() -> Result<()> {
    let scene = Scene::set("retry-twice", &[("RetryScale", "0.5")]).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "deliver").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(500), Answer::status(204)]);

    let sent = proxy.trap(Moment::Before, "SendMessage", "");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let held = sent.sprung(PATIENCE).await?;
    let retry: Value = serde_json::from_slice(&held.body)?;
    drop(held);

    let entry = retry["Entries"].get(0).unwrap_or(&retry);
    let record = queue_record(&scene.stack, entry);
    let mut copy = record.clone();
    copy["messageId"] = json!("the-copy");
    let loser = the_one_that_lost(&scene, [record, copy]).await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 2, "the first attempt and one retry");
    scene.all_deliveries(1, "delivered").await?;
    let answer = scene.stack.invoke("deliver", &json!({ "Records": [loser] })).await?;
    assert_eq!(answer["batchItemFailures"], json!([]), "nothing was left undone");
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 2);
    scene.end().await
}

/// Has `deliver` work off two copies of a task in one batch: the one that it wants again.
async fn the_one_that_lost(scene: &Scene, copies: [Value; 2]) -> Result<Value> {
    let answer = scene.stack.invoke("deliver", &json!({ "Records": copies })).await?;
    let failures = answer["batchItemFailures"].as_array().map(Vec::as_slice);
    let Some([failure]) = failures else { bail!("one of them must come again: {answer}") };
    let lost = copies.into_iter().find(|copy| copy["messageId"] == failure["itemIdentifier"]);
    lost.context("what must come again was in the batch")
}
