//! The sample invocations of `events/`, as the README has people try them.

use anyhow::Result;
use carillon_local::FUNCTIONS;
use carillon_tests::Scene;
use carillon_tests::payloads::samples;

#[tokio::test]
async fn each_function_takes_its_samples() -> Result<()> {
    let scene = Scene::set("samples", &[]).await?;
    let samples = samples(scene.carillon.token())?;
    for function in FUNCTIONS {
        assert!(samples.iter().any(|(of, ..)| of == function), "{function} has no sample");
    }
    for (function, file, payload) in samples {
        let answer = scene.stack.invoke(&function, &payload).await?;
        // The HTTP API's functions tell a status, those of queues and streams what failed.
        assert!(answer["statusCode"].as_u64().is_none_or(|status| status < 300), "{file}: {answer}");
        assert!(answer["batchItemFailures"].as_array().is_none_or(Vec::is_empty), "{file}: {answer}");
    }
    // One of them subscribes an endpoint that is not there.
    scene.break_off().await
}
