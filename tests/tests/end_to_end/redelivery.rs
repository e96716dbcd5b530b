//! Deliveries that are made again, or at last: one, many, what a subscription never got, and what was never fanned out.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use carillon_core::matching::CLOCK_SKEW;
use carillon_local::{ALL_SCOPES, Answer, Carillon, Moment, Proxy, Received, event};
use carillon_tests::{PATIENCE, Scene, WORKSPACE, eventually, problem};
use serde_json::{Value, json};
use tokio::time::sleep;

const JSON: &str = "application/json";
const BEFORE: &str = "2020-01-01T00:00:00Z";

/// What a dead function held comes back after the visibility timeout, and runs are short.
const HURRY: [(&str, &str); 2] = [("RedriveTimeoutSeconds", "6"), ("JobVisibilitySeconds", "6")];

#[tokio::test]
async fn one_that_failed_is_delivered_again_and_any_other_by_force() -> Result<()> {
    let scene = Scene::set("redeliver-one", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?.id;
    // Refused for good, at once.
    scene.receiver.answer("/inbox", [Answer::status(413), Answer::status(204)]);
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let failed = scene.received("/inbox", 1).await?.swap_remove(0);
    scene.all_deliveries(1, "failed").await?;
    let delivery = format!("{}/deliveries/{}", path(&subscription), failed.webhook_id());
    let redeliver = format!("{delivery}/redeliver");
    let post = async |body: &Value| scene.carillon.post(&redeliver, JSON, body).await;

    // Not for others, whatever they know.
    let other = scene.stack.client("other", &ALL_SCOPES[2..]).await?;
    let role = json!({ "role": "subscriber", "subscriber": "tpp-2" });
    scene.carillon.grant(WORKSPACE, &other.client_id, &role).await?;
    let other = Carillon::new(scene.stack.api_url()).with_token(scene.stack.token(&other).await?);
    problem(&other.post(&redeliver, JSON, &json!({})).await?, 404);

    let shown = scene.carillon.send("POST", &redeliver, &[], Vec::new()).await?.expect_status(202)?.json();
    assert_eq!((&shown["status"], &shown["id"]), (&json!("failed"), &json!(failed.webhook_id())), "{shown}");
    scene.received("/inbox", 2).await?;
    let row = scene.all_deliveries(1, "delivered").await?.swap_remove(0);
    assert_eq!((&row["round"]["N"], row["attempts"]["L"].as_array().map(Vec::len)), (&json!("2"), Some(2)));

    let refused = problem(&post(&json!({})).await?, 409);
    assert_eq!(
        (&refused["type"], &refused["detail"]),
        (&json!("/problems/delivery-not-failed"), &json!("It is delivered."))
    );
    post(&json!({ "force": true })).await?.expect_status(202)?;
    let received = scene.received("/inbox", 3).await?;
    assert!(received.iter().all(|request| request.webhook_id() == failed.webhook_id()));
    round(&scene, "3").await?;

    // Without a row it is pending, and its first task is sent again.
    scene.quiet().await?;
    delete_rows(&scene, &subscription).await?;
    let refused = problem(&post(&json!({})).await?, 409);
    assert_eq!(refused["detail"], "It is pending.");
    post(&json!({ "force": true })).await?.expect_status(202)?;
    scene.received("/inbox", 4).await?;
    round(&scene, "1").await?;

    scene.carillon.patch(&path(&subscription), &json!({ "enabled": false })).await?.expect_status(200)?;
    let refused = problem(&post(&json!({ "force": true })).await?, 409);
    assert_eq!(refused["type"], "/problems/subscription-not-active");
    problem(&scene.carillon.post(&format!("{delivery}0/redeliver"), JSON, &json!({})).await?, 404);
    scene.break_off().await
}

#[tokio::test]
async fn many_are_delivered_again_by_a_job() -> Result<()> {
    const COUNT: usize = 30;
    let scene = Scene::set("redeliver-many", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?.id;
    scene.receiver.answer("/inbox", [Answer::status(413)]);
    publish(&scene, 0..COUNT).await?;
    scene.all_deliveries(COUNT, "failed").await?;
    scene.receiver.answer("/inbox", [Answer::status(204)]);
    let redeliveries = format!("{}/redeliveries", path(&subscription));
    let post = async |body: Value| scene.carillon.post(&redeliveries, JSON, &body).await;

    let count = async |body: Value| Ok::<_, anyhow::Error>(post(body).await?.expect_status(200)?.json());
    let complete = |count: usize| json!({ "count": count, "complete": true });
    assert_eq!(count(json!({ "dryRun": true })).await?, complete(COUNT));
    let revoked = json!({ "dryRun": true, "eventTypes": ["consent:revoked"] });
    assert_eq!(count(revoked).await?, complete(COUNT / 2));
    assert_eq!(count(json!({ "dryRun": true, "until": BEFORE })).await?, complete(0));
    assert_eq!(count(json!({ "dryRun": true, "statuses": ["delivered"] })).await?, complete(0));
    let refused =
        problem(&post(json!({ "statuses": ["failed", "failed"], "since": "yesterday" })).await?, 400);
    assert_eq!(refused["errors"].as_array().map(Vec::len), Some(2), "{refused}");

    // Those of a type, then some by their ids, then the rest.
    let accepted = post(json!({ "eventTypes": ["consent:revoked"], "since": BEFORE })).await?;
    let by_type = scene.job_ended(&accepted).await?;
    assert_eq!((&by_type["kind"], &by_type["done"]), (&json!("redeliver"), &json!(COUNT / 2)), "{by_type}");
    assert_eq!((&by_type["status"], &by_type["looked"]), (&json!("completed"), &json!(COUNT)), "{by_type}");
    let created: BTreeSet<_> = scene
        .receiver
        .received("/inbox")
        .iter()
        .filter(|request| request.json()["type"] == "consent:created")
        .map(|request| request.webhook_id().to_owned())
        .collect();
    let some: Vec<_> = created.iter().take(3).collect();
    let by_ids = scene.job_ended(&post(json!({ "deliveries": some })).await?).await?;
    assert_eq!(by_ids["done"], 3, "{by_ids}");
    delivered(&scene, COUNT / 2 + 3).await?;
    let rest = scene.job_ended(&post(json!({})).await?).await?;
    assert_eq!(rest["done"], COUNT / 2 - 3, "{rest}");
    let rows = scene.all_deliveries(COUNT, "delivered").await?;
    assert!(rows.iter().all(|row| row["round"]["N"] == "2"), "each in its second round");
    assert_eq!(scene.receiver.received("/inbox").len(), 2 * COUNT);

    // What was delivered is delivered again only where that is asked for.
    let again = scene.job_ended(&post(json!({ "statuses": ["delivered"] })).await?).await?;
    assert_eq!(again["done"], COUNT, "{again}");
    scene.received("/inbox", 3 * COUNT).await?;

    // The list has the newest first, page by page, and nothing for others.
    let jobs = format!("/v1/workspaces/{WORKSPACE}/jobs");
    let mut listed = Vec::new();
    let mut query = String::new();
    loop {
        let page = scene.carillon.get(&format!("{jobs}?limit=1{query}")).await?.expect_status(200)?.json();
        listed.extend(page["items"].as_array().into_iter().flatten().map(|job| job["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("&cursor={next}");
    }
    assert_eq!(listed, [&again, &rest, &by_ids, &by_type].map(|job| job["id"].clone()));
    let ended = format!("{jobs}/{}", again["id"].as_str().unwrap_or_default());
    let refused = problem(&scene.carillon.post(&format!("{ended}/cancel"), JSON, &json!({})).await?, 409);
    assert_eq!(refused["type"], "/problems/job-not-cancellable");
    let other = scene.stack.client("other", &["carillon/read", "carillon/subscribe"]).await?;
    let role = json!({ "role": "subscriber", "subscriber": "tpp-2" });
    scene.carillon.grant(WORKSPACE, &other.client_id, &role).await?;
    let other = Carillon::new(scene.stack.api_url()).with_token(scene.stack.token(&other).await?);
    assert_eq!(other.get(&jobs).await?.expect_status(200)?.json()["items"], json!([]));
    problem(&other.get(&ended).await?, 404);
    problem(&other.post(&format!("{ended}/cancel"), JSON, &json!({})).await?, 404);
    problem(&other.post(&redeliveries, JSON, &json!({ "dryRun": true })).await?, 404);
    scene.break_off().await
}

/// The page is sent, and the function dies before it writes where to go on.
#[tokio::test]
async fn a_redelivery_that_is_killed_half_way_misses_nothing() -> Result<()> {
    // More than a page.
    const COUNT: usize = 130;
    let scene = Scene::set("redeliver-killed", &HURRY).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "redrive").await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?.id;
    scene.receiver.answer("/inbox", [Answer::status(413)]);
    publish(&scene, 0..COUNT).await?;
    scene.all_deliveries(COUNT, "failed").await?;
    scene.receiver.answer("/inbox", [Answer::status(204)]);
    let written = proxy.trap(Moment::Before, "PutItem", "JOB#");
    let redeliveries = format!("{}/redeliveries", path(&subscription));
    let accepted = scene.carillon.post(&redeliveries, JSON, &json!({})).await?;
    written.sprung(PATIENCE).await?.kill_sender()?;

    let job = scene.job_ended(&accepted).await?;
    assert_eq!(job["status"], "completed", "{job}");
    let rows = scene.all_deliveries(COUNT, "delivered").await?;
    let attempts = |row: &Value| row["attempts"]["L"].as_array().map_or(0, Vec::len);
    assert!(rows.iter().all(|row| row["round"]["N"] == "2" && attempts(row) == 2), "one new round of each");
    scene.break_off().await
}

#[tokio::test]
async fn a_replay_brings_what_a_subscription_never_got_and_can_be_cancelled() -> Result<()> {
    const COUNT: usize = 70;
    // A page of fifty takes five seconds.
    let scene = Scene::set("replay-since", &[("RedriveTasksPerSecond", "10")]).await?;
    scene.subscribe("/old", &["consent:*"]).await?;
    publish(&scene, 0..COUNT).await?;
    scene.received("/old", COUNT).await?;
    scene.all_deliveries(COUNT, "delivered").await?;
    // It asks for half of the types, and for a part of those by its filter.
    let body = json!({
        "types": ["consent:created"],
        "filter": { "pattern": { "data": { "number": [{ "numeric": ["<", 20] }] } } },
    });
    let few = scene.subscribe_with("/few", &body).await?.id;
    let all = scene.subscribe("/all", &["*"]).await?.id;
    let replay = async |subscription: &str, body: Value| {
        scene.carillon.post(&format!("{}/replays", path(subscription)), JSON, &body).await
    };
    let counted = replay(&few, json!({ "since": BEFORE, "dryRun": true })).await?.expect_status(200)?.json();
    assert_eq!(counted, json!({ "count": 10, "complete": true }));

    let accepted = replay(&all, json!({ "since": BEFORE })).await?;
    scene.received("/all", 50).await?;
    let job = job_path(&accepted)?;
    let cancelled = scene.carillon.post(&format!("{job}/cancel"), JSON, &json!({})).await?;
    assert_eq!(cancelled.expect_status(200)?.json()["status"], "cancelled");
    let again = scene.carillon.post(&format!("{job}/cancel"), JSON, &json!({})).await?;
    assert_eq!(again.expect_status(200)?.json()["status"], "cancelled", "as it was");

    // Meanwhile another job ran; the rest is what was never got.
    let done = scene.job_ended(&replay(&few, json!({ "since": BEFORE })).await?).await?;
    assert_eq!((&done["kind"], &done["done"]), (&json!("replay"), &json!(10)), "{done}");
    scene.received("/few", 10).await?;
    let rest = scene.job_ended(&replay(&all, json!({ "since": BEFORE })).await?).await?;
    assert_eq!((&rest["done"], &rest["looked"]), (&json!(COUNT - 50), &json!(COUNT)), "{rest}");
    let received = scene.received("/all", COUNT).await?;
    let events: BTreeSet<_> = received.iter().map(Received::webhook_id).collect();
    assert_eq!(events.len(), COUNT);
    scene.all_deliveries(2 * COUNT + 10, "delivered").await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/all").len(), COUNT, "none twice");
    scene.end().await
}

#[tokio::test]
async fn what_was_never_fanned_out_is_fanned_out_again() -> Result<()> {
    let scene = Scene::set("fan-out-again", &[]).await?;
    let lost = scene.subscribe("/lost", &["consent:*"]).await?.id;
    scene.subscribe("/kept", &["consent:*"]).await?;
    publish(&scene, 0..5).await?;
    scene.all_deliveries(10, "delivered").await?;
    scene.quiet().await?;
    // As if fan-out had given up on it.
    delete_rows(&scene, &lost).await?;
    // One that is made sooner may have been there before the events, by another clock.
    sleep(CLOCK_SKEW).await;
    scene.subscribe("/later", &["consent:*"]).await?;

    let fanouts = format!("/v1/workspaces/{WORKSPACE}/fanouts");
    let span = json!({ "since": BEFORE, "until": "2100-01-01T00:00:00Z" });
    let owner = scene.stack.client("owner", &["carillon/subscribe", "carillon/read"]).await?;
    scene.carillon.grant(WORKSPACE, &owner.client_id, &json!({ "role": "owner" })).await?;
    let owner = Carillon::new(scene.stack.api_url()).with_token(scene.stack.token(&owner).await?);
    problem(&owner.post(&fanouts, JSON, &span).await?, 403);
    let accepted = scene.carillon.post(&fanouts, JSON, &span).await?;
    let job = scene.job_ended(&accepted).await?;
    assert_eq!((&job["kind"], &job["done"]), (&json!("fanOut"), &json!(5)), "{job}");
    problem(&owner.get(&job_path(&accepted)?).await?, 404);
    scene.received("/lost", 10).await?;
    scene.all_deliveries(10, "delivered").await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/kept").len(), 5, "what was delivered is not delivered again");
    assert!(
        scene.receiver.received("/later").is_empty(),
        "what was accepted before it is none of its concern"
    );
    scene.end().await
}

/// Events of two types, in turn.
async fn publish(scene: &Scene, numbers: std::ops::Range<usize>) -> Result<()> {
    let of = |number: usize| {
        let kind = if number.is_multiple_of(2) { "consent:created" } else { "consent:revoked" };
        event(&format!("e-{number}"), kind, &json!({ "number": number }))
    };
    for events in numbers.map(of).collect::<Vec<_>>().chunks(100) {
        scene.carillon.publish_batch(WORKSPACE, events).await?.expect_status(202)?;
    }
    Ok(())
}

fn path(subscription: &str) -> String {
    format!("/v1/workspaces/{WORKSPACE}/subscriptions/{subscription}")
}

fn job_path(accepted: &carillon_local::Reply) -> Result<String> {
    Ok(accepted.headers.get("location").context("no location")?.to_str()?.to_owned())
}

/// Waits until the only delivery was made in this round.
async fn round(scene: &Scene, round: &str) -> Result<()> {
    eventually(&format!("round {round} to be delivered"), || async {
        let rows = scene.deliveries().await?;
        let is_done =
            rows.len() == 1 && rows[0]["round"]["N"] == round && rows[0]["status"]["S"] == "delivered";
        Ok(is_done.then_some(()))
    })
    .await
}

async fn delivered(scene: &Scene, count: usize) -> Result<()> {
    eventually(&format!("{count} to be delivered"), || async {
        let rows = scene.deliveries().await?;
        Ok((rows.iter().filter(|row| row["status"]["S"] == "delivered").count() == count).then_some(()))
    })
    .await
}

/// Deletes the rows of a subscription's deliveries.
async fn delete_rows(scene: &Scene, subscription: &str) -> Result<()> {
    let of_subscription =
        |row: &Value| row["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with(subscription));
    for row in scene.deliveries().await?.into_iter().filter(of_subscription) {
        let key = json!({ "pk": row["pk"], "sk": row["sk"] });
        let input = json!({ "TableName": scene.stack.output("DeliveriesTable"), "Key": key });
        scene.stack.dynamodb("DeleteItem", input).await?;
    }
    Ok(())
}
