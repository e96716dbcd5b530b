//! `carillon`: Carillon's HTTP API as a command line.
//!
//! `carillon <noun> <verb>`, with tables for people and the API's JSON for scripts. [`arguments`] has what can be said,
//! [`commands`] what is done, one module for each noun; [`api`], [`session`] and [`profile`] know how to call the API, how
//! to get tokens, and where both are configured.

mod api;
mod arguments;
mod clock;
mod commands;
mod context;
mod environment;
mod failure;
mod input;
mod job;
mod listing;
mod moment;
mod network;
mod output;
mod profile;
mod secret;
mod session;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Output;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Ends the program by itself when the command line is wrong, with the exit code 2.
    let arguments = Arguments::parse();
    let environment = Environment::read();
    let output = Output::new(arguments.common.json, environment.no_colour);
    let context = Context::new(environment, &arguments.common, output);
    match commands::run(&context, arguments.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => ended(output, &failure),
    }
}

fn ended(output: Output, failure: &Failure) -> ExitCode {
    output.failure(failure);
    ExitCode::from(failure.exit_code())
}
