//! 003: event notifications as ServicePower has them: a subscriber registers its webhook, its token service and the
//! credentials for that; each notification brings a bearer token, and each answer is taken as the CloudEvents webhook
//! delivery response.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use carillon_core::time::UnixMillis;
use carillon_local::{Answer, event};
use carillon_tests::story::Story;
use carillon_tests::{Scene, eventually};
use serde_json::{Value, json};

use crate::interop::receivers::Receivers;

const STORY: Story = Story::of("003 ServicePower");

/// A tenant, with an event type of its own.
const TENANT: &str = "field-service";
const SUBSCRIPTIONS: &str = "/v1/workspaces/field-service/subscriptions";
const TYPE: &str = "job.statusChanged";
const JSON: &str = "application/json";

/// The wait that a receiver asks for, which is longer than that of the retry policy.
const RETRY_AFTER_SECONDS: u64 = 3;

async fn tenant(name: &str) -> Result<Scene> {
    let scene = Scene::set(name, &[]).await?;
    scene.carillon.own_workspace(TENANT, "custom").await?;
    let definition = json!({
        "description": "The status of a job has changed.",
        "schema": { "type": "object", "required": ["jobId", "status"] },
        "sample": { "jobId": "J-1", "status": "ACCEPTED" },
    });
    let path = format!("/v1/workspaces/{TENANT}/event-types/{TYPE}");
    scene.carillon.put(&path, &definition).await?.expect_status(201)?;
    Ok(scene)
}

/// A job's status changes; the event's id is answered.
async fn notify(scene: &Scene, id: &str) -> Result<String> {
    let happened = event(id, TYPE, &json!({ "jobId": "J-1", "status": "COMPLETED" }));
    let published = scene.carillon.publish(TENANT, &happened).await?.expect_status(202)?.json();
    Ok(published["eventId"].as_str().context("there is no id")?.to_owned())
}

#[tokio::test]
async fn each_notification_brings_a_token_of_the_subscribers_own_service() -> Result<()> {
    let scene = tenant("seed-003").await?;
    // The service of one subscriber is Authlib's, and takes forms; that of another one takes JSON.
    let receivers = Receivers::start().await?;
    let client = json!({
        "id": "event-notification-service",
        "secret": "form-secret",
        "authentication": "client_secret_post",
        "scope": "notifications",
    });
    receivers.add_client(&client).await?;
    let by_form = registered(&scene, &receivers.inbox("form"), &receivers.token_url(), "form").await?;
    let demanded =
        json!({ "format": "cloudEvents", "secrets": [by_form["signingSecret"]], "scope": "notifications" });
    receivers.demand("form", &demanded).await?;

    let (webhook, token_url) = (scene.receiver.url("/webhook"), scene.receiver.url("/token"));
    let token =
        json!({ "access_token": "token-of-a-custom-service", "token_type": "Bearer", "expires_in": 3600 });
    scene.receiver.answer("/token", [Answer::status(200).json(&token)]);
    let by_json = registered(&scene, &webhook, &token_url, "json").await?;
    scene.receiver.trust("/webhook", by_json["signingSecret"].as_str().context("there is no secret")?);

    notify(&scene, "n-1").await?;
    let told = receivers.accepted("form", 1).await?.swap_remove(0);
    assert_eq!((&told["event"]["id"], &told["event"]["type"]), (&json!("n-1"), &json!(TYPE)));
    let answers = receivers.token_answers().await?;
    assert_eq!((&answers[0]["status"], &answers[0]["scope"]), (&json!(200), &json!("notifications")));
    STORY.tells(
        "Bearer authentication, by the OAuth 2.0 Client Credentials Flow",
        "Authlib gave a token for a form; the webhook had it introspected: good, with its scope",
    );

    let received = scene.received("/webhook", 1).await?.swap_remove(0);
    let asked = scene.receiver.received("/token").swap_remove(0);
    assert_eq!(asked.header("content-type"), JSON);
    assert_eq!(
        asked.json(),
        json!({
            "grant_type": "client_credentials",
            "client_id": "event-notification-service",
            "client_secret": "json-secret",
            "scope": "notifications",
        })
    );
    assert_eq!(received.header("authorization"), "Bearer token-of-a-custom-service");
    STORY.tells("or a custom service that supports it", "asked in JSON, and its token came as Bearer");
    assert_eq!(received.method, "POST");
    assert!(received.header("content-type").starts_with("application/cloudevents+json"));
    assert!(!received.body.is_empty());
    STORY.tells(
        "POST to the subscriber's URL, with Authorization, Content-Type and a body",
        format!("POST, Bearer, {}, {} bytes", received.header("content-type"), received.body.len()),
    );
    scene.end().await
}

/// Registers a webhook with its token service, and gives the answer.
async fn registered(scene: &Scene, endpoint: &str, token_url: &str, format: &str) -> Result<Value> {
    let secret = format!("{format}-secret");
    let body = json!({
        "endpoint": endpoint,
        "subscriber": format!("subscriber-{format}"),
        "types": [TYPE],
        "authorization": {
            "type": "oauth2",
            "tokenUrl": token_url,
            "clientId": "event-notification-service",
            "clientSecret": secret,
            "scope": "notifications",
            "clientAuthentication": "body",
            "requestFormat": format,
        },
    });
    let created = scene.carillon.post(SUBSCRIPTIONS, JSON, &body).await?.expect_status(201)?.json();
    let path = format!("{SUBSCRIPTIONS}/{}", created["id"].as_str().unwrap_or_default());
    let read = scene.carillon.get(&path).await?.expect_status(200)?;
    assert!(!String::from_utf8_lossy(&read.body).contains(&secret), "the client's secret is shown");
    let shown = &read.json()["authorization"];
    assert_eq!(
        (&shown["tokenUrl"], &shown["clientId"]),
        (&json!(token_url), &body["authorization"]["clientId"])
    );
    STORY.tells(
        "the webhook, the token service, client id and client secret are registered",
        format!("201 by the API, for {format} requests; the secret is never shown"),
    );
    Ok(created)
}

/// How a delivery stands after its first attempt, and how that is named.
#[derive(Clone, Copy)]
struct Expected {
    answer: u16,
    outcome: &'static str,
    status: &'static str,
    promise: &'static str,
}

const fn expected(
    answer: u16,
    outcome: &'static str,
    status: &'static str,
    promise: &'static str,
) -> Expected {
    Expected { answer, outcome, status, promise }
}

/// The statuses of the CloudEvents webhook delivery response (HTTP webhook 1.0, section 2.2), then those that it leaves to
/// what HTTP says of them.
const RESPONSES: [Expected; 13] = [
    expected(200, "delivered", "delivered", "200 with a payload: delivered"),
    expected(201, "delivered", "delivered", "201 with a payload: delivered"),
    expected(202, "delivered", "delivered", "202: accepted, but not processed yet"),
    expected(204, "delivered", "delivered", "204: delivered, without a payload"),
    expected(301, "redirected", "retrying", "301: never followed"),
    expected(302, "redirected", "retrying", "302: never followed"),
    expected(400, "clientError", "retrying", "400: an error, tried again"),
    expected(401, "unauthorized", "retrying", "401: an error, tried again"),
    expected(410, "gone", "failed", "410: the target is gone; nothing is sent to it any more"),
    expected(415, "unacceptable", "failed", "415: the format is not understood; no retry"),
    expected(429, "throttled", "retrying", "429: not before Retry-After"),
    expected(500, "serverError", "retrying", "500: an error, tried again"),
    expected(503, "throttled", "retrying", "503: not before Retry-After"),
];

#[tokio::test]
async fn each_response_is_taken_as_cloudevents_has_it() -> Result<()> {
    let scene = tenant("seed-003-responses").await?;
    let mut subscriptions = Vec::new();
    for expected in RESPONSES {
        let path = format!("/{}", expected.answer);
        let mut answer = Answer::status(expected.answer);
        if expected.answer != 204 {
            answer = answer.json(&json!({ "note": "for nobody", "status": expected.answer }));
        }
        answer = match expected.answer {
            300..=399 => answer.header("location", &scene.receiver.url("/elsewhere")),
            429 | 503 => answer.header("retry-after", &RETRY_AFTER_SECONDS.to_string()),
            _ => answer,
        };
        scene.receiver.answer(&path, [answer, Answer::status(204)]);
        let body = json!({
            "endpoint": scene.receiver.url(&path),
            "subscriber": format!("subscriber-{}", expected.answer),
            "types": [TYPE],
            "retryPolicy": { "waitsSeconds": [1] },
        });
        subscriptions.push(scene.carillon.subscribe_with(TENANT, &body).await?.id);
    }
    let event = notify(&scene, "n-1").await?;
    for (expected, subscription) in RESPONSES.iter().zip(&subscriptions) {
        acted_out(&scene, &event, *expected, subscription).await?;
    }
    assert!(scene.receiver.received("/elsewhere").is_empty(), "a redirect was followed");
    what_is_gone_gets_nothing_more(&scene, &subscriptions).await?;
    // Dead letters are left over.
    scene.break_off().await
}

/// Waits for the end of a delivery, and looks at what its first attempt came to.
async fn acted_out(scene: &Scene, event: &str, expected: Expected, subscription: &str) -> Result<()> {
    let end = if expected.status == "retrying" { "delivered" } else { expected.status };
    let delivery = eventually(&format!("the end of {}", expected.answer), async || {
        let path = format!("/v1/workspaces/{TENANT}/events/{event}/deliveries");
        let listed = scene.carillon.get(&path).await?.expect_status(200)?.json();
        let mut items = listed["items"].as_array().into_iter().flatten();
        Ok(items.find(|one| one["subscription"] == subscription && one["status"] == end).cloned())
    })
    .await?;
    let attempts = delivery["attempts"].as_array().context("there are no attempts")?;
    let first = &attempts[0];
    assert_eq!((&first["status"], &first["outcome"]), (&json!(expected.answer), &json!(expected.outcome)));
    let path = format!("/{}", expected.answer);
    let count = if expected.status == "retrying" { 2 } else { 1 };
    assert_eq!((attempts.len(), scene.receiver.received(&path).len()), (count, count), "{delivery}");
    if expected.outcome == "delivered" {
        assert!(first.get("response").is_none(), "what a receiver says that accepts is ignored: {delivery}");
    }
    let mut seen = format!("{end} after {count} attempts");
    if expected.outcome == "throttled" {
        let began = |attempt: &Value| -> Result<u64> {
            Ok(attempt["at"].as_str().context("there is no time")?.parse::<UnixMillis>()?.0)
        };
        let ended = began(first)? + first["durationMs"].as_u64().unwrap_or_default();
        let waited = Duration::from_millis(began(&attempts[1])?.saturating_sub(ended));
        ensure!(waited >= Duration::from_secs(RETRY_AFTER_SECONDS), "{waited:?} after {}", expected.answer);
        let asked = format!("{RETRY_AFTER_SECONDS} s were asked for");
        seen = format!("{seen}, the second one after {waited:?}, where {asked}");
    }
    STORY.tells(expected.promise, seen);
    Ok(())
}

async fn what_is_gone_gets_nothing_more(scene: &Scene, subscriptions: &[String]) -> Result<()> {
    let gone = RESPONSES.iter().position(|expected| expected.answer == 410).context("it is among them")?;
    let path = format!("{SUBSCRIPTIONS}/{}", subscriptions[gone]);
    let read = eventually("the subscription to be disabled", async || {
        let read = scene.carillon.get(&path).await?.expect_status(200)?.json();
        Ok((read["status"] == "disabled").then_some(read))
    })
    .await?;
    assert_eq!(read["statusReason"], "gone");
    STORY.tells("410: stop sending", "its subscription is disabled, and the reason is `gone`");
    STORY.tells(
        "response payloads from successful deliveries are ignored",
        "none is kept or shown with the deliveries that 200, 201 and 202 took",
    );
    Ok(())
}
