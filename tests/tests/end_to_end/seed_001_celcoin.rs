//! 001: consent webhooks as Celcoin's data sharing has them: an application authenticates, registers its webhook with the
//! body of Celcoin's own API, and hears of each step in the life of its users' consents.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use carillon_aws::now;
use carillon_catalogue::builtin_type;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::WorkspaceKind;
use carillon_local::{Carillon, Received, Reply, event, send};
use carillon_tests::story::{Story, sample_event_for, texts, type_names};
use carillon_tests::{Scene, eventually, problem};
use reqwest::Url;
use serde_json::{Value, json};

const STORY: Story = Story::of("001 Celcoin");

/// The seed's path, within the API of a workspace.
const INTERCEPTORS: &str = "/v1/workspaces/data-sharing/smart-keys/interceptors";
const WORKSPACE: &str = "data-sharing";

/// The application, and who it is among the subscribers.
const APPLICATION: &str = "My First App";
const SUBSCRIBER: &str = "my-first-app";

/// The events of the seed's table, in its order.
const EVENTS: [&str; 6] = [
    "before:consent:create",
    "after:consent:create",
    "consent:approved",
    "consent:rejected",
    "consent:expired",
    "consent:revoke",
];

/// From the event to the first attempt, on a stack that is warm.
const FIRST_ATTEMPT_MAX: Duration = Duration::from_millis(1500);

const MINUTE: Duration = Duration::from_mins(1);

/// So long after the begin of the scenario the deadlines are due: what happened lies in the past, by as much as a consent
/// has time less this.
const LEFT: Duration = Duration::from_secs(6);

/// `smart:keys`, in base64.
const BASIC: &str = "Basic c21hcnQ6a2V5cw==";

#[tokio::test]
async fn a_webhook_is_registered_and_hears_of_each_consent() -> Result<()> {
    let scene = Scene::set("seed-001", &[]).await?;
    // Endpoints on this machine have no HTTPS. All else is as consents have it.
    let workspace = json!({
        "id": WORKSPACE, "name": "Data sharing", "kind": "consent", "settings": { "httpsRequired": false },
    });
    scene.carillon.post("/v1/workspaces", "application/json", &workspace).await?.expect_status(201)?;
    scene.carillon.grant(WORKSPACE, scene.carillon.client_id(), &json!({ "role": "owner" })).await?;

    let application = the_application_authenticates(&scene).await?;
    wrong_fields_and_wrong_tokens_are_refused(&scene, &application).await?;
    let webhook = the_webhook_is_registered(&scene, &application).await?;
    each_event_comes_at_once(&scene, &webhook).await?;
    scene.end().await
}

async fn the_application_authenticates(scene: &Scene) -> Result<Carillon> {
    let client = scene.stack.client(APPLICATION, &["carillon/subscribe", "carillon/read"]).await?;
    let role = json!({ "role": "subscriber", "subscriber": SUBSCRIBER });
    scene.carillon.grant(WORKSPACE, &client.client_id, &role).await?;
    let form = Url::parse_with_params(
        scene.stack.output("TokenUrl"),
        [
            ("grant_type", "client_credentials"),
            ("client_id", client.client_id.as_str()),
            ("client_secret", client.client_secret.as_str()),
        ],
    )?;
    let request = http::Request::post(scene.stack.output("TokenUrl"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().as_bytes().to_vec())?;
    let answer = send(request).await?.expect_status(200)?.json();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3600)), "{answer}");
    let token = answer["access_token"].as_str().context("there is no token")?;
    STORY.tells(
        "the application authenticates with its client_id and client_secret",
        format!("an access_token, token_type {}, expires_in {}", answer["token_type"], answer["expires_in"]),
    );
    Ok(Carillon::new(scene.stack.api_url()).with_token(token))
}

async fn wrong_fields_and_wrong_tokens_are_refused(scene: &Scene, application: &Carillon) -> Result<()> {
    for (wrong, pointers) in [
        (json!({ "endpoint": "www.my-domain.com/webhook" }), &["/endpoint"][..]),
        (
            json!({ "isAuthenticated": true, "authenticationType": "DIGEST", "user": "a:b" }),
            &["/authenticationType", "/user", "/password"],
        ),
        (json!({ "isAuthenticated": "true" }), &["/isAuthenticated"]),
        (json!({ "type": "PAYMENTS" }), &["/type"]),
        (json!({ "events": ["consent:approved"] }), &["/events"]),
    ] {
        let mut body = body(&scene.receiver.url("/webhook"));
        body.as_object_mut()
            .context("it is an object")?
            .extend(wrong.as_object().cloned().unwrap_or_default());
        let refused = problem(&register(application, &body).await?, 400);
        let told = texts(&refused["errors"], "pointer");
        assert_eq!(told, pointers, "{refused}");
        STORY.tells("400, error at request field validations", format!("400 for {wrong}: {told:?}"));
    }
    let body = body(&scene.receiver.url("/webhook"));
    for stranger in [Carillon::new(scene.stack.api_url()), application.clone().with_token("********1NiIs")] {
        problem(&register(&stranger, &body).await?, 401);
    }
    STORY.tells("401, the used token is not allowed", "401 without a token, and with one that is none");
    // Who is not bound to an application has to say whose the webhook is.
    let refused = problem(&register(&scene.carillon, &body).await?, 400);
    assert_eq!(refused["errors"][0]["pointer"], "query:subscriber", "{refused}");
    let listed = application.get(&format!("/v1/workspaces/{WORKSPACE}/subscriptions")).await?;
    assert_eq!(listed.expect_status(200)?.json()["items"], json!([]), "nothing was registered");
    Ok(())
}

/// Where it is, is answered.
async fn the_webhook_is_registered(scene: &Scene, application: &Carillon) -> Result<String> {
    let open = register(application, &body(&scene.receiver.url("/open"))).await?.expect_status(201)?;
    STORY.tells(
        "201, webhook successfully registered",
        format!("201 for the seed's own body, {:?}", location(&open)?),
    );
    trust(scene, "/open", &open)?;

    let mut authenticated = body(&scene.receiver.url("/webhook"));
    for (field, value) in
        [("isAuthenticated", json!(true)), ("authenticationType", json!("BASIC")), ("user", json!("smart"))]
    {
        authenticated[field] = value;
    }
    authenticated["password"] = json!("keys");
    let headers = [("idempotency-key", "webhook-1"), ("content-type", "application/json")];
    let twice = async || {
        let body = authenticated.to_string().into_bytes();
        application.send("POST", INTERCEPTORS, &headers, body).await?.expect_status(201)
    };
    let (registered, again) = (twice().await?, twice().await?);
    assert_eq!(location(&registered)?, location(&again)?, "a repetition registers nothing");
    trust(scene, "/webhook", &registered)?;

    let read = application.get(location(&registered)?).await?.expect_status(200)?;
    assert!(!String::from_utf8_lossy(&read.body).contains("keys\""), "the password is shown");
    let read = read.json();
    assert_eq!(read["subscriber"], SUBSCRIBER);
    assert_eq!(read["types"], json!(["before:consent:*", "after:consent:*", "consent:*"]));
    assert_eq!(read["authorization"], json!({ "type": "basic", "user": "smart" }));
    STORY.tells(
        "the endpoint may ask for authentication: type, user, password",
        "201; it is a subscription of the application with basic authorization, its password never shown",
    );
    Ok(location(&registered)?.to_owned())
}

async fn each_event_comes_at_once(scene: &Scene, webhook: &str) -> Result<()> {
    let names = type_names(&scene.carillon, WORKSPACE).await?;
    assert!(EVENTS.iter().all(|name| names.iter().any(|listed| listed == name)), "{names:?}");
    let whose = (WORKSPACE, SUBSCRIBER);
    // The first one finds functions that have to start.
    publish(scene, &sample_event_for(&scene.carillon, whose, "warm", "consent:consumed").await?).await?;
    scene.received("/webhook", 1).await?;

    for (number, name) in EVENTS.iter().enumerate() {
        let happened = sample_event_for(&scene.carillon, whose, name, name).await?;
        let began = Instant::now();
        publish(scene, &happened).await?;
        let received = scene.received("/webhook", number + 2).await?.swap_remove(number + 1);
        let age = received.at.duration_since(began);
        assert!(age <= FIRST_ATTEMPT_MAX, "{name} came after {age:?}");
        assert_eq!((received.method.as_str(), received.header("authorization")), ("POST", BASIC));
        let told = received.json();
        assert_eq!((&told["type"], &told["data"]), (&happened["type"], &happened["data"]));
        let measured = age_at_first_attempt(scene, webhook, &received).await?;
        assert!(measured <= FIRST_ATTEMPT_MAX, "{name} was attempted after {measured:?}");
        STORY.tells(
            &format!("`{name}` is posted as JSON, with the endpoint's authentication, within 1.5 s"),
            format!(
                "POST, {BASIC}, begun {measured:?} after it was accepted, there {} ms after",
                age.as_millis()
            ),
        );
    }
    let open = scene.received("/open", EVENTS.len() + 1).await?;
    assert!(open.iter().all(|request| !request.headers.contains_key("authorization")));

    // Another application's consent is none of its business; nor may it be nobody's in particular.
    let another = json!({
        "endpoint": scene.receiver.url("/another"), "subscriber": "another-app", "types": ["consent:*"],
    });
    let another = scene.carillon.subscribe_with(WORKSPACE, &another).await?;
    scene.receiver.trust("/another", &another.secret);
    let foreign = sample_event_for(&scene.carillon, (WORKSPACE, "another-app"), "foreign", EVENTS[2]).await?;
    publish(scene, &foreign).await?;
    scene.received("/another", 1).await?;
    scene.quiet().await?;
    assert_eq!(scene.receiver.received("/webhook").len(), EVENTS.len() + 1);
    let mut unaddressed = foreign;
    unaddressed["id"] = json!("unaddressed");
    unaddressed.as_object_mut().map(|members| members.remove("audience"));
    problem(&scene.carillon.publish(WORKSPACE, &unaddressed).await?, 400);
    STORY.tells(
        "any event in the consent lifecycle of its own users",
        "all six came; that of another application did not; 400 for one that names no application",
    );
    Ok(())
}

/// From the acceptance of an event to the begin of its first attempt, as the metric `AgeAtFirstAttempt` has it.
async fn age_at_first_attempt(scene: &Scene, webhook: &str, received: &Received) -> Result<Duration> {
    let path = format!("{webhook}/deliveries/{}", received.webhook_id());
    let delivery = eventually("the attempt to be recorded", async || {
        let read = scene.carillon.get(&path).await?.expect_status(200)?.json();
        Ok((read["status"] == "delivered").then_some(read))
    })
    .await?;
    let millis = |time: &Value| {
        let time = time.as_str().context("there is no time")?;
        anyhow::Ok(time.parse::<UnixMillis>()?.0)
    };
    let (accepted, begun) =
        (millis(&delivery["event"]["acceptedAt"])?, millis(&delivery["attempts"][0]["at"])?);
    Ok(Duration::from_millis(begun.saturating_sub(accepted)))
}

/// The seed's own body, for this endpoint.
fn body(endpoint: &str) -> Value {
    json!({
        "endpoint": endpoint,
        "isAuthenticated": false,
        "authenticationType": "",
        "user": "",
        "password": "",
        "type": "DATA",
    })
}

async fn register(client: &Carillon, body: &Value) -> Result<Reply> {
    client.post(INTERCEPTORS, "application/json", body).await
}

async fn publish(scene: &Scene, event: &Value) -> Result<()> {
    scene.carillon.publish(WORKSPACE, event).await?.expect_status(202)?;
    Ok(())
}

/// Where what was registered is.
fn location(registered: &Reply) -> Result<&str> {
    Ok(registered.headers.get("location").context("there is no location")?.to_str()?)
}

fn trust(scene: &Scene, path: &str, registered: &Reply) -> Result<()> {
    let registered = registered.json();
    scene.receiver.trust(path, registered["signingSecret"].as_str().context("there is no secret")?);
    Ok(())
}

/// What happened to a consent so long ago: the catalogue's sample with another id and time.
fn happened(consent: &str, kind: &str, ago: Duration) -> Result<Value> {
    let definition =
        builtin_type(WorkspaceKind::Consent, &kind.parse()?).context("no type of the catalogue")?;
    let mut data = definition.sample.clone();
    data["consentId"] = json!(consent);
    let mut event = event(&format!("{consent}-{kind}"), kind, &data);
    event["time"] = json!(now().minus(ago).to_string());
    event["audience"] = json!(carillon_tests::SUBSCRIBER);
    Ok(event)
}

#[tokio::test]
async fn a_consent_expires() -> Result<()> {
    let scene = Scene::set("consents", &[]).await?;
    scene.subscribe("/expired", &["consent:expired"]).await?;
    let [hour, more] = [60, 70].map(|minutes| (MINUTE * minutes).saturating_sub(LEFT));
    let began = now();
    for (consent, kind, ago) in [
        ("undecided", "after:consent:create", hour),
        ("unconsumed", "after:consent:create", MINUTE * 80),
        ("unconsumed", "consent:approved", more),
        ("unconsumed-rejected", "consent:rejected", more),
        // What is told in the wrong order ends the same way.
        ("rejected", "consent:rejected", Duration::ZERO),
        ("rejected", "after:consent:create", hour),
        ("consumed", "after:consent:create", hour),
        ("consumed", "consent:approved", more),
        ("consumed", "consent:consumed", Duration::ZERO),
        ("revoked-undecided", "after:consent:create", hour),
        ("revoked-undecided", "consent:revoke", Duration::ZERO),
        ("revoked-approved", "consent:approved", more),
        ("revoked-approved", "consent:revoke", Duration::ZERO),
        ("expired-already", "after:consent:create", hour),
        ("expired-already", "consent:expired", Duration::ZERO),
    ] {
        scene.publish(&happened(consent, kind, ago)?).await?;
    }
    let clock = scene.ring_clock();
    let expected = ["expired-already", "unconsumed", "unconsumed-rejected", "undecided"];
    let expired = eventually("the consents to expire", || async {
        let expired = expired(&scene).await?;
        Ok((expired.len() == expected.len()).then_some(expired))
    })
    .await?;
    drop(clock);
    // The clock rings once more, and nothing more comes of it.
    scene.stack.invoke("clock", &json!({})).await?;
    assert_eq!(self::expired(&scene).await?, expired);
    let names: Vec<_> = expired.keys().map(String::as_str).collect();
    assert_eq!(names, expected);
    let times = &expired["undecided"];
    let [(told, accepted_at)] = &times[..] else { panic!("it expired {} times", times.len()) };
    assert!(*accepted_at >= began + LEFT, "before its time");
    let data = &told["data"];
    assert_eq!(
        (&data["status"], &data["previousStatus"]),
        (&json!("REJECTED"), &json!("AWAITING_AUTHORISATION"))
    );
    assert_eq!(data["rejection"], json!({ "by": "ASPSP", "reason": "CONSENT_EXPIRED" }));
    assert_eq!(
        (&data["expiredAt"], &told["causationid"]),
        (&told["time"], &json!("undecided-after:consent:create"))
    );

    let received = scene.received("/expired", expected.len()).await?;
    assert!(received.iter().all(|request| request.json()["type"] == "consent:expired"));
    STORY.tells(
        "consent:expired: not approved or rejected after 60 minutes of creation",
        format!("accepted {:?} after those 60 minutes, once", accepted_at.since(began + LEFT)),
    );
    STORY.tells(
        "OR after approval/rejection was not consumed within 70 minutes",
        "two expired, one approved and one rejected; none that was consumed or revoked, in whatever order that was told",
    );
    scene.end().await
}

/// The events that say so, and when they were accepted, by consent.
async fn expired(scene: &Scene) -> Result<BTreeMap<String, Vec<(Value, UnixMillis)>>> {
    let mut expired: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for row in scene.rows("EventsTable").await?.iter().filter(|row| row["type"]["S"] == "consent:expired") {
        let event: Value = serde_json::from_str(row["event"]["S"].as_str().unwrap_or_default())?;
        let consent = event["data"]["consentId"].as_str().unwrap_or_default().to_owned();
        let at = UnixMillis(row["accepted_at"]["N"].as_str().unwrap_or_default().parse()?);
        expired.entry(consent).or_default().push((event, at));
    }
    Ok(expired)
}
