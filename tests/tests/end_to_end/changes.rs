//! Subscriptions that change while events flow.

use std::collections::BTreeMap;

use anyhow::Result;
use carillon_local::event;
use carillon_tests::{Scene, WORKSPACE};
use serde_json::json;

/// How many patterns are swapped for as many others: the most that a subscription has.
const PATTERNS: usize = 40;

/// How many batches are published, and how many events each has.
const BATCHES: usize = 12;
const BATCH: usize = 40;

/// Every event is matched by one pattern of the old set and by one of the new: whichever holds when it is fanned out, it
/// is delivered, and once.
#[tokio::test]
async fn forty_patterns_swapped_for_forty_others_while_events_flow() -> Result<()> {
    let scene = Scene::set("swap", &[]).await?;
    for number in 0..PATTERNS {
        scene.add_type(&format!("flow.{number}.x")).await?;
    }
    let exact: Vec<_> = (0..PATTERNS).map(|number| format!("flow.{number}.x")).collect();
    let prefixes: Vec<_> = (0..PATTERNS).map(|number| format!("flow.{number}.*")).collect();
    let types: Vec<_> = exact.iter().map(String::as_str).collect();
    let subscription = scene.subscribe("/inbox", &types).await?;
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);

    let publishing = async {
        for batch in 0..BATCHES {
            let events = (0..BATCH)
                .map(|number| event(&format!("e-{batch}-{number}"), &format!("flow.{number}.x"), &json!({})));
            scene.carillon.publish_batch(WORKSPACE, &events.collect::<Vec<_>>()).await?.expect_status(202)?;
        }
        anyhow::Ok(())
    };
    let swapping = async {
        for swap in 0..BATCHES {
            let types = if swap % 2 == 0 { &prefixes } else { &exact };
            scene.carillon.patch(&path, &json!({ "types": types })).await?.expect_status(200)?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(publishing, swapping)?;

    scene.all_deliveries(BATCHES * BATCH, "delivered").await?;
    scene.quiet().await?;
    let mut received = BTreeMap::<String, usize>::new();
    for request in scene.receiver.received("/inbox") {
        *received.entry(request.json()["id"].to_string()).or_default() += 1;
    }
    assert_eq!(received.len(), BATCHES * BATCH, "no event was missed");
    received.retain(|_, times| *times > 1);
    assert!(received.is_empty(), "doubled: {received:?}");
    scene.end().await
}
