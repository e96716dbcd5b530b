//! A test event shows a subscriber at once what deliveries will be like.

use std::time::Duration;

use anyhow::Result;
use carillon_local::{Answer, Verdict};
use carillon_tests::{Scene, WORKSPACE, problem};
use serde_json::{Value, json};

async fn test(scene: &Scene, subscription: &str, body: &Value) -> Result<carillon_local::Reply> {
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{subscription}/test");
    scene.carillon.post(&path, "application/json", body).await
}

#[tokio::test]
async fn a_test_event_is_sent_at_once_and_its_outcome_answered() -> Result<()> {
    let scene = Scene::set("test-events", &[]).await?;
    let said = json!({
        "types": ["consent:approved"],
        "authorization": { "type": "basic", "user": "carillon", "password": "a-password" },
        "timeoutSeconds": 1,
    });
    let subscription = scene.subscribe_with("/inbox", &said).await?;
    let result = test(&scene, &subscription.id, &json!({})).await?.expect_status(200)?.json();
    assert_eq!((&result["outcome"], &result["status"]), (&json!("delivered"), &json!(204)));
    let received = scene.receiver.received("/inbox");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].verdict, Verdict::Verified);
    assert_eq!(received[0].header("carillon-test"), "true");
    assert!(received[0].header("authorization").starts_with("Basic "));
    assert_eq!(received[0].webhook_id(), result["id"]);
    let event = received[0].json();
    assert_eq!(event, result["event"]);
    assert_eq!((&event["type"], &event["carillontest"]), (&json!("consent:approved"), &json!(true)));

    // Whatever goes wrong is told, and nothing is kept of it.
    scene.receiver.answer("/inbox", [Answer::status(401), Answer::status(200).after(Duration::from_secs(5))]);
    let refused = test(&scene, &subscription.id, &json!({ "eventType": "consent:rejected" })).await?;
    let refused = refused.expect_status(200)?.json();
    assert_eq!(
        (&refused["outcome"], &refused["event"]["type"]),
        (&json!("unauthorized"), &json!("consent:rejected"))
    );
    let late = test(&scene, &subscription.id, &json!({})).await?.expect_status(200)?.json();
    assert_eq!((&late["outcome"], &late["status"]), (&json!("timedOut"), &Value::Null));
    assert!(late["durationMs"].as_u64().is_some_and(|took| (900..3000).contains(&took)), "{late}");
    assert!(scene.deliveries().await?.is_empty() && scene.rows("EventsTable").await?.is_empty());

    let wrong = test(&scene, &subscription.id, &json!({ "eventType": "consent:unheard" })).await?;
    assert_eq!(problem(&wrong, 400)["errors"][0]["pointer"], "/eventType");
    let other = test(&scene, "sub_00000000000000000000000000", &json!({})).await?;
    problem(&other, 404);
    scene.end().await
}
