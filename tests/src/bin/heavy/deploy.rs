//! The README's ways to deploy, tried on the local AWS.

use std::env::consts::ARCH;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use carillon_local::{LocalAws, Options, Receiver, Stack, Toolbox, Verdict, event, root, run};
use carillon_tests::PATIENCE;
use serde_json::{Value, json};

const STACK: &str = "carillon";

/// Where `samconfig.toml` has its local deployment look for HTTP APIs and tokens.
const GATEWAY_PORT: u16 = 4566;

/// `sam build && sam deploy`, an event through what was deployed, then one function anew with `cargo lambda`.
pub(crate) async fn deploy() -> Result<()> {
    let tools = Toolbox::tools()?;
    let aws = LocalAws::start(Options { port: Some(GATEWAY_PORT) }).await?;
    let architecture = if ARCH == "aarch64" { "arm64" } else { "x86_64" };
    let parameter = format!("Architecture={architecture}");

    timed("sam build", || {
        run(command(&tools, &aws, "sam")?.args([
            "build",
            "--config-env",
            "local",
            "--parameter-overrides",
            &parameter,
        ]))
    })?;
    timed("sam deploy", || {
        run(command(&tools, &aws, "sam")?.args(["deploy", "--config-env", "local", "--stack-name", STACK]))
    })?;
    let stack = aws.stack(STACK)?;
    one_event_arrives(&stack, "after-sam").await?;

    let function = stack.function("deliver");
    timed("cargo lambda build", || {
        run(command(&tools, &aws, "cargo-lambda")?.args([
            "lambda",
            "build",
            "--release",
            "--compiler",
            "cargo",
            "--package",
            "deliver",
        ]))
    })?;
    let before = code_hash(&aws, &function)?;
    timed("cargo lambda deploy", || {
        run(command(&tools, &aws, "cargo-lambda")?.args([
            "lambda",
            "deploy",
            "--endpoint-url",
            aws.endpoint(),
            "--binary-name",
            "deliver",
            &function,
        ]))
    })?;
    println!("Its code was {before}, and is {}.", code_hash(&aws, &function)?);
    timed("cargo lambda invoke", || {
        run(command(&tools, &aws, "cargo-lambda")?.args([
            "lambda",
            "invoke",
            "--remote",
            "--endpoint-url",
            aws.endpoint(),
            "--data-file",
            "events/clock.json",
            &stack.function("clock"),
        ]))
    })?;
    one_event_arrives(&stack, "after-cargo-lambda").await
}

async fn one_event_arrives(stack: &Stack, workspace: &str) -> Result<()> {
    let carillon = stack.carillon().await?;
    let receiver = Receiver::start().await?;
    carillon.own_workspace(workspace, "custom").await?;
    let path = format!("/v1/workspaces/{workspace}/event-types/consent:created");
    let anything = json!({ "description": "Anything", "schema": {}, "sample": {}, "validate": false });
    carillon.put(&path, &anything).await?.expect_status(201)?;
    let subscription = carillon.subscribe(workspace, &receiver.url("/inbox"), &["*"]).await?;
    receiver.trust("/inbox", &subscription.secret);
    let created = event("e-1", "consent:created", &json!({}));
    carillon.publish(workspace, &created).await?.expect_status(202)?;
    let received = receiver.wait_for("/inbox", 1, PATIENCE).await?;
    ensure!(received[0].verdict == Verdict::Verified, "{}", received[0].verdict);
    println!("An event went through, its {}.", received[0].verdict);
    Ok(())
}

fn code_hash(aws: &LocalAws, function: &str) -> Result<String> {
    let printed = aws.cli(&["lambda", "get-function-configuration", "--function-name", function])?;
    let configuration: Value = serde_json::from_str(&printed)?;
    Ok(configuration["CodeSha256"].as_str().context("the function has no code")?.to_owned())
}

/// One of the tools, set on the local AWS, with cargo and the other tools on its path.
fn command(tools: &Toolbox, aws: &LocalAws, program: &str) -> Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools.bin()).chain(std::env::split_paths(&path)))?;
    let mut command = Command::new(tools.program(program));
    command
        .current_dir(root())
        .env("PATH", path)
        .env("AWS_ENDPOINT_URL", aws.endpoint())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_REGION", "us-east-1")
        // For this machine's own processor and libc, no cross compiler is needed.
        .env("CARGO_LAMBDA_COMPILER", "cargo")
        .env("SAM_CLI_TELEMETRY", "0");
    Ok(command)
}

fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n$ {what}");
    let began = Instant::now();
    work().with_context(|| what.to_owned())?;
    println!("{what}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
