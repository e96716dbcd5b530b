//! What is done, one module for each noun.

pub(crate) mod audit;
pub(crate) mod clients;
pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod inboxes;
pub(crate) mod jobs;
pub(crate) mod listen;
pub(crate) mod login;
pub(crate) mod publish;
pub(crate) mod redeliver;
pub(crate) mod subscriptions;
pub(crate) mod workspaces;

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::arguments::{Arguments, Command};
use crate::context::Context;
use crate::failure::Failure;

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Login(login) => login::login(context, login).await,
        Command::Logout => login::logout(context),
        Command::Profiles(command) => login::profiles(context, command),
        Command::Workspaces(command) => workspaces::run(context, command).await,
        Command::Clients(command) => clients::run(&context.place()?, command).await,
        Command::Subscriptions(command) => subscriptions::run(&context.place()?, command).await,
        Command::Publish(publish) => publish::publish(&context.place()?, publish).await,
        Command::Events(command) => events::run(&context.place()?, command).await,
        Command::Deliveries(command) => deliveries::run(&context.place()?, command).await,
        Command::Redeliver(redeliver) => redeliver::redeliver(&context.place()?, redeliver).await,
        Command::Replay(replay) => redeliver::replay(&context.place()?, replay).await,
        Command::Fanout(fan_out) => redeliver::fan_out(&context.place()?, fan_out).await,
        Command::Jobs(command) => jobs::run(&context.place()?, command).await,
        Command::Inboxes(command) => inboxes::run(&context.place()?, command).await,
        Command::Listen(listen) => listen::listen(&context.place()?, listen).await,
        Command::Audit(audit) => audit::audit(&context.place()?, audit).await,
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "carillon", &mut script);
    Ok(io::Write::write_all(&mut io::stdout().lock(), &script)?)
}
