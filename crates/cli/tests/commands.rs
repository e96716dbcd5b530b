//! The binary against an API whose every answer is scripted.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use carillon_local::{Answer, Received, Receiver};
use serde_json::{Value, json};

const TOKEN: &str = "/token";
const SUBSCRIPTION: &str = "/v1/workspaces/acme/subscriptions/sub_1";

/// An API, and the command line with a home of its own.
struct Stage {
    api: Receiver,
    home: PathBuf,
}

impl Stage {
    async fn set(name: &str) -> Result<Self> {
        let home = std::env::temp_dir().join(format!("carillon-commands-{}-{name}", std::process::id()));
        fs::create_dir_all(&home)?;
        let stage = Self { api: Receiver::start().await?, home };
        stage.tokens(&["t-1"]);
        Ok(stage)
    }

    /// The tokens that the token service gives out, in this order.
    fn tokens(&self, tokens: &[&str]) {
        let answer = |token: &&str| {
            Answer::status(200)
                .json(&json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 }))
        };
        self.api.answer(TOKEN, tokens.iter().map(answer));
    }

    /// Logs in, with the workspace `acme`.
    async fn login(&self) -> Result<()> {
        self.api
            .answer("/v1/workspaces", [Answer::status(200).json(&json!({ "items": [{ "id": "acme" }] }))]);
        let (url, token_url) = (self.api.url(""), self.api.url(TOKEN));
        let words = ["login", "--url", &url, "--token-url", &token_url, "--client-id", "platform"];
        let done = self.typed(&words, "s3cret\n").await?;
        assert_eq!(code(&done), 0, "{done:?}");
        Ok(())
    }

    async fn run(&self, words: &[&str]) -> Result<Output> {
        self.typed(words, "").await
    }

    /// Runs a command with this on its standard input. The API answers meanwhile.
    async fn typed(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut child = self.command(words).spawn()?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        Ok(tokio::task::spawn_blocking(move || child.wait_with_output()).await??)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.args(words).env_clear().env("HOME", &self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn received(&self, path: &str) -> Vec<Received> {
        self.api.received(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn code(done: &Output) -> i32 {
    done.status.code().unwrap_or(-1)
}

fn out(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn err(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn subscription(status: &str) -> Value {
    json!({ "id": "sub_1", "workspace": "acme", "status": status, "subscriber": "tpp-1",
        "endpoint": "https://tpp.example.com/hook", "types": ["consent:*"],
        "createdAt": "2026-11-22T09:00:00Z", "updatedAt": "2026-11-22T09:00:00Z" })
}

#[tokio::test]
async fn a_login_is_kept_for_its_owner_alone() -> Result<()> {
    let stage = Stage::set("login").await?;
    stage.login().await?;
    let token_request = &stage.received(TOKEN)[0];
    assert_eq!(token_request.header("authorization"), "Basic cGxhdGZvcm06czNjcmV0");
    assert_eq!(token_request.body, "grant_type=client_credentials".as_bytes());

    for file in ["profiles.json", "tokens.json"] {
        let mode = fs::metadata(stage.home.join(".config/carillon").join(file))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // The one workspace was chosen, and the token is kept.
    stage.api.answer("/v1/workspaces/acme", [Answer::status(404)]);
    let shown = stage.run(&["workspaces", "show"]).await?;
    assert_eq!(code(&shown), 1, "{shown:?}");
    assert_eq!(stage.received("/v1/workspaces/acme")[0].header("authorization"), "Bearer t-1");
    assert_eq!(stage.received(TOKEN).len(), 1);
    Ok(())
}

#[tokio::test]
async fn the_environment_is_enough() -> Result<()> {
    let stage = Stage::set("environment").await?;
    stage.api.answer(SUBSCRIPTION, [Answer::status(200).json(&subscription("active"))]);
    let mut command = stage.command(&["subscriptions", "show", "sub_1"]);
    command
        .env("CARILLON_URL", stage.api.url("/"))
        .env("CARILLON_TOKEN_URL", stage.api.url(TOKEN))
        .env("CARILLON_CLIENT_ID", "ci")
        .env("CARILLON_CLIENT_SECRET", "s3cret")
        .env("CARILLON_WORKSPACE", "acme");
    let done = tokio::task::spawn_blocking(move || command.output()).await??;
    assert_eq!(code(&done), 0, "{done:?}");
    assert!(out(&done).contains("status      active\n"), "{}", out(&done));
    assert!(!out(&done).contains('\u{1b}'), "no colours but on a terminal");
    Ok(())
}

#[tokio::test]
async fn without_a_login_it_says_what_to_do() -> Result<()> {
    let stage = Stage::set("nobody").await?;
    let done = stage.run(&["workspaces", "list"]).await?;
    assert_eq!(code(&done), 2);
    assert!(err(&done).contains("carillon login"), "{}", err(&done));
    let clear =
        ["login", "--url", "http://api.example.com", "--token-url", "https://a.example", "--client-id", "c"];
    let done = stage.typed(&clear, "s3cret").await?;
    assert_eq!(code(&done), 2, "a secret is not sent in clear");
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_with_their_fields() -> Result<()> {
    let stage = Stage::set("refusals").await?;
    stage.login().await?;
    let problem = json!({ "type": "/problems/invalid", "title": "The request has wrong fields", "status": 400,
        "errors": [{ "pointer": "/endpoint", "detail": "must begin with https://" }] });
    let path = "/v1/workspaces/acme/subscriptions";
    stage.api.answer(path, [Answer::status(400).json(&problem)]);
    let create = ["subscriptions", "create", "--endpoint", "http://x.example", "--type", "a"];
    let done = stage.run(&create).await?;
    assert_eq!((code(&done), out(&done)), (1, String::new()));
    assert!(
        err(&done).contains("The request has wrong fields (400)\n  /endpoint  must begin"),
        "{}",
        err(&done)
    );
    assert!(!stage.received(path)[0].header("idempotency-key").is_empty());

    let done = stage.run(&[&create[..], &["--json"]].concat()).await?;
    assert_eq!(serde_json::from_str::<Value>(&err(&done))?, problem);
    Ok(())
}

#[tokio::test]
async fn what_may_pass_is_asked_again() -> Result<()> {
    let stage = Stage::set("retries").await?;
    stage.login().await?;
    let good = Answer::status(200).json(&subscription("active"));
    let busy = || Answer::status(429).header("retry-after", "1");
    stage.api.answer(SUBSCRIPTION, [busy(), Answer::status(503), good.clone()]);
    let began = Instant::now();
    let done = stage.run(&["subscriptions", "show", "sub_1", "--json"]).await?;
    assert_eq!(code(&done), 0, "{done:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After");
    assert_eq!(serde_json::from_str::<Value>(&out(&done))?, subscription("active"));
    assert_eq!(stage.received(SUBSCRIPTION).len(), 3);

    // What may not come twice does not.
    stage.api.answer(SUBSCRIPTION, [Answer::status(503), good]);
    let done = stage.run(&["subscriptions", "pause", "sub_1"]).await?;
    assert_eq!(code(&done), 1);
    assert_eq!(stage.received(SUBSCRIPTION).len(), 4);
    assert_eq!(stage.received(SUBSCRIPTION)[3].json(), json!({ "paused": true }));
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() -> Result<()> {
    let stage = Stage::set("tokens").await?;
    stage.login().await?;
    stage.tokens(&["t-2"]);
    let good = Answer::status(200).json(&subscription("active"));
    stage.api.answer(SUBSCRIPTION, [Answer::status(401), good, Answer::status(401)]);
    assert_eq!(code(&stage.run(&["subscriptions", "show", "sub_1"]).await?), 0);
    assert_eq!(code(&stage.run(&["subscriptions", "show", "sub_1"]).await?), 1);
    let tokens = stage
        .received(SUBSCRIPTION)
        .iter()
        .map(|request| request.header("authorization").to_owned())
        .collect::<Vec<_>>();
    assert_eq!(tokens, ["Bearer t-1", "Bearer t-2", "Bearer t-2", "Bearer t-2"]);
    Ok(())
}

#[tokio::test]
async fn nobody_there_is_another_code() -> Result<()> {
    let stage = Stage::set("unreachable").await?;
    stage.login().await?;
    let mut command = stage.command(&["workspaces", "list"]);
    // The discard port, where nobody listens.
    command.env("CARILLON_URL", "http://127.0.0.1:9");
    let done = tokio::task::spawn_blocking(move || command.output()).await??;
    assert_eq!(code(&done), 3, "{done:?}");
    assert!(err(&done).contains("cannot be reached"), "{}", err(&done));
    Ok(())
}

#[tokio::test]
async fn pages_are_followed_even_empty_ones() -> Result<()> {
    let stage = Stage::set("pages").await?;
    stage.login().await?;
    let delivery = |id: &str| {
        json!({ "id": id, "subscription": "sub_1", "status": "failed", "reason": "exhausted", "round": 1,
            "event": { "id": "evt_1", "type": "consent:created", "acceptedAt": "2026-11-22T09:00:00Z" },
            "attempts": [{ "round": 1, "number": 1, "at": "2026-11-22T09:00:00Z", "durationMs": 12,
                "outcome": "serverError", "status": 500, "response": "oops\u{1b}[2J" }] })
    };
    let page = |items: Value, next: Option<&str>| {
        let mut page = json!({ "items": items });
        if let Some(next) = next {
            page["next"] = json!(next);
        }
        Answer::status(200).json(&page)
    };
    let path = format!("{SUBSCRIPTION}/deliveries");
    let pages = || {
        [
            page(json!([delivery("dlv_1")]), Some("a")),
            page(json!([]), Some("b")),
            page(json!([delivery("dlv_2")]), None),
        ]
    };
    stage.api.answer(&path, pages());
    let done = stage.run(&["deliveries", "list", "sub_1", "--status", "failed", "--follow"]).await?;
    let lines = out(&done).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("DELIVERY  TYPE "), "{}", lines[0]);
    assert!(lines[1].contains("failed (exhausted)  1         serverError 500"), "{}", lines[1]);

    stage.api.answer(&path, pages());
    let done = stage.run(&["deliveries", "list", "sub_1", "--follow", "--json"]).await?;
    let items = out(&done).lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(items, [delivery("dlv_1"), delivery("dlv_2")]);

    stage.api.answer(&path, pages());
    let done = stage.run(&["deliveries", "list", "sub_1", "--limit", "1"]).await?;
    assert!(err(&done).contains("--cursor a"), "{}", err(&done));

    stage.api.answer(&format!("{path}/dlv_1"), [Answer::status(200).json(&delivery("dlv_1"))]);
    let done = stage.run(&["deliveries", "show", "sub_1", "dlv_1"]).await?;
    assert!(out(&done).contains("serverError 500  oops [2J"), "{}", out(&done));
    Ok(())
}

#[tokio::test]
async fn events_are_published_in_batches() -> Result<()> {
    let stage = Stage::set("publish").await?;
    stage.login().await?;
    let path = "/v1/workspaces/acme/events";
    let accepted = json!({ "status": "accepted", "id": "e-1", "eventId": "evt_1" });
    stage.api.answer(path, [Answer::status(202).json(&accepted)]);
    let done = stage.run(&["publish", "--type", "consent:created", "--data", "{\"n\": 1.10}"]).await?;
    assert_eq!(code(&done), 0, "{done:?}");
    let request = &stage.received(path)[0];
    assert_eq!(request.header("content-type"), "application/cloudevents+json");
    assert!(String::from_utf8_lossy(&request.body).contains("\"data\":{\"n\": 1.10}"));

    let problem = json!({ "type": "/problems/invalid", "title": "Wrong", "status": 400,
        "errors": [{ "pointer": "/data", "detail": "is missing" }] });
    let results = json!({ "results": [accepted, { "status": "invalid", "id": "e-2", "problem": problem }] });
    stage.api.answer(path, [Answer::status(207).json(&results)]);
    let done = stage.typed(&["publish", "-"], "{\"type\": \"a\"}\n{\"type\": \"b\"}\n").await?;
    assert_eq!(code(&done), 1);
    assert!(out(&done).contains("invalid   e-2         /data is missing"), "{}", out(&done));
    assert!(err(&done).contains("an event was not accepted"), "{}", err(&done));
    assert_eq!(stage.received(path)[1].header("content-type"), "application/cloudevents-batch+json");
    assert_eq!(stage.received(path)[1].json().as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test]
async fn a_job_is_waited_for() -> Result<()> {
    let stage = Stage::set("jobs").await?;
    stage.login().await?;
    let job = |status: &str, done: u64| {
        json!({ "id": "job_1", "workspace": "acme", "kind": "redeliver", "status": status, "done": done,
            "subscription": "sub_1", "createdAt": "2026-11-22T09:00:00Z", "updatedAt": "2026-11-22T09:00:00Z" })
    };
    let answer = |status: &str, done: u64| Answer::status(200).json(&job(status, done));
    let redeliveries = format!("{SUBSCRIPTION}/redeliveries");
    let counted = Answer::status(200).json(&json!({ "count": 12, "complete": true }));
    stage.api.answer(&redeliveries, [counted, Answer::status(202).json(&job("queued", 0))]);
    stage.api.answer("/v1/workspaces/acme/jobs/job_1", [answer("running", 5), answer("completed", 12)]);
    let words = ["redeliver", "sub_1", "--since", "2h", "--wait", "--json"];
    let done = stage.run(&words).await?;
    assert_eq!(code(&done), 0, "{done:?}");
    assert_eq!(serde_json::from_str::<Value>(&out(&done))?, job("completed", 12));
    let asked = stage.received(&redeliveries).iter().map(Received::json).collect::<Vec<_>>();
    assert_eq!(asked[0]["dryRun"], true);
    assert_eq!(asked[1]["dryRun"], Value::Null);
    assert_eq!(asked[1]["statuses"], json!(["failed"]));

    stage.api.answer("/v1/workspaces/acme/jobs/job_1", [answer("cancelled", 5)]);
    let done = stage.run(&["jobs", "wait", "job_1"]).await?;
    assert_eq!(code(&done), 1);
    assert!(err(&done).contains("job_1 is cancelled"), "{}", err(&done));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_undone_wants_a_yes() -> Result<()> {
    let stage = Stage::set("delete").await?;
    stage.login().await?;
    assert_eq!(code(&stage.run(&["subscriptions", "delete", "sub_1"]).await?), 2);
    assert!(stage.received(SUBSCRIPTION).is_empty());
    let done = stage.run(&["subscriptions", "delete", "sub_1", "--yes"]).await?;
    assert_eq!((code(&done), out(&done)), (0, "Deleted sub_1.\n".to_owned()));
    assert_eq!(stage.received(SUBSCRIPTION)[0].method, "DELETE");
    Ok(())
}

#[tokio::test]
async fn listening_forwards_and_cleans_up() -> Result<()> {
    let stage = Stage::set("listen").await?;
    stage.login().await?;
    let server = Receiver::start().await?;
    let inbox = json!({ "id": "inbox_1", "url": "https://in.example/in/TOKEN", "answer": { "status": 200, "delayMs": 0 },
        "createdAt": "2026-11-22T09:00:00Z", "expiresAt": "2026-11-23T09:00:00Z" });
    stage.api.answer("/v1/workspaces/acme/inboxes", [Answer::status(201).json(&inbox)]);
    let mut made = subscription("active");
    made["signingSecret"] = json!("whsec_x");
    stage.api.answer("/v1/workspaces/acme/subscriptions", [Answer::status(201).json(&made)]);
    let request = json!({ "id": "r1", "receivedAt": "2026-11-22T09:00:00Z", "method": "POST", "path": "/in/TOKEN",
        "headers": [["webhook-id", "dlv_1"], ["host", "in.example"]], "body": "eyJ0eXBlIjogImEifQ==",
        "encoding": "base64", "signature": "verified" });
    let page = Answer::status(200).json(&json!({ "items": [request], "next": "r1" }));
    let empty = Answer::status(200).json(&json!({ "items": [] }));
    stage.api.answer("/v1/workspaces/acme/inboxes/inbox_1/requests", [page, Answer::status(503), empty]);

    let to = server.url("/hook");
    let mut child =
        stage.command(&["listen", "--forward-to", &to, "--types", "a,b", "--subscriber", "tpp-1"]).spawn()?;
    let forwarded = server.wait_for("/hook", 1, Duration::from_secs(20)).await?;
    assert_eq!(forwarded[0].body, "{\"type\": \"a\"}".as_bytes());
    assert_eq!(forwarded[0].webhook_id(), "dlv_1");
    assert_ne!(forwarded[0].header("host"), "in.example");
    let mut shown = BufReader::new(child.stdout.take().context("no output")?);
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        shown.read_line(&mut line).map(|_| line)
    });
    let line = line.await??;
    assert!(line.contains("POST  a  dlv_1  204"), "{line}");
    interrupt(child.id())?;
    let done = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    assert_eq!(code(&done), 0, "{done:?}");
    assert!(err(&done).contains("whsec_x"), "{}", err(&done));
    for path in [SUBSCRIPTION, "/v1/workspaces/acme/inboxes/inbox_1"] {
        assert_eq!(
            stage.received(path).last().map(|request| request.method.clone()).as_deref(),
            Some("DELETE")
        );
    }
    let subscribed = stage.received("/v1/workspaces/acme/subscriptions")[0].json();
    assert_eq!(
        subscribed,
        json!({ "endpoint": "https://in.example/in/TOKEN", "types": ["a", "b"], "subscriber": "tpp-1" })
    );
    Ok(())
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_failure() -> Result<()> {
    let stage = Stage::set("pipe").await?;
    let mut shell = Command::new("sh");
    let pipe = "{ \"$0\" completions bash; echo $? >&2; } | head -n 1";
    shell.args(["-c", pipe, env!("CARGO_BIN_EXE_carillon")]).env("HOME", &stage.home);
    let done = tokio::task::spawn_blocking(move || shell.output()).await??;
    assert_eq!((out(&done).lines().count(), err(&done)), (1, "0\n".to_owned()));
    Ok(())
}

/// As Ctrl-C does.
fn interrupt(process: u32) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s INT \"$1\"", "sh", &process.to_string()]);
    anyhow::ensure!(shell.status()?.success(), "process {process} cannot be interrupted");
    Ok(())
}
