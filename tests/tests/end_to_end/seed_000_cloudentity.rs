//! 000: event-based notifications of the Cloudentity platform, as its guide has an administrator and a developer set them
//! up: webhooks by workspace, their keys, HTTPS and developer mode.

use anyhow::{Context as _, Result, ensure};
use carillon_local::{AUTHORITY, Carillon, Received, root};
use carillon_tests::story::{Story, sample_event, texts, type_names};
use carillon_tests::{Scene, eventually, problem};
use serde_json::{Value, json};

use crate::tls;

const STORY: Story = Story::of("000 Cloudentity");

const JSON: &str = "application/json";

/// Vouched for by [`AUTHORITY`], for this machine.
const SERVER_CERTIFICATE: &[u8] = include_bytes!("../../../crates/local/tls/server_certificate.pem");
const SERVER_KEY: &[u8] = include_bytes!("../../../crates/local/tls/server_key.pem");

/// A workspace whose audit events are those of Open Banking, and one whose are those of a platform of identities.
const OPEN_BANKING: &str = "open-banking";
const PLATFORM: &str = "platform";

/// "User consent grants and revocations in the Open Banking space".
const CONSENTS: [&str; 2] = ["consent:approved", "consent:revoke"];

/// "Registration of a new client application", "new services being discovered by the authorizers", "tokens being issued
/// and revoked".
const CAPTURED: [&str; 4] = ["client.registered", "service.discovered", "token.issued", "token.revoked"];

#[tokio::test]
async fn a_webhook_notifies_a_third_party_application() -> Result<()> {
    let scene = Scene::set("seed-000", &[]).await?;
    for (workspace, kind) in [(OPEN_BANKING, "consent"), (PLATFORM, "identity")] {
        scene.carillon.own_workspace(workspace, kind).await?;
    }
    events_are_specific_to_the_workspace_type(&scene).await?;
    let webhook = a_webhook_is_created_with_its_key(&scene).await?;
    what_is_subscribed_is_sent_with_the_key(&scene, &webhook).await?;
    a_webhook_is_changed_and_deleted(&scene, &webhook).await?;
    scene.end().await
}

/// A webhook and its key.
struct Webhook {
    id: String,
    api_key: String,
}

impl Webhook {
    fn path(&self) -> String {
        format!("{}/{}", subscriptions(PLATFORM), self.id)
    }
}

async fn events_are_specific_to_the_workspace_type(scene: &Scene) -> Result<()> {
    let carillon = &scene.carillon;
    let kinds = [(OPEN_BANKING, &CONSENTS[..], "token.issued"), (PLATFORM, &CAPTURED, "consent:approved")];
    for (workspace, own, foreign) in kinds {
        let names = type_names(carillon, workspace).await?;
        assert!(own.iter().all(|name| names.iter().any(|listed| listed == name)), "{names:?}");
        assert!(!names.iter().any(|name| name == foreign), "{names:?}");
        STORY.tells("events are specific to the workspace type", format!("{workspace} lists {names:?}"));

        let body = json!({ "endpoint": scene.receiver.url("/"), "subscriber": "portal", "types": [foreign] });
        let refused = problem(&carillon.post(&subscriptions(workspace), JSON, &body).await?, 400);
        assert_eq!(refused["errors"][0]["pointer"], "/types/0", "{refused}");
        let detail = refused["errors"][0]["detail"].as_str().context("there is no detail")?;
        let list = detail.rsplit(' ').next().unwrap_or_default();
        let listed = carillon.get(list).await?.expect_status(200)?.json();
        let listed = texts(&listed["items"], "name");
        assert!(own.iter().all(|name| listed.contains(name)), "{listed:?}");
        STORY.tells(
            "not all events are captured by all workspaces",
            format!("{foreign} is refused in {workspace}: 400, {detail}"),
        );
    }
    Ok(())
}

async fn a_webhook_is_created_with_its_key(scene: &Scene) -> Result<Webhook> {
    let body = json!({
        "endpoint": scene.receiver.url("/portal"),
        "subscriber": "portal",
        "types": CAPTURED,
        "authorization": { "type": "apiKey" },
    });
    let created =
        scene.carillon.post(&subscriptions(PLATFORM), JSON, &body).await?.expect_status(201)?.json();
    let text = |field: &str| created[field].as_str().map(str::to_owned).context("a field is missing");
    let webhook = Webhook { id: text("id")?, api_key: text("apiKey")? };
    scene.receiver.trust("/portal", &text("signingSecret")?);

    let read = scene.carillon.get(&webhook.path()).await?.expect_status(200)?;
    let listed = scene.carillon.get(&subscriptions(PLATFORM)).await?.expect_status(200)?;
    for later in [&read, &listed] {
        assert!(!String::from_utf8_lossy(&later.body).contains(&webhook.api_key), "the key is shown again");
    }
    assert_eq!(
        (&read.json()["id"], &listed.json()["items"][0]["id"]),
        (&json!(webhook.id), &json!(webhook.id))
    );
    let of_others = scene.carillon.get(&subscriptions(OPEN_BANKING)).await?.expect_status(200)?.json();
    assert_eq!(of_others["items"], json!([]));
    STORY.tells(
        "webhooks are added to a workspace",
        "created (201), read, and listed in this workspace alone",
    );
    STORY.tells("copy the API key when notified", "the key is in the answer of the creation and in no other");
    Ok(webhook)
}

async fn what_is_subscribed_is_sent_with_the_key(scene: &Scene, webhook: &Webhook) -> Result<()> {
    // Whoever hears of everything knows when there is no more to come.
    hear(scene, PLATFORM, "/audit", &["*"]).await?;
    hear(scene, OPEN_BANKING, "/consents", &CONSENTS).await?;
    let captured = ["entityCreated"].iter().chain(&CAPTURED).map(|kind| (PLATFORM, *kind));
    for (workspace, kind) in captured.chain(CONSENTS.map(|kind| (OPEN_BANKING, kind))) {
        let happened = sample_event(&scene.carillon, workspace, &format!("audit-{kind}"), kind).await?;
        scene.carillon.publish(workspace, &happened).await?.expect_status(202)?;
    }
    scene.received("/audit", 1 + CAPTURED.len()).await?;
    scene.received("/consents", CONSENTS.len()).await?;
    let received = scene.received("/portal", CAPTURED.len()).await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/portal").len(), CAPTURED.len());
    let mut told: Vec<_> = received.iter().map(Received::json).collect();
    told.sort_by_key(|told| told["type"].to_string());
    let told = json!(told);
    let kinds = texts(&told, "type");
    assert_eq!(kinds, CAPTURED);
    STORY.tells("consent grants and revocations in the Open Banking space", format!("{CONSENTS:?}"));
    STORY.tells(
        "a notification each time an event occurs that is subscribed, else none",
        format!("{kinds:?}"),
    );
    assert!(received.iter().all(|request| request.header("x-api-key") == webhook.api_key));
    STORY.tells(
        "this API key is always sent",
        format!("x-api-key is right on all {} requests", received.len()),
    );
    Ok(())
}

/// Another webhook in a workspace.
async fn hear(scene: &Scene, workspace: &str, path: &str, types: &[&str]) -> Result<()> {
    let body = json!({ "endpoint": scene.receiver.url(path), "subscriber": "audit", "types": types });
    let webhook = scene.carillon.subscribe_with(workspace, &body).await?;
    scene.receiver.trust(path, &webhook.secret);
    Ok(())
}

async fn a_webhook_is_changed_and_deleted(scene: &Scene, webhook: &Webhook) -> Result<()> {
    let (carillon, path) = (&scene.carillon, webhook.path());
    let publish = async |id: &str| {
        let happened = sample_event(carillon, PLATFORM, id, "entityDeleted").await?;
        carillon.publish(PLATFORM, &happened).await?.expect_status(202)
    };
    let updated =
        carillon.patch(&path, &json!({ "types": ["entityDeleted"] })).await?.expect_status(200)?.json();
    assert_eq!(updated["types"], json!(["entityDeleted"]));
    publish("audit-updated").await?;
    let received = scene.received("/portal", CAPTURED.len() + 1).await?;
    assert_eq!(received[CAPTURED.len()].header("x-api-key"), webhook.api_key);

    carillon.delete(&path).await?.expect_status(204)?;
    problem(&carillon.get(&path).await?, 404);
    publish("audit-deleted").await?;
    scene.received("/audit", 1 + CAPTURED.len() + 2).await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/portal").len(), CAPTURED.len() + 1);
    STORY.tells(
        "webhook CRUD APIs",
        "updated (200) to another event, which came with the same key; deleted (204), and nothing came any more",
    );
    Ok(())
}

#[tokio::test]
async fn https_is_enforced_until_the_administrator_turns_it_off() -> Result<()> {
    let scene = Scene::set("seed-000-https", &[]).await?;
    let carillon = &scene.carillon;
    let workspace = json!({ "id": PLATFORM, "name": "Platform", "kind": "identity" });
    let created = carillon.post("/v1/workspaces", JSON, &workspace).await?.expect_status(201)?.json();
    assert_eq!(
        (&created["settings"]["httpsRequired"], &created["settings"]["developerMode"]),
        (&json!(true), &json!(false))
    );
    carillon.grant(PLATFORM, carillon.client_id(), &json!({ "role": "owner" })).await?;
    let plain = json!({
        "endpoint": scene.receiver.url("/portal"), "subscriber": "portal", "types": ["token.issued"],
    });
    let refused = problem(&carillon.post(&subscriptions(PLATFORM), JSON, &plain).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "/endpoint", "{refused}");
    STORY.tells("HTTPS is enforced by default", format!("400, {}", refused["errors"][0]["detail"]));

    let owner = scene.stack.client("developer", &["carillon/subscribe", "carillon/read"]).await?;
    carillon.grant(PLATFORM, &owner.client_id, &json!({ "role": "owner" })).await?;
    let owner = Carillon::new(scene.stack.api_url()).with_token(scene.stack.token(&owner).await?);
    let path = format!("/v1/workspaces/{PLATFORM}");
    let off = json!({ "settings": { "httpsRequired": false } });
    problem(&owner.patch(&path, &off).await?, 403);
    carillon.patch(&path, &off).await?.expect_status(200)?;
    carillon.post(&subscriptions(PLATFORM), JSON, &plain).await?.expect_status(201)?;
    STORY.tells(
        "but can be turned off by the administrator",
        "403 for the workspace's owner; 200 for the administrator, in a deployment that allows it; then 201 for http",
    );

    certificates_go_unchecked_in_developer_mode(&scene).await?;
    not_where_the_deployment_forbids_it(&scene).await?;
    scene.end().await
}

/// The receiver's certificate is vouched for by nobody.
async fn certificates_go_unchecked_in_developer_mode(scene: &Scene) -> Result<()> {
    let carillon = &scene.carillon;
    let body = json!({
        "endpoint": tls::receiver()?,
        "subscriber": "portal",
        "types": ["client.registered"],
        "retryPolicy": { "waitsSeconds": [1, 2, 2, 3, 3] },
    });
    let webhook = carillon.subscribe_with(PLATFORM, &body).await?.id;
    let happened = sample_event(carillon, PLATFORM, "audit-tls", "client.registered").await?;
    let published = carillon.publish(PLATFORM, &happened).await?.expect_status(202)?.json();
    let deliveries = format!("{}/{webhook}/deliveries", subscriptions(PLATFORM));
    let standing = async |status: &str| {
        eventually(&format!("the delivery to be {status}"), async || {
            let listed = carillon.get(&deliveries).await?.expect_status(200)?.json();
            Ok((listed["items"][0]["status"] == status).then(|| listed["items"][0].clone()))
        })
        .await
    };
    let refused = standing("retrying").await?;
    assert_eq!(refused["event"]["id"], published["eventId"]);
    let on = json!({ "settings": { "developerMode": true } });
    carillon.patch(&format!("/v1/workspaces/{PLATFORM}"), &on).await?.expect_status(200)?;
    let delivered = standing("delivered").await?;
    let outcomes = texts(&delivered["attempts"], "outcome");
    let (last, before) = outcomes.split_last().context("there are no attempts")?;
    ensure!(!before.is_empty() && before.iter().all(|outcome| *outcome == "tls"), "{outcomes:?}");
    ensure!(*last == "delivered", "{outcomes:?}");
    STORY.tells(
        "to disable certificate validation, activate the developer mode",
        format!("attempts ended as {outcomes:?}: the mode was activated on the way"),
    );
    Ok(())
}

/// As if it had been deployed without `AllowInsecure`.
async fn not_where_the_deployment_forbids_it(scene: &Scene) -> Result<()> {
    let (discovery, authority) = (issuer_over_https(scene).await?, root().join(AUTHORITY));
    let variables = [
        ("ALLOW_INSECURE", "false"),
        ("JWT_DISCOVERY", discovery.as_str()),
        ("SSL_CERT_FILE", authority.to_str().context("the path is no text")?),
    ];
    scene.stack.set_environment("api", &variables).await?;
    for (setting, value) in [("httpsRequired", false), ("developerMode", true)] {
        let settings = json!({ setting: value });
        let body = json!({ "id": "lax", "name": "Lax", "kind": "identity", "settings": settings });
        let refused = problem(&scene.carillon.post("/v1/workspaces", JSON, &body).await?, 400);
        let pointer = format!("/settings/{setting}");
        assert_eq!(refused["errors"][0]["pointer"], pointer.as_str(), "{refused}");
        STORY.tells(
            "only where the deployment allows it",
            format!("400 for the administrator, {pointer} {}", refused["errors"][0]["detail"]),
        );
    }
    Ok(())
}

/// The stack's issuer behind HTTPS, since a deployment that allows nothing else fetches its keys in no other way: the URL of
/// its configuration (OpenID Connect Discovery 1.0, section 4).
async fn issuer_over_https(scene: &Scene) -> Result<String> {
    let get = async |url: &Value| {
        let url = url.as_str().context("there is no URL")?;
        let reply = Carillon::new(url).send("GET", "", &[], Vec::new()).await?.expect_status(200)?;
        anyhow::Ok(reply.json())
    };
    let configuration = get(&scene.stack.environment("api").await?["JWT_DISCOVERY"]).await?;
    let keys = get(&configuration["jwks_uri"]).await?;
    let url = tls::serve((SERVER_CERTIFICATE, SERVER_KEY), move |request| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let mut told = configuration.clone();
        told["jwks_uri"] = json!(format!("https://{host}/keys"));
        let body = if request.starts_with("GET /keys") { &keys } else { &told }.to_string();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    })?;
    Ok(format!("{url}/configuration"))
}

fn subscriptions(workspace: &str) -> String {
    format!("/v1/workspaces/{workspace}/subscriptions")
}
