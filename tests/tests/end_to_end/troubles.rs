//! What one tenant, one receiver, one record or one lost answer does to the rest: nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{Answer, Moment, Proxy, event};
use carillon_tests::{PATIENCE, Scene, WORKSPACE, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_slow_receiver_gets_a_lane_of_its_own_until_it_is_quick_again() -> Result<()> {
    let scene = Scene::set("lanes", &[]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene
        .receiver
        .answer("/inbox", [Answer::status(204).after(Duration::from_millis(2500)), Answer::status(204)]);

    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    lane(&scene, true).await?;
    // Only attempts of the slow lane count its quick answers, that at the first event, begun anew, included: twenty in a row
    // bring it back.
    scene.all_deliveries(1, "delivered").await?;
    for number in 2..=20 {
        lane(&scene, true).await?;
        scene.publish(&event(&format!("e-{number}"), "consent:created", &json!({}))).await?;
        scene.all_deliveries(number, "delivered").await?;
    }
    lane(&scene, false).await?;
    assert_eq!(
        scene.receiver.received("/inbox").len(),
        21,
        "but for the first, moving from lane to lane makes no attempt"
    );
    scene.end().await
}

async fn lane(scene: &Scene, slow: bool) -> Result<()> {
    eventually(&format!("the subscription's slow mark to be {slow}"), || async {
        let rows = scene.rows("DeliveriesTable").await?;
        let marked = rows.iter().any(|row| row["sk"]["S"] == "state" && row["slow"]["BOOL"] == slow);
        Ok(marked.then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_poisoned_record_ends_in_the_failure_queue_and_the_others_go_on() -> Result<()> {
    let scene = Scene::set("poisoned", &[]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    let poison = json!({ "pk": { "S": "acme/poison" }, "v": { "N": "99" } });
    let put = json!({ "TableName": scene.stack.output("EventsTable"), "Item": poison });
    scene.stack.dynamodb("PutItem", put).await?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;

    scene.received("/inbox", 1).await?;
    let queue = scene.stack.output("FanoutFailureQueueUrl");
    let letter = eventually("the poisoned record's letter", || async {
        let received = scene.stack.sqs("ReceiveMessage", json!({ "QueueUrl": queue })).await?;
        Ok(received["Messages"].get(0).cloned())
    })
    .await?;
    let body: Value = serde_json::from_str(letter["Body"].as_str().context("it has a body")?)?;
    assert_eq!(body["event"], "acme/poison");
    assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{body}");
    let delete = json!({ "QueueUrl": queue, "ReceiptHandle": letter["ReceiptHandle"] });
    scene.stack.sqs("DeleteMessage", delete).await?;
    scene.end().await
}

#[tokio::test]
async fn a_workspace_made_anew_knows_nothing_of_the_old_one() -> Result<()> {
    let scene = Scene::set("anew", &[]).await?;
    let workspace = format!("/v1/workspaces/{WORKSPACE}");
    let old = scene.subscribe("/old", &["consent:*"]).await?;
    let happened = event("e-1", "consent:created", &json!({}));
    scene.publish(&happened).await?;
    scene.received("/old", 1).await?;
    scene.carillon.delete(&format!("{workspace}/subscriptions/{}", old.id)).await?.expect_status(204)?;
    scene.carillon.delete(&workspace).await?.expect_status(204)?;
    scene.carillon.own_workspace(WORKSPACE, "consent").await?;
    scene.add_type("consent:created").await?;
    scene.subscribe("/new", &["consent:*"]).await?;

    // Not even the ids of what the old one was told are to be seen, and they are free again.
    let recent = json!({ "types": ["*"], "recent": 20 });
    let dry_run = format!("{workspace}/dry-run");
    let tried = scene.carillon.post(&dry_run, "application/json", &recent).await?.expect_status(200)?.json();
    assert_eq!(tried["results"], json!([]));
    eventually("the new workspace to be known", || async {
        let answer = scene.carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?.json();
        Ok((answer["status"] == "accepted").then_some(()))
    })
    .await?;
    scene.received("/new", 1).await?;
    assert_eq!(scene.receiver.received("/old").len(), 1);
    scene.end().await
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_was_a_write() -> Result<()> {
    // No clock rings: without its next task the delivery would stand still.
    let scene = Scene::set("lost-answer", &[("RetryScale", "0.00003")]).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "deliver").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(500), Answer::status(500), Answer::status(204)]);

    let recorded = proxy.trap(Moment::After, "PutItem", "");
    let leased = proxy.trap(Moment::After, "UpdateItem", "lease_until");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    recorded.sprung(PATIENCE).await?.lose();
    leased.sprung(PATIENCE).await?.lose();
    scene.received("/inbox", 3).await?;
    let rows = scene.all_deliveries(1, "delivered").await?;
    assert_eq!(rows[0]["attempt"]["N"], "3");
    scene.end().await
}
