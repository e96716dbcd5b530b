//! The command line, as its users run it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use carillon_local::profile_dir;
use carillon_tests::{SUBSCRIBER, Scene, WORKSPACE};
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
