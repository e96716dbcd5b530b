//! Receivers that hang, come back, are gone, fail for days, or want few requests at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{Answer, event};
use carillon_tests::{PATIENCE, SUBSCRIBER, Scene, WORKSPACE, eventually};
use serde_json::{Value, json};

/// An hour of waiting passes in 36 seconds.
const HURRY: (&str, &str) = ("RetryScale", "0.01");

/// Five days without success pass in 4.3 seconds.
const DAYS_IN_SECONDS: (&str, &str) = ("RetryScale", "0.00001");

#[tokio::test]
async fn an_open_circuit_holds_deliveries_until_a_trial_is_answered() -> Result<()> {
    let scene = Scene::set("circuit", &[HURRY]).await?;
    scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"], "timeoutSeconds": 1 })).await?;
    scene.receiver.answer("/inbox", [Answer::hang()]);
    publish(&scene, 0..5).await?;
    state(&scene, "the circuit to open", |state| !state["health"]["M"]["circuit"].is_null()).await?;
    publish(&scene, 5..25).await?;
    let held = eventually("what came after to be held", || async {
        let rows = scene.deliveries().await?;
        let held: Vec<_> = rows.into_iter().filter(|row| row["status"]["S"] == "held").collect();
        Ok((held.len() >= 18).then_some(held))
    })
    .await?;
    assert!(held.iter().all(|row| row["held_by"]["S"] == "circuit"), "{held:?}");

    scene.receiver.answer("/inbox", [Answer::status(204)]);
    let _clock = scene.ring_clock();
    let rows = scene.all_deliveries(25, "delivered").await?;
    let attempts: Vec<_> =
        rows.iter().map(|row| row["attempts"]["L"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(attempts.iter().sum::<usize>(), scene.receiver.received("/inbox").len(), "{attempts:?}");
    let first = attempts.iter().filter(|attempts| **attempts == 1).count();
    assert!(first >= 18, "what is held uses up no attempt, but for trials: {attempts:?}");
    notes_gone(&scene).await?;
    scene.end().await
}

#[tokio::test]
async fn an_attempt_that_waits_too_long_is_begun_anew_in_the_slow_lane() -> Result<()> {
    let scene = Scene::set("handed-over", &[]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(204).after(Duration::from_secs(4))]);
    publish(&scene, 0..1).await?;
    let rows = scene.all_deliveries(1, "delivered").await?;
    let attempts = rows[0]["attempts"]["L"].as_array().context("it has attempts")?;
    assert_eq!(attempts.len(), 1, "what is handed over is no attempt");
    let received = scene.receiver.received("/inbox");
    assert_eq!(received.len(), 2, "the slow lane begins anew");
    assert_eq!(received[0].webhook_id(), received[1].webhook_id());
    scene.end().await
}

#[tokio::test]
async fn a_rate_spreads_deliveries_and_uses_up_no_attempts() -> Result<()> {
    const COUNT: usize = 60;
    let scene = Scene::set("rate", &[]).await?;
    scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"], "ratePerMinute": 600 })).await?;
    publish(&scene, 0..COUNT).await?;
    let rows = scene.all_deliveries(COUNT, "delivered").await?;
    assert!(rows.iter().all(|row| row["attempts"]["L"].as_array().map(Vec::len) == Some(1)));
    let received = scene.received("/inbox", COUNT).await?;
    let mut times: Vec<_> = received.iter().map(|request| request.at).collect();
    times.sort_unstable();
    for pair in times.windows(21) {
        let took = pair[20].duration_since(pair[0]);
        assert!(took >= Duration::from_millis(1250), "21 deliveries within {took:?}, at 600 a minute");
    }
    scene.end().await
}

#[tokio::test]
async fn what_no_slot_is_left_for_is_held() -> Result<()> {
    let scene = Scene::set("rate-held", &[]).await?;
    scene.subscribe_with("/inbox", &json!({ "types": ["consent:*"], "ratePerMinute": 2 })).await?;
    // In batches, as fan-out and queue make them of events at once.
    publish(&scene, 0..60).await?;
    let held = eventually("what has no slot to be held", || async {
        let rows = scene.deliveries().await?;
        let held: Vec<_> = rows.into_iter().filter(|row| row["status"]["S"] == "held").collect();
        Ok((held.len() >= 20).then_some(held))
    })
    .await?;
    assert!(held.iter().all(|row| row["held_by"]["S"] == "rate"), "{held:?}");
    assert!(scene.receiver.received("/inbox").len() <= 2, "two a minute");
    scene.break_off().await
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_asked_no_more_and_its_subscriber_is_told() -> Result<()> {
    let scene = Scene::set("gone", &[]).await?;
    let gone = scene.subscribe("/gone", &["*"]).await?;
    scene.subscribe("/news", &["carillon.*"]).await?;
    scene.subscribe_with("/others", &json!({ "types": ["carillon.*"], "subscriber": "tpp-2" })).await?;
    scene.receiver.answer("/gone", [Answer::status(410)]);
    publish(&scene, 0..1).await?;

    let news = scene.received("/news", 2).await?;
    let told: BTreeSet<_> =
        news.iter().map(|news| news.json()["type"].as_str().unwrap_or("").to_owned()).collect();
    let expected = ["carillon.delivery.exhausted", "carillon.subscription.disabled"].map(str::to_owned);
    assert_eq!(told, BTreeSet::from(expected));
    for news in &news {
        let news = news.json();
        assert_eq!(
            (&news["subject"], &news["data"]["subscription"]),
            (&json!(gone.id), &json!(gone.id)),
            "{news}"
        );
    }
    let shown = subscription(&scene, &gone.id).await?;
    assert_eq!((&shown["status"], &shown["statusReason"]), (&json!("disabled"), &json!("gone")), "{shown}");

    // Its next delivery is kept as failed, and nothing is sent.
    eventually("the change to hold", || async {
        let before = scene.receiver.received("/gone").len();
        publish(&scene, before..=before).await?;
        scene.quiet().await?;
        let rows = scene.deliveries().await?;
        Ok(rows.iter().any(|row| row["reason"]["S"] == "disabled").then_some(()))
    })
    .await?;
    assert!(scene.receiver.received("/others").is_empty(), "nobody hears of what is another's");
    assert!(
        scene.receiver.received("/gone").iter().all(|request| request.json()["type"] == "consent:created"),
        "no news are about themselves, and `*` asks for none"
    );
    scene.break_off().await
}

#[tokio::test]
async fn a_subscriber_is_told_that_a_delivery_fails_and_that_all_is_well_again() -> Result<()> {
    let scene = Scene::set("failing", &[("RetryScale", "0.001")]).await?;
    let failing = scene.subscribe("/failing", &["consent:*"]).await?;
    scene.subscribe("/news", &["carillon.delivery.failing", "carillon.subscription.*"]).await?;
    scene.receiver.answer(
        "/failing",
        [
            Answer::status(500).json(&json!({ "oops": true })),
            Answer::status(500),
            Answer::status(500),
            Answer::status(204),
        ],
    );
    let _clock = scene.ring_clock();
    publish(&scene, 0..1).await?;
    let news = scene.received("/news", 2).await?;
    let [fails, recovered] = [news[0].json(), news[1].json()];
    assert_eq!(fails["type"], "carillon.delivery.failing", "{fails}");
    assert_eq!(fails["data"]["attempts"], 3, "{fails}");
    assert_eq!(fails["data"]["event"]["id"], "e-0", "{fails}");
    assert_eq!(recovered["type"], "carillon.subscription.recovered", "{recovered}");
    assert_eq!(recovered["data"]["subscription"], json!(failing.id), "{recovered}");

    let rows = eventually("the delivery to end", || async {
        let rows = scene.deliveries().await?;
        let ended = rows.iter().filter(|row| row["status"]["S"] == "delivered").count();
        Ok((ended == 3).then_some(rows))
    })
    .await?;
    let first = |row: &Value| row["attempts"]["L"][0]["M"].clone();
    let refused =
        rows.iter().map(first).find(|attempt| attempt["status"]["N"] == "500").context("it was refused")?;
    assert_eq!(refused["response"]["S"], r#"{"oops":true}"#);
    scene.end().await
}

#[tokio::test]
async fn a_receiver_that_fails_for_five_days_is_given_up_until_its_owner_says_otherwise() -> Result<()> {
    let scene = Scene::set("hopeless", &[DAYS_IN_SECONDS]).await?;
    let body = json!({ "types": ["consent:*"], "retryPolicy": { "waitsSeconds": [] } });
    let hopeless = scene.subscribe_with("/inbox", &body).await?;
    scene.receiver.answer("/inbox", [Answer::status(500)]);
    let mut number = 0;
    let shown = eventually("the subscription to be disabled", || {
        number += 1;
        let scene = &scene;
        let id = &hopeless.id;
        async move {
            publish(scene, number..=number).await?;
            // Attempted, or kept as failed once the subscription is disabled: either way there is a row of it.
            eventually("the delivery's row", || async {
                Ok((scene.deliveries().await?.len() == number).then_some(()))
            })
            .await?;
            let shown = subscription(scene, id).await?;
            Ok((shown["status"] == "disabled").then_some(shown))
        }
    })
    .await?;
    assert_eq!(shown["statusReason"], "failing", "{shown}");
    assert!(number >= 8, "it was given up after {number} deliveries, in no five days");

    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", hopeless.id);
    scene.carillon.patch(&path, &json!({ "enabled": true })).await?.expect_status(200)?;
    let before = scene.receiver.received("/inbox").len();
    publish(&scene, 1000..1002).await?;
    scene.receiver.wait_for("/inbox", before + 2, PATIENCE).await?;
    scene.quiet().await?;
    assert_eq!(subscription(&scene, &hopeless.id).await?["status"], "active", "it begins anew");
    scene.break_off().await
}

async fn publish(scene: &Scene, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
    let of = |number| {
        let mut event = event(&format!("e-{number}"), "consent:created", &json!({ "number": number }));
        event["audience"] = json!(SUBSCRIBER);
        event
    };
    let events: Vec<_> = numbers.into_iter().map(of).collect();
    scene.carillon.publish_batch(WORKSPACE, &events).await?.expect_status(202)?;
    Ok(())
}

async fn subscription(scene: &Scene, id: &str) -> Result<Value> {
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{id}");
    Ok(scene.carillon.get(&path).await?.expect_status(200)?.json())
}

async fn state(scene: &Scene, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    eventually(what, || async {
        let rows = scene.rows("DeliveriesTable").await?;
        Ok(rows.iter().any(|row| row["sk"]["S"] == "state" && is_so(row)).then_some(()))
    })
    .await
}

/// Waits until the clock forgets that anything was held.
async fn notes_gone(scene: &Scene) -> Result<()> {
    eventually("the notes of what was held to go", || async {
        let rows = scene.rows("ScheduleTable").await?;
        let noted = rows.iter().any(|row| row["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with("held#")));
        Ok((!noted).then_some(()))
    })
    .await
}
