//! Subscriptions that change while events flow.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use carillon_local::event;
use carillon_tests::{PATIENCE, Scene, WORKSPACE};
use serde_json::json;

/// How many patterns are swapped for as many others: the most that a subscription has.
const PATTERNS: usize = 40;

/// How many batches are published, and how many events each has.
const BATCHES: usize = 5;
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
    // One after the other, until all is received.
    let swapping = async {
        let (began, mut swapped_at) = (Instant::now(), Vec::new());
        while scene.receiver.received("/inbox").len() < BATCHES * BATCH && began.elapsed() < PATIENCE {
            let types = if swapped_at.len() % 2 == 0 { &prefixes } else { &exact };
            scene.carillon.patch(&path, &json!({ "types": types })).await?.expect_status(200)?;
            swapped_at.push(Instant::now());
        }
        anyhow::Ok(swapped_at)
    };
    let ((), swapped_at) = tokio::try_join!(publishing, swapping)?;

    scene.all_deliveries(BATCHES * BATCH, "delivered").await?;
    scene.quiet().await?;
    let requests = scene.receiver.received("/inbox");
    let flowing = requests[0].at..=requests[requests.len() - 1].at;
    let swaps = swapped_at.iter().filter(|at| flowing.contains(*at)).count();
    assert!(swaps > 1, "{swaps} of {} swaps while events were fanned out", swapped_at.len());
    let mut received = BTreeMap::<String, usize>::new();
    for request in requests {
        *received.entry(request.json()["id"].to_string()).or_default() += 1;
    }
    assert_eq!(received.len(), BATCHES * BATCH, "no event was missed");
    received.retain(|_, times| *times > 1);
    assert!(received.is_empty(), "doubled: {received:?}");
    scene.end().await
}
