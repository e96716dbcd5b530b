//! The running API tried against its own document by schemathesis: with data that is right and with data that is wrong.
//! Whatever is answered must be what the document says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Toolbox, event, root};
use carillon_tests::{Scene, WORKSPACE};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

/// What cases are made up from.
const SEED: &str = "20";

/// How many cases of an operation are made up at most, beside those that the bounds of its schemas suggest.
const CASES: &str = "8";

/// How often a path names something that there is, and not what was made up.
const NAMED: f64 = 0.9;

/// What the document's examples call a subscriber's server.
const EXAMPLE_SERVER: &str = "https://tpp.example.com/";

/// Workspaces besides [`WORKSPACE`]: one whose settings and clients change, one that has endpoints' owners asked, one that
/// is to be deleted and one that is.
const CHANGING: &str = "changing";
const ASKING: &str = "asking";
const LEAVING: &str = "leaving";
const GONE: &str = "gone";

/// A client and an event type to stay, and others to be deleted.
const CLIENT: &str = "guest";
const LEAVING_CLIENT: &str = "leaver";
const TYPE: &str = "invoice.sent";
const LEAVING_TYPE: &str = "invoice.dropped";

/// An event type whose data may be anything.
const ANY_DATA: &str = "consent:created";

#[tokio::test]
async fn the_api_does_what_its_document_says() -> Result<()> {
    let scene = Scene::set("fuzz", &[]).await?;
    let things = Things::make(&scene).await?;
    let mut document = scene.carillon.get("/v1/openapi.json").await?.expect_status(200)?.json();
    prepare(&mut document, &things);

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("openapi.json"), document.to_string())?;
    let rules = fs::read_to_string(root().join("tests/schemathesis.toml"))?;
    fs::write(folder.join("schemathesis.toml"), rules + &dictionaries(&document, &things))?;

    let mut schemathesis = Command::new(spawn_blocking(Toolbox::schemathesis).await??.program("st"));
    schemathesis
        .current_dir(&folder)
        .args(["--config-file", "schemathesis.toml", "run", "openapi.json", "--no-color", "--checks", "all"])
        .args(["--url", &scene.stack.api_url(), "--phases", "examples,coverage,fuzzing"])
        .args(["--seed", SEED])
        .args(["--max-examples", CASES])
        .args(["--workers", "2", "--report", "har", "--report-har-path", "requests.har"])
        .env("CARILLON_TOKEN", scene.carillon.token())
        .env("NO_PROXY", "*");
    let done = spawn_blocking(move || schemathesis.output()).await??;
    let report = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "{report}{}", String::from_utf8_lossy(&done.stderr));

    let archive: Value = serde_json::from_slice(&fs::read(folder.join("requests.har"))?)?;
    let undone = undone(&document, &archive, &scene.stack.api_url());
    ensure!(undone.is_empty(), "never answered with success: {undone:?}\n{report}");
    scene.break_off().await
}

/// What there is to be asked for.
struct Things {
    server: String,
    subscription: String,
    event: String,
    delivery: String,
    spare: String,
    asked: String,
    token: String,
    job: String,
    inbox: String,
    spare_inbox: String,
}

impl Things {
    async fn make(scene: &Scene) -> Result<Self> {
        let carillon = &scene.carillon;
        for workspace in [CHANGING, ASKING, LEAVING, GONE] {
            carillon.own_workspace(workspace, "consent").await?;
        }
        for client in [CLIENT, LEAVING_CLIENT] {
            carillon.grant(CHANGING, client, &json!({ "role": "publisher" })).await?;
        }
        for name in [TYPE, LEAVING_TYPE] {
            scene.add_type(name).await?;
        }
        let subscription = scene.subscribe("/kept", &["consent:*"]).await?.id;
        let happened = event("kept-1", ANY_DATA, &json!({}));
        let published = carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?.json();
        let event = last_segment(published["eventId"].as_str())?;
        let delivery = scene.received("/kept", 1).await?[0].webhook_id().to_owned();
        let spare = scene.subscribe("/spare", &["consent:*"]).await?.id;

        let settings = json!({ "settings": { "verification": "challenge" } });
        carillon.patch(&format!("/v1/workspaces/{ASKING}"), &settings).await?.expect_status(200)?;
        let asking = async |path| {
            let subscription = carillon.subscribe(ASKING, &scene.receiver.url(path), &["consent:*"]).await?;
            anyhow::Ok(subscription.id)
        };
        let (asked, _) = (asking("/asked").await?, asking("/confirmed").await?);
        let challenge = scene.receiver.received("/confirmed").swap_remove(0).json();
        let token = last_segment(challenge["confirmationUrl"].as_str())?;

        let deletion = format!("/v1/workspaces/{GONE}?cascade=true");
        let accepted = carillon.delete(&deletion).await?.expect_status(202)?;
        let job = last_segment(accepted.headers.get("location").and_then(|value| value.to_str().ok()))?;
        let inboxes = format!("/v1/workspaces/{WORKSPACE}/inboxes");
        let new_inbox = async || {
            let made = carillon.post(&inboxes, "application/json", &json!({})).await?.expect_status(201)?;
            last_segment(made.json()["id"].as_str())
        };
        let (inbox, spare_inbox) = (new_inbox().await?, new_inbox().await?);
        let server = scene.receiver.url("/");
        Ok(Self { server, subscription, event, delivery, spare, asked, token, job, inbox, spare_inbox })
    }

    /// What a parameter of an operation names, so that there is something to be done.
    fn named(&self, operation: &str, parameter: &str) -> Option<&str> {
        let of_clients = ["listClients", "getClient", "putClient", "deleteClient"];
        Some(match (parameter, operation) {
            ("workspace", "deleteWorkspace") => LEAVING,
            ("workspace", "replaceWorkspace" | "patchWorkspace") => CHANGING,
            ("workspace", operation) if of_clients.contains(&operation) => CHANGING,
            ("workspace", "verifySubscription") => ASKING,
            ("workspace", "getJob") => GONE,
            ("workspace", _) => WORKSPACE,
            ("subscription", "verifySubscription") => &self.asked,
            ("subscription", "deleteSubscription") => &self.spare,
            ("subscription", _) => &self.subscription,
            ("event", _) => &self.event,
            ("delivery", _) => &self.delivery,
            ("client", "deleteClient") => LEAVING_CLIENT,
            ("client", _) => CLIENT,
            ("type", "deleteEventType") => LEAVING_TYPE,
            ("type", _) => TYPE,
            ("job", _) => &self.job,
            ("inbox", "deleteInbox") => &self.spare_inbox,
            ("inbox", _) => &self.inbox,
            ("token", _) => &self.token,
            _ => return None,
        })
    }
}

fn last_segment(url: Option<&str>) -> Result<String> {
    url.and_then(|url| url.rsplit(['/', '=']).next()).map(str::to_owned).context("there is no URL")
}

/// Tells the document what it cannot know: what there is, and a subscriber's server that can be reached. And what
/// schemathesis does not make of it: that a token of `oauth2` goes into a header, without which it tries what happens without
/// one; and a value for `If-Match`, since those that it makes from patterns have letters and digits alone.
fn prepare(document: &mut Value, things: &Things) {
    document["components"]["securitySchemes"]["oauth2"] = json!({ "type": "http", "scheme": "bearer" });
    for (_, operation) in operations_mut(document) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        let Some(parameters) = operation["parameters"].as_array_mut() else { continue };
        // The same key on all of them would make one request of what are many. Those of workspaces keep it.
        let makes_many = ["createSubscription", "registerInterceptor"].contains(&id.as_str());
        parameters.retain(|parameter| !makes_many || parameter["name"] != "Idempotency-Key");
        for parameter in parameters {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            if let Some(thing) = things.named(&id, &name) {
                parameter["schema"]["examples"] = json!([thing]);
            }
            if name == "If-Match" {
                parameter["schema"] = json!({ "type": "string", "enum": ["*", "\"1\""] });
            }
        }
    }
    lead_to(document, &things.server);
}

/// Puts another server in the place of the examples'.
fn lead_to(value: &mut Value, server: &str) {
    match value {
        Value::String(text) => *text = text.replace(EXAMPLE_SERVER, server),
        Value::Array(items) => items.iter_mut().for_each(|item| lead_to(item, server)),
        Value::Object(members) => members.values_mut().for_each(|member| lead_to(member, server)),
        _ => {}
    }
}

/// The rules by which made-up cases name what there is, and lead to the receiver alone: nothing is looked up elsewhere.
fn dictionaries(document: &Value, things: &Things) -> String {
    let mut rules = String::new();
    for (_, operation) in operations(document) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        let mut named: Vec<(String, f64, &str)> = Vec::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (place, name) = (parameter["in"].as_str(), parameter["name"].as_str().unwrap_or_default());
            if let Some(thing) = things.named(id, name) {
                named.push((format!("{}.{name}", place.unwrap_or_default()), NAMED, thing));
            }
        }
        match id {
            "createSubscription" | "replaceSubscription" => {
                named.push(("body.endpoint".to_owned(), 1.0, &things.server));
                named.push(("body.types[*]".to_owned(), NAMED, "consent:*"));
            }
            "registerInterceptor" => named.push(("body.endpoint".to_owned(), 1.0, &things.server)),
            "publishEvents" => named.push(("body.type".to_owned(), NAMED, ANY_DATA)),
            _ => {}
        }
        for (parameter, _, value) in &named {
            _ = write!(rules, "\n[dictionaries.\"{id} {parameter}\"]\nvalues = [{value:?}]\n");
        }
        if !named.is_empty() {
            _ = write!(rules, "\n[[operations]]\ninclude-operation-id = {id:?}\n[operations.parameters]\n");
        }
        for (parameter, share, _) in &named {
            _ = writeln!(
                rules,
                "{parameter:?} = {{ dictionary = \"{id} {parameter}\", probability = {share:.1} }}"
            );
        }
    }
    rules
}

/// The operations that were never answered with success: what they do was not tried.
fn undone(document: &Value, archive: &Value, api_url: &str) -> BTreeSet<String> {
    // A job that can still be cancelled cannot be named beforehand.
    let can_be_done = operations(document).filter(|(_, operation)| operation["operationId"] != "cancelJob");
    let mut undone: BTreeSet<_> = can_be_done.map(|(operation, _)| operation).collect();
    for entry in archive["log"]["entries"].as_array().into_iter().flatten() {
        let (request, status) = (&entry["request"], entry["response"]["status"].as_u64().unwrap_or_default());
        let path = request["url"].as_str().and_then(|url| url.strip_prefix(api_url)).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let method = request["method"].as_str().unwrap_or_default().to_lowercase();
        if (200..300).contains(&status) {
            undone.retain(|(of, template)| *of != method || !is_of(template, path));
        }
    }
    undone.into_iter().map(|(method, path)| format!("{method} {path}")).collect()
}

fn is_of(template: &str, path: &str) -> bool {
    let fits = |(template, segment): (&str, &str)| template.starts_with('{') || template == segment;
    template.split('/').count() == path.split('/').count()
        && template.split('/').zip(path.split('/')).all(fits)
}

/// Every operation with its method and path.
fn operations(document: &Value) -> impl Iterator<Item = ((String, String), &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods.map(|(method, operation)| ((method.clone(), path.clone()), operation))
    })
}

fn operations_mut(document: &mut Value) -> impl Iterator<Item = ((String, String), &mut Value)> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object_mut().into_iter().flatten();
        methods.map(|(method, operation)| ((method.clone(), path.clone()), operation))
    })
}
