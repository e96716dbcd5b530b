//! An event's way, when all goes well and when receivers do not.

use std::collections::BTreeSet;

use anyhow::Result;
use carillon_local::{Answer, event};
use carillon_tests::{PATIENCE, Scene, WORKSPACE, eventually};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

/// 27 hours of retries pass in 3 seconds.
const HURRY: (&str, &str) = ("RetryScale", "0.00003");

#[tokio::test]
async fn one_event_reaches_the_three_subscriptions_that_it_matches() -> Result<()> {
    let scene = Scene::set("three", &[]).await?;
    scene.subscribe("/exact", &["consent:payment:approved"]).await?;
    scene.subscribe("/prefix", &["consent:payment:*", "consent:revoked"]).await?;
    scene.subscribe("/all", &["*"]).await?;
    scene.subscribe("/other", &["consent:payment:rejected", "after:*"]).await?;

    let approved = event("e-1", "consent:payment:approved", &json!({ "consentId": "urn:bank:C1" }));
    scene.publish(&approved).await?;

    let mut ids = BTreeSet::new();
    for path in ["/exact", "/prefix", "/all"] {
        let received = scene.received(path, 1).await?;
        let request = &received[0];
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("content-type").split(';').next(), Some("application/cloudevents+json"));
        assert!(request.webhook_id().starts_with("dlv_"), "{}", request.webhook_id());
        for attribute in ["specversion", "id", "source", "type", "data"] {
            assert_eq!(request.json()[attribute], approved[attribute], "{attribute}");
        }
        ids.insert(request.webhook_id().to_owned());
    }
    assert_eq!(ids.len(), 3, "each subscription has a delivery of its own");
    scene.all_deliveries(3, "delivered").await?;
    scene.quiet().await?;
    assert!(scene.receiver.received("/other").is_empty());
    scene.end().await
}

/// Also the small version of `cargo xtask prove load`.
#[tokio::test]
async fn a_batch_is_delivered_event_by_event() -> Result<()> {
    let scene = Scene::set("batch", &[]).await?;
    let paths = ["/one", "/two", "/three"];
    for path in paths {
        scene.subscribe(path, &["consent:*"]).await?;
    }
    let events = (0..100)
        .map(|number| event(&format!("e-{number}"), "consent:created", &json!({ "number": number })))
        .collect::<Vec<_>>();

    let answer = scene.carillon.publish_batch(WORKSPACE, &events).await?.expect_status(202)?.json();
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    assert_eq!(results.len(), 100);
    assert!(results.iter().all(|result| result["status"] == "accepted"));

    for path in paths {
        let received = scene.received(path, 100).await?;
        let numbers =
            received.iter().map(|got| got.json()["data"]["number"].as_u64()).collect::<BTreeSet<_>>();
        assert_eq!(numbers, (0..100).map(Some).collect());
    }
    scene.all_deliveries(300, "delivered").await?;
    scene.end().await
}

#[tokio::test]
async fn a_receiver_that_fails_twice_is_asked_a_third_time() -> Result<()> {
    let scene = Scene::set("twice", &[HURRY]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(500), Answer::close(), Answer::status(200)]);

    scene.publish(&event("e-1", "consent:revoked", &json!({}))).await?;
    let received = scene.received("/inbox", 3).await?;
    assert!(received.iter().all(|got| got.webhook_id() == received[0].webhook_id()));
    assert!(received.iter().all(|got| got.body == received[0].body), "the same bytes on every attempt");
    let rows = scene.all_deliveries(1, "delivered").await?;
    assert_eq!(rows[0]["attempt"]["N"], "3");
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 3);
    scene.end().await
}

#[tokio::test]
async fn a_dead_letter_is_replayed_with_the_aws_cli() -> Result<()> {
    // Every wait goes through the schedule and the clock.
    let scene = Scene::set("replay", &[HURRY, ("QueueDelaySeconds", "0")]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(503)]);
    let _clock = scene.ring_clock();

    scene.publish(&event("e-1", "consent:revoked", &json!({}))).await?;
    scene.received("/inbox", 8).await?;
    eventually("the dead letter", || async {
        Ok((scene.stack.queue_depth("DeadLetterQueueUrl").await? == 1).then_some(()))
    })
    .await?;
    let rows = scene.all_deliveries(1, "failed").await?;
    assert_eq!((&rows[0]["attempt"]["N"], &rows[0]["round"]["N"]), (&json!("8"), &json!("1")));
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 8, "no attempt beyond the last");

    scene.receiver.answer("/inbox", [Answer::status(204)]);
    let (source, destination) =
        (scene.stack.output("DeadLetterQueueArn"), scene.stack.output("DeliveryQueueArn"));
    scene.aws.cli(&[
        "sqs",
        "start-message-move-task",
        "--source-arn",
        source,
        "--destination-arn",
        destination,
    ])?;
    let received = scene.received("/inbox", 9).await?;
    assert_eq!(received[8].webhook_id(), received[0].webhook_id());
    let rows = scene.all_deliveries(1, "delivered").await?;
    assert_eq!(rows[0]["round"]["N"], "2");
    scene.end().await
}

/// The small version of `cargo xtask prove many`: more subscribers than one invocation of the fan-out takes.
#[tokio::test]
async fn an_event_of_many_subscribers_reaches_all_of_them() -> Result<()> {
    const SUBSCRIBERS: usize = 520;
    // What a run could not finish comes again after the visibility timeout.
    let times =
        [("FanoutTimeoutSeconds", "3"), ("DeliverTimeoutSeconds", "10"), ("QueueVisibilitySeconds", "10")];
    let scene = Scene::set("many", &times).await?;
    stream::iter(0..SUBSCRIBERS)
        .map(|number| {
            let scene = &scene;
            async move { scene.subscribe(&format!("/subscribers/{number}"), &["consent:*"]).await }
        })
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await?;

    scene.publish(&event("e-1", "consent:revoked", &json!({}))).await?;
    for number in 0..SUBSCRIBERS {
        scene.received(&format!("/subscribers/{number}"), 1).await?;
    }
    scene.all_deliveries(SUBSCRIBERS, "delivered").await?;
    scene.end().await
}

#[tokio::test]
async fn an_event_reaches_a_subscription_that_was_created_before_it_was_published() -> Result<()> {
    let scene = Scene::set("before", &[]).await?;
    for number in 0..10 {
        let path = format!("/subscribers/{number}");
        scene.subscribe(&path, &["consent:*"]).await?;
        scene.publish(&event(&format!("e-{number}"), "consent:created", &json!({}))).await?;
        let expected = format!("e-{number}");
        let theirs = |received: &[carillon_local::Received]| {
            received.iter().any(|request| request.json()["id"] == expected.as_str())
        };
        scene.receiver.wait_until(&path, PATIENCE, theirs).await?;
    }
    scene.end().await
}
