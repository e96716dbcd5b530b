//! Filters and events that were made to take long: fan-out goes on all the same.

#![allow(clippy::print_stderr, reason = "the times are to be read")]

use std::fs;
use std::time::Instant;

use anyhow::Result;
use carillon_local::{event, root};
use carillon_tests::Scene;
use serde_json::{Value, json};

/// The size of each event's data, in bytes: near the most that an event has.
const DATA_BYTES: usize = 240 * 1024;

#[tokio::test]
async fn hostile_filters_do_not_hold_up_a_subscription_without_one() -> Result<()> {
    let scene = Scene::set("hostile", &[]).await?;
    let filters: Vec<Value> =
        serde_json::from_slice(&fs::read(root().join("crates/filter/tests/hostile.json"))?)?;
    for (number, hostile) in filters.iter().enumerate() {
        let body = json!({ "types": ["consent:*"], "filter": hostile["filter"] });
        scene.subscribe_with(&format!("/hostile-{number}"), &body).await?;
    }
    scene.subscribe("/plain", &["consent:*"]).await?;
    let object = json!({ "a": 1, "b": 2 });
    let objects = vec![object.clone(); DATA_BYTES / (object.to_string().len() + 1)];
    for (count, (name, data)) in
        [("one long text", json!("a".repeat(DATA_BYTES))), ("many objects", json!(objects))]
            .into_iter()
            .enumerate()
    {
        let began = Instant::now();
        scene.publish(&event(name, "consent:created", &json!({ "v": data }))).await?;
        scene.received("/plain", count + 1).await?;
        let time = began.elapsed().as_secs_f64();
        eprintln!("fan-out to {} filters over {name} and a delivery took {time:.2} s", filters.len());
    }
    scene.break_off().await
}
