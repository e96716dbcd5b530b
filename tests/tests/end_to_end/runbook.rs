//! What the runbook says to type, typed as it is written.

use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{Answer, event};
use carillon_tests::{Scene, eventually};
use serde_json::{Value, json};

const RUNBOOK: &str = include_str!("../../../infra/RUNBOOK.md");

/// The first attempt is the last, so that dead letters come at once.
const ONE_ATTEMPT: &str = r#"{ "waitsSeconds": [] }"#;

/// The runbook's block that has this in it.
fn block(having: &str) -> Result<&'static str> {
    let blocks = RUNBOOK.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.into_iter().find(|block| block.contains(having)).context("the runbook has no such block")
}

/// Types the block as it is written, behind what all blocks take for granted.
fn typed(scene: &Scene, having: &str) -> Result<String> {
    let granted = block("output()")?.replace("STACK=carillon", &format!("STACK={}", scene.stack.name()));
    scene.aws.shell(&format!("{granted}\n{}", block(having)?), &[])
}

#[tokio::test]
async fn dead_letters_are_looked_at_replayed_and_purged_as_the_runbook_says() -> Result<()> {
    let scene = Scene::set("runbook", &[]).await?;
    let said = json!({ "types": ["consent:*"], "retryPolicy": serde_json::from_str::<Value>(ONE_ATTEMPT)? });
    let subscription = scene.subscribe_with("/inbox", &said).await?;
    scene.receiver.answer("/inbox", [Answer::status(500)]);
    for number in 0..3 {
        scene.publish(&event(&format!("e-{number}"), "consent:created", &json!({}))).await?;
    }
    scene.all_deliveries(3, "failed").await?;
    eventually("three letters", || async {
        Ok((typed(&scene, "ApproximateNumberOfMessages ")?.trim() == "3").then_some(()))
    })
    .await?;
    let letters = typed(&scene, "receive-message")?;
    let letters: Vec<Value> = letters.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert!(letters.iter().all(|letter| letter["subscription"] == json!(subscription.id)), "{letters:?}");
    assert!(letters.iter().all(|letter| letter["reason"] == "exhausted" && letter["body"].is_null()));

    // The receiver is well again.
    scene.receiver.answer("/inbox", [Answer::status(204)]);
    typed(&scene, "\"$(output DeadLetterQueueArn)\" \\\n  --destination-arn")?;
    let rows = scene.all_deliveries(3, "delivered").await?;
    assert!(rows.iter().all(|row| row["round"]["N"] == "2"), "each has begun another round");
    let moved = typed(&scene, "list-message-move-tasks")?;
    assert!(moved.starts_with("COMPLETED\t3"), "{moved}");

    // Moved once more, what is delivered is dropped; and what nobody wants is purged.
    let attempts = scene.receiver.received("/inbox").len();
    let queue = scene.stack.output("DeadLetterQueueUrl");
    for letter in &letters {
        let send = json!({ "QueueUrl": queue, "MessageBody": letter.to_string() });
        scene.stack.sqs("SendMessage", send).await?;
    }
    typed(&scene, "\"$(output DeadLetterQueueArn)\" \\\n  --destination-arn")?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), attempts);
    let send = json!({ "QueueUrl": queue, "MessageBody": letters[0].to_string() });
    scene.stack.sqs("SendMessage", send).await?;
    typed(&scene, "purge-queue")?;
    eventually("the queue to be empty", || async {
        Ok((scene.stack.queue_depth("DeadLetterQueueUrl").await? == 0).then_some(()))
    })
    .await?;
    tokio::time::timeout(Duration::from_secs(30), scene.end()).await?
}
