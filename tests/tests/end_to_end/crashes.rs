//! Functions that end in the worst moment. Nothing is lost, and each delivery goes on as one chain of attempts.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use carillon_local::{Answer, Moment, Proxy, event, kill, process_behind};
use carillon_tests::{PATIENCE, Scene, WORKSPACE, eventually};
use serde_json::json;

/// Times that let a crash heal within seconds: what a dead function held comes back after the visibility timeout, and
/// what is 10 minutes (3 s here) overdue is found by the sweep.
const HURRY: [(&str, &str); 3] =
    [("RetryScale", "0.002"), ("DeliverTimeoutSeconds", "8"), ("QueueVisibilitySeconds", "8")];

#[tokio::test]
async fn killed_in_the_middle_of_a_batch() -> Result<()> {
    let scene = Scene::set("killed-batch", &HURRY).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    // Some deliveries of the batch succeed, then one finds a receiver that hangs.
    scene.receiver.answer(
        "/inbox",
        [Answer::status(204), Answer::status(204), Answer::status(204), Answer::hang(), Answer::status(204)],
    );
    let _clock = scene.ring_clock();
    let events = (0..10).map(|number| event(&format!("e-{number}"), "consent:created", &json!({})));
    scene.carillon.publish_batch(WORKSPACE, &events.collect::<Vec<_>>()).await?.expect_status(202)?;

    let hanging = scene.received("/inbox", 4).await?.swap_remove(3);
    kill(process_behind(hanging.peer).context("no process is behind the request")?)?;

    scene.all_deliveries(10, "delivered").await?;
    scene.quiet().await?;
    let mut attempts = BTreeMap::<String, usize>::new();
    for request in scene.receiver.received("/inbox") {
        *attempts.entry(request.json()["id"].to_string()).or_default() += 1;
    }
    assert_eq!(attempts.len(), 10, "every event arrived");
    assert!(attempts[&hanging.json()["id"].to_string()] > 1, "the one that was cut off was sent again");
    scene.end().await
}

#[tokio::test]
async fn killed_between_the_outcomes_write_and_the_next_tasks_send() -> Result<()> {
    killed_at_the_next_task("killed-before-send", Moment::Before).await
}

#[tokio::test]
async fn killed_between_the_next_tasks_send_and_the_answer() -> Result<()> {
    killed_at_the_next_task("killed-after-send", Moment::After).await
}

async fn killed_at_the_next_task(name: &str, moment: Moment) -> Result<()> {
    let scene = Scene::set(name, &HURRY).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "deliver").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.receiver.answer("/inbox", [Answer::status(500), Answer::status(204)]);
    let next_task = proxy.trap(moment, "SendMessage", "");
    let _clock = scene.ring_clock();

    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let held = next_task.sprung(PATIENCE).await?;
    let rows = scene.deliveries().await?;
    assert_eq!(rows.len(), 1, "the outcome is written before the next task is sent");
    assert_eq!(rows[0]["status"]["S"], "retrying");
    held.kill_sender()?;

    let received = scene.received("/inbox", 2).await?;
    assert_eq!(received[0].webhook_id(), received[1].webhook_id());
    let rows = scene.all_deliveries(1, "delivered").await?;
    assert_eq!(rows[0]["attempt"]["N"], "2");
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 2, "one live chain");
    scene.end().await
}

#[tokio::test]
async fn a_fan_out_killed_between_its_send_and_its_answer() -> Result<()> {
    let scene = Scene::set("killed-fanout", &HURRY).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "fanout").await?;
    scene.subscribe("/one", &["consent:*"]).await?;
    scene.subscribe("/two", &["consent:*"]).await?;
    let tasks = proxy.trap(Moment::After, "SendMessage", "");

    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let held = tasks.sprung(PATIENCE).await?;
    let tasks_again = proxy.trap(Moment::After, "SendMessage", "");
    held.kill_sender()?;
    // Nobody knows that the tasks were sent, so they are sent once more.
    drop(tasks_again.sprung(PATIENCE).await?);
    scene.received("/one", 1).await?;
    scene.received("/two", 1).await?;
    scene.all_deliveries(2, "delivered").await?;
    scene.end().await
}

/// A queue that does not answer: the fan-out tells in time what it did not finish, and is not ended by its time-out.
#[tokio::test]
async fn a_fan_out_that_runs_out_of_time_reports_its_checkpoint() -> Result<()> {
    let scene = Scene::set("checkpoint", &[("FanoutTimeoutSeconds", "3")]).await?;
    let proxy = Proxy::start(scene.stack.endpoint()).await?;
    proxy.stand_before(&scene.stack, "fanout").await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    let first = proxy.trap(Moment::Before, "SendMessage", "");
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let first = first.sprung(PATIENCE).await?;
    let began = scene.stack.processes("fanout");
    // Held for as long as the function may run: only then its record comes again.
    let second = proxy.trap(Moment::Before, "SendMessage", "");
    let second = second.sprung(PATIENCE).await?;
    assert_eq!(scene.stack.processes("fanout"), began, "the process that gave its answer in time lives on");
    first.lose();
    drop(second);
    scene.received("/inbox", 1).await?;
    scene.all_deliveries(1, "delivered").await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 1);
    scene.end().await
}

/// On AWS a run that takes long meets the next one.
#[tokio::test]
async fn two_clocks_at_once_share_the_work() -> Result<()> {
    const EVENTS: u64 = 60;
    let scene = Scene::set("clocks", &[("RetryScale", "0.2"), ("QueueDelaySeconds", "0")]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    let failures = (0..EVENTS).map(|_| Answer::status(500)).chain([Answer::status(204)]);
    scene.receiver.answer("/inbox", failures);
    let events = (0..EVENTS).map(|number| event(&format!("e-{number}"), "consent:created", &json!({})));
    scene.carillon.publish_batch(WORKSPACE, &events.collect::<Vec<_>>()).await?.expect_status(202)?;
    scene.received("/inbox", 60).await?;
    eventually("every retry to wait in the schedule", || async {
        Ok((scene.scheduled().await?.len() == 60).then_some(()))
    })
    .await?;

    let run = || async { scene.stack.invoke("clock", &json!({})).await };
    let (one, other) = tokio::try_join!(run(), run())?;
    let sent = |run: &serde_json::Value| run["due"].as_u64().unwrap_or_default();
    // The stack's own clock may have rung as well.
    assert!(sent(&one) + sent(&other) <= EVENTS, "each task is one run's alone: {one} {other}");
    scene.received("/inbox", 120).await?;
    scene.all_deliveries(60, "delivered").await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/inbox").len(), 120);
    scene.end().await
}
