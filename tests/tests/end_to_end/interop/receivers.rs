//! The server of `tests/interop`, whose checks are made by libraries that are not of this project.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use carillon_local::{Carillon, Toolbox, root};
use carillon_tests::eventually;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// It starts in a second; on a machine that is busy compiling, in several.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The server, running until this is dropped or this program ends, in whatever way it ends.
pub(crate) struct Receivers {
    process: Child,
    url: String,
    client: Carillon,
}

impl Receivers {
    pub(crate) async fn start() -> Result<Self> {
        let toolbox = spawn_blocking(Toolbox::receivers).await??;
        let mut process = Command::new(toolbox.program("python"))
            .arg(root().join("tests/interop/receivers.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // It asks itself, and the local AWS, for nobody's proxy.
            .env("NO_PROXY", "*")
            // It ends when this does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start tests/interop/receivers.py")?;
        let stdout = process.stdout.take().context("the receivers have no output")?;
        let mut this = Self { process, url: String::new(), client: Carillon::new("") };
        let first_line = spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = timeout(START_TIMEOUT, first_line).await.context("the receivers did not start")???;
        let Some(url) = line.trim().strip_prefix("ready ") else { bail!("the receivers did not start") };
        this.client = Carillon::new(url);
        url.clone_into(&mut this.url);
        Ok(this)
    }

    /// The URL of an inbox.
    pub(crate) fn inbox(&self, name: &str) -> String {
        format!("{}/inboxes/{name}", self.url)
    }

    /// The URL of the token service.
    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// Says what the deliveries to an inbox must be.
    pub(crate) async fn demand(&self, inbox: &str, demanded: &Value) -> Result<()> {
        self.tell("PUT", &format!("/control/inboxes/{inbox}"), demanded).await.map(drop)
    }

    /// Serves the inboxes also over TLS that demands a client certificate, and gives the URL of an inbox there, the
    /// authority that vouches for both sides, and a client's certificate and key.
    pub(crate) async fn behind_tls(&self, inbox: &str) -> Result<(String, String, Value)> {
        let mut made = self.tell("POST", "/control/mtls", &Value::Null).await?;
        let url = made["url"].as_str().context("there is no URL")?;
        let url = format!("{url}/inboxes/{inbox}");
        let authority = made["authority"].as_str().context("there is no authority")?.to_owned();
        let client =
            json!({ "certificate": made["certificate"].take(), "privateKey": made["privateKey"].take() });
        Ok((url, authority, client))
    }

    /// Posts a body to an inbox, as it is and with these headers, and gives the answer's status.
    pub(crate) async fn post(&self, inbox: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<u16> {
        let reply = self.client.send("POST", &format!("/inboxes/{inbox}"), headers, body.to_vec()).await?;
        Ok(reply.status)
    }

    /// Makes a client of the token service.
    pub(crate) async fn add_client(&self, client: &Value) -> Result<()> {
        self.tell("PUT", "/control/clients", client).await.map(drop)
    }

    /// How the token service answered so far.
    pub(crate) async fn token_answers(&self) -> Result<Vec<Value>> {
        list(self.tell("GET", "/control/tokens", &Value::Null).await?)
    }

    /// Withdraws every token.
    pub(crate) async fn withdraw_tokens(&self) -> Result<()> {
        self.tell("DELETE", "/control/tokens", &Value::Null).await.map(drop)
    }

    /// The verdicts on what came to an inbox, once there are so many.
    pub(crate) async fn verdicts(&self, inbox: &str, count: usize) -> Result<Vec<Value>> {
        let path = format!("/control/inboxes/{inbox}");
        let path = path.as_str();
        eventually(&format!("{count} deliveries to {inbox}"), || async move {
            let verdicts = list(self.tell("GET", path, &Value::Null).await?)?;
            Ok((verdicts.len() >= count).then_some(verdicts))
        })
        .await
    }

    /// The same, none of them a refusal.
    pub(crate) async fn accepted(&self, inbox: &str, count: usize) -> Result<Vec<Value>> {
        let verdicts = self.verdicts(inbox, count).await?;
        let refused = verdicts.iter().find(|verdict| !verdict["refused"].is_null());
        ensure!(refused.is_none(), "{inbox} refused a delivery: {refused:?}");
        Ok(verdicts)
    }

    async fn tell(&self, method: &str, path: &str, said: &Value) -> Result<Value> {
        let body = if said.is_null() { Vec::new() } else { serde_json::to_vec(said)? };
        Ok(self.client.send(method, path, &[], body).await?.expect_status(200)?.json())
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It may be gone already, which is as well.
        let _ = self.process.wait();
    }
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => bail!("{other} is no list"),
    }
}
