//! How deliveries prove to receivers who sends them.

use anyhow::{Context as _, Result};
use carillon_local::{Answer, event};
use carillon_tests::Scene;
use serde_json::{Value, json};

#[tokio::test]
async fn each_kind_of_authorization() -> Result<()> {
    let scene = Scene::set("authorization", &[("RetryScale", "0.1")]).await?;
    let subscribe = |path: &'static str, authorization: Value| {
        let body = json!({ "types": ["consent:*"], "authorization": authorization });
        let scene = &scene;
        async move { scene.subscribe_with(path, &body).await }
    };
    // A key of Carillon's making is shown once.
    let keyed = json!({
        "endpoint": scene.receiver.url("/key"),
        "subscriber": "tpp-1",
        "types": ["consent:*"],
        "authorization": { "type": "apiKey" },
    });
    let path = "/v1/workspaces/acme/subscriptions";
    let created = scene.carillon.post(path, "application/json", &keyed).await?.expect_status(201)?.json();
    scene.receiver.trust("/key", created["signingSecret"].as_str().context("no secret is shown")?);
    let key = created["apiKey"].as_str().context("no key is shown")?.to_owned();
    let read = scene.carillon.get(&format!("{path}/{}", created["id"].as_str().unwrap_or_default())).await?;
    assert!(!String::from_utf8_lossy(&read.body).contains(&key));

    subscribe("/basic", json!({ "type": "basic", "user": "carillon", "password": "pä:ss" })).await?;
    subscribe("/bearer", json!({ "type": "bearer", "token": "abc.def" })).await?;
    let token_url = scene.receiver.url("/token");
    subscribe(
        "/oauth",
        json!({
            "type": "oauth2",
            "tokenUrl": token_url,
            "clientId": "carillon",
            "clientSecret": "s3cret",
            "scope": "webhooks",
            "audience": "urn:tpp",
            "clientAuthentication": "body",
            "requestFormat": "json",
        }),
    )
    .await?;
    let token = |token: &str| {
        Answer::status(200)
            .json(&json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 }))
    };
    scene.receiver.answer("/token", ["first", "second", "third"].map(token));
    // The token was withdrawn: the next one is fetched at once, within the attempt.
    scene.receiver.answer("/oauth", [Answer::status(204), Answer::status(401), Answer::status(204)]);

    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    assert_eq!(scene.received("/key", 1).await?[0].header("x-api-key"), key);
    assert_eq!(scene.received("/basic", 1).await?[0].header("authorization"), "Basic Y2FyaWxsb246cMOkOnNz");
    assert_eq!(scene.received("/bearer", 1).await?[0].header("authorization"), "Bearer abc.def");
    // One of the tokens: each process of the function has its own.
    assert!(scene.received("/oauth", 1).await?[0].header("authorization").starts_with("Bearer "));
    let asked = scene.receiver.received("/token").swap_remove(0);
    assert_eq!(
        asked.json(),
        json!({
            "grant_type": "client_credentials",
            "client_id": "carillon",
            "client_secret": "s3cret",
            "scope": "webhooks",
            "audience": "urn:tpp",
        })
    );
    scene.all_deliveries(4, "delivered").await?;

    scene.publish(&event("e-2", "consent:created", &json!({}))).await?;
    let received = scene.received("/oauth", 3).await?;
    let tokens: Vec<_> = received.iter().map(|request| request.header("authorization")).collect();
    assert!(tokens[2].starts_with("Bearer ") && tokens[2] != tokens[1], "{tokens:?}");
    let rows = scene.all_deliveries(8, "delivered").await?;
    assert!(rows.iter().all(|row| row["attempt"]["N"] == "1"), "the second request was part of the attempt");
    scene.end().await
}

#[tokio::test]
async fn a_token_service_that_fails_is_a_failed_attempt() -> Result<()> {
    let scene = Scene::set("token-fails", &[("RetryScale", "0.002")]).await?;
    let authorization = json!({
        "type": "oauth2",
        "tokenUrl": scene.receiver.url("/token"),
        "clientId": "carillon",
        "clientSecret": "s3cret",
    });
    scene
        .subscribe_with("/oauth", &json!({ "types": ["consent:*"], "authorization": authorization }))
        .await?;
    let token = Answer::status(200).json(&json!({ "access_token": "t", "token_type": "bearer" }));
    // What a kept connection's end leaves unanswered is asked again at once, and so would be no attempt of its own.
    let failing = Answer::status(500).header("connection", "close");
    scene.receiver.answer("/token", [failing, Answer::close(), token]);
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.received("/oauth", 1).await?;
    let rows = scene.all_deliveries(1, "delivered").await?;
    assert_eq!(rows[0]["attempt"]["N"], "3");
    let outcomes: Vec<_> = rows[0]["attempts"]["L"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|attempt| attempt["M"]["outcome"]["S"].clone())
        .collect();
    assert_eq!(outcomes[..2], ["token", "token"].map(Value::from));
    let form = String::from_utf8_lossy(&scene.receiver.received("/token")[0].body).into_owned();
    assert_eq!(form, "grant_type=client_credentials");
    scene.end().await
}
