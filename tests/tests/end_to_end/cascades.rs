//! One change in a directory that brings others.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use carillon_aws::now;
use carillon_catalogue::builtin_type;
use carillon_core::workspace::WorkspaceKind;
use carillon_local::event;
use carillon_tests::{SUBSCRIBER, Scene, problem, revisions::revisions};
use serde_json::{Value, json};

const WORKSPACE: &str = "directory";
const SUSPENDED: &str = "softwareStatement.suspended";
const STATEMENT: &str = "81b9a364-05ba-4030-ac21-75a46d3fcdb3";

/// The suspension of an application with so many certificates and keys.
fn suspension(id: &str, certificates: usize, keys: usize) -> Result<Value> {
    let definition =
        builtin_type(WorkspaceKind::Directory, &SUSPENDED.parse()?).context("no type of the catalogue")?;
    let mut data = definition.sample.clone();
    let statement = &mut data["resourcePayload"]["softwareStatements"][STATEMENT];
    for (list, key, count) in [
        ("softwareStatementCertificates", "certificateId", certificates),
        ("softwareStatementKeys", "keyId", keys),
    ] {
        let model = statement[list][0].clone();
        let one = |number: usize| {
            let mut one = model.clone();
            one[key] = json!(format!("{key}-{number}"));
            one
        };
        statement[list] = (0..count).map(one).collect();
    }
    Ok(event(id, SUSPENDED, &data))
}

async fn publish(scene: &Scene, event: &Value) -> Result<carillon_local::Reply> {
    scene.carillon.publish(WORKSPACE, event).await
}

#[tokio::test]
async fn a_suspension_brings_others() -> Result<()> {
    let scene = Scene::set("cascades", &[]).await?;
    scene.carillon.own_workspace(WORKSPACE, "directory").await?;
    for (path, format) in [("/resources", "resource"), ("/events", "cloudEvents")] {
        let body = json!({
            "subscriber": SUBSCRIBER, "endpoint": scene.receiver.url(path), "types": ["softwareStatement.*", "softwareStatementCertificate.*", "softwareStatementKey.*"], "format": format,
        });
        let made = scene.carillon.subscribe_with(WORKSPACE, &body).await?;
        scene.receiver.trust(path, &made.secret);
    }
    let suspension = suspension("suspension-1", 2, 1)?;
    publish(&scene, &suspension).await?.expect_status(202)?;
    let resources: Vec<_> =
        scene.received("/resources", 4).await?.iter().map(carillon_local::Received::json).collect();
    for resource in &resources {
        let fields: Vec<_> = resource.as_object().context("an object")?.keys().map(String::as_str).collect();
        assert_eq!(fields, ["apiResource", "resourcePayload", "revision", "updateTimestamp"]);
    }
    let application = suspension["data"]["apiResource"].as_str().context("a text")?;
    let of = |tail: &str| format!("{application}{tail}");
    let named: BTreeSet<_> = resources
        .iter()
        .map(|resource| resource["apiResource"].as_str().unwrap_or_default().to_owned())
        .collect();
    let expected = ["", "/certificates/certificateId-0", "/certificates/certificateId-1", "/keys/keyId-0"];
    assert_eq!(named, expected.map(of).into());
    let numbers: BTreeSet<_> =
        resources.iter().filter_map(|resource| resource["revision"].as_u64()).collect();
    assert_eq!(numbers, (1..=4).collect());
    let key = resources
        .iter()
        .find(|resource| resource["apiResource"] == of("/keys/keyId-0"))
        .context("the key")?;
    let statement = &key["resourcePayload"]["softwareStatements"][STATEMENT];
    assert_eq!(statement.as_object().map(serde_json::Map::len), Some(1), "the key alone: {statement}");
    assert_eq!(statement["softwareStatementKeys"][0]["keyId"], "keyId-0");

    let events: Vec<_> =
        scene.received("/events", 4).await?.iter().map(carillon_local::Received::json).collect();
    for event in events.iter().filter(|event| event["type"] != SUSPENDED) {
        assert_eq!(
            (&event["causationid"], &event["source"]),
            (&json!("suspension-1"), &suspension["source"])
        );
    }

    // Told again, and fanned out again, it brings nothing new.
    publish(&scene, &suspension).await?.expect_status(202)?;
    let job = json!({ "since": "2026-01-01T00:00:00Z", "until": now().to_string() });
    let path = format!("/v1/workspaces/{WORKSPACE}/fanouts");
    let begun = scene.carillon.post(&path, "application/json", &job).await?;
    scene.job_ended(&begun).await?;
    scene.quiet().await?;
    assert_eq!(revisions(&scene.rows("EventsTable").await?, WORKSPACE)?.len(), 4);
    assert_eq!(scene.receiver.received("/events").len(), 4);

    // The order of the list makes no difference to which event is which.
    let too_many = suspension_pointers(&scene, 250, 251).await?;
    assert_eq!(too_many, ["/data"]);
    publish(&scene, &self::suspension("suspension-2", 250, 250)?).await?.expect_status(202)?;
    scene.receiver.wait_for("/events", 4 + 501, carillon_tests::PATIENCE).await?;
    assert_eq!(revisions(&scene.rows("EventsTable").await?, WORKSPACE)?.len(), 4 + 501);
    scene.break_off().await
}

/// Where a suspension is wrong.
async fn suspension_pointers(scene: &Scene, certificates: usize, keys: usize) -> Result<Vec<String>> {
    let refused = problem(&publish(scene, &suspension("suspension-0", certificates, keys)?).await?, 400);
    let errors = refused["errors"].as_array().context("fields")?.iter();
    Ok(errors.map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect())
}
