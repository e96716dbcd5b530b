//! Receivers that do what none should, through the deployed function: one batch of them, each with its outcome, and a
//! good one among them that gets its delivery.

use anyhow::Result;
use carillon_local::{Hostile, event};
use carillon_tests::{SUBSCRIBER, Scene, WORKSPACE, eventually};
use serde_json::{Value, json};

/// How the first attempt at each of these modes ends.
const ENDS: [(&str, &str); 10] = [
    ("silent", "timedOut"),
    ("header-drip", "timedOut"),
    ("continue-drip", "timedOut"),
    ("reset", "broken"),
    ("header-many", "broken"),
    ("gzip-bomb", "serverError"),
    ("redirect-inside", "redirected"),
    ("tls-expired", "tls"),
    ("tls-1.0", "tls"),
    ("body-drip", "delivered"),
];

#[tokio::test]
async fn each_hostile_receiver_ends_as_documented_and_disturbs_no_other() -> Result<()> {
    let scene = Scene::set("hostile-receiver", &[]).await?;
    let hostile = Hostile::start()?;
    scene.subscribe("/good", &["consent:*"]).await?;
    let mut subscriptions = Vec::new();
    for (mode, outcome) in ENDS {
        let endpoint = hostile.url(mode)?;
        let body = json!({
            "endpoint": endpoint, "subscriber": SUBSCRIBER, "types": ["consent:*"], "timeoutSeconds": 5,
        });
        subscriptions.push((scene.carillon.subscribe_with(WORKSPACE, &body).await?.id, mode, outcome));
    }
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.received("/good", 1).await?;
    for (subscription, mode, outcome) in &subscriptions {
        let attempt = eventually(&format!("the attempt at {mode}"), || async {
            let rows = scene.deliveries().await?;
            let row = rows.iter().find(|row| {
                row["pk"]["S"].as_str().is_some_and(|partition| partition.contains(subscription.as_str()))
            });
            Ok(row.and_then(|row| row["attempts"]["L"].get(0)).cloned())
        })
        .await?;
        assert_eq!(first(&attempt, "outcome"), *outcome, "{mode}: {attempt}");
    }
    scene.break_off().await
}

fn first<'a>(attempt: &'a Value, field: &str) -> &'a str {
    attempt["M"][field]["S"].as_str().unwrap_or_default()
}
