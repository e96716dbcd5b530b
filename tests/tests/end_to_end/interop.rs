//! Deliveries as libraries see them that are not of this project: `standardwebhooks` (of Rust and of Python), the SDK of
//! CloudEvents, and Authlib as a subscriber's token service. The Python side is `tests/interop`.

pub(crate) mod receivers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use carillon_local::{Subscription, event};
use carillon_tests::{SUBSCRIBER, Scene, WORKSPACE, eventually};
use serde_json::{Value, json};

use self::receivers::Receivers;

/// Each format, and a workspace whose events can have it.
const FORMATS: [(&str, &str); 5] = [
    ("cloudEvents", WORKSPACE),
    ("cloudEventsBinary", WORKSPACE),
    ("standardWebhooks", WORKSPACE),
    ("resource", DIRECTORY),
    ("securityEventToken", WORKSPACE),
];

/// A workspace whose events have revisions.
const DIRECTORY: &str = "register";

/// An event type of it.
const CHANGED: &str = "organisation.changed";

/// Whom Security Event Tokens are for.
const AUDIENCE: &str = "urn:example:tpp-1";

/// Not in ASCII, and with what means something in headers, forms and HTTP Basic.
const ODD_TEXT: &str = "50% of a \"Zürich+Genève\": € & 😀, 100%25";

/// Subscribes an inbox, which demands this of its deliveries besides the format and the signature.
async fn subscribe(
    scene: &Scene,
    receivers: &Receivers,
    inbox: &str,
    said: &Value,
    demanded: &Value,
) -> Result<Subscription> {
    let mut body = said.clone();
    if body["endpoint"].is_null() {
        body["endpoint"] = json!(receivers.inbox(inbox));
    }
    body["subscriber"] = json!(SUBSCRIBER);
    body["types"] = json!(["consent:*"]);
    let subscription = scene.carillon.subscribe_with(WORKSPACE, &body).await?;
    let mut demanded = demanded.clone();
    demanded["format"] = body["format"].take();
    demanded["secrets"] = json!([subscription.secret]);
    receivers.demand(inbox, &demanded).await?;
    Ok(subscription)
}

/// Events with data of each kind, and attributes that are not in ASCII.
fn events() -> Vec<Value> {
    let with = |id: &str, content_type: &str, name: &str, data: Value| {
        json!({
            "specversion": "1.0",
            "id": id,
            "source": "urn:example:bank?branch=1&x=%25",
            "type": "consent:created",
            "time": "2026-11-22T09:30:00.250000+01:00",
            "subject": ODD_TEXT,
            "remark": ODD_TEXT,
            "count": 7,
            "urgent": true,
            "datacontenttype": content_type,
            name: data,
        })
    };
    vec![
        with(
            "object",
            "application/json",
            "data",
            json!({ "amount": 1.5, "text": ODD_TEXT, "none": null, "list": [[], {}] }),
        ),
        with("json text", "application/vnd.bank+json; charset=utf-8", "data", json!(ODD_TEXT)),
        with("text", "text/plain; charset=utf-8", "data", json!(ODD_TEXT)),
        with("ü", "application/xml", "data", json!("<name kind=\"odd\">Zoë &amp; €</name>\r\n")),
        with("bytes", "image/png", "data_base64", json!("iVBORw0KGgr/AIA=")),
    ]
}

/// The verdicts by the event's id, as the SDK tells it.
fn of_event<'a>(verdicts: &'a [Value], id: &Value) -> Result<&'a Value> {
    let found = verdicts.iter().find(|verdict| &verdict["event"]["id"] == id);
    found.with_context(|| format!("{id} is not among {verdicts:?}"))
}

#[tokio::test]
async fn the_sdk_of_cloudevents_reads_both_modes() -> Result<()> {
    let scene = Scene::set("sdk", &[]).await?;
    let receivers = Receivers::start().await?;
    for mode in ["cloudEvents", "cloudEventsBinary"] {
        subscribe(&scene, &receivers, mode, &json!({ "format": mode }), &json!({})).await?;
    }
    let events = events();
    scene.carillon.publish_batch(WORKSPACE, &events).await?.expect_status(202)?;

    let structured = receivers.accepted("cloudEvents", events.len()).await?;
    let binary = receivers.accepted("cloudEventsBinary", events.len()).await?;
    for event in &events {
        let told = of_event(&structured, &event["id"])?;
        assert_eq!((&told["event"], &told["signature"]), (event, &json!("standardwebhooks")));

        // Headers are texts.
        let mut expected = event.clone();
        expected["count"] = json!("7");
        expected["urgent"] = json!("true");
        let told = of_event(&binary, &event["id"])?;
        assert_eq!(told["event"], expected);
        // The libraries of Standard Webhooks take a body for a text.
        let by = if event["data_base64"].is_null() { "standardwebhooks" } else { "openssl" };
        assert_eq!(told["signature"], by);
    }
    scene.all_deliveries(2 * events.len(), "delivered").await?;
    scene.end().await
}

#[tokio::test]
async fn both_libraries_of_standard_webhooks_verify_each_format() -> Result<()> {
    let scene = Scene::set("standard-webhooks", &[]).await?;
    let receivers = Receivers::start().await?;
    scene.carillon.own_workspace(DIRECTORY, "directory").await?;
    let path = format!("/v1/workspaces/{DIRECTORY}/event-types/{CHANGED}");
    let anything = json!({ "description": CHANGED, "schema": {}, "sample": {}, "validate": false });
    scene.carillon.put(&path, &anything).await?.expect_status(201)?;
    for (format, workspace) in FORMATS {
        // What comes to this path is verified by the library of Rust.
        let path = format!("/{format}");
        let mut said = json!({
            "endpoint": scene.receiver.url(&path),
            "subscriber": SUBSCRIBER,
            "types": ["*"],
            "format": format,
        });
        if format == "securityEventToken" {
            said["token"] = json!({ "audience": AUDIENCE, "algorithm": "ES256" });
        }
        let subscription = scene.carillon.subscribe_with(workspace, &said).await?;
        scene.receiver.trust(&path, &subscription.secret);

        said["endpoint"] = json!(receivers.inbox(format));
        let subscription = scene.carillon.subscribe_with(workspace, &said).await?;
        let rotate = format!("/v1/workspaces/{workspace}/subscriptions/{}/secrets/rotate", subscription.id);
        let rotated =
            scene.carillon.post(&rotate, "application/json", &json!({})).await?.expect_status(200)?;
        // Each of the two secrets suffices.
        let secrets = [json!(subscription.secret), rotated.json()["signingSecret"].take()];
        receivers.demand(format, &json!({ "format": format, "secrets": secrets })).await?;
    }
    let consent = event("e-1", "consent:created", &json!({ "text": ODD_TEXT }));
    scene.publish(&consent).await?;
    let mut change = event("e-1", CHANGED, &json!({ "name": ODD_TEXT }));
    change["subject"] = json!("/organisations/1");
    scene.carillon.publish(DIRECTORY, &change).await?.expect_status(202)?;

    for (format, _) in FORMATS {
        let told = receivers.accepted(format, 1).await?.swap_remove(0);
        assert_eq!(told["signature"], "standardwebhooks");
        let received = scene.received(&format!("/{format}"), 1).await?.swap_remove(0);
        assert_ne!(told["webhookId"], received.webhook_id(), "each subscription has a delivery of its own");
        let message = &told["message"];
        match format {
            "standardWebhooks" => {
                assert_eq!((&message["type"], &message["data"]), (&consent["type"], &consent["data"]));
                assert!(message["timestamp"].is_string(), "{message}");
            }
            "resource" => {
                // The first event of its workspace.
                assert_eq!((&message["apiResource"], &message["revision"]), (&change["subject"], &json!(1)));
                assert_eq!(message["resourcePayload"], change["data"]);
            }
            _ => {}
        }

        // They are able to refuse it too.
        let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers = headers.map(|name| (name, received.header(name)));
        assert_eq!(receivers.post(format, &headers, &received.body).await?, 422, "another subscription's");
    }
    scene.all_deliveries(2 * FORMATS.len(), "delivered").await?;
    scene.end().await
}

/// A client of the token service, and the same in the words of a subscription.
fn credentials(receivers: &Receivers, id: &str, in_header: bool) -> (Value, Value) {
    let (authentication, place) =
        if in_header { ("client_secret_basic", "header") } else { ("client_secret_post", "body") };
    let client =
        json!({ "id": id, "secret": ODD_TEXT, "authentication": authentication, "scope": "webhooks write" });
    let authorization = json!({
        "type": "oauth2",
        "tokenUrl": receivers.token_url(),
        "clientId": id,
        "clientSecret": ODD_TEXT,
        "scope": "webhooks",
        "clientAuthentication": place,
    });
    (client, authorization)
}

#[tokio::test]
async fn a_token_of_a_real_service_is_kept_until_it_is_withdrawn() -> Result<()> {
    let scene = Scene::set("token-service", &[]).await?;
    for in_header in [true, false] {
        let receivers = Receivers::start().await?;
        let (client, authorization) = credentials(&receivers, "urn:carillon 1", in_header);
        receivers.add_client(&client).await?;
        let said = json!({ "format": "cloudEvents", "authorization": authorization });
        let demanded = json!({ "scope": "webhooks" });
        let subscription = subscribe(&scene, &receivers, "oauth", &said, &demanded).await?;

        // One after the other, so that one process of the function has all of them.
        for number in 0..3 {
            scene.publish(&event(&format!("{in_header}-{number}"), "consent:created", &json!({}))).await?;
            receivers.accepted("oauth", number + 1).await?;
            scene.quiet().await?;
        }
        let issued = json!({ "status": 200, "scope": "webhooks", "error": null });
        assert_eq!(receivers.token_answers().await?, std::slice::from_ref(&issued));

        receivers.withdraw_tokens().await?;
        scene.publish(&event(&format!("{in_header}-withdrawn"), "consent:created", &json!({}))).await?;
        let verdicts = receivers.verdicts("oauth", 5).await?.split_off(3);
        assert_eq!((&verdicts[0]["refused"], &verdicts[0]["answer"]), (&json!("invalid_token"), &json!(401)));
        assert_eq!((&verdicts[1]["refused"], &verdicts[1]["answer"]), (&Value::Null, &json!(204)));
        assert_eq!(verdicts[0]["webhookId"], verdicts[1]["webhookId"]);
        assert_eq!(receivers.token_answers().await?, [issued.clone(), issued]);
        scene.quiet().await?;
        let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{}", subscription.id);
        scene.carillon.delete(&path).await?.expect_status(204)?;
    }
    let rows = scene.all_deliveries(8, "delivered").await?;
    assert!(rows.iter().all(|row| row["attempt"]["N"] == "1"), "the second request was part of the attempt");
    scene.end().await
}

#[tokio::test]
async fn a_real_token_service_that_refuses_is_asked_again() -> Result<()> {
    let scene = Scene::set("token-refused", &[("RetryScale", "0.1")]).await?;
    let receivers = Receivers::start().await?;
    let (client, authorization) = credentials(&receivers, "carillon", true);
    let said = json!({ "format": "cloudEvents", "authorization": authorization });
    subscribe(&scene, &receivers, "oauth", &said, &json!({ "scope": "webhooks" })).await?;

    // The service does not know the client yet.
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let rows = scene.all_deliveries(1, "retrying").await?;
    assert_eq!(rows[0]["attempts"]["L"][0]["M"]["outcome"]["S"], "token");
    receivers.add_client(&client).await?;
    receivers.accepted("oauth", 1).await?;
    scene.all_deliveries(1, "delivered").await?;
    let answers = receivers.token_answers().await?;
    let (last, refused) = answers.split_last().context("no token was asked for")?;
    assert_eq!(last["status"], 200);
    assert!(refused.iter().all(|answer| answer["error"] == "invalid_client"), "{refused:?}");
    scene.end().await
}

#[tokio::test]
async fn a_library_of_jose_reads_security_event_tokens() -> Result<()> {
    let scene = Scene::set("jose", &[("RetryScale", "0.1")]).await?;
    let receivers = Receivers::start().await?;
    let issuer = format!("{}/v1/workspaces/{WORKSPACE}", scene.stack.api_url());
    let token = |algorithm: &str| {
        let said = json!({
            "format": "securityEventToken",
            "token": { "audience": AUDIENCE, "algorithm": algorithm },
            "signatures": ["v1", "v1a"],
        });
        let demanded = json!({
            "keys": format!("{issuer}/jwks.json"),
            "v1a": true,
            "algorithm": algorithm,
            "issuer": issuer,
            "audience": AUDIENCE,
            "busy": 1,
        });
        (said, demanded)
    };
    for algorithm in ["RS256", "ES256"] {
        let (said, demanded) = token(algorithm);
        subscribe(&scene, &receivers, algorithm, &said, &demanded).await?;
    }
    // Who is told what is for somebody else refuses it, once and for all.
    let (said, mut demanded) = token("ES256");
    demanded["audience"] = json!("urn:example:other");
    demanded["busy"] = json!(0);
    subscribe(&scene, &receivers, "other", &said, &demanded).await?;

    let published = &events()[0];
    scene.publish(published).await?;
    let mut transactions = BTreeSet::new();
    for algorithm in ["RS256", "ES256"] {
        let verdicts = receivers.verdicts(algorithm, 2).await?;
        assert_eq!(
            (&verdicts[0]["refused"], &verdicts[1]["refused"]),
            (&json!("busy"), &Value::Null),
            "{verdicts:?}"
        );
        assert_eq!(verdicts[0]["sha256"], verdicts[1]["sha256"], "the same bytes on every attempt");
        let (header, claims) = (&verdicts[1]["token"]["header"], &verdicts[1]["token"]["claims"]);
        assert_eq!(header["alg"], algorithm);
        assert_eq!(claims["jti"], verdicts[1]["webhookId"]);
        assert_eq!(claims["toe"], 1_795_336_200);
        let events = claims["events"].as_object().context("there are no events")?;
        let (name, told) = events.iter().next().context("there is no event")?;
        assert_eq!((events.len(), name), (1, &format!("{issuer}/event-types/consent:created")));
        for member in ["id", "source", "data"] {
            assert_eq!(told[member], published[member], "{member}");
        }
        transactions.insert(claims["txn"].to_string());

        // What was changed on the way is refused.
        let compact = verdicts[1]["token"]["compact"].as_str().context("there is no token")?;
        let (_, mut demanded) = token(algorithm);
        demanded["format"] = said["format"].clone();
        demanded["secrets"] = json!([]);
        demanded["v1a"] = json!(false);
        demanded["busy"] = json!(0);
        receivers.demand("again", &demanded).await?;
        let headers = [("content-type", "application/secevent+jwt"), ("accept", "application/json")];
        assert_eq!(receivers.post("again", &headers, compact.as_bytes()).await?, 202);
        let changed = compact.replacen('.', ".A", 1);
        assert_eq!(receivers.post("again", &headers, changed.as_bytes()).await?, 400);
    }
    assert_eq!(transactions.len(), 1, "both tell of the same event");

    let refused = receivers.verdicts("other", 1).await?;
    let reason = refused[0]["refused"].as_str().unwrap_or_default();
    assert!(reason.starts_with("invalid_audience") && refused[0]["answer"] == 400, "{refused:?}");
    let rows = eventually("two of three deliveries to arrive", || async {
        let rows = scene.deliveries().await?;
        let of = |status: &str| rows.iter().filter(|row| row["status"]["S"] == status).count();
        Ok(((of("delivered"), of("failed")) == (2, 1)).then_some(rows))
    })
    .await?;
    let failed = rows.iter().find(|row| row["status"]["S"] == "failed").context("none failed")?;
    assert_eq!(failed["attempt"]["N"], "1");
    assert_eq!(failed["attempts"]["L"][0]["M"]["outcome"]["S"], "rejected");
    // It is a dead letter now.
    scene.break_off().await
}

#[tokio::test]
async fn openssl_vouches_for_both_sides() -> Result<()> {
    let scene = Scene::set("mutual-tls", &[]).await?;
    let receivers = Receivers::start().await?;
    let (endpoint, authority, client) = receivers.behind_tls("shown").await?;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authority.pem");
    fs::write(&file, authority)?;
    // In the place of the platform's trust store.
    let trusted = file.to_str().context("the path is no text")?;
    scene.stack.set_environment("deliver", &[("SSL_CERT_FILE", trusted)]).await?;

    let said = json!({ "format": "cloudEvents", "endpoint": endpoint, "clientCertificate": client });
    subscribe(&scene, &receivers, "shown", &said, &json!({})).await?;
    let said = json!({ "format": "cloudEvents", "endpoint": endpoint.replace("/shown", "/kept-back") });
    subscribe(&scene, &receivers, "kept-back", &said, &json!({})).await?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;

    assert_eq!(receivers.accepted("shown", 1).await?[0]["certificate"], "carillon");
    let rows = eventually("an attempt on each", || async {
        let rows = scene.deliveries().await?;
        Ok((rows.len() == 2).then_some(rows))
    })
    .await?;
    let waiting = rows.iter().find(|row| row["status"]["S"] == "retrying").context("both arrived")?;
    assert_eq!(waiting["attempts"]["L"][0]["M"]["outcome"]["S"], "tls");
    assert!(receivers.verdicts("kept-back", 0).await?.is_empty());
    scene.break_off().await
}
