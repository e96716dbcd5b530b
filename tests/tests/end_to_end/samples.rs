//! The sample invocations of `events/`, as the README has people try them.

use anyhow::{Context as _, Result};
use carillon_local::FUNCTIONS;
use carillon_tests::payloads::samples;
use carillon_tests::{Scene, WORKSPACE};
use serde_json::json;

#[tokio::test]
async fn each_function_takes_its_samples() -> Result<()> {
    let scene = Scene::set("samples", &[]).await?;
    let samples = samples(scene.carillon.token())?;
    for function in FUNCTIONS {
        assert!(samples.iter().any(|(of, ..)| of == function), "{function} has no sample");
    }
    let path = format!("/v1/workspaces/{WORKSPACE}/inboxes");
    let inbox = scene.carillon.post(&path, "application/json", &json!({})).await?.expect_status(201)?.json();
    let token = inbox["url"].as_str().and_then(|url| url.rsplit('/').next()).context("an inbox has a URL")?;
    for (function, file, mut payload) in samples {
        if function == "inbox" {
            payload["pathParameters"]["token"] = json!(token);
        }
        let answer = scene.stack.invoke(&function, &payload).await?;
        // The HTTP API's functions tell a status, those of queues and streams what failed.
        assert!(answer["statusCode"].as_u64().is_none_or(|status| status < 300), "{file}: {answer}");
        assert!(answer["batchItemFailures"].as_array().is_none_or(Vec::is_empty), "{file}: {answer}");
    }
    // One of them subscribes an endpoint that is not there.
    scene.break_off().await
}
