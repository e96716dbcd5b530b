//! 004: notifications of a directory as Raidiam has them: every event of its list, applications and authorization servers
//! that confirm their endpoints, and payloads of four fields.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use carillon_aws::now;
use carillon_catalogue::builtin_type;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::WorkspaceKind;
use carillon_local::{Carillon, Received, event};
use carillon_tests::revisions::revisions;
use carillon_tests::story::{Story, sample_event, type_names};
use carillon_tests::{PATIENCE, SUBSCRIBER, Scene, problem};
use serde_json::{Value, json};

const STORY: Story = Story::of("004 Raidiam");

const WORKSPACE: &str = "directory";
const SUBSCRIPTIONS: &str = "/v1/workspaces/directory/subscriptions";
const JSON: &str = "application/json";

/// The seed's organisation, its application and its authorization server.
const ORGANISATION: &str = "79b34d52-125b-4e5a-8b69-db93e737aa78";
const APPLICATION: &str = "81b9a364-05ba-4030-ac21-75a46d3fcdb3";
const AUTHORIZATION_SERVER: &str = "9f347e44-23a0-4e76-917f-87cd05fd9d2f";

const SUSPENDED: &str = "softwareStatement.suspended";

/// Within which an endpoint is confirmed, in milliseconds.
const THREE_DAYS: u64 = 3 * 24 * 60 * 60 * 1000;

/// The seed's list of events that trigger a webhook, and their types.
const EVENTS: [(&str, &[&str]); 15] = [
    (
        "creation, update, or delete of organisations",
        &["organisation.created", "organisation.updated", "organisation.deleted"],
    ),
    (
        "authorization server: adding or removing an instance, changes to the configuration",
        &["authorisationServer.created", "authorisationServer.updated", "authorisationServer.deleted"],
    ),
    ("domain claims", &["domainClaim.created", "domainClaim.updated", "domainClaim.deleted"]),
    (
        "org auth domain role claim: requests or updates",
        &["domainRoleClaim.created", "domainRoleClaim.updated", "domainRoleClaim.deleted"],
    ),
    (
        "authorization server certification: gains or loses",
        &[
            "authorisationServerCertification.created",
            "authorisationServerCertification.updated",
            "authorisationServerCertification.deleted",
        ],
    ),
    ("API resource", &["apiResource.created", "apiResource.updated", "apiResource.deleted"]),
    (
        "API discovery endpoint",
        &["apiDiscoveryEndpoint.created", "apiDiscoveryEndpoint.updated", "apiDiscoveryEndpoint.deleted"],
    ),
    ("contacts: added, updated, or removed", &["contact.created", "contact.updated", "contact.deleted"]),
    (
        "creation or update of a software authority claim",
        &["softwareAuthorityClaim.created", "softwareAuthorityClaim.updated"],
    ),
    (
        "creation or delete of a domain role authorization",
        &["domainRoleAuthorisation.created", "domainRoleAuthorisation.deleted"],
    ),
    (
        "creation or revocation of an organization certificate",
        &["organisationCertificate.created", "organisationCertificate.revoked"],
    ),
    (
        "creation or revocation of an application certificate",
        &["softwareStatementCertificate.created", "softwareStatementCertificate.revoked"],
    ),
    (
        "the disabling of each certificate and key of a suspended application",
        &["softwareStatementCertificate.disabled", "softwareStatementKey.disabled"],
    ),
    (
        "creation, update, delete, suspension, lifting of suspension, blocking, and unblocking of an application",
        &[
            "softwareStatement.created",
            "softwareStatement.updated",
            "softwareStatement.deleted",
            "softwareStatement.suspended",
            "softwareStatement.unsuspended",
            "softwareStatement.blocked",
            "softwareStatement.unblocked",
        ],
    ),
    (
        "the process of signing terms and conditions: its begin, approval, rejection, or cancellation",
        &[
            "termsAndConditions.started",
            "termsAndConditions.approved",
            "termsAndConditions.rejected",
            "termsAndConditions.cancelled",
        ],
    ),
];

/// The four fields of a payload.
const FIELDS: [&str; 4] = ["apiResource", "resourcePayload", "revision", "updateTimestamp"];

#[tokio::test]
async fn every_event_of_the_list_triggers_a_webhook() -> Result<()> {
    let scene = Scene::set("seed-004", &[]).await?;
    scene.carillon.own_workspace(WORKSPACE, "directory").await?;
    let everything = json!({
        "endpoint": scene.receiver.url("/participant"), "subscriber": APPLICATION, "types": ["*"],
    });
    let subscription = scene.carillon.subscribe_with(WORKSPACE, &everything).await?;
    scene.receiver.trust("/participant", &subscription.secret);

    let listed = type_names(&scene.carillon, WORKSPACE).await?;
    let all: BTreeSet<_> = EVENTS.iter().flat_map(|(_, types)| *types).copied().collect();
    let of_catalogue = listed.iter().map(String::as_str).filter(|name| !name.starts_with("carillon."));
    assert_eq!(of_catalogue.collect::<BTreeSet<_>>(), all);
    for name in &all {
        schema_and_sample(&scene.carillon, name).await?;
        let happened = sample_event(&scene.carillon, WORKSPACE, name, name).await?;
        scene.carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?;
    }
    // One action may bring further notifications.
    let received = scene
        .receiver
        .wait_until("/participant", PATIENCE, |received| {
            types_of(received).is_superset(&all.iter().map(ToString::to_string).collect())
        })
        .await?;
    let came = types_of(&received);
    for (promise, types) in EVENTS {
        assert!(types.iter().all(|name| came.contains(*name)), "{types:?}");
        STORY
            .tells(promise, format!("{types:?}: each with schema and sample, published (202) and delivered"));
    }
    scene.quiet().await?;
    scene.end().await
}

fn types_of(received: &[Received]) -> BTreeSet<String> {
    received.iter().filter_map(|request| request.json()["type"].as_str().map(str::to_owned)).collect()
}

/// A schema that demands the fields that a notification says of its own, and a sample that has them. The fourth is the
/// revision, which comes of the order in which events are accepted.
async fn schema_and_sample(carillon: &Carillon, name: &str) -> Result<()> {
    let path = format!("/v1/workspaces/{WORKSPACE}/event-types/{name}");
    let read = carillon.get(&path).await?.expect_status(200)?.json();
    assert!(read["schema"].is_object() && read["validate"] == true, "{read}");
    let own: Vec<_> = FIELDS.into_iter().filter(|field| *field != "revision").collect();
    assert_eq!(fields(&read["sample"])?, own, "{name}");
    let incomplete =
        event(&format!("{name}-incomplete"), name, &json!({ "apiResource": "/organisations/1" }));
    let refused = carillon_tests::problem(&carillon.publish(WORKSPACE, &incomplete).await?, 400);
    assert!(refused["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{refused}");
    Ok(())
}

fn fields(of: &Value) -> Result<Vec<&str>> {
    let mut fields: Vec<_> = of.as_object().context("it is no object")?.keys().map(String::as_str).collect();
    fields.sort_unstable();
    Ok(fields)
}

#[tokio::test]
async fn an_endpoint_is_confirmed_and_gets_payloads_of_four_fields() -> Result<()> {
    let scene = Scene::set("seed-004-confirmed", &[]).await?;
    scene.carillon.own_workspace(WORKSPACE, "directory").await?;
    let settings = json!({ "settings": { "verification": "challenge" } });
    scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
    let subscribers = [("an application", APPLICATION), ("an authorization server", AUTHORIZATION_SERVER)];
    for (what, subscriber) in subscribers {
        confirmed(&scene, what, subscriber).await?;
    }
    for (revision, (name, happened)) in (1_u64..).zip(payloads()) {
        scene.carillon.publish(WORKSPACE, &event(name, name, &happened)).await?.expect_status(202)?;
        for (what, subscriber) in subscribers {
            let path = format!("/{subscriber}");
            let is_told =
                |request: &&Received| request.json()["resourcePayload"] == happened["resourcePayload"];
            let received = scene
                .receiver
                .wait_until(&path, PATIENCE, |received| received.iter().any(|request| is_told(&request)))
                .await?;
            let told = received.iter().find(is_told).context("it came")?;
            let payload = told.json();
            assert_eq!(told.header("content-type"), JSON);
            assert_eq!(fields(&payload)?, FIELDS, "{payload}");
            assert_eq!(
                (&payload["apiResource"], &payload["updateTimestamp"]),
                (&happened["apiResource"], &happened["updateTimestamp"])
            );
            assert_eq!(payload["revision"], revision);
            STORY.tells(
                "the event payload always consists of four fields",
                format!("{what} got {name}: {:?}, revision {revision}", fields(&payload)?),
            );
        }
    }
    scene.quiet().await?;
    scene.end().await
}

/// Subscribes by a client that is bound to this subscriber, and visits the URL that is posted to the endpoint.
async fn confirmed(scene: &Scene, what: &str, subscriber: &str) -> Result<()> {
    let client = scene.stack.client(what, &["carillon/subscribe", "carillon/read"]).await?;
    let role = json!({ "role": "subscriber", "subscriber": subscriber });
    scene.carillon.grant(WORKSPACE, &client.client_id, &role).await?;
    let client = Carillon::new(scene.stack.api_url()).with_token(scene.stack.token(&client).await?);
    let path = format!("/{subscriber}");
    let types = ["organisation.*", "authorisationServer.*", "softwareStatement.*"];
    let body = json!({ "endpoint": scene.receiver.url(&path), "types": types, "format": "resource" });
    let created = client.post(SUBSCRIPTIONS, JSON, &body).await?.expect_status(201)?.json();
    assert_eq!((&created["status"], &created["subscriber"]), (&json!("pending"), &json!(subscriber)));
    STORY.tells(
        &format!("you can subscribe {what} to notifications"),
        format!("201 for {subscriber}, pending"),
    );

    let posted = scene.receiver.received(&path).swap_remove(0);
    let challenge = posted.json();
    let until =
        challenge["expiresAt"].as_str().context("it does not say until when")?.parse::<UnixMillis>()?;
    let since = created["createdAt"].as_str().context("it does not say since when")?.parse::<UnixMillis>()?;
    assert_eq!((posted.method.as_str(), until.0 - since.0), ("POST", THREE_DAYS));
    let url = challenge["confirmationUrl"].as_str().context("there is no URL")?;
    let visited = Carillon::new(url).send("GET", "", &[], Vec::new()).await?;
    assert_eq!(visited.status, 200);
    let read = client.get(&format!("{SUBSCRIPTIONS}/{}", created["id"].as_str().unwrap_or_default())).await?;
    assert_eq!(read.expect_status(200)?.json()["status"], "active");
    STORY.tells(
        "the endpoint is confirmed by visiting a URL that was posted to it, within 3 days",
        format!("posted, valid until {}; visited (200): active", challenge["expiresAt"]),
    );
    Ok(())
}

/// The seed's three payloads, with the types of their events, and without revisions: these are for the directory to give.
fn payloads() -> [(&'static str, Value); 3] {
    let organisation = json!({ "organisationId": ORGANISATION });
    let server = json!({
        "status": "Active",
        "authorisationServerId": AUTHORIZATION_SERVER,
        "autoRegistrationSupported": true,
        "createdAt": "2024-12-12T17:32:57Z",
        "customerFriendlyDescription": "Sample server",
        "customerFriendlyName": "East Credit Union Sample Authorization Server",
        "issuer": "https://auth.sandbox.raidiam.io",
        "openIdDiscoveryDocument": "https://auth.sandbox.raidiam.io/.well-known/openid-configuration",
        "organisationId": ORGANISATION,
        "supportsCiba": false,
        "supportsDcr": false,
    });
    let details = json!({
        "organisationId": ORGANISATION,
        "status": "Active",
        "organisationName": "East Credit Union",
        "legalEntityName": "East Credit Union",
        "countryOfRegistration": "UK",
        "companyRegister": "Central Bank",
        "size": "S3",
        "registrationNumber": "983456",
        "city": "Rio de Janeiro",
        "postcode": "24220-030",
        "country": "BR",
    });
    let application = json!({
        "softwareDetails": {
            "status": "Suspended",
            "clientId": APPLICATION,
            "clientName": "East Credit Union",
            "environment": "Sandbox",
            "organisationId": ORGANISATION,
            "softwareStatementId": APPLICATION,
            "mode": "Live",
            "redirectUris": ["https://www.east-credit-union.com/app/"],
            "version": 1.3,
        },
    });
    let notification = |resource: String, timestamp: &str, payload: Value| json!({ "apiResource": resource, "updateTimestamp": timestamp, "resourcePayload": payload });
    [
        (
            "authorisationServer.created",
            notification(
                format!("/organisations/{ORGANISATION}/authorisationservers/{AUTHORIZATION_SERVER}"),
                "2024-12-12T17:32:57.57Z",
                json!({ "organisationDetails": organisation, "authorisationServers": [server] }),
            ),
        ),
        (
            "organisation.updated",
            notification(
                format!("/organisations/{ORGANISATION}"),
                "2024-12-12T17:35:57.21Z",
                json!({ "organisationDetails": details }),
            ),
        ),
        (
            "softwareStatement.suspended",
            notification(
                format!("/organisations/{ORGANISATION}/softwarestatements/{APPLICATION}"),
                "2024-12-12T17:38:03.85Z",
                json!({
                    "organisationDetails": organisation,
                    "softwareStatements": { APPLICATION: application },
                }),
            ),
        ),
    ]
}

/// The suspension of an application with so many certificates and keys.
fn suspension(id: &str, certificates: usize, keys: usize) -> Result<Value> {
    let definition =
        builtin_type(WorkspaceKind::Directory, &SUSPENDED.parse()?).context("no type of the catalogue")?;
    let mut data = definition.sample.clone();
    let statement = &mut data["resourcePayload"]["softwareStatements"][APPLICATION];
    for (list, key, count) in [
        ("softwareStatementCertificates", "certificateId", certificates),
        ("softwareStatementKeys", "keyId", keys),
    ] {
        let model = statement[list][0].clone();
        let one = |number: usize| {
            let mut one = model.clone();
            one[key] = json!(format!("{key}-{number}"));
            one
        };
        statement[list] = (0..count).map(one).collect();
    }
    Ok(event(id, SUSPENDED, &data))
}

async fn publish(scene: &Scene, event: &Value) -> Result<carillon_local::Reply> {
    scene.carillon.publish(WORKSPACE, event).await
}

#[tokio::test]
async fn a_suspension_brings_others() -> Result<()> {
    let scene = Scene::set("cascades", &[]).await?;
    scene.carillon.own_workspace(WORKSPACE, "directory").await?;
    for (path, format) in [("/resources", "resource"), ("/events", "cloudEvents")] {
        let body = json!({
            "subscriber": SUBSCRIBER, "endpoint": scene.receiver.url(path), "types": ["softwareStatement.*", "softwareStatementCertificate.*", "softwareStatementKey.*"], "format": format,
        });
        let made = scene.carillon.subscribe_with(WORKSPACE, &body).await?;
        scene.receiver.trust(path, &made.secret);
    }
    let suspension = suspension("suspension-1", 2, 1)?;
    publish(&scene, &suspension).await?.expect_status(202)?;
    let resources: Vec<_> =
        scene.received("/resources", 4).await?.iter().map(carillon_local::Received::json).collect();
    for resource in &resources {
        let fields: Vec<_> = resource.as_object().context("an object")?.keys().map(String::as_str).collect();
        assert_eq!(fields, ["apiResource", "resourcePayload", "revision", "updateTimestamp"]);
    }
    let application = suspension["data"]["apiResource"].as_str().context("a text")?;
    let of = |tail: &str| format!("{application}{tail}");
    let named: BTreeSet<_> = resources
        .iter()
        .map(|resource| resource["apiResource"].as_str().unwrap_or_default().to_owned())
        .collect();
    let expected = ["", "/certificates/certificateId-0", "/certificates/certificateId-1", "/keys/keyId-0"];
    assert_eq!(named, expected.map(of).into());
    let numbers: BTreeSet<_> =
        resources.iter().filter_map(|resource| resource["revision"].as_u64()).collect();
    assert_eq!(numbers, (1..=4).collect());
    let key = resources
        .iter()
        .find(|resource| resource["apiResource"] == of("/keys/keyId-0"))
        .context("the key")?;
    let statement = &key["resourcePayload"]["softwareStatements"][APPLICATION];
    assert_eq!(statement.as_object().map(serde_json::Map::len), Some(1), "the key alone: {statement}");
    assert_eq!(statement["softwareStatementKeys"][0]["keyId"], "keyId-0");

    let events: Vec<_> =
        scene.received("/events", 4).await?.iter().map(carillon_local::Received::json).collect();
    for event in events.iter().filter(|event| event["type"] != SUSPENDED) {
        assert_eq!(
            (&event["causationid"], &event["source"]),
            (&json!("suspension-1"), &suspension["source"])
        );
    }

    // Told again, and fanned out again, it brings nothing new.
    publish(&scene, &suspension).await?.expect_status(202)?;
    let job = json!({ "since": "2026-01-01T00:00:00Z", "until": now().to_string() });
    let path = format!("/v1/workspaces/{WORKSPACE}/fanouts");
    let begun = scene.carillon.post(&path, "application/json", &job).await?;
    scene.job_ended(&begun).await?;
    scene.quiet().await?;
    assert_eq!(revisions(&scene.rows("EventsTable").await?, WORKSPACE)?.len(), 4);
    assert_eq!(scene.receiver.received("/events").len(), 4);

    // The order of the list makes no difference to which event is which.
    let too_many = suspension_pointers(&scene, 250, 251).await?;
    assert_eq!(too_many, ["/data"]);
    publish(&scene, &self::suspension("suspension-2", 250, 250)?).await?.expect_status(202)?;
    scene.receiver.wait_for("/events", 4 + 501, carillon_tests::PATIENCE).await?;
    assert_eq!(revisions(&scene.rows("EventsTable").await?, WORKSPACE)?.len(), 4 + 501);
    scene.break_off().await
}

/// Where a suspension is wrong.
async fn suspension_pointers(scene: &Scene, certificates: usize, keys: usize) -> Result<Vec<String>> {
    let refused = problem(&publish(scene, &suspension("suspension-0", certificates, keys)?).await?, 400);
    let errors = refused["errors"].as_array().context("fields")?.iter();
    Ok(errors.map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect())
}
