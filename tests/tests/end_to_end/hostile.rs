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
    // The last one by its id: when it gets an event, all filters were asked before.
    scene.subscribe("/plain", &["consent:*"]).await?;
    let objects = [json!({ "a": 0, "b": 1 }), json!({ "a": 1, "c": 1 }), json!({ "b": 1, "c": 1 })];
    let object_bytes = objects[0].to_string().len() + 1;
    let objects: Vec<_> = objects.into_iter().cycle().take(DATA_BYTES / object_bytes).collect();
    let events = [("oneLongText", json!("a".repeat(DATA_BYTES))), ("manyObjects", json!(objects))];
    for (count, (name, data)) in events.into_iter().enumerate() {
        let began = Instant::now();
        scene.publish(&event(name, "consent:created", &json!({ "v": data }))).await?;
        scene.received("/plain", count + 1).await?;
        let time = began.elapsed().as_secs_f64();
        eprintln!("fan-out to {} filters over {name} and a delivery took {time:.2} s", filters.len());
        scene.quiet().await?;
        let mut refused = 0;
        for (number, hostile) in filters.iter().enumerate().filter(|(_, hostile)| hostile["event"] == name) {
            assert!(hostile["verdict"] == "failed" || hostile["verdict"] == "noMatch", "{}", hostile["name"]);
            let received = scene.receiver.received(&format!("/hostile-{number}"));
            let ids: Vec<_> = received.iter().map(|request| request.json()["id"].clone()).collect();
            assert!(!ids.contains(&json!(name)), "{} let {name} through", hostile["name"]);
            refused += 1;
        }
        assert!(refused > 4, "{refused} filters for {name}");
    }
    scene.break_off().await
}
