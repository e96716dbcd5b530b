//! 002: user account webhooks as Akamai's Webhooks v3 have them: what an account's creation, change or deletion is told as,
//! filters on the attributes that changed, and what becomes of events that a listener did not get.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Answer, Carillon};
use carillon_tests::story::{Story, sample_event, texts};
use carillon_tests::{PATIENCE, Scene, eventually, problem};
use serde_json::{Value, json};

use crate::interop::receivers::Receivers;

const STORY: Story = Story::of("002 Akamai");

const WORKSPACE: &str = "identity-cloud";
const SUBSCRIPTIONS: &str = "/v1/workspaces/identity-cloud/subscriptions";
const JSON: &str = "application/json";

/// Whom the tokens are for.
const AUDIENCE: &str = "https://listener.example.com";

/// Akamai's retries: after 3 s, 30 s, 5 m, 1 h and 24 h.
const WAITS_SECONDS: [u32; 5] = [3, 30, 300, 3600, 86_400];

/// Long enough to be seen, and too short to be taken for slow.
const A_WHILE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn a_listener_hears_of_email_and_password_alone() -> Result<()> {
    let scene = Scene::set("seed-002", &[]).await?;
    scene.carillon.own_workspace(WORKSPACE, "identity").await?;
    let receivers = Receivers::start().await?;
    let by_pattern = json!({ "pattern": { "data": { "attributes": ["email", "password"] } } });
    let attributes = json!({ "contains": { "enum": ["email", "password"] } });
    let by_schema =
        json!({ "schema": { "properties": { "data": { "properties": { "attributes": attributes } } } } });
    for (listener, types, filter) in [
        ("created", &["entityCreated"][..], None),
        ("all", &["entityCreated", "entityUpdated", "entityDeleted"], None),
        ("pattern", &["entityUpdated"], Some(by_pattern)),
        ("schema", &["entityUpdated"], Some(by_schema)),
    ] {
        listen(&scene, &receivers, listener, types, filter).await?;
    }
    let listed = scene.carillon.get(SUBSCRIPTIONS).await?.expect_status(200)?.json();
    STORY.tells("manage webhook subscriptions", format!("listed: {:?}", texts(&listed["items"], "title")));
    STORY.tells("a title is unique", "409 for each title when it came again");
    assert_eq!(listed["items"][0]["retryPolicy"]["waitsSeconds"], json!(WAITS_SECONDS));
    STORY.tells(
        "retries after 3 s, 30 s, 5 m, 1 h, 24 h",
        format!("a policy of {WAITS_SECONDS:?} s is taken"),
    );
    let unauthorized = Carillon::new(scene.stack.api_url()).get(SUBSCRIPTIONS).await?;
    problem(&unauthorized, 401);
    STORY.tells("all endpoints require token-based authentication", "401 without a token");

    for (id, attributes) in [
        ("street", &["primaryAddress.address1"][..]),
        ("middle", &["middleName"]),
        ("email", &["email"]),
        ("password", &["password"]),
        ("both", &["middleName", "email"]),
    ] {
        let mut happened = sample_event(&scene.carillon, WORKSPACE, id, "entityUpdated").await?;
        happened["data"]["attributes"] = json!(attributes);
        scene.carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?;
    }
    for kind in ["entityCreated", "entityDeleted"] {
        let happened = sample_event(&scene.carillon, WORKSPACE, kind, kind).await?;
        scene.carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?;
    }
    // Exactly these: a delivery may come twice, but none is made for an event that was not asked for.
    scene.all_deliveries(1 + 7 + 3 + 3, "delivered").await?;
    told(&scene, &receivers).await?;
    scene.end().await
}

/// A subscription that is delivered as Security Event Tokens, which its listener has a library verify.
async fn listen(
    scene: &Scene,
    receivers: &Receivers,
    listener: &str,
    types: &[&str],
    filter: Option<Value>,
) -> Result<()> {
    let mut body = json!({
        "endpoint": receivers.inbox(listener),
        "title": format!("{listener} events"),
        "subscriber": "listener",
        "types": types,
        "format": "securityEventToken",
        "token": { "audience": AUDIENCE, "algorithm": "RS256" },
        "retryPolicy": { "waitsSeconds": WAITS_SECONDS },
    });
    if let Some(filter) = filter {
        body["filter"] = filter;
    }
    let subscription = scene.carillon.subscribe_with(WORKSPACE, &body).await?;
    problem(&scene.carillon.post(SUBSCRIPTIONS, JSON, &body).await?, 409);
    let demanded = json!({
        "format": "securityEventToken",
        "secrets": [subscription.secret],
        "keys": format!("{}/jwks.json", issuer(scene)),
        "algorithm": "RS256",
        "issuer": issuer(scene),
        "audience": AUDIENCE,
    });
    receivers.demand(listener, &demanded).await
}

fn issuer(scene: &Scene) -> String {
    format!("{}/v1/workspaces/{WORKSPACE}", scene.stack.api_url())
}

/// What each listener was told, none of it refused by the library.
async fn told(scene: &Scene, receivers: &Receivers) -> Result<()> {
    let changes = ["both", "email", "password"];
    let all = ["both", "email", "entityCreated", "entityDeleted", "middle", "password", "street"];
    for (listener, expected) in
        [("all", &all[..]), ("created", &["entityCreated"]), ("pattern", &changes), ("schema", &changes)]
    {
        let verdicts = receivers.accepted(listener, expected.len()).await?;
        let ids: BTreeSet<_> = verdicts
            .iter()
            .filter_map(|verdict| of_token(scene, verdict)["id"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(ids, expected.iter().map(ToString::to_string).collect());
        let promise = match listener {
            "created" => "a notice each time an `entityCreated` event occurs, and none of other events",
            "all" => "notifications any time a user account is created, deleted or modified",
            "pattern" => "a notice only if the update was made to `email` or `password`, by a pattern",
            _ => "the same by a JSON Schema",
        };
        STORY.tells(promise, format!("{ids:?}"));
    }
    let verdict = receivers.accepted("pattern", 1).await?.swap_remove(0);
    let (header, claims) = (&verdict["token"]["header"], &verdict["token"]["claims"]);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("secevent+jwt"), &json!("RS256")));
    assert!(header["kid"].is_string());
    for claim in ["iss", "iat", "jti", "aud", "txn", "events"] {
        assert!(!claims[claim].is_null(), "{claim} of {claims}");
    }
    STORY.tells(
        "each notification is a Security Event Token that the keys of the JWKS URL verify",
        format!("joserfc verified it: {header}"),
    );
    Ok(())
}

/// What a token that was verified tells of its event.
fn of_token<'a>(scene: &Scene, verdict: &'a Value) -> &'a Value {
    let events = verdict["token"]["claims"]["events"].as_object();
    let begin = format!("{}/event-types/entity", issuer(scene));
    let told = events.into_iter().flatten().find(|(uri, _)| uri.starts_with(&begin));
    told.map_or(&Value::Null, |(_, told)| told)
}

#[tokio::test]
async fn a_failed_event_is_seen_and_scheduled_for_redelivery() -> Result<()> {
    let scene = Scene::set("seed-002-states", &[]).await?;
    scene.carillon.own_workspace(WORKSPACE, "identity").await?;
    states_of_an_event_on_its_way(&scene).await?;
    a_failed_event_is_redelivered(&scene).await?;
    events_of_a_disabled_subscription_are_kept(&scene).await?;
    // Dead letters are left over.
    scene.break_off().await
}

async fn states_of_an_event_on_its_way(scene: &Scene) -> Result<()> {
    let listener =
        Listener::at(scene, "/states", &json!({ "retryPolicy": { "waitsSeconds": [2, 1] } })).await?;
    let slowly = |status| Answer::status(status).after(A_WHILE).json(&json!({ "note": "maintenance" }));
    scene.receiver.answer("/states", [slowly(503), slowly(204)]);
    let event = listener.happens("states").await?;
    let first = scene.receiver.wait_for("/states", 1, PATIENCE).await?.swap_remove(0);
    assert_eq!(listener.state(first.webhook_id()).await?, ["pending", "awaiting-executing"]);
    let waiting = listener.stands(&event, "awaiting-retry").await?;
    let attempt = &waiting["attempts"][0];
    assert_eq!(
        (&attempt["status"], &attempt["response"]),
        (&json!(503), &json!(r#"{"note":"maintenance"}"#))
    );
    STORY.tells("a history of attempts with the response", attempt);
    scene.receiver.wait_for("/states", 2, PATIENCE).await?;
    assert_eq!(listener.state(first.webhook_id()).await?, ["retrying", "executing"]);
    listener.stands(&event, "success").await?;
    STORY.tells(
        "an event is awaiting-executing, executing, awaiting-retry, success or failure",
        "awaiting-executing at its first attempt, awaiting-retry after 503, executing at the second one, then success",
    );
    Ok(())
}

async fn a_failed_event_is_redelivered(scene: &Scene) -> Result<()> {
    let listener = Listener::at(scene, "/failed", &json!({ "retryPolicy": { "waitsSeconds": [1] } })).await?;
    // A power failure: nobody answers.
    scene.receiver.answer("/failed", [Answer::close()]);
    let event = listener.happens("failed").await?;
    let failed = listener.stands(&event, "failure").await?;
    let listed = eventually("the failed event to be listed", async || {
        let path = format!("{}/deliveries?status=failed", listener.path);
        let listed = scene.carillon.get(&path).await?.expect_status(200)?.json();
        Ok((!listed["items"][0].is_null()).then(|| listed["items"].clone()))
    })
    .await?;
    assert_eq!((&listed[0]["id"], &listed[0]["akamaiState"]), (&failed["id"], &json!("failure")));
    let outcomes = texts(&listed[0]["attempts"], "outcome");
    assert_eq!(outcomes, ["broken", "broken"]);
    STORY.tells(
        "see if you have any failed events",
        format!("listed, as failure, with its attempts {outcomes:?}"),
    );

    scene.receiver.answer("/failed", [Answer::status(204)]);
    listener.redeliver(&failed).await?.expect_status(202)?;
    let delivered = listener.stands(&event, "success").await?;
    assert_eq!((&delivered["id"], &delivered["round"]), (&failed["id"], &json!(2)));
    STORY.tells("schedule them for redelivery. Problem solved", "202, and it arrived in its second round");
    let refused = problem(&listener.redeliver(&delivered).await?, 409);
    assert_eq!(refused["type"], "/problems/delivery-not-failed");
    STORY.tells("an event that did not fail is not redelivered", format!("409, {}", refused["detail"]));
    Ok(())
}

async fn events_of_a_disabled_subscription_are_kept(scene: &Scene) -> Result<()> {
    let listener = Listener::at(scene, "/disabled", &json!({ "enabled": false })).await?;
    let event = listener.happens("disabled").await?;
    let failed = listener.stands(&event, "failure").await?;
    assert_eq!((&failed["reason"], &failed["attempts"]), (&json!("disabled"), &json!([])));
    scene.carillon.patch(&listener.path, &json!({ "enabled": true })).await?.expect_status(200)?;
    // Within 5 s the change holds; a redelivery before would fail for the same reason.
    eventually("the redelivery to arrive", async || {
        let now = listener.delivery(&event).await?;
        match now["akamaiState"].as_str() {
            Some("success") => return Ok(Some(())),
            Some("failure") => drop(listener.redeliver(&now).await?.expect_status(202)?),
            _ => {}
        }
        Ok(None)
    })
    .await?;
    ensure!(scene.receiver.received("/disabled").len() == 1, "it came once");
    STORY.tells(
        "events of a disabled subscription are stored and marked failed, to be redelivered later",
        "failure with the reason `disabled` and no attempt; once it was enabled, its redelivery arrived",
    );
    Ok(())
}

/// A subscription to `entityUpdated` at a path of the receiver.
struct Listener<'a> {
    scene: &'a Scene,
    id: String,
    path: String,
}

impl<'a> Listener<'a> {
    async fn at(scene: &'a Scene, path: &str, said: &Value) -> Result<Self> {
        let mut body = said.clone();
        body["endpoint"] = json!(scene.receiver.url(path));
        body["subscriber"] = json!(path.trim_start_matches('/'));
        body["types"] = json!(["entityUpdated"]);
        let id = scene.carillon.subscribe_with(WORKSPACE, &body).await?.id;
        Ok(Self { scene, path: format!("{SUBSCRIPTIONS}/{id}"), id })
    }

    /// An account is changed, for this listener alone; the event's id is answered.
    async fn happens(&self, id: &str) -> Result<String> {
        let mut happened = sample_event(&self.scene.carillon, WORKSPACE, id, "entityUpdated").await?;
        happened["audience"] = json!(id);
        let published = self.scene.carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?.json();
        Ok(published["eventId"].as_str().context("there is no id")?.to_owned())
    }

    /// The delivery of an event.
    async fn delivery(&self, event: &str) -> Result<Value> {
        let path = format!("/v1/workspaces/{WORKSPACE}/events/{event}/deliveries");
        let mut listed = self.scene.carillon.get(&path).await?.expect_status(200)?.json();
        assert_eq!(listed["items"][0]["subscription"], self.id.as_str(), "{listed}");
        Ok(listed["items"][0].take())
    }

    /// Waits until it is in this state.
    async fn stands(&self, event: &str, state: &str) -> Result<Value> {
        eventually(&format!("the event to be {state}"), async || {
            let delivery = self.delivery(event).await?;
            Ok((delivery["akamaiState"] == state).then_some(delivery))
        })
        .await
    }

    /// The status and the state of one delivery, read by its id.
    async fn state(&self, delivery: &str) -> Result<[Value; 2]> {
        let path = format!("{}/deliveries/{delivery}", self.path);
        let mut read = self.scene.carillon.get(&path).await?.expect_status(200)?.json();
        Ok(["status", "akamaiState"].map(|field| read[field].take()))
    }

    async fn redeliver(&self, delivery: &Value) -> Result<carillon_local::Reply> {
        let id = delivery["id"].as_str().context("there is no id")?;
        self.scene.carillon.post(&format!("{}/deliveries/{id}/redeliver", self.path), JSON, &json!({})).await
    }
}
