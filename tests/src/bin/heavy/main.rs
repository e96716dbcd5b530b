//! `cargo xtask prove` and `cargo xtask bench`: claims at full size, and measurements.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks to its user")]

mod bare;
mod bench;
mod deploy;
mod engine;
mod faults;
mod neighbour;
mod order;
mod prove;
mod rate;
mod redelivery;
mod waiting;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

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
        ["prove", "neighbour"] => neighbour::neighbour().await,
        ["prove", "faults", "--seed", seed] => {
            faults::faults(seed.parse().context("a seed is a number")?).await
        }
        ["prove", "deadlines", "--seed", seed] => {
            order::deadlines(seed.parse().context("a seed is a number")?).await
        }
        ["prove", "revisions", "--seed", seed] => {
            order::revisions(seed.parse().context("a seed is a number")?).await
        }
        ["prove", "rate"] => rate::rate().await,
        ["prove", "pause"] => waiting::pause().await,
        ["prove", "clock"] => waiting::clock().await,
        ["prove", "redelivery"] => redelivery::redelivery().await,
        ["bench", "latency"] => bench::latency().await,
        ["bench", "api"] => bench::api().await,
        ["bench", "size"] => bench::size(),
        ["bench", "coldstart"] => bench::coldstart().await,
        ["bench", "deliver"] => engine::deliver().await,
        ["bench", "publish"] => engine::publish().await,
        ["bench", "fanout"] => engine::fanout().await,
        ["bench", "together"] => engine::together().await,
        ["bench", "redrive"] => redelivery::cost().await,
        [bare::COMMAND, url, count] => bare::run(url, count.parse()?).await,
        other => bail!("there is no `{}` here", other.join(" ")),
    }
}
