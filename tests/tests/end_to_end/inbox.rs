//! Inboxes: what is sent to them, who reads it, and how they answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use carillon_local::{Carillon, Reply, event};
use carillon_tests::{Scene, WORKSPACE, eventually, problem};
use serde_json::{Value, json};

const INBOXES: &str = "/v1/workspaces/acme/inboxes";

/// An inbox as its creator was told of it.
struct Inbox {
    id: String,
    url: String,
    shown: Value,
}

impl Inbox {
    async fn create(client: &Carillon, body: &Value) -> Result<Self> {
        let reply = client.post(INBOXES, "application/json", body).await?.expect_status(201)?;
        let shown = reply.json();
        let text = |field: &str| shown[field].as_str().unwrap_or_default().to_owned();
        let created = Self { id: text("id"), url: text("url"), shown };
        assert_eq!(reply.headers["location"], format!("{INBOXES}/{}", created.id));
        Ok(created)
    }

    fn path(&self) -> String {
        format!("{INBOXES}/{}", self.id)
    }

    fn token(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// Sends to it as anybody could who has its URL.
    async fn send(&self, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Reply> {
        Carillon::new(&self.url).send(method, "", headers, body).await
    }

    /// What it has received after a request.
    async fn requests(&self, client: &Carillon, after: &str) -> Result<Vec<Value>> {
        let path = format!("{}/requests?after={after}", self.path());
        let page = client.get(&path).await?.expect_status(200)?.json();
        let items = page["items"].as_array().context("a list has items")?.clone();
        assert_eq!(page["next"], items.last().map_or(Value::Null, |last| last["id"].clone()), "{page}");
        Ok(items)
    }

    /// Waits until it has received so many after a request.
    async fn received(&self, client: &Carillon, after: &str, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} requests behind {after}"), || async {
            Ok(Some(self.requests(client, after).await?).filter(|requests| requests.len() >= count))
        })
        .await
    }

    /// Changes what the table knows of it.
    async fn rewrite(&self, scene: &Scene, update: &str, value: u64) -> Result<()> {
        let key = json!({ "pk": { "S": format!("IN#{}", self.token()) }, "sk": { "S": "inbox" } });
        let input = json!({
            "TableName": scene.stack.output("InboxesTable"),
            "Key": key,
            "UpdateExpression": update,
            "ExpressionAttributeValues": { ":value": { "N": value.to_string() } },
        });
        scene.stack.dynamodb("UpdateItem", input).await?;
        Ok(())
    }
}

fn numbers(requests: &[Value]) -> Vec<&str> {
    requests.iter().filter_map(|request| request["id"].as_str()).collect()
}

fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let headers = request["headers"].as_array()?;
    headers.iter().find(|header| header[0] == name)?[1].as_str()
}

/// No answer of an inbox is a page, whatever it was told to say and whatever came in.
fn assert_harmless(reply: &Reply) {
    let header =
        |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("content-security-policy").starts_with("sandbox;"));
    assert!(!String::from_utf8_lossy(&reply.body).contains('<'));
}

async fn subscribe(scene: &Scene, inbox: &Inbox, said: &Value) -> Result<Value> {
    let mut body = said.clone();
    body["endpoint"] = json!(inbox.url);
    body["subscriber"] = json!("tpp-1");
    if body["types"].is_null() {
        body["types"] = json!(["consent:*"]);
    }
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
    Ok(scene.carillon.post(&path, "application/json", &body).await?.expect_status(201)?.json())
}

async fn demand(scene: &Scene, verification: &str) -> Result<()> {
    let settings = json!({ "settings": { "verification": verification } });
    scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
    Ok(())
}

/// A client of its own with this role in the workspace.
async fn client(scene: &Scene, role: &Value) -> Result<Carillon> {
    let client = scene.stack.carillon().await?;
    scene.carillon.grant(WORKSPACE, client.client_id(), role).await?;
    Ok(client)
}

#[tokio::test]
async fn what_is_delivered_to_an_inbox_can_be_read_with_its_verdict() -> Result<()> {
    let scene = Scene::set("inbox", &[]).await?;
    let carillon = &scene.carillon;
    demand(&scene, "handshake").await?;
    let inbox = Inbox::create(carillon, &json!({})).await?;
    assert_eq!(inbox.shown["answer"], json!({ "status": 200, "delayMs": 0 }));
    assert_eq!(carillon.get(&inbox.path()).await?.expect_status(200)?.json(), inbox.shown);
    assert_eq!(carillon.get(INBOXES).await?.expect_status(200)?.json()["items"], json!([inbox.shown]));

    // It agrees to be called, so that the subscription is active at once.
    let subscription =
        subscribe(&scene, &inbox, &json!({ "types": ["consent:created"], "ratePerMinute": 6000 })).await?;
    assert_eq!(subscription["status"], "active", "{subscription}");
    assert_eq!(subscription["verification"]["grantedRatePerMinute"], 6000);
    let asked = inbox.received(carillon, "0", 1).await?;
    assert_eq!((&asked[0]["method"], &asked[0]["signature"]), (&json!("OPTIONS"), &json!("absent")));
    assert_eq!(numbers(&asked), ["1"]);

    let created = event("e-1", "consent:created", &json!({ "text": "\u{fc} <script>" }));
    scene.publish(&created).await?;
    let delivered = inbox.received(carillon, "1", 1).await?.remove(0);
    assert_eq!(
        (&delivered["method"], &delivered["signature"]),
        (&json!("POST"), &json!("verified")),
        "{delivered}"
    );
    assert_eq!((&delivered["encoding"], &delivered["id"]), (&json!("text"), &json!("2")));
    assert!(delivered["path"].as_str().is_some_and(|path| path.ends_with(&format!("/in/{}", inbox.token()))));
    let body: Value = serde_json::from_str(delivered["body"].as_str().unwrap_or_default())?;
    assert_eq!(body["data"], created["data"]);
    assert_eq!(header(&delivered, "content-type"), Some("application/cloudevents+json; charset=utf-8"));

    // By the workspace's key as well as by a subscription's secret.
    let by_key = json!({ "types": ["consent:revoked"], "signatures": ["v1a"] });
    let by_key = subscribe(&scene, &inbox, &by_key).await?;
    scene.publish(&event("e-2", "consent:revoked", &json!({}))).await?;
    let revoked = inbox.received(carillon, "3", 1).await?.remove(0);
    assert!(header(&revoked, "webhook-signature").is_some_and(|signature| signature.starts_with("v1a,")));
    assert_eq!((&revoked["signature"], &revoked["id"]), (&json!("verified"), &json!("4")), "{revoked}");

    // What others send is what it is.
    let copied = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .map(|name| (name, header(&delivered, name).unwrap_or_default()));
    let genuine = delivered["body"].as_str().unwrap_or_default().as_bytes().to_vec();
    for (headers, body) in
        [(&copied[..], genuine), (&copied[..], b"{\"forged\":true}".to_vec()), (&[][..], vec![0xff, 0x00])]
    {
        let reply = inbox.send("POST", headers, body).await?.expect_status(200)?;
        assert_harmless(&reply);
    }
    let sent = inbox.requests(carillon, "4").await?;
    let verdicts: Vec<_> = sent.iter().map(|request| request["signature"].clone()).collect();
    assert_eq!(verdicts, ["verified", "refused", "absent"]);
    assert_eq!((&sent[2]["encoding"], &sent[2]["body"]), (&json!("base64"), &json!("/wA=")));
    for subscription in [&subscription, &by_key] {
        let id = subscription["id"].as_str().unwrap_or_default();
        let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions/{id}");
        carillon.delete(&path).await?.expect_status(204)?;
    }
    let orphans = inbox.requests(carillon, "4").await?;
    assert_eq!(orphans[0]["signature"], "unknown");
    scene.end().await
}

#[tokio::test]
async fn an_inbox_answers_as_it_is_told() -> Result<()> {
    let scene = Scene::set("inbox-answers", &[("RetryScale", "0.02")]).await?;
    let carillon = &scene.carillon;
    let inbox = Inbox::create(carillon, &json!({ "answer": { "status": 500 } })).await?;
    subscribe(&scene, &inbox, &json!({ "retryPolicy": { "waitsSeconds": [5, 5, 5, 60, 60, 60] } })).await?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    let failed = inbox.received(carillon, "0", 2).await?;
    let changed =
        carillon.patch(&inbox.path(), &json!({ "answer": { "status": 204 } })).await?.expect_status(200)?;
    assert_eq!(changed.json()["answer"], json!({ "status": 204, "delayMs": 0 }));
    scene.all_deliveries(1, "delivered").await?;
    let all = inbox.requests(carillon, "0").await?;
    assert!(all.len() > failed.len());
    for request in &all {
        assert_eq!(request["signature"], "verified", "{request}");
        assert_eq!(header(request, "webhook-id"), header(&all[0], "webhook-id"), "{request}");
    }

    let late = json!({ "answer": { "status": 503, "delayMs": 1200 } });
    carillon.patch(&inbox.path(), &late).await?.expect_status(200)?;
    let began = Instant::now();
    let reply = inbox.send("PUT", &[], b"<h1>".to_vec()).await?.expect_status(503)?;
    assert!(began.elapsed() >= Duration::from_millis(1200));
    assert_harmless(&reply);
    // What is not said of a change stays, and null is the default.
    let patched = carillon.patch(&inbox.path(), &json!({ "answer": { "delayMs": null } })).await?;
    assert_eq!(patched.expect_status(200)?.json()["answer"], json!({ "status": 503, "delayMs": 0 }));

    let wrong = json!({ "answer": { "status": 99, "delayMs": 10_001 } });
    for reply in [
        carillon.post(INBOXES, "application/json", &wrong).await?,
        carillon.patch(&inbox.path(), &wrong).await?,
    ] {
        let refused = problem(&reply, 400);
        let pointers: Vec<_> = (0..2).map(|at| refused["errors"][at]["pointer"].clone()).collect();
        assert_eq!(pointers, ["/answer/status", "/answer/delayMs"]);
    }
    scene.end().await
}

#[tokio::test]
async fn an_inbox_has_its_bounds_and_its_end() -> Result<()> {
    let scene = Scene::set("inbox-bounds", &[]).await?;
    let carillon = &scene.carillon;
    let inbox = Inbox::create(carillon, &json!({})).await?;
    let full = vec![b'x'; 64 * 1024];
    inbox.send("POST", &[], full.clone()).await?.expect_status(200)?;
    let larger = [full.clone(), vec![b'x']].concat();
    assert_harmless(&inbox.send("POST", &[], larger).await?.expect_status(413)?);
    let kept = inbox.requests(carillon, "0").await?;
    assert_eq!((kept.len(), kept[0]["body"].as_str().map(str::len)), (1, Some(64 * 1024)));

    // The 500th and the next take the first places anew.
    inbox.send("POST", &[], b"two".to_vec()).await?.expect_status(200)?;
    inbox.rewrite(&scene, "SET received = :value", 499).await?;
    for number in 500..=501_u32 {
        inbox.send("POST", &[], number.to_string().into_bytes()).await?.expect_status(200)?;
    }
    let kept = inbox.requests(carillon, "0").await?;
    // What is on this side of the round's end is a page of its own.
    assert_eq!((numbers(&kept), &kept[0]["body"]), (vec!["2"], &json!("two")));
    assert_eq!(numbers(&inbox.requests(carillon, "2").await?), ["500", "501"]);
    let page =
        carillon.get(&format!("{}/requests?after=2&limit=1", inbox.path())).await?.expect_status(200)?.json();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next"]), (Some(1), &json!("500")));
    for query in ["limit=0", "limit=51", "after=x", "after=-1"] {
        problem(&carillon.get(&format!("{}/requests?{query}", inbox.path())).await?, 400);
    }

    // Nobody's.
    let api = scene.stack.api_url();
    for token in ["0".repeat(26), "x".to_owned(), inbox.token().to_uppercase()] {
        let reply = Carillon::new(format!("{api}/in/{token}")).send("POST", "", &[], full.clone()).await?;
        assert_harmless(&reply.expect_status(404)?);
    }

    inbox.rewrite(&scene, "SET expires_at = :value", 1_700_000_000).await?;
    assert_eq!(inbox.send("POST", &[], Vec::new()).await?.status, 404);
    for path in [inbox.path(), format!("{}/requests", inbox.path())] {
        problem(&carillon.get(&path).await?, 404);
    }
    problem(&carillon.patch(&inbox.path(), &json!({})).await?, 404);
    assert_eq!(carillon.get(INBOXES).await?.expect_status(200)?.json()["items"], json!([]));

    // Its place is another's now.
    let next = Inbox::create(carillon, &json!({})).await?;
    assert_eq!(next.requests(carillon, "0").await?.len(), 0);
    carillon.delete(&next.path()).await?.expect_status(204)?;
    assert_eq!(next.send("POST", &[], Vec::new()).await?.status, 404);
    problem(&carillon.delete(&next.path()).await?, 404);
    scene.end().await
}

#[tokio::test]
async fn an_inbox_is_its_owners_own() -> Result<()> {
    let scene = Scene::set("inbox-owners", &[]).await?;
    let owner = &scene.carillon;
    let [first, second] =
        ["tpp-1", "tpp-2"].map(|subscriber| json!({ "role": "subscriber", "subscriber": subscriber }));
    let (first, second) = (client(&scene, &first).await?, client(&scene, &second).await?);
    let support = client(&scene, &json!({ "role": "support" })).await?;
    let stranger = scene.stack.carillon().await?;
    stranger.own_workspace("elsewhere", "consent").await?;

    let inbox = Inbox::create(&first, &json!({})).await?;
    assert_eq!(owner.get(&inbox.path()).await?.expect_status(200)?.json()["subscriber"], "tpp-1");
    for (other, path) in [
        (&second, inbox.path()),
        (&stranger, inbox.path()),
        (&stranger, inbox.path().replace(WORKSPACE, "elsewhere")),
    ] {
        problem(&other.get(&path).await?, 404);
        problem(&other.get(&format!("{path}/requests")).await?, 404);
        problem(&other.patch(&path, &json!({})).await?, 404);
        problem(&other.delete(&path).await?, 404);
    }
    assert_eq!(second.get(INBOXES).await?.expect_status(200)?.json()["items"], json!([]));
    let owners = Inbox::create(owner, &json!({})).await?;
    problem(&first.get(&owners.path()).await?, 404);

    // Support reads all but what may be a secret.
    inbox
        .send("POST", &[("authorization", "Bearer s3cret"), ("ce-id", "1")], Vec::new())
        .await?
        .expect_status(200)?;
    let by_owner = inbox.requests(&first, "0").await?.remove(0);
    assert_eq!(header(&by_owner, "authorization"), Some("Bearer s3cret"));
    let by_support = inbox.requests(&support, "0").await?.remove(0);
    assert_eq!(
        (header(&by_support, "authorization"), header(&by_support, "ce-id")),
        (Some("(hidden)"), Some("1"))
    );

    // One subscriber's share.
    for _ in 1..5 {
        Inbox::create(&first, &json!({})).await?;
    }
    let refused = problem(&first.post(INBOXES, "application/json", &json!({})).await?, 409);
    assert_eq!(refused["type"], "/problems/too-many-inboxes");
    Inbox::create(&second, &json!({})).await?;

    // Who made it wants what comes to it, so a challenge needs no visit; but one subscriber does not consent for another.
    demand(&scene, "challenge").await?;
    let subscription = subscribe(&scene, &inbox, &json!({})).await?;
    assert_eq!(subscription["status"], "active", "{subscription}");
    let challenge = inbox.received(owner, "1", 1).await?.remove(0);
    assert!(challenge["body"].as_str().is_some_and(|body| body.contains("carillon.subscription.challenge")));
    let body = json!({ "endpoint": inbox.url, "types": ["consent:*"] });
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
    let foreign = second.post(&path, "application/json", &body).await?.expect_status(201)?.json();
    assert_eq!(foreign["status"], "pending", "{foreign}");

    // A workspace that is made anew under the same id has none of them.
    owner.delete(&format!("/v1/workspaces/{WORKSPACE}?cascade=true")).await?.expect_status(202)?;
    eventually("the workspace to be gone", || async {
        let created = owner.create_workspace(WORKSPACE, "consent").await;
        Ok(created.ok())
    })
    .await?;
    owner.grant(WORKSPACE, owner.client_id(), &json!({ "role": "owner" })).await?;
    let listed = eventually("the new grant to hold", || async {
        let reply = owner.get(INBOXES).await?;
        Ok((reply.status == 200).then(|| reply.json()))
    })
    .await?;
    assert_eq!(listed["items"], json!([]));
    scene.break_off().await
}

#[tokio::test]
async fn there_are_none_where_they_are_off() -> Result<()> {
    let scene = Scene::set("no-inboxes", &[("Inboxes", "off")]).await?;
    problem(&scene.carillon.get(INBOXES).await?, 404);
    problem(&scene.carillon.post(INBOXES, "application/json", &json!({})).await?, 404);
    problem(&scene.carillon.get(&format!("/in/{}", "0".repeat(26))).await?, 404);
    scene.end().await
}
