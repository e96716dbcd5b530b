//! Subscriptions over the API: what they take, show and keep to themselves.

use anyhow::{Context as _, Result};
use carillon_local::{Answer, Verdict, event};
use carillon_tests::{PATIENCE, Scene, WORKSPACE, problem};
use serde_json::{Value, json};

const SUBSCRIPTIONS: &str = "/v1/workspaces/acme/subscriptions";

#[tokio::test]
async fn a_subscription_from_its_creation_to_its_end() -> Result<()> {
    let scene = Scene::set("lifecycle", &[]).await?;
    let carillon = &scene.carillon;
    let whole = json!({
        "endpoint": scene.receiver.url("/inbox"),
        "title": "Consents",
        "subscriber": "tpp-1",
        "types": ["consent:*"],
        "filter": { "pattern": { "data": { "amount": [{ "numeric": [">", 100] }] } } },
        "format": "standardWebhooks",
        "authorization": { "type": "basic", "user": "carillon", "password": "correct horse" },
        "headers": { "x-tenant": "eu-1" },
        "retryPolicy": { "waitsSeconds": [1, 2] },
        "timeoutSeconds": 5,
        "ratePerMinute": 600,
        "enabled": true,
    });
    let created = carillon.post(SUBSCRIPTIONS, "application/json", &whole).await?.expect_status(201)?;
    let shown = created.json();
    assert!(shown["signingSecret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    let id = shown["id"].as_str().context("no id")?.to_owned();
    let path = format!("{SUBSCRIPTIONS}/{id}");
    assert_eq!(created.headers["location"], path);

    // What was said is shown, and no secret.
    let read = carillon.get(&path).await?.expect_status(200)?;
    let etag = read.headers["etag"].to_str()?.to_owned();
    for (field, value) in whole.as_object().into_iter().flatten() {
        let mut value = value.clone();
        value.as_object_mut().map(|object| object.remove("password"));
        assert_eq!(read.json()[field], value, "{field}");
    }
    let text = String::from_utf8_lossy(&read.body).into_owned();
    assert!(!text.contains("whsec_") && !text.contains("correct horse"), "{text}");

    // A title is its subscriber's own, and free again when it is given up.
    let mut second = whole.clone();
    second["authorization"] = json!({ "type": "none" });
    problem(&carillon.post(SUBSCRIPTIONS, "application/json", &second).await?, 409);
    second["subscriber"] = json!("tpp-2");
    carillon.post(SUBSCRIPTIONS, "application/json", &second).await?.expect_status(201)?;
    carillon.patch(&path, &json!({ "title": "Consents, old" })).await?.expect_status(200)?;
    second["subscriber"] = json!("tpp-1");
    carillon.post(SUBSCRIPTIONS, "application/json", &second).await?.expect_status(201)?;

    // A change that knows an older state changes nothing.
    let stale = [("if-match", etag.as_str()), ("content-type", "application/merge-patch+json")];
    problem(&carillon.send("PATCH", &path, &stale, br#"{"title":"Lost"}"#.to_vec()).await?, 412);
    problem(&carillon.send("DELETE", &path, &[("if-match", &etag)], Vec::new()).await?, 412);
    let read = carillon.get(&path).await?.expect_status(200)?;
    assert_eq!(read.json()["title"], "Consents, old");
    let current = read.headers["etag"].to_str()?.to_owned();
    let fresh = [("if-match", current.as_str()), ("content-type", "application/merge-patch+json")];
    let patched = carillon.send("PATCH", &path, &fresh, br#"{"title":null}"#.to_vec()).await?;
    assert!(patched.expect_status(200)?.json()["title"].is_null());

    // Replaced whole: what is left out takes its default.
    let minimal = json!({ "endpoint": scene.receiver.url("/inbox"), "types": ["consent:created"] });
    let replaced = carillon.put(&path, &minimal).await?.expect_status(200)?.json();
    assert_eq!(
        (&replaced["format"], &replaced["authorization"], &replaced["subscriber"]),
        (&json!("cloudEvents"), &json!({ "type": "none" }), &json!("tpp-1"))
    );
    assert!(replaced["filter"].is_null() && replaced["signingSecret"].is_null());

    // Lists.
    let listed = |query: &str| {
        let path = format!("{SUBSCRIPTIONS}?{query}");
        async move { anyhow::Ok(carillon.get(&path).await?.expect_status(200)?.json()) }
    };
    assert_eq!(count(&listed("").await?), 3);
    assert_eq!(count(&listed("subscriber=tpp-2").await?), 1);
    assert_eq!(count(&listed("status=active&eventType=consent:revoked").await?), 2);
    assert_eq!(count(&listed("status=disabled").await?), 0);
    let first = listed("limit=2").await?;
    let next = listed(&format!("limit=2&cursor={}", first["next"].as_str().context("no next page")?)).await?;
    assert_eq!((count(&first), count(&next)), (2, 1));
    assert!(next["next"].is_null());

    carillon.delete(&path).await?.expect_status(204)?;
    problem(&carillon.get(&path).await?, 404);
    problem(&carillon.delete(&path).await?, 404);
    scene.end().await
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_and_changes_nothing() -> Result<()> {
    let scene = Scene::set("wrong-fields", &[]).await?;
    let carillon = &scene.carillon;
    let wrong = json!({
        "endpoint": "http://169.254.169.254/latest",
        "title": "x",
        "subscriber": "a b",
        "types": ["consent:*", "consents:*", "a b"],
        "filter": { "pattern": { "data": { "amount": [{ "numeric": ["~", 1] }] } } },
        "authorization": { "type": "basic", "user": "a:b" },
        "headers": { "Host": "inside", "x-fine": "1" },
        "retryPolicy": { "waitsSeconds": [0] },
        "timeoutSeconds": 31,
        "ratePerMinute": 0,
    });
    let refused = problem(&carillon.post(SUBSCRIPTIONS, "application/json", &wrong).await?, 400);
    let pointers: Vec<_> = refused["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|error| error["pointer"].as_str())
        .collect();
    for pointer in [
        "/endpoint",
        "/title",
        "/subscriber",
        "/types/1",
        "/types/2",
        "/authorization/user",
        "/authorization/password",
        "/headers/Host",
        "/retryPolicy/waitsSeconds",
        "/timeoutSeconds",
        "/ratePerMinute",
    ] {
        assert!(pointers.contains(&pointer), "{pointer} is not among {pointers:?}");
    }
    assert!(
        pointers.iter().any(|pointer| pointer.starts_with("/filter/pattern/data/amount")),
        "{pointers:?}"
    );
    for (body, pointer) in [
        (json!({ "types": ["*"] }), "/endpoint"),
        (json!({ "endpoint": "https://example.com", "types": ["*"], "colour": 1 }), "/colour"),
        (json!({ "endpoint": "https://example.com", "types": "*" }), "/types"),
    ] {
        let refused = problem(&carillon.post(SUBSCRIPTIONS, "application/json", &body).await?, 400);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let listed = carillon.get(SUBSCRIPTIONS).await?.expect_status(200)?.json();
    assert_eq!(count(&listed), 0);
    scene.end().await
}

#[tokio::test]
async fn a_request_that_is_repeated_makes_one_subscription() -> Result<()> {
    let scene = Scene::set("idempotency", &[]).await?;
    let body =
        json!({ "endpoint": scene.receiver.url("/inbox"), "subscriber": "tpp-1", "types": ["consent:*"] });
    let create = |body: Value| {
        let headers = [("idempotency-key", "order-1"), ("content-type", "application/json")];
        let (carillon, body) = (&scene.carillon, body.to_string().into_bytes());
        async move { carillon.send("POST", SUBSCRIPTIONS, &headers, body).await }
    };
    let first = create(body.clone()).await?.expect_status(201)?.json();
    let again = create(body.clone()).await?.expect_status(201)?.json();
    assert_eq!(first["id"], again["id"]);
    assert!(first["signingSecret"].is_string() && again["signingSecret"].is_null());
    let mut other = body.clone();
    other["types"] = json!(["*"]);
    problem(&create(other).await?, 422);
    // At once, one of them makes it and the others find it.
    let headers = [("idempotency-key", "order-2"), ("content-type", "application/json")];
    let raced = futures::future::try_join_all(
        (0..4).map(|_| scene.carillon.send("POST", SUBSCRIPTIONS, &headers, body.to_string().into_bytes())),
    )
    .await?;
    let ids = raced.into_iter().map(|reply| Ok(reply.expect_status(201)?.json()["id"].clone()));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let listed = scene.carillon.get(SUBSCRIPTIONS).await?.expect_status(200)?.json();
    assert_eq!(count(&listed), 2);
    scene.end().await
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_until_the_overlap_is_over() -> Result<()> {
    let scene = Scene::set("rotation", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?;
    let rotate = format!("{SUBSCRIPTIONS}/{}/secrets/rotate", subscription.id);
    let post = |body: Value| {
        let (scene, rotate) = (&scene, &rotate);
        async move { scene.carillon.post(rotate, "application/json", &body).await }
    };
    let rotated = post(json!({})).await?.expect_status(200)?.json();
    let secret = rotated["signingSecret"].as_str().context("no secret")?.to_owned();
    assert_ne!(secret, subscription.secret);
    assert_eq!(rotated["signingSecrets"].as_array().map(Vec::len), Some(2));

    // Deliveries know of it within 5 s; until then the old one signs alone, and it is still good.
    for (trusted, prefix) in [(&subscription.secret, "old"), (&secret, "new")] {
        scene.receiver.trust("/inbox", trusted);
        let mut number = 0;
        carillon_tests::eventually("a delivery with this signature", || {
            number += 1;
            let event = event(&format!("{prefix}-{number}"), "consent:created", &json!({}));
            let (scene, seen) = (&scene, scene.receiver.received("/inbox").len());
            async move {
                scene.publish(&event).await?;
                let received = scene.receiver.wait_for("/inbox", seen + 1, PATIENCE).await?;
                Ok((received[seen].verdict == Verdict::Verified).then_some(()))
            }
        })
        .await?;
    }

    // Without an overlap the ones before end at once.
    let last = post(json!({ "overlapSeconds": 0 })).await?.expect_status(200)?.json();
    assert_eq!(last["signingSecrets"].as_array().map(Vec::len), Some(1));
    let too_long = problem(&post(json!({ "overlapSeconds": 604_801 })).await?, 400);
    assert_eq!(too_long["errors"][0]["pointer"], "/overlapSeconds");
    scene.end().await
}

#[tokio::test]
async fn a_disabled_subscription_keeps_its_deliveries_as_failed() -> Result<()> {
    let scene = Scene::set("disabled", &[]).await?;
    let body = json!({ "types": ["consent:*"], "enabled": false });
    let subscription = scene.subscribe_with("/inbox", &body).await?;
    let path = format!("{SUBSCRIPTIONS}/{}", subscription.id);
    let read = scene.carillon.get(&path).await?.expect_status(200)?.json();
    assert_eq!((&read["status"], &read["enabled"]), (&json!("disabled"), &json!(false)));
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let rows = scene.all_deliveries(1, "failed").await?;
    assert_eq!(rows[0]["reason"]["S"], "disabled");
    scene.quiet().await?;
    assert!(scene.receiver.received("/inbox").is_empty());

    scene.carillon.patch(&path, &json!({ "enabled": true })).await?.expect_status(200)?;
    carillon_tests::eventually("deliveries to begin", || async {
        let number = scene.deliveries().await?.len();
        scene.publish(&event(&format!("later-{number}"), "consent:created", &json!({}))).await?;
        scene.quiet().await?;
        Ok((!scene.receiver.received("/inbox").is_empty()).then_some(()))
    })
    .await?;
    // No dead letter was made of what failed.
    scene.end().await
}

#[tokio::test]
async fn filters_of_both_languages_decide() -> Result<()> {
    let scene = Scene::set("filters", &[]).await?;
    let over_100 = json!({ "pattern": { "data": { "amount": [{ "numeric": [">", 100] }] } } });
    let email_only = json!({ "schema": {
        "properties": { "data": {
            "properties": { "changed": { "type": "array", "contains": { "enum": ["email", "password"] } } },
            "required": ["changed"],
        } },
    } });
    let large =
        scene.subscribe_with("/large", &json!({ "types": ["consent:*"], "filter": over_100 })).await?;
    scene.subscribe_with("/email", &json!({ "types": ["consent:*"], "filter": email_only })).await?;
    scene.subscribe("/all", &["consent:*"]).await?;
    for (id, data) in [
        ("e-1", json!({ "amount": 100 })),
        ("e-2", json!({ "amount": 100.01 })),
        ("e-3", json!({ "changed": ["name"] })),
        ("e-4", json!({ "changed": ["name", "email"] })),
    ] {
        scene.publish(&event(id, "consent:created", &data)).await?;
    }
    scene.received("/all", 4).await?;
    assert_eq!(scene.received("/large", 1).await?[0].json()["id"], "e-2");
    assert_eq!(scene.received("/email", 1).await?[0].json()["id"], "e-4");
    scene.quiet().await?;
    assert_eq!(scene.deliveries().await?.len(), 6);

    // A dry run says so beforehand, and why not.
    let small = event("e-5", "consent:created", &json!({ "amount": 1 }));
    let dry_run = format!("{SUBSCRIPTIONS}/{}/dry-run", large.id);
    let body = json!({ "events": [small], "recent": 4 });
    let tried = scene.carillon.post(&dry_run, "application/json", &body).await?.expect_status(200)?.json();
    let matches: Vec<_> =
        tried["results"].as_array().into_iter().flatten().filter(|tried| tried["matches"] == true).collect();
    assert_eq!(tried["results"].as_array().map(Vec::len), Some(5), "{tried}");
    assert_eq!((matches.len(), &matches[0]["id"]), (1, &json!("e-2")), "{tried}");
    assert_eq!(tried["results"][0]["reasons"][0]["pointer"], "/data/amount", "{tried}");
    let body =
        json!({ "types": ["consent:revoked"], "events": [event("e-6", "consent:created", &json!({}))] });
    let path = format!("/v1/workspaces/{WORKSPACE}/dry-run");
    let tried = scene.carillon.post(&path, "application/json", &body).await?.expect_status(200)?.json();
    assert_eq!(tried["results"][0]["reasons"][0]["pointer"], "/type", "{tried}");
    scene.end().await
}

#[tokio::test]
async fn deliveries_are_made_as_the_subscription_says() -> Result<()> {
    let scene = Scene::set("as-said", &[("RetryScale", "0.1")]).await?;
    let own = json!({
        "types": ["consent:*"],
        "format": "standardWebhooks",
        "headers": { "X-Tenant": "eu-1" },
        "retryPolicy": { "waitsSeconds": [] },
        "timeoutSeconds": 1,
    });
    scene.subscribe_with("/own", &own).await?;
    scene
        .subscribe_with("/binary", &json!({ "types": ["consent:*"], "format": "cloudEventsBinary" }))
        .await?;
    scene.receiver.answer("/own", [Answer::hang()]);
    scene.publish(&event("e-1", "consent:created", &json!({ "consentId": "é" }))).await?;

    let binary = scene.received("/binary", 1).await?.swap_remove(0);
    assert_eq!(binary.body, r#"{"consentId":"é"}"#.as_bytes());
    assert_eq!(
        ["ce-id", "ce-type", "ce-specversion", "content-type"].map(|name| binary.header(name)),
        ["e-1", "consent:created", "1.0", "application/json"]
    );
    let own = scene.received("/own", 1).await?.swap_remove(0);
    assert_eq!(own.header("x-tenant"), "eu-1");
    assert_eq!(
        (&own.json()["type"], &own.json()["data"]),
        (&json!("consent:created"), &json!({ "consentId": "é" }))
    );
    assert!(own.json()["timestamp"].is_string());
    // One attempt was all that it asked for.
    let failed = |row: &Value| row["status"]["S"] == "failed";
    carillon_tests::eventually("the delivery to fail", || async {
        Ok(scene.deliveries().await?.iter().any(failed).then_some(()))
    })
    .await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/own").len(), 1);
    assert_eq!(scene.stack.queue_depth("DeadLetterQueueUrl").await?, 1);
    scene.break_off().await
}

fn count(list: &Value) -> usize {
    list["items"].as_array().map_or(0, Vec::len)
}

/// Whoever changes a subscription need not know its secrets, so they are for the host alone that they were given for.
#[tokio::test]
async fn secrets_do_not_follow_to_another_host() -> Result<()> {
    let scene = Scene::set("other-host", &[]).await?;
    let carillon = &scene.carillon;
    let basic = json!({ "type": "basic", "user": "carillon", "password": "correct horse" });
    let with = |path: &'static str, authorization: Value| {
        let endpoint = scene.receiver.url(path);
        let body = json!({
            "endpoint": endpoint, "subscriber": "tpp-1", "types": ["consent:*"], "authorization": authorization,
        });
        async move {
            anyhow::Ok(
                carillon.post(SUBSCRIPTIONS, "application/json", &body).await?.expect_status(201)?.json(),
            )
        }
    };
    let path_of = |created: &Value| format!("{SUBSCRIPTIONS}/{}", created["id"].as_str().unwrap_or_default());
    let other = carillon_local::Receiver::start().await?;

    let created = with("/basic", basic).await?;
    let path = path_of(&created);
    let same_host = json!({ "endpoint": scene.receiver.url("/basic/moved") });
    carillon.patch(&path, &same_host).await?.expect_status(200)?;
    let refused = problem(&carillon.patch(&path, &json!({ "endpoint": other.url("/") })).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "/authorization/password", "{refused}");
    let told = json!({ "endpoint": other.url("/"), "authorization": { "password": "battery staple" } });
    carillon.patch(&path, &told).await?.expect_status(200)?;

    let created = with("/key", json!({ "type": "apiKey" })).await?;
    let moved = carillon.patch(&path_of(&created), &json!({ "endpoint": other.url("/") })).await?;
    let moved = moved.expect_status(200)?.json();
    assert!(
        moved["apiKey"].is_string() && moved["apiKey"] != created["apiKey"],
        "another key for another host"
    );
    scene.end().await
}
