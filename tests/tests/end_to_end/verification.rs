//! Endpoints whose owners are asked first.

use anyhow::{Context as _, Result};
use carillon_local::{Answer, Carillon, event};
use carillon_tests::{Scene, WORKSPACE, eventually, problem};
use serde_json::{Value, json};

async fn scene_that_demands(name: &str, verification: &str) -> Result<Scene> {
    let scene = Scene::set(name, &[]).await?;
    let settings = json!({ "settings": { "verification": verification } });
    scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
    Ok(scene)
}

async fn status_of(scene: &Scene, subscription: &str) -> Result<Value> {
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{subscription}");
    Ok(scene.carillon.get(&path).await?.expect_status(200)?.json())
}

async fn visit(url: &str, method: &str) -> Result<u16> {
    Ok(Carillon::new(url).send(method, "", &[], Vec::new()).await?.status)
}

#[tokio::test]
async fn a_handshake_by_the_response() -> Result<()> {
    let scene = scene_that_demands("handshake", "handshake").await?;
    scene.receiver.answer(
        "/inbox",
        [
            Answer::status(405).header("webhook-allowed-origin", "*").header("webhook-allowed-rate", "120"),
            Answer::status(204),
        ],
    );
    let body = json!({ "types": ["consent:*"], "ratePerMinute": 600 });
    let subscription = scene.subscribe_with("/inbox", &body).await?;
    let asked = scene.receiver.received("/inbox").swap_remove(0);
    assert_eq!(asked.method, "OPTIONS");
    assert_eq!(asked.header("webhook-request-rate"), "600");
    assert!(!asked.header("webhook-request-origin").is_empty());
    assert!(asked.header("webhook-request-callback").contains("/v1/confirmations?token="));
    let shown = status_of(&scene, &subscription.id).await?;
    assert_eq!(
        (&shown["status"], &shown["verification"]["grantedRatePerMinute"]),
        (&json!("active"), &json!(120)),
        "consent is in the headers, whatever the status"
    );
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let delivered = scene.received_behind("/inbox", 1, 1).await?.swap_remove(0);
    assert_eq!(delivered.header("webhook-request-origin"), asked.header("webhook-request-origin"));
    scene.end().await
}

#[tokio::test]
async fn a_handshake_by_the_callback() -> Result<()> {
    let scene = scene_that_demands("callback", "handshake").await?;
    scene
        .receiver
        .answer("/inbox", [Answer::status(200).header("webhook-allowed-origin", "elsewhere.example")]);
    let subscription =
        scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"], "ratePerMinute": 60 })).await?;
    assert_eq!(status_of(&scene, &subscription.id).await?["status"], "pending");
    // What another one has received is fanned out.
    scene.receiver.answer("/other", [Answer::status(200).header("webhook-allowed-origin", "*")]);
    scene.subscribe("/other", &["consent:*"]).await?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.received_behind("/other", 1, 1).await?;

    let callback = scene.receiver.received("/inbox")[0].header("webhook-request-callback").to_owned();
    assert_eq!(visit(&format!("{callback}x"), "POST").await?, 404);
    assert_eq!(visit(&callback, "POST").await?, 200);
    assert_eq!(visit(&callback, "POST").await?, 200, "a second time changes nothing");
    let shown = status_of(&scene, &subscription.id).await?;
    assert_eq!(
        (&shown["status"], &shown["verification"]["grantedRatePerMinute"]),
        (&json!("active"), &json!(60)),
        "the rate that was asked for is granted"
    );
    scene.receiver.answer("/inbox", [Answer::status(204)]);
    scene.publish(&event("e-2", "consent:created", &json!({}))).await?;
    let received = scene.received_behind("/inbox", 1, 1).await?;
    assert_eq!(received[0].json()["id"], "e-2", "what came before the consent was for nobody");
    scene.end().await
}

#[tokio::test]
async fn a_challenge_is_met_by_visiting_its_url() -> Result<()> {
    let scene = scene_that_demands("challenge", "challenge").await?;
    let subscription = scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"] })).await?;
    let challenge = scene.receiver.received("/inbox").swap_remove(0).json();
    assert_eq!(challenge["subscription"], subscription.id.as_str());
    let first = challenge["confirmationUrl"].as_str().context("no URL")?.to_owned();

    // Asked again, the first URL is void.
    let verify = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}/verify", subscription.id);
    scene.carillon.post(&verify, "application/json", &json!({})).await?.expect_status(200)?;
    let second =
        scene.receiver.received("/inbox")[1].json()["confirmationUrl"].as_str().context("no URL")?.to_owned();
    assert_eq!(visit(&first, "GET").await?, 404);
    assert_eq!(status_of(&scene, &subscription.id).await?["status"], "pending");
    assert_eq!(visit(&second, "GET").await?, 200);
    assert_eq!(status_of(&scene, &subscription.id).await?["status"], "active");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.received_behind("/inbox", 2, 1).await?;

    // Whoever owns the old endpoint has not spoken for another one.
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);
    let moved = json!({ "endpoint": scene.receiver.url("/moved") });
    let patched = scene.carillon.patch(&path, &moved).await?.expect_status(200)?.json();
    assert_eq!(patched["status"], "pending");
    eventually("the challenge at the new endpoint", || async {
        Ok((!scene.receiver.received("/moved").is_empty()).then_some(()))
    })
    .await?;
    // What another one has received is fanned out.
    scene.subscribe("/other", &["consent:*"]).await?;
    let asked = scene.receiver.received("/other").swap_remove(0).json();
    assert_eq!(visit(asked["confirmationUrl"].as_str().context("no URL")?, "GET").await?, 200);
    scene.publish(&event("e-2", "consent:created", &json!({}))).await?;
    assert_eq!(scene.received_behind("/other", 1, 1).await?[0].json()["id"], "e-2");
    scene.quiet().await?;
    assert_eq!((scene.receiver.received("/inbox").len(), scene.receiver.received("/moved").len()), (3, 1));
    problem(&scene.carillon.get("/v1/confirmations?token=acme.x.y").await?, 404);
    scene.end().await
}

#[tokio::test]
async fn what_is_due_while_a_new_endpoint_is_not_confirmed_waits_for_it() -> Result<()> {
    let scene = Scene::set("put-off", &[("RetryScale", "0.001")]).await?;
    let settings = json!({ "settings": { "verification": "handshake" } });
    scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
    let allows = Answer::status(200).header("webhook-allowed-origin", "*");
    scene.receiver.answer("/inbox", [allows, Answer::status(500)]);
    scene.receiver.answer("/moved", [Answer::status(200), Answer::status(204)]);
    let subscription = scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"] })).await?;
    scene.receiver.trust("/moved", &subscription.secret);
    let asked = scene.receiver.received("/inbox").swap_remove(0);
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let first = scene.received_behind("/inbox", 1, 1).await?.swap_remove(0);
    assert_eq!(first.header("webhook-request-origin"), asked.header("webhook-request-origin"));

    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);
    let moved = json!({ "endpoint": scene.receiver.url("/moved") });
    assert_eq!(scene.carillon.patch(&path, &moved).await?.expect_status(200)?.json()["status"], "pending");
    let _clock = scene.ring_clock();
    let row = eventually("the retry to be put off", || async {
        let row = scene.deliveries().await?.into_iter().next();
        Ok(row.filter(|row| row["lease_until"]["N"].is_string() && row["lease_until"] == row["next_at"]))
    })
    .await?;
    assert_eq!(row["status"]["S"], "retrying");
    assert_eq!(scene.receiver.received("/moved").len(), 1, "the question alone");
    let callback = scene.receiver.received("/moved")[0].header("webhook-request-callback").to_owned();
    assert_eq!(visit(&callback, "POST").await?, 200);
    let row = scene.all_deliveries(1, "delivered").await?.swap_remove(0);
    assert_eq!(scene.received_behind("/moved", 1, 1).await?.len(), 1);
    // As many as went to the old endpoint, less its question, and the one to the new one.
    let posted = scene.receiver.received("/inbox").len();
    assert_eq!(row["attempts"]["L"].as_array().map(Vec::len), Some(posted), "what is put off is no attempt");
    scene.end().await
}
