//! What the API takes and what it refuses.

use anyhow::Result;
use carillon_local::event;
use carillon_tests::{Scene, WORKSPACE, problem};
use serde_json::{Value, json};

const EVENTS: &str = "/v1/workspaces/acme/events";
const STRUCTURED: &str = "application/cloudevents+json";

#[tokio::test]
async fn publishing() -> Result<()> {
    let scene = Scene::set("publishing", &[]).await?;
    let carillon = &scene.carillon;

    // The same event again is the same event; another one under its id is a conflict.
    let created = event("e-1", "consent:created", &json!({ "a": 1 }));
    let first = carillon.publish(WORKSPACE, &created).await?.expect_status(202)?.json();
    assert_eq!((&first["id"], &first["status"]), (&json!("e-1"), &json!("accepted")));
    let again = carillon.publish(WORKSPACE, &created).await?.expect_status(202)?.json();
    assert_eq!((&again["status"], &again["acceptedAt"]), (&json!("duplicate"), &first["acceptedAt"]));
    let other = event("e-1", "consent:created", &json!({ "a": 2 }));
    problem(&carillon.publish(WORKSPACE, &other).await?, 409);

    // Binary mode: the attributes are headers, the data is the body.
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-2"),
        ("ce-source", "urn:example:bank"),
        ("ce-type", "consent:created"),
        ("content-type", "application/json"),
    ];
    let binary =
        carillon.send("POST", EVENTS, &headers, br#"{"a":1}"#.to_vec()).await?.expect_status(202)?.json();
    assert_eq!((&binary["id"], &binary["status"]), (&json!("e-2"), &json!("accepted")));

    // A fault names its field.
    let mut nameless = event("e-3", "consent:created", &json!({}));
    nameless.as_object_mut().map(|attributes| attributes.remove("type"));
    let refused = problem(&carillon.publish(WORKSPACE, &nameless).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "/type", "{refused}");
    problem(&carillon.send("POST", EVENTS, &[("content-type", STRUCTURED)], b"{".to_vec()).await?, 400);

    // Each event of a batch has a result of its own.
    let batch = [event("e-4", "consent:created", &json!({})), other, nameless];
    let results = carillon.publish_batch(WORKSPACE, &batch).await?.expect_status(207)?.json();
    let statuses = results["results"].as_array().into_iter().flatten().map(|result| result["status"].clone());
    assert_eq!(statuses.collect::<Vec<_>>(), ["accepted", "conflict", "invalid"].map(Value::from));

    // Bounds.
    let large = event("e-5", "consent:created", &json!({ "text": "x".repeat(256 * 1024) }));
    problem(&carillon.publish(WORKSPACE, &large).await?, 413);
    let many = (0..101).map(|number| event(&format!("m-{number}"), "consent:created", &json!({})));
    problem(&carillon.publish_batch(WORKSPACE, &many.collect::<Vec<_>>()).await?, 413);

    let heavy =
        (0..20).map(|number| event(&format!("h-{number}"), "t", &json!({ "text": "x".repeat(220 * 1024) })));
    problem(&carillon.publish_batch(WORKSPACE, &heavy.collect::<Vec<_>>()).await?, 413);

    problem(&carillon.publish("nobody", &created).await?, 404);
    scene.end().await
}

#[tokio::test]
async fn workspaces_and_subscriptions() -> Result<()> {
    let scene = Scene::set("resources", &[]).await?;
    let carillon = &scene.carillon;
    assert_eq!(carillon.get("/v1/health").await?.expect_status(200)?.json(), json!({ "status": "ok" }));

    let read = carillon.get("/v1/workspaces/acme").await?.expect_status(200)?.json();
    assert_eq!((&read["id"], &read["kind"]), (&json!("acme"), &json!("consent")));
    let listed = carillon.get("/v1/workspaces").await?.expect_status(200)?.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    let taken = json!({ "id": "acme", "name": "Acme", "kind": "consent" });
    problem(&carillon.post("/v1/workspaces", "application/json", &taken).await?, 409);
    let unkind = json!({ "id": "other", "name": "Other", "kind": "bakery" });
    problem(&carillon.post("/v1/workspaces", "application/json", &unkind).await?, 400);

    // The secret is shown once.
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?;
    assert!(subscription.secret.starts_with("whsec_"));
    let path = format!("/v1/workspaces/acme/subscriptions/{}", subscription.id);
    let read = carillon.get(&path).await?.expect_status(200)?.json();
    assert_eq!((&read["id"], &read["status"]), (&json!(subscription.id), &json!("active")));
    assert!(!read.to_string().contains("whsec_"));
    let listed = carillon.get("/v1/workspaces/acme/subscriptions").await?.expect_status(200)?;
    assert!(!String::from_utf8_lossy(&listed.body).contains("whsec_"));
    assert_eq!(listed.json()["items"].as_array().map(Vec::len), Some(1));

    for refused in [
        json!({ "endpoint": "ftp://example.com/", "types": ["*"] }),
        json!({ "endpoint": "http://10.0.0.1/", "types": ["*"] }),
        json!({ "endpoint": "http://169.254.169.254/latest/meta-data/", "types": ["*"] }),
        json!({ "endpoint": "https://example.com/", "types": [] }),
        json!({ "endpoint": "https://example.com/", "types": ["consent*"] }),
        json!({ "types": ["*"] }),
    ] {
        let answer = carillon.post("/v1/workspaces/acme/subscriptions", "application/json", &refused).await?;
        assert!(problem(&answer, 400)["errors"][0]["pointer"].is_string(), "{refused}");
    }

    problem(&carillon.delete("/v1/workspaces/acme").await?, 409);
    carillon.delete(&path).await?.expect_status(204)?;
    problem(&carillon.get(&path).await?, 404);
    carillon.delete("/v1/workspaces/acme").await?.expect_status(204)?;
    problem(&carillon.get("/v1/workspaces/acme").await?, 404);
    problem(&carillon.get("/v1/nothing").await?, 404);
    scene.end().await
}

#[tokio::test]
async fn a_deleted_subscription_gets_nothing() -> Result<()> {
    let scene = Scene::set("deleted", &[]).await?;
    let gone = scene.subscribe("/gone", &["consent:*"]).await?;
    scene.subscribe("/stays", &["consent:*"]).await?;
    scene
        .carillon
        .delete(&format!("/v1/workspaces/acme/subscriptions/{}", gone.id))
        .await?
        .expect_status(204)?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.received("/stays", 1).await?;
    scene.quiet().await?;
    assert!(scene.receiver.received("/gone").is_empty());
    scene.end().await
}
