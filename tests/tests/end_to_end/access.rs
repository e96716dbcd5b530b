//! Who gets in: every operation of the API's document, tried with tokens that are no good, and by clients that have no
//! business there.

use std::fs;

use anyhow::{Context as _, Result};
use carillon_local::{Carillon, Issuer, Key, Reply, event, root};
use carillon_tests::{Scene, WORKSPACE};
use futures::future::try_join_all;
use serde_json::{Value, json};

const AUDIENCE: &str = "carillon";
const SCOPES: [&str; 4] = ["carillon/admin", "carillon/publish", "carillon/subscribe", "carillon/read"];

/// An operation with a request that would succeed if it came from the right client.
#[derive(Clone)]
struct Operation {
    id: String,
    method: String,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
    /// Alternatives, each a list of scopes; none: it is open.
    needs: Vec<Vec<String>>,
    roles: Vec<String>,
}

/// A deployment that goes by an issuer of the test's own, with a subscription of `tpp-1`.
struct Doors {
    scene: Scene,
    issuer: Issuer,
    subscription: String,
}

impl Doors {
    async fn set(name: &str) -> Result<Self> {
        let issuer = Issuer::start().await?;
        let scene = Scene::set_behind(name, &issuer, AUDIENCE).await?;
        let subscription = scene.subscribe("/inbox", &["consent:*"]).await?.id;
        Ok(Self { scene, issuer, subscription })
    }

    /// What a client with these scopes is answered.
    async fn ask(&self, client: &str, scopes: &str, operation: &Operation) -> Result<Reply> {
        let token = self.issuer.token(&self.issuer.claims(client, AUDIENCE, scopes))?;
        self.ask_with(&format!("Bearer {token}"), operation).await
    }

    async fn ask_with(&self, authorization: &str, operation: &Operation) -> Result<Reply> {
        let headers = [("authorization", authorization), ("content-type", operation.content_type)];
        self.scene.carillon.send(&operation.method, &operation.path, &headers, operation.body.clone()).await
    }

    /// Every operation, on what is there.
    fn operations(&self) -> Result<Vec<Operation>> {
        operations(|parameter| match parameter {
            "workspace" => WORKSPACE.to_owned(),
            "subscription" => self.subscription.clone(),
            "client" => "lead".to_owned(),
            "type" => "consent:created".to_owned(),
            "job" => "job_00000000000000000000000000".to_owned(),
            "delivery" => "dlv_00000000000000000000000000000000".to_owned(),
            other => other.to_owned(),
        })
    }
}

#[tokio::test]
async fn no_operation_takes_a_token_that_is_no_good() -> Result<()> {
    let doors = Doors::set("tokens").await?;
    let issuer = &doors.issuer;
    let good = issuer.claims("lead", AUDIENCE, &SCOPES.join(" "));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.token(&claims)
    };
    let signed = |key| issuer.sign(&issuer.header(key), &good, key);
    let confused = issuer.sign(&issuer.header(Key::Es256), &good, Key::Rs256)?;
    let bad = [
        ("expired", with("exp", json!(1_700_000_000))?),
        ("not yet valid", with("nbf", json!(4_000_000_000_u64))?),
        ("of another issuer", with("iss", json!("https://issuer.example.com"))?),
        ("for another audience", with("aud", json!("elsewhere"))?),
        ("forged", signed(Key::Stranger)?),
        ("signed with the public key", signed(Key::PublicKeyAsSecret)?),
        ("of another key type", confused),
        ("unsigned", signed(Key::Nothing)?),
        ("no token at all", "nonsense".to_owned()),
    ];
    for operation in doors.operations()?.iter().filter(|operation| !operation.needs.is_empty()) {
        let bare = doors.ask_with("", operation).await?;
        assert_eq!(bare.status, 401, "{}", operation.id);
        assert!(bare.headers.contains_key("www-authenticate"), "{}", operation.id);
        let replies =
            bad.iter().map(async |(_, token)| doors.ask_with(&format!("Bearer {token}"), operation).await);
        for ((why, _), reply) in bad.iter().zip(try_join_all(replies).await?) {
            assert_eq!(reply.status, 401, "{}, {why}", operation.id);
            assert_eq!(carillon_tests::problem(&reply, 401)["type"], "/problems/unauthorized");
            let challenge = reply.headers["www-authenticate"].to_str()?;
            assert!(challenge.contains("invalid_token"), "{}, {why}: {challenge}", operation.id);
        }
    }
    // The same claims in good order, by each kind of key: what was refused was refused for its fault.
    for key in [Key::Rs256, Key::Ps256, Key::Es256, Key::EdDsa] {
        let token = signed(key)?;
        let read = Carillon::new(doors.scene.stack.api_url()).with_token(token);
        read.get(&format!("/v1/workspaces/{WORKSPACE}")).await?.expect_status(200)?;
    }
    // New keys are found when a token names one.
    issuer.rotate()?;
    let rotated = Carillon::new(doors.scene.stack.api_url()).with_token(issuer.token(&good)?);
    carillon_tests::eventually("the new key to be known", || async {
        Ok((rotated.get(&format!("/v1/workspaces/{WORKSPACE}")).await?.status == 200).then_some(()))
    })
    .await?;
    doors.scene.end().await
}

#[tokio::test]
async fn every_operation_wants_its_scope_and_its_grant() -> Result<()> {
    let doors = Doors::set("grants").await?;
    let lead = &doors.scene.carillon;
    lead.own_workspace("other", "consent").await?;
    for (client, workspace, role) in [
        ("stranger", "other", json!({ "role": "owner" })),
        ("rival", WORKSPACE, json!({ "role": "subscriber", "subscriber": "tpp-2" })),
    ] {
        lead.grant(workspace, client, &role).await?;
    }
    let business = "carillon/publish carillon/subscribe carillon/read";
    let operations = doors.operations()?;
    assert!(operations.len() > 20, "the document is read");
    for operation in operations.iter().filter(|operation| !operation.needs.is_empty()) {
        let id = &operation.id;
        // Each scope alone, and the client is the workspace's owner: too little, unless it is the one that is asked for.
        for scope in SCOPES {
            let suffices = operation.needs.iter().any(|needed| *needed == [scope]);
            if !suffices {
                let reply = doors.ask("lead", scope, operation).await?;
                assert_eq!(reply.status, 403, "{id} with {scope}");
                let challenge = reply.headers["www-authenticate"].to_str()?;
                assert!(challenge.contains("insufficient_scope"), "{id}: {challenge}");
            }
        }
        if operation.path.contains(&format!("/{WORKSPACE}")) {
            // Another workspace's owner, and somebody without any grant, are told what they would be told of nothing.
            let nothing =
                Operation { path: operation.path.replace(WORKSPACE, "nothing"), ..operation.clone() };
            for client in ["stranger", "nobody"] {
                let reply = doors.ask(client, business, operation).await?;
                assert!(matches!(reply.status, 403 | 404), "{id} by {client}: {}", reply.status);
                assert_eq!(reply.status == 403, operation.roles.is_empty(), "{id} by {client}");
                let of_nothing = doors.ask(client, business, &nothing).await?;
                assert_eq!(without_instance(&reply), without_instance(&of_nothing), "{id} by {client}");
            }
        }
        // Another subscriber of the same workspace: what is not its own is not there, what is not its role is refused.
        if operation.path.contains(&doors.subscription) {
            let reply = doors.ask("rival", business, operation).await?;
            assert_eq!(reply.status, 404, "{id} by another subscriber");
        } else if !operation.roles.is_empty() && !operation.roles.iter().any(|role| role == "subscriber") {
            let reply = doors.ask("rival", business, operation).await?;
            assert_eq!(reply.status, 403, "{id} by a subscriber");
        }
    }

    // Lists and dry runs show a subscriber its own alone.
    let token = doors.issuer.token(&doors.issuer.claims("rival", AUDIENCE, business))?;
    let rival = Carillon::new(doors.scene.stack.api_url()).with_token(token);
    let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
    let listed = rival.get(&path).await?.expect_status(200)?.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(0), "{listed}");
    assert_eq!(rival.get(&format!("{path}?subscriber=tpp-1")).await?.status, 404);
    let mut addressed = event("secret-1", "consent:created", &json!({}));
    addressed["audience"] = json!("tpp-1");
    doors.scene.publish(&addressed).await?;
    doors.scene.received("/inbox", 1).await?;
    let recent = json!({ "types": ["*"], "recent": 10 });
    let dry_run = format!("/v1/workspaces/{WORKSPACE}/dry-run");
    let tried = rival.post(&dry_run, "application/json", &recent).await?.expect_status(200)?;
    assert!(!String::from_utf8_lossy(&tried.body).contains("secret-1"));
    let foreign =
        json!({ "endpoint": doors.scene.receiver.url("/rival"), "subscriber": "tpp-1", "types": ["*"] });
    assert_eq!(rival.post(&path, "application/json", &foreign).await?.status, 400);
    let workspaces = rival.get("/v1/workspaces").await?.expect_status(200)?.json();
    assert_eq!(workspaces["items"].as_array().map(Vec::len), Some(1), "{workspaces}");

    // Its own it may have, without saying whose it is.
    let own = json!({ "endpoint": doors.scene.receiver.url("/rival"), "types": ["*"] });
    let own = rival.post(&path, "application/json", &own).await?.expect_status(201)?.json();
    assert_eq!(own["subscriber"], "tpp-2");
    doors.scene.end().await
}

/// A refusal as it must read the same whatever is behind the path.
fn without_instance(reply: &Reply) -> Value {
    let mut body = reply.json();
    body.as_object_mut().map(|members| members.remove("instance"));
    json!([reply.status, body])
}

/// The operations of the checked-in document, with parameters filled in and a body that each takes.
fn operations(fill: impl Fn(&str) -> String) -> Result<Vec<Operation>> {
    let document: Value = serde_json::from_slice(&fs::read(root().join("infra/openapi.json"))?)?;
    let paths = document["paths"].as_object().context("the document has no paths")?;
    let mut operations = Vec::new();
    for (template, item) in paths {
        let mut path = String::new();
        for part in template.split_inclusive('/') {
            let (segment, slash) = part.strip_suffix('/').map_or((part, ""), |segment| (segment, "/"));
            let parameter = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            path += &parameter.map_or_else(|| segment.to_owned(), &fill);
            path += slash;
        }
        for (method, operation) in item.as_object().into_iter().flatten() {
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            let (content_type, body) = body(&id);
            let texts = |value: &Value| -> Vec<String> {
                value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let needs = operation["security"].as_array().into_iter().flatten();
            let needs = needs.filter_map(|alternative| alternative.get("oauth2")).map(texts).collect();
            operations.push(Operation {
                id,
                method: method.to_uppercase(),
                path: path.clone(),
                content_type,
                body,
                needs,
                roles: texts(&operation["x-carillon-roles"]),
            });
        }
    }
    Ok(operations)
}

/// What an operation is sent: good enough to be refused for nothing but its sender.
fn body(operation: &str) -> (&'static str, Vec<u8>) {
    let subscription = json!({ "endpoint": "https://192.88.99.1/", "subscriber": "tpp-1", "types": ["*"] });
    let (content_type, body) = match operation {
        "publishEvents" => ("application/cloudevents+json", event("e-1", "consent:created", &json!({}))),
        "createSubscription" | "replaceSubscription" => ("application/json", subscription),
        "registerInterceptor" => {
            ("application/json", json!({ "endpoint": "https://192.88.99.1/", "type": "DATA" }))
        }
        "patchSubscription" | "patchWorkspace" => ("application/merge-patch+json", json!({})),
        "createWorkspace" => ("application/json", json!({ "name": "New", "kind": "custom" })),
        "replaceWorkspace" => ("application/json", json!({ "name": "New" })),
        "putClient" => ("application/json", json!({ "role": "owner" })),
        "putEventType" => {
            ("application/json", json!({ "description": "A type", "schema": {}, "sample": {} }))
        }
        "dryRun" => ("application/json", json!({ "types": ["*"] })),
        "replay" | "fanOut" => {
            ("application/json", json!({ "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z" }))
        }
        _ => ("application/json", json!({})),
    };
    (content_type, body.to_string().into_bytes())
}
