//! Receivers that demand a client certificate.

use anyhow::{Context as _, Result};
use carillon_local::{Hostile, event};
use carillon_tests::{SUBSCRIBER, Scene, WORKSPACE, eventually, problem};
use serde_json::{Value, json};

/// A client certificate that the receiver takes, and one that expired. Their keys open nothing else.
const CERTIFICATE: &str = include_str!("../../../crates/sender/tests/tls/client_certificate.pem");
const KEY: &str = include_str!("../../../crates/sender/tests/tls/client_key.pem");
const FORMER: &str = include_str!("../../../crates/sender/tests/tls/former_client_certificate.pem");
const FORMER_KEY: &str = include_str!("../../../crates/sender/tests/tls/former_client_key.pem");

#[tokio::test]
async fn a_receiver_that_demands_a_certificate_is_shown_the_subscriptions() -> Result<()> {
    let scene = Scene::set("mtls", &[("RetryScale", "0.001")]).await?;
    let receivers = Hostile::start()?;
    // The receiver's own certificate is vouched for by nobody that the functions know.
    let settings = json!({ "settings": { "developerMode": true } });
    scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
    let endpoint = receivers.url("tls-mutual")?;
    let body = json!({ "endpoint": endpoint, "subscriber": SUBSCRIBER, "types": ["consent:*"] });
    let subscription = scene.carillon.subscribe_with(WORKSPACE, &body).await?;
    let _clock = scene.ring_clock();
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    eventually("an attempt that the receiver refuses", || async {
        Ok(outcomes(&scene).await?.first().is_some_and(|outcome| outcome == "tls").then_some(()))
    })
    .await?;
    assert_eq!(receivers.requests("tls-mutual")?.len(), 0);

    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);
    let with = |certificate: &str, key: Option<&str>| {
        let certificate = json!({ "certificate": certificate, "privateKey": key });
        json!({ "clientCertificate": certificate })
    };
    for (wrong, pointer) in [
        (with(FORMER, Some(FORMER_KEY)), "/clientCertificate/certificate"),
        (with("no PEM", Some(KEY)), "/clientCertificate/certificate"),
        (with(CERTIFICATE, Some(FORMER_KEY)), "/clientCertificate/privateKey"),
        (with(CERTIFICATE, None), "/clientCertificate/privateKey"),
    ] {
        let refused = problem(&scene.carillon.patch(&path, &wrong).await?, 400);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    scene.carillon.patch(&path, &with(CERTIFICATE, Some(KEY))).await?.expect_status(200)?;
    scene.all_deliveries(1, "delivered").await?;
    let outcomes = outcomes(&scene).await?;
    let (last, before) = outcomes.split_last().context("no attempts")?;
    assert!(before.iter().all(|outcome| outcome == "tls"), "{outcomes:?}");
    assert_eq!(last, "delivered");
    assert_eq!(receivers.requests("tls-mutual")?.len(), 1);

    let shown = scene.carillon.get(&path).await?.expect_status(200)?;
    assert!(!String::from_utf8_lossy(&shown.body).contains("PRIVATE KEY"), "the key is not shown");
    let shown = shown.json();
    assert_eq!(shown["clientCertificate"], json!({ "certificate": CERTIFICATE }));
    assert_eq!(shown["clientCertificateExpiresAt"], "2120-01-01T00:00:00.000Z");
    // What else is changed leaves it, but it is not taken along to another host.
    scene.carillon.patch(&path, &json!({ "title": "Mutual" })).await?.expect_status(200)?;
    let elsewhere = json!({ "endpoint": endpoint.replace("127.0.0.1", "localhost") });
    let refused = problem(&scene.carillon.patch(&path, &elsewhere).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "/clientCertificate/privateKey");
    scene.end().await
}

/// How each attempt of the only delivery ended.
async fn outcomes(scene: &Scene) -> Result<Vec<String>> {
    let rows = scene.deliveries().await?;
    let attempts = rows.first().and_then(|row| row["attempts"]["L"].as_array());
    let outcome = |attempt: &Value| attempt["M"]["outcome"]["S"].as_str().unwrap_or_default().to_owned();
    Ok(attempts.into_iter().flatten().map(outcome).collect())
}
