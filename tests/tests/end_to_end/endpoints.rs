//! URLs that must lead nowhere: refused when they are written, and not reached when they stand there all the same.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use carillon_local::{event, root};
use carillon_tests::{Scene, WORKSPACE, problem};
use serde_json::{Value, json};

const SUBSCRIPTIONS: &str = "/v1/workspaces/acme/subscriptions";

/// What the local AWS opens, since receivers are on this machine.
const OPEN_HERE: [&str; 2] = ["loopback", "plain HTTP"];

#[tokio::test]
async fn no_bad_url_is_taken_for_an_endpoint_or_a_token_service() -> Result<()> {
    let scene = Scene::set("bad-urls", &[]).await?;
    let bad = bad_urls()?;
    assert!(bad.len() > 60, "{} rows", bad.len());
    for (url, why) in bad {
        refused_as_endpoint(&scene, &url, &why).await?;
        let authorization =
            json!({ "type": "oauth2", "tokenUrl": url, "clientId": "c", "clientSecret": "s" });
        let token_service = json!({
            "endpoint": scene.receiver.url("/inbox"),
            "subscriber": "tpp-1",
            "types": ["*"],
            "authorization": authorization,
        });
        let refused = scene.carillon.post(SUBSCRIPTIONS, "application/json", &token_service).await?;
        assert_eq!(problem(&refused, 400)["errors"][0]["pointer"], "/authorization/tokenUrl", "{url}, {why}");
    }
    let listed = scene.carillon.get(SUBSCRIPTIONS).await?.expect_status(200)?.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(0), "nothing was changed");
    scene.end().await
}

/// Written by nobody's request: as if a rule had come later than a subscription.
#[tokio::test]
async fn what_stands_in_the_table_is_not_reached_either() -> Result<()> {
    let scene = Scene::set("stored-urls", &[("RetryScale", "0.0001")]).await?;
    let authorization = json!({
        "type": "oauth2",
        "tokenUrl": scene.receiver.url("/token"),
        "clientId": "c",
        "clientSecret": "s",
    });
    let inside = scene.subscribe("/inside", &["consent:*"]).await?.id;
    let asking = json!({ "types": ["consent:*"], "authorization": authorization });
    let asking = scene.subscribe_with("/asking", &asking).await?.id;
    let address = "http://169.254.169.254/latest/meta-data/";
    overwrite(&scene, &inside, "SET endpoint = :url", address).await?;
    overwrite(&scene, &asking, "SET #authorization.tokenUrl = :url", address).await?;
    let _clock = scene.ring_clock();
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let rows = scene.all_deliveries(2, "failed").await?;
    let outcome_of = |subscription: &str| {
        let row =
            rows.iter().find(|row| row["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with(subscription)));
        let attempts = row.context("no delivery")?["attempts"]["L"].as_array().context("no attempts")?;
        let outcomes: Vec<_> = attempts
            .iter()
            .map(|attempt| attempt["M"]["outcome"]["S"].as_str().unwrap_or_default())
            .collect();
        anyhow::Ok(outcomes.join(" "))
    };
    assert!(outcome_of(&inside)?.split(' ').all(|outcome| outcome == "blocked"), "{}", outcome_of(&inside)?);
    assert!(outcome_of(&asking)?.split(' ').all(|outcome| outcome == "token"), "{}", outcome_of(&asking)?);
    for path in ["/inside", "/asking", "/token"] {
        assert!(scene.receiver.received(path).is_empty(), "{path}");
    }
    scene.break_off().await
}

/// Nor are their owners asked for consent.
#[tokio::test]
async fn no_bad_url_is_asked_for_consent() -> Result<()> {
    let scene = Scene::set("asked-urls", &[]).await?;
    for verification in ["handshake", "challenge"] {
        let settings = json!({ "settings": { "verification": verification } });
        scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
        for (url, why) in bad_urls()?.into_iter().step_by(8) {
            refused_as_endpoint(&scene, &url, &why).await?;
        }
        let path = format!("/{verification}");
        let pending = scene.subscribe(&path, &["consent:*"]).await?.id;
        assert_eq!(scene.receiver.received(&path).len(), 1, "the first question");
        overwrite(&scene, &pending, "SET endpoint = :url", "http://169.254.169.254/").await?;
        let verify = format!("{SUBSCRIPTIONS}/{pending}/verify");
        let began = Instant::now();
        let shown = scene.carillon.post(&verify, "application/json", &json!({})).await?.expect_status(200)?;
        assert_eq!(shown.json()["status"], "pending", "{verification}: {}", shown.json());
        assert!(began.elapsed() < Duration::from_secs(5), "{verification}: no connection was tried");
        assert_eq!(scene.receiver.received(&path).len(), 1, "{verification}");
    }
    scene.end().await
}

/// What is no endpoint even here, and why.
fn bad_urls() -> Result<Vec<(String, String)>> {
    let rows: Vec<Value> =
        serde_json::from_slice(&fs::read(root().join("crates/sender/tests/bad_endpoints.json"))?)?;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = rows.iter().map(|row| (text(row, "url"), text(row, "why")));
    Ok(rows.filter(|(_, why)| !OPEN_HERE.iter().any(|open| why.starts_with(open))).collect())
}

async fn refused_as_endpoint(scene: &Scene, url: &str, why: &str) -> Result<()> {
    let endpoint = json!({ "endpoint": url, "subscriber": "tpp-1", "types": ["*"] });
    let refused = scene.carillon.post(SUBSCRIPTIONS, "application/json", &endpoint).await?;
    assert_eq!(refused.status, 400, "{url}, {why}: {}", refused.json());
    assert_eq!(problem(&refused, 400)["errors"][0]["pointer"], "/endpoint", "{url}, {why}");
    Ok(())
}

async fn overwrite(scene: &Scene, subscription: &str, expression: &str, url: &str) -> Result<()> {
    let mut update = json!({
        "TableName": scene.stack.output("ConfigTable"),
        "Key": { "pk": { "S": format!("WS#{WORKSPACE}") }, "sk": { "S": format!("SUB#{subscription}") } },
        "UpdateExpression": expression,
        "ConditionExpression": "attribute_exists(pk)",
        "ExpressionAttributeValues": { ":url": { "S": url } },
    });
    if expression.contains("#authorization") {
        update["ExpressionAttributeNames"] = json!({ "#authorization": "authorization" });
    }
    scene.stack.dynamodb("UpdateItem", update).await?;
    Ok(())
}
