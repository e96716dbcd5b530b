//! `cargo xtask prove` and `cargo xtask bench`: claims at full size, and measurements.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks to its user")]

mod bench;
mod deploy;
mod prove;
mod runtime_api;

use std::process::ExitCode;

use anyhow::{Result, bail};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["prove", "deploy"] => deploy::deploy().await,
        ["prove", "load"] => prove::load().await,
        ["prove", "many"] => prove::many().await,
        ["bench", "latency"] => bench::latency().await,
        ["bench", "api"] => bench::api().await,
        ["bench", "size"] => bench::size(),
        ["bench", "coldstart"] => bench::coldstart().await,
        other => bail!("there is no `{}` here", other.join(" ")),
    }
}
