//! The command line, as its users run it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Answer, Verdict, profile_dir};
use carillon_tests::{PATIENCE, SUBSCRIBER, Scene, WORKSPACE, eventually};
use serde_json::Value;

/// The command line with a home of its own, logged in to a scene.
struct CommandLine {
    home: PathBuf,
}

impl CommandLine {
    async fn logged_in(scene: &Scene) -> Result<Self> {
        let home =
            std::env::temp_dir().join(format!("carillon-{}-{}", scene.stack.name(), std::process::id()));
        fs::create_dir_all(&home)?;
        let line = Self { home };
        let client = scene.stack.client_named("carillon").await?.context("the scene has a client")?;
        let (url, token_url) = (scene.stack.api_url(), scene.stack.output("TokenUrl"));
        let words = ["login", "--url", &url, "--token-url", token_url, "--client-id", &client.client_id];
        let done = line.typed(&words, &client.client_secret).await?;
        ensure!(done.status.success(), "{done:?}");
        // There is one workspace to choose from.
        assert!(out(&done).contains(&format!("workspace {WORKSPACE}")), "{}", out(&done));
        Ok(line)
    }

    /// Runs a command that must succeed, and gives what it printed.
    async fn run(&self, words: &[&str]) -> Result<String> {
        let done = self.typed(words, "").await?;
        ensure!(done.status.success(), "{words:?}: {done:?}");
        Ok(out(&done))
    }

    /// The same for scripts: the JSON values that it printed.
    async fn json(&self, words: &[&str]) -> Result<Vec<Value>> {
        let printed = self.run(&[words, &["--json"]].concat()).await?;
        Ok(printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Runs a command with this on its standard input.
    async fn typed(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut child = self.command(words)?.spawn()?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        Ok(tokio::task::spawn_blocking(move || child.wait_with_output()).await??)
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(profile_dir()?.join("carillon"));
        command.args(words).env_clear().env("HOME", &self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

impl Drop for CommandLine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn out(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

#[tokio::test]
async fn from_a_login_to_a_delivery() -> Result<()> {
    let scene = Scene::set("cli", &[]).await?;
    let line = CommandLine::logged_in(&scene).await?;
    assert!(line.run(&["workspaces", "show"]).await?.contains("kind      consent"));

    let endpoint = scene.receiver.url("/inbox");
    let create = ["subscriptions", "create", "--endpoint", &endpoint, "--type", "consent:*"];
    let refused = line.typed(&create, "").await?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("\n  /subscriber  "), "{refused:?}");
    let created = line.json(&[&create[..], &["--subscriber", SUBSCRIBER]].concat()).await?;
    let id = text(&created[0], "id");
    scene.receiver.trust("/inbox", text(&created[0], "signingSecret"));
    assert!(line.run(&["subscriptions", "list"]).await?.contains(id));

    let published = line.json(&["publish", "--type", "consent:created", "--data", r#"{"n": 1.10}"#]).await?;
    assert_eq!(published[0]["status"], "accepted");
    let received = scene.received("/inbox", 1).await?;
    assert!(String::from_utf8_lossy(&received[0].body).contains(r#""data":{"n": 1.10}"#));

    let events = "{\"type\": \"consent:revoked\"}\n{\"type\": \"consent:unheard-of\"}\n";
    let done = line.typed(&["publish"], events).await?;
    assert_eq!(done.status.code(), Some(1));
    assert!(out(&done).lines().any(|row| row.starts_with("accepted")), "{done:?}");
    assert!(out(&done).lines().any(|row| row.starts_with("invalid")), "{done:?}");
    scene.received("/inbox", 2).await?;

    line.run(&["subscriptions", "disable", id]).await?;
    assert!(line.run(&["subscriptions", "list"]).await?.contains("disabled (owner)"));
    line.run(&["subscriptions", "delete", id, "--yes"]).await?;
    assert_eq!(line.json(&["subscriptions", "list"]).await?.len(), 0);
    scene.end().await
}

#[tokio::test]
async fn what_failed_is_found_and_delivered_again() -> Result<()> {
    let scene = Scene::set("cli-redeliver", &[]).await?;
    let line = CommandLine::logged_in(&scene).await?;
    scene.receiver.answer("/inbox", [Answer::status(500), Answer::status(500), Answer::status(204)]);
    let once = serde_json::json!({ "retryPolicy": { "waitsSeconds": [] } }).to_string();
    let endpoint = scene.receiver.url("/inbox");
    let create = [
        "subscriptions",
        "create",
        "--endpoint",
        &endpoint,
        "--type",
        "*",
        "--subscriber",
        SUBSCRIBER,
        "--file",
        "-",
    ];
    let created = line.typed(&[&create[..], &["--json"]].concat(), &once).await?;
    let created: Value = serde_json::from_slice(&created.stdout)?;
    let id = text(&created, "id");
    scene.receiver.trust("/inbox", text(&created, "signingSecret"));
    for _ in 0..2 {
        line.run(&["publish", "--type", "consent:created"]).await?;
    }

    let failed = ["deliveries", "list", id, "--status", "failed", "--since", "1h", "--follow"];
    let found = eventually("two deliveries to have failed", || async {
        Ok(Some(line.json(&failed).await?).filter(|found| found.len() == 2))
    })
    .await?;
    assert!(line.run(&["deliveries", "counts", id]).await?.contains("failed    2"));
    let shown = line.run(&["deliveries", "show", id, text(&found[0], "id")]).await?;
    assert!(shown.contains("failed (exhausted)") && shown.contains("serverError 500"), "{shown}");
    let event = text(&found[0]["event"], "id");
    assert!(line.run(&["deliveries", "list", "--event", event]).await?.contains(id));

    line.run(&["redeliver", id, text(&found[0], "id")]).await?;
    scene.received("/inbox", 3).await?;
    eventually("one to have failed", || async { Ok((line.json(&failed).await?.len() == 1).then_some(())) })
        .await?;
    let job = line.json(&["redeliver", id, "--since", "1h", "--wait"]).await?;
    assert_eq!((text(&job[0], "status"), &job[0]["done"]), ("completed", &1.into()));
    let received = scene.received("/inbox", 4).await?;
    assert_eq!(received.len(), 4);
    scene.break_off().await
}

#[tokio::test]
async fn what_is_listened_for_is_forwarded_as_it_came() -> Result<()> {
    let scene = Scene::set("cli-listen", &[]).await?;
    let line = CommandLine::logged_in(&scene).await?;
    let to = scene.receiver.url("/local");
    let words = ["listen", "--forward-to", &to, "--types", "consent:*", "--subscriber", SUBSCRIBER];
    let mut child = line.command(&words)?.spawn()?;
    let subscriptions = ["subscriptions", "list"];
    let made = eventually("a subscription to be made", || async {
        Ok(line.json(&subscriptions).await?.into_iter().next())
    })
    .await?;
    line.run(&["publish", "--type", "consent:created"]).await?;
    let received = scene.receiver.wait_for("/local", 1, PATIENCE).await?;
    assert_eq!(received[0].header("content-type"), "application/cloudevents+json; charset=utf-8");

    let mut shown = BufReader::new(child.stdout.take().context("no output")?);
    let told = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        shown.read_line(&mut line).map(|_| line)
    });
    let told = told.await??;
    assert!(told.contains("POST  consent:created"), "{told}");
    interrupt(child.id())?;
    let done = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(line.json(&subscriptions).await?.len(), 0, "{made} was deleted");
    assert_eq!(line.json(&["inboxes", "list"]).await?.len(), 0);

    // What came here verifies like the original: the secret was told, too late for the receiver.
    let told = String::from_utf8_lossy(&done.stderr);
    let secret = told.lines().find_map(|told| told.strip_prefix("Signing secret: ")).context("a secret")?;
    scene.receiver.trust("/again", secret);
    let again = &received[0];
    let mut request = http::Request::post(scene.receiver.url("/again"));
    for (name, value) in &again.headers {
        request = request.header(name, value);
    }
    carillon_local::send(request.body(again.body.to_vec())?).await?;
    let again = scene.receiver.wait_for("/again", 1, PATIENCE).await?;
    assert_eq!(again[0].verdict, Verdict::Verified);
    scene.break_off().await
}

/// As Ctrl-C does.
fn interrupt(process: u32) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s INT \"$1\"", "sh", &process.to_string()]);
    ensure!(shell.status()?.success(), "process {process} cannot be interrupted");
    Ok(())
}
