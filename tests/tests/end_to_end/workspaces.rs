//! Workspaces: their settings, their event types, and their end.

use anyhow::{Context as _, Result};
use carillon_local::event;
use carillon_tests::{Scene, WORKSPACE, eventually, problem};
use serde_json::json;

const TYPES: &str = "/v1/workspaces/acme/event-types";

#[tokio::test]
async fn a_workspace_is_taken_apart_by_a_job() -> Result<()> {
    let scene = Scene::set("cascade", &[]).await?;
    for number in 0..5 {
        scene.subscribe(&format!("/inbox-{number}"), &["consent:*"]).await?;
    }
    let path = format!("/v1/workspaces/{WORKSPACE}");
    problem(&scene.carillon.delete(&path).await?, 409);
    let accepted = scene.carillon.delete(&format!("{path}?cascade=true")).await?.expect_status(202)?;
    let job = accepted.headers["location"].to_str()?.to_owned();
    let job = eventually("the job to be completed", || async {
        let job = scene.carillon.get(&job).await?.expect_status(200)?.json();
        Ok((job["status"] == "completed").then_some(job))
    })
    .await?;
    assert_eq!(job["done"], 5);
    problem(&scene.carillon.get(&path).await?, 404);
    let left = scene.rows("ConfigTable").await?;
    // Jobs can be asked for, and the audit is kept for a year.
    let stays = |row: &serde_json::Value| {
        let begins = |name: &str, prefix| row[name]["S"].as_str().is_some_and(|key| key.starts_with(prefix));
        begins("sk", "JOB#") || begins("pk", "AUDIT#")
    };
    assert!(left.iter().all(stays), "{left:?}");
    scene.end().await
}

#[tokio::test]
async fn event_types_are_the_workspaces_own() -> Result<()> {
    let scene = Scene::set("event-types", &[]).await?;
    let carillon = &scene.carillon;
    let listed = carillon.get(TYPES).await?.expect_status(200)?.json();
    let names: Vec<_> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|listed| listed["name"].as_str())
        .collect();
    assert!(names.contains(&"consent:approved") && names.contains(&"consent:created"), "{names:?}");
    assert!(!names.contains(&"entityCreated"), "that is another kind's");

    // A schema that rejects its own sample is refused.
    let mut ticket = json!({
        "description": "A ticket was bought",
        "schema": { "type": "object", "required": ["seat"], "properties": { "seat": { "type": "integer" } } },
        "sample": { "seat": "12" },
    });
    let path = format!("{TYPES}/ticket.bought");
    let refused = problem(&carillon.put(&path, &ticket).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "/sample/seat", "{refused}");
    ticket["sample"]["seat"] = json!(12);
    assert_eq!(carillon.put(&path, &ticket).await?.expect_status(201)?.json()["version"], 1);
    ticket["description"] = json!("A ticket was bought, at last");
    assert_eq!(carillon.put(&path, &ticket).await?.expect_status(200)?.json()["version"], 2);
    problem(&carillon.put(&format!("{TYPES}/consent:approved"), &ticket).await?, 409);

    // What a workspace does not have can be neither published nor subscribed to.
    let unknown = problem(&carillon.publish(WORKSPACE, &event("e-1", "ticket.lost", &json!({}))).await?, 400);
    assert_eq!(unknown["errors"][0]["pointer"], "/type");
    let body =
        json!({ "endpoint": scene.receiver.url("/inbox"), "subscriber": "tpp-1", "types": ["tickets.*"] });
    let subscriptions = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
    let unknown = problem(&carillon.post(&subscriptions, "application/json", &body).await?, 400);
    assert_eq!(unknown["errors"][0]["pointer"], "/types/0");

    // Data is checked, and the failing member named.
    eventually("the type to be known", || async {
        let reply =
            carillon.publish(WORKSPACE, &event("e-2", "ticket.bought", &json!({ "seat": 1 }))).await?;
        Ok((reply.status == 202).then_some(()))
    })
    .await?;
    let wrong = event("e-3", "ticket.bought", &json!({ "seat": "1" }));
    let refused = problem(&carillon.publish(WORKSPACE, &wrong).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "/data/seat", "{refused}");
    carillon.delete(&path).await?.expect_status(204)?;
    problem(&carillon.get(&path).await?, 404);
    scene.end().await
}

#[tokio::test]
async fn settings_are_changed_by_those_who_may() -> Result<()> {
    let scene = Scene::set("settings", &[]).await?;
    let path = format!("/v1/workspaces/{WORKSPACE}");
    let owner = scene.stack.client("owner", &["carillon/subscribe", "carillon/read"]).await?;
    scene.carillon.grant(WORKSPACE, &owner.client_id, &json!({ "role": "owner" })).await?;
    let owner =
        carillon_local::Carillon::new(scene.stack.api_url()).with_token(scene.stack.token(&owner).await?);
    let read = owner.get(&path).await?.expect_status(200)?;
    let etag = read.headers.get("etag").context("no etag")?.to_str()?.to_owned();
    owner
        .patch(&path, &json!({ "name": "Acme", "settings": { "httpsRequired": true } }))
        .await?
        .expect_status(200)?;
    problem(&owner.patch(&path, &json!({ "settings": { "httpsRequired": false } })).await?, 403);
    problem(&owner.patch(&path, &json!({ "settings": { "developerMode": true } })).await?, 403);
    let stale = [("if-match", etag.as_str()), ("content-type", "application/merge-patch+json")];
    problem(&owner.send("PATCH", &path, &stale, br#"{"name":"Lost"}"#.to_vec()).await?, 412);
    let loosened = json!({ "settings": { "httpsRequired": false } });
    scene.carillon.patch(&path, &loosened).await?.expect_status(200)?;
    problem(&owner.patch(&path, &json!({ "kind": "custom" })).await?, 400);
    problem(&owner.delete(&path).await?, 403);
    scene.end().await
}
