//! What comes while a subscription is paused waits, and comes later: all of it, once, the oldest first.

use anyhow::{Context as _, Result};
use carillon_local::event;
use carillon_tests::{PATIENCE, Scene, WORKSPACE, eventually, problem};
use serde_json::{Value, json};

const EVENTS: usize = 30;

/// How many deliveries `clock` releases as a page.
const RELEASE_PAGE: usize = 100;

async fn pause(scene: &Scene, subscription: &str, paused: bool) -> Result<Value> {
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{subscription}");
    let reply = scene.carillon.patch(&path, &json!({ "paused": paused })).await?.expect_status(200)?;
    Ok(reply.json())
}

#[tokio::test]
async fn what_a_paused_subscription_gets_comes_once_it_goes_on() -> Result<()> {
    let scene = Scene::set("pause", &[]).await?;
    let paused = scene.subscribe("/paused", &["consent:*"]).await?;
    scene.subscribe("/other", &["consent:*"]).await?;
    let shown = pause(&scene, &paused.id, true).await?;
    assert_eq!(
        (&shown["status"], &shown["paused"], &shown["enabled"]),
        (&json!("paused"), &json!(true), &json!(true))
    );

    for number in 0..EVENTS {
        scene.publish(&event(&format!("e-{number:02}"), "consent:created", &json!({}))).await?;
    }
    scene.received("/other", EVENTS).await?;
    let held = async || {
        let rows = scene.deliveries().await?;
        let held = rows.iter().filter(|row| row["held_by"]["S"] == "pause").count();
        Ok((held == EVENTS).then_some(rows))
    };
    let rows = eventually("all of its deliveries to be held", held).await?;
    let attempts = |row: &Value| row["attempts"]["L"].as_array().map(Vec::len);
    assert!(rows.iter().filter(|row| row["status"]["S"] == "held").all(|row| attempts(row) == Some(0)));
    // The clock knows that it is paused, and lets nothing go.
    scene.stack.invoke("clock", &json!({})).await?;
    assert_eq!(held().await?.context("still held")?.len(), 2 * EVENTS);
    assert!(scene.receiver.received("/paused").is_empty());

    // What waits goes where the subscription says now.
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", paused.id);
    let moved = json!({ "endpoint": scene.receiver.url("/moved"), "paused": false });
    scene.carillon.patch(&path, &moved).await?.expect_status(200)?;
    scene.receiver.trust("/moved", &paused.secret);
    let ringing = scene.ring_clock();
    let received = scene.received("/moved", EVENTS).await?;
    let rows = scene.all_deliveries(2 * EVENTS, "delivered").await?;
    drop(ringing);
    assert!(rows.iter().all(|row| attempts(row) == Some(1)), "no attempt was used up by the pause");
    let mut order: Vec<_> = received.iter().map(|request| request.json()["id"].to_string()).collect();
    let inversion = greatest_inversion(&order);
    assert!(inversion <= RELEASE_PAGE, "{inversion} came before an older one");
    order.sort_unstable();
    order.dedup();
    assert_eq!((order.len(), scene.receiver.received("/moved").len()), (EVENTS, EVENTS), "each came once");
    // Its note stays for a while, for what may be about to be held.
    scene.break_off().await
}

/// How many places the most displaced one is behind a later one.
fn greatest_inversion(order: &[String]) -> usize {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    let place = |id: &String| sorted.iter().position(|other| other == id).unwrap_or_default();
    order.iter().enumerate().map(|(at, id)| at.abs_diff(place(id))).max().unwrap_or_default()
}

#[tokio::test]
async fn pausing_and_resuming_at_any_moment_strands_nothing() -> Result<()> {
    let scene = Scene::set("pauses", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?;
    let ringing = scene.ring_clock();
    for number in 0..EVENTS {
        scene.publish(&event(&format!("e-{number}"), "consent:created", &json!({}))).await?;
        // Three events for each change, so that changes meet every step on their way.
        if number % 3 == 0 {
            pause(&scene, &subscription.id, number % 2 == 0).await?;
        }
    }
    pause(&scene, &subscription.id, false).await?;
    let received = scene.receiver.wait_for("/inbox", EVENTS, PATIENCE).await?;
    scene.all_deliveries(EVENTS, "delivered").await?;
    drop(ringing);
    let mut ids: Vec<_> = received.iter().map(|request| request.json()["id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), EVENTS);
    scene.break_off().await
}

#[tokio::test]
async fn changes_are_kept_with_who_made_them() -> Result<()> {
    let scene = Scene::set("audit", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?;
    pause(&scene, &subscription.id, true).await?;
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);
    scene.carillon.delete(&path).await?.expect_status(204)?;
    let audit = format!("/v1/workspaces/{WORKSPACE}/audit");
    let whole = scene.carillon.get(&audit).await?.expect_status(200)?.json();
    let entries = whole["items"].as_array().context("a list")?.clone();
    let told = |entry: &Value| (entry["action"].clone(), entry["changes"].clone());
    let of_it: Vec<_> =
        entries.iter().filter(|entry| entry["target"] == json!(subscription.id)).map(told).collect();
    let expected = [
        (json!("subscription.deleted"), json!([])),
        (json!("subscription.updated"), json!(["status"])),
        (json!("subscription.created"), json!([])),
    ];
    assert_eq!(of_it, expected, "the latest first");
    assert!(entries.iter().all(|entry| entry["by"] == "client" && entry["client"].is_string()));
    assert_eq!(entries.last().map(|entry| entry["action"].clone()), Some(json!("workspace.created")));

    // Page by page it is the same list.
    let mut paged = Vec::new();
    let mut next = format!("{audit}?limit=2");
    loop {
        let page = scene.carillon.get(&next).await?.expect_status(200)?.json();
        paged.extend(page["items"].as_array().context("a list")?.clone());
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("{audit}?limit=2&cursor={cursor}");
    }
    assert_eq!(paged, entries);
    let future = scene.carillon.get(&format!("{audit}?since=2100-01-01T00:00:00Z")).await?.json();
    assert_eq!(future["items"], json!([]));
    let wrong = problem(&scene.carillon.get(&format!("{audit}?until=soon")).await?, 400);
    assert_eq!(wrong["errors"][0]["pointer"], "query:until");
    scene.end().await
}
