//! What is told of a deployment's work: to receivers the trace of an event, to CloudWatch what the functions measure.

use std::collections::BTreeSet;

use anyhow::Result;
use carillon_local::event;
use carillon_tests::{Scene, WORKSPACE, eventually};
use serde_json::{Value, json};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// More than a task carries inline.
const LARGE_BYTES: usize = 60 * 1024;

fn parent(number: u8) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{number}-01")
}

async fn publish(scene: &Scene, headers: &[(&str, &str)], body: &Value) -> Result<()> {
    let path = format!("/v1/workspaces/{WORKSPACE}/events");
    scene.carillon.send("POST", &path, headers, serde_json::to_vec(body)?).await?.expect_status(202)?;
    Ok(())
}

#[tokio::test]
async fn receivers_are_told_the_trace_of_an_event() -> Result<()> {
    let scene = Scene::set("trace", &[("RetryScale", "0.00003")]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene
        .receiver
        .answer("/inbox", [carillon_local::Answer::status(500), carillon_local::Answer::status(200)]);
    let (by_request, own) = (parent(1), parent(2));
    let request = [("traceparent", by_request.as_str()), ("tracestate", "rojo=1, congo=2")];
    let with = |content_type| [("content-type", content_type), request[0], request[1]];

    publish(&scene, &with(STRUCTURED), &event("request", "consent:revoked", &json!({}))).await?;
    let received = scene.received("/inbox", 2).await?;
    for attempt in &received {
        assert_eq!(attempt.json()["id"], "request");
        assert_eq!(
            (attempt.header("traceparent"), attempt.header("tracestate")),
            (&*by_request, "rojo=1,congo=2")
        );
        assert!(attempt.json()["traceparent"].is_null(), "it is no part of the event");
    }

    let mut named = event("own", "consent:revoked", &json!({}));
    named["traceparent"] = json!(own);
    let large = event("large", "consent:revoked", &json!("x".repeat(LARGE_BYTES)));
    publish(&scene, &with(BATCH), &json!([named, large])).await?;
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "binary"),
        ("ce-source", "urn:example:bank"),
        ("ce-type", "consent:revoked"),
        ("ce-traceparent", &own),
        request[0],
    ];
    publish(&scene, &binary, &json!({})).await?;
    let nonsense = [("content-type", STRUCTURED), ("traceparent", "00-nonsense"), ("tracestate", "rojo=1")];
    publish(&scene, &nonsense, &event("nonsense", "consent:revoked", &json!({}))).await?;

    let received = scene.received("/inbox", 6).await?;
    let told: BTreeSet<_> = received[2..]
        .iter()
        .map(|request| (request.json()["id"].to_string(), request.header("traceparent").to_owned()))
        .collect();
    let expected = [("binary", &*own), ("large", &*by_request), ("nonsense", ""), ("own", &*own)];
    assert_eq!(told, expected.map(|(id, parent)| (json!(id).to_string(), parent.to_owned())).into());
    scene.all_deliveries(5, "delivered").await?;
    scene.end().await
}

#[tokio::test]
async fn what_a_run_measured_is_a_line_of_its_functions_log() -> Result<()> {
    let scene = Scene::set("measured", &[]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.publish(&event("e-1", "consent:revoked", &json!({}))).await?;
    scene.received("/inbox", 1).await?;
    scene.all_deliveries(1, "delivered").await?;
    for (function, members) in [
        ("publish", json!({ "EventsAccepted": 1, "BatchSize": [1] })),
        ("fanout", json!({ "EventsFannedOut": 1, "TasksSent": 1, "BatchSize": [1] })),
        ("deliver", json!({ "Outcome": "delivered", "Attempts": 1, "BatchSize": [1] })),
    ] {
        let name = scene.stack.function(function);
        let line = eventually(&format!("a line of {function}"), || async {
            let group = format!("/aws/lambda/{name}");
            let events = scene.aws.cli(&["logs", "filter-log-events", "--log-group-name", &group])?;
            let events: Value = serde_json::from_str(&events)?;
            let lines = events["events"].as_array().into_iter().flatten();
            let lines =
                lines.filter_map(|event| serde_json::from_str::<Value>(event["message"].as_str()?).ok());
            Ok(lines.into_iter().find(|line| line["_aws"].is_object()))
        })
        .await?;
        assert_eq!(line["FunctionName"], name);
        for (member, value) in members.as_object().into_iter().flatten() {
            assert_eq!(&line[member], value, "{member} of {function}");
        }
    }
    scene.end().await
}
