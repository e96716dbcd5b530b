//! The local AWS.

use std::env::consts::ARCH;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::process;
use crate::repository::{lay_out_functions, output, root};
use crate::stack::Stack;
use crate::toolbox::Toolbox;

/// It starts in about a second; on a machine that is busy compiling, in several.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// What the deployment on one machine has other than on AWS. Everything else is the template's default.
const LOCAL_PARAMETERS: [(&str, &str); 7] = [
    ("Stage", "local"),
    ("AllowedPrivateCidrs", "127.0.0.0/8"),
    ("AllowInsecure", "true"),
    ("DeletionProtection", "false"),
    // What a mapping on AWS begins with. More processes would only wait for two processors.
    ("DeliveryConcurrency", "5"),
    ("SlowConcurrency", "2"),
    ("ExpansionConcurrency", "2"),
];

/// How much of the local AWS's log a failure shows.
const LOG_LINES_SHOWN: usize = 25;

/// How a local AWS is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The port to serve on; any free one by default.
    pub port: Option<u16>,
}

/// An emulated AWS account, running until this is dropped or this program ends, in whatever way it ends.
#[derive(Debug)]
pub struct LocalAws {
    launcher: Child,
    log: File,
    toolbox: Toolbox,
    endpoint: String,
}

impl LocalAws {
    /// Starts one with nothing in it, IAM enforced, and waits until it serves.
    pub async fn start(options: Options) -> Result<Self> {
        let toolbox = spawn_blocking(Toolbox::local_aws).await??;
        let log = unnamed_file()?;
        let mut launcher = Command::new(toolbox.program("python"))
            .arg(root().join("infra/local/launcher.py"))
            .env_clear()
            .envs(
                std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "LANG" || name == "TMPDIR"),
            )
            .env("GATEWAY_PORT", options.port.unwrap_or(0).to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // Ctrl-C is for this program, which then ends the launcher.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .context("cannot start the local AWS")?;

        let stdout = launcher.stdout.take().context("the launcher has no output")?;
        let mut this = Self { launcher, log, toolbox, endpoint: String::new() };
        let first_line = spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = timeout(START_TIMEOUT, first_line).await.context("the local AWS did not start")???;
        match line.trim().strip_prefix("ready ") {
            Some(endpoint) => endpoint.clone_into(&mut this.endpoint),
            None => bail!("the local AWS did not start:\n{}", this.log_tail()),
        }
        Ok(this)
    }

    /// Its address, `http://127.0.0.1:4566` for example.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Deploys the template under a name of its own, with the functions that cargo built.
    pub fn deploy(&self, name: &str, parameters: &[(&str, &str)]) -> Result<Stack> {
        let code = lay_out_functions()?;
        let architecture = if ARCH == "aarch64" { "arm64" } else { "x86_64" };
        let here = [("Architecture", architecture), ("LocalGateway", self.endpoint.as_str())];
        let mut deploy = Command::new(self.toolbox.program("python"));
        deploy
            .arg(root().join("infra/local/deploy.py"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--template")
            .arg(root().join("infra/template.yaml"))
            .arg("--functions")
            .arg(code)
            .args(["--stack", name]);
        for (name, value) in LOCAL_PARAMETERS.iter().chain(&here).chain(parameters) {
            deploy.args(["--parameter", &format!("{name}={value}")]);
        }
        let printed = output(&mut deploy)?;
        let outputs = serde_json::from_str(&printed)
            .with_context(|| format!("deploy.py printed no outputs: {printed}"))?;
        Ok(Stack::new(name, &self.endpoint, outputs))
    }

    /// A stack that was deployed in another way.
    pub fn stack(&self, name: &str) -> Result<Stack> {
        let printed = self.cli(&["cloudformation", "describe-stacks", "--stack-name", name])?;
        let description: Value = serde_json::from_str(&printed)?;
        let outputs = description["Stacks"][0]["Outputs"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let outputs = outputs.map(|output| (text(&output["OutputKey"]), text(&output["OutputValue"])));
        Ok(Stack::new(name, &self.endpoint, outputs.collect()))
    }

    /// Runs the real AWS CLI against it, as the account's root, and gives what it printed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.cli_as(&[("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")], arguments)
    }

    /// Runs the real AWS CLI against it with the credentials that these variables hold.
    pub fn cli_as(&self, credentials: &[(&str, &str)], arguments: &[&str]) -> Result<String> {
        output(
            Command::new(self.toolbox.program("aws"))
                .env_clear()
                .envs(credentials.iter().copied())
                .env("AWS_DEFAULT_REGION", "us-east-1")
                .args(["--endpoint-url", &self.endpoint, "--output", "json"])
                .args(arguments),
        )
    }

    /// Runs a script as an operator would in a shell of theirs, as the account's root, and gives what it printed. `aws` is
    /// the real AWS CLI.
    pub fn shell(&self, script: &str, variables: &[(&str, &str)]) -> Result<String> {
        // It does not look for an endpoint in the environment.
        let aws = r#"aws() { "$AWS_CLI" --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }"#;
        let path = std::env::var_os("PATH").unwrap_or_default();
        output(
            Command::new("bash")
                .args(["-euo", "pipefail", "-c", &format!("{aws}\n{script}")])
                .env_clear()
                .envs(variables.iter().copied())
                .env("PATH", path)
                .env("AWS_CLI", self.toolbox.program("aws"))
                .env("AWS_ENDPOINT_URL", &self.endpoint)
                .env("AWS_ACCESS_KEY_ID", "test")
                .env("AWS_SECRET_ACCESS_KEY", "test")
                .env("AWS_DEFAULT_REGION", "us-east-1"),
        )
    }

    /// The end of its log, with what functions that failed have printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let mut text = Vec::new();
        // A handle shares its position with the one that is written through, which appends wherever it stands.
        let read = self.log.try_clone().and_then(|mut log| {
            log.seek(SeekFrom::Start(0))?;
            log.read_to_end(&mut text)
        });
        if let Err(error) = read {
            return format!("(its log cannot be read: {error})");
        }
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().collect::<Vec<_>>();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for LocalAws {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The local AWS said:\n{}", self.log_tail());
        }
        // Asked to end, it ends the functions' processes too; when it is gone already there is nothing to do.
        let _ = process::ask_to_end(self.launcher.id());
        let _ = self.launcher.wait();
    }
}

/// A file that is gone with its last handle, so that no end of this program can leave it behind.
fn unnamed_file() -> Result<File> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("carillon-local-{}-{}.log", std::process::id(), MADE.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = File::options().create(true).read(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    fs::remove_file(&path)?;
    Ok(file)
}
