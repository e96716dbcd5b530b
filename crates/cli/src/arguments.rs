//! What can be said on the command line.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::clients::ClientsCommand;
use crate::commands::deliveries::DeliveriesCommand;
use crate::commands::events::EventsCommand;
use crate::commands::inboxes::InboxesCommand;
use crate::commands::jobs::JobsCommand;
use crate::commands::listen::Listen;
use crate::commands::login::{Login, ProfilesCommand};
use crate::commands::publish::Publish;
use crate::commands::redeliver::{FanOut, Redeliver, Replay};
use crate::commands::subscriptions::SubscriptionsCommand;
use crate::commands::workspaces::WorkspacesCommand;
use crate::listing::{Paging, Times};

const EXAMPLES: &str = "\
Examples:
  carillon login --url https://api.example.com --token-url https://auth.example.com/oauth2/token --client-id platform
  carillon workspaces use acme
  carillon subscriptions create --endpoint https://tpp.example.com/hook --type 'consent:*' --subscriber tpp-1
  carillon publish --type consent:created --data '{\"consentId\": \"c-1\"}'
  carillon deliveries list sub_... --status failed --since 2h
  carillon redeliver sub_... --since 2h --wait
  carillon listen --forward-to http://localhost:3000 --types 'consent:*'

Environment (each goes before the profile):
  CARILLON_URL, CARILLON_TOKEN_URL, CARILLON_CLIENT_ID, CARILLON_CLIENT_SECRET, CARILLON_WORKSPACE, CARILLON_PROFILE
  NO_COLOR turns colours off

Exit codes:
  0 done   1 refused by the API, or ended badly   2 wrong command line or configuration   3 not reachable";

/// Webhooks from the command line: publish events, see what became of them, deliver them again.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Which profile, if not the current one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Everywhere")]
    pub(crate) profile: Option<String>,
    /// Which workspace, if not that of `workspaces use`
    #[arg(short, long, global = true, value_name = "ID", help_heading = "Everywhere")]
    pub(crate) workspace: Option<String>,
    /// The API's JSON, one value a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a profile: which deployment, and as which client
    Login(Login),
    /// Remove a profile, with its secret and its tokens
    Logout,
    /// Profiles: list, use
    #[command(subcommand)]
    Profiles(ProfilesCommand),
    /// Workspaces: list, show, create, delete, use
    #[command(subcommand)]
    Workspaces(WorkspacesCommand),
    /// Who may do what in a workspace: list, grant, revoke
    #[command(subcommand)]
    Clients(ClientsCommand),
    /// Subscriptions: list, show, create, update, pause, resume, test and more
    #[command(subcommand)]
    Subscriptions(SubscriptionsCommand),
    /// Publish one event, or many
    Publish(Publish),
    /// Events: list, show
    #[command(subcommand)]
    Events(EventsCommand),
    /// Deliveries: list, show, counts
    #[command(subcommand)]
    Deliveries(DeliveriesCommand),
    /// Deliver again what failed
    Redeliver(Redeliver),
    /// Deliver to a subscription events that it never got
    Replay(Replay),
    /// Fan all events of a time out again
    Fanout(FanOut),
    /// Work that outlasts a request: list, show, wait, cancel
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Receiving URLs to try webhooks without a server: create, list, show, answer, requests, delete
    #[command(subcommand)]
    Inboxes(InboxesCommand),
    /// Forward deliveries to a server on this machine
    Listen(Listen),
    /// Who changed what
    Audit(Audit),
    /// Print a shell's completions
    #[command(
        after_help = "Example:\n  carillon completions bash > ~/.local/share/bash-completion/completions/carillon"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// What `audit` takes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  carillon audit --since 7d --follow")]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) times: Times,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn good_command_lines() {
        for line in [
            "carillon login --url https://a.example --token-url https://b.example --client-id c",
            "carillon logout --profile staging",
            "carillon workspaces list --json",
            "carillon workspaces create acme --kind consent --allow-http --own",
            "carillon workspaces delete acme --cascade --yes --wait",
            "carillon -w acme subscriptions list --status paused --follow",
            "carillon subscriptions create --endpoint https://a.example --type a,b --type c --retry 5s,5m --paused",
            "carillon subscriptions update sub_1 --title T --header x-a:b",
            "carillon subscriptions update sub_1 --file -",
            "carillon subscriptions rotate-secret sub_1 --overlap 2d",
            "carillon subscriptions test sub_1 --event-type consent:created",
            "carillon publish",
            "carillon publish event.json --source urn:a",
            "carillon publish --type consent:created --source urn:a --data {} --audience tpp-1,tpp-2",
            "carillon deliveries list sub_1 --status failed --outcome timedOut --event-type a --since 2h --until 1h",
            "carillon deliveries list --event evt_1",
            "carillon deliveries show sub_1 dlv_1",
            "carillon deliveries counts sub_1",
            "carillon events list --type consent:created --since 2026-11-20",
            "carillon redeliver sub_1 dlv_1 --force",
            "carillon redeliver sub_1 --status failed,cancelled --since 2h --event-type consent:* --dry-run",
            "carillon redeliver sub_1 --wait -w acme",
            "carillon replay sub_1 --since 7d --wait",
            "carillon fanout --since 2h --until 1h",
            "carillon jobs cancel job_1",
            "carillon inboxes create --status 500 --delay 2s",
            "carillon inboxes requests inbox_1 --follow",
            "carillon listen --forward-to http://localhost:3000/hook --types consent:*,a --subscriber tpp-1",
            "carillon audit --since 7d",
            "carillon completions zsh",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_command_lines() {
        for line in [
            "carillon",
            "carillon login --client-secret s3cret",
            "carillon publish event.json --type consent:created",
            "carillon publish --data {}",
            "carillon deliveries list",
            "carillon deliveries list sub_1 --event evt_1",
            "carillon deliveries list sub_1 --since yesterday",
            "carillon deliveries list sub_1 --limit 0",
            "carillon redeliver",
            "carillon redeliver sub_1 dlv_1 --since 2h",
            "carillon redeliver sub_1 --dry-run --wait",
            "carillon redeliver sub_1 --force",
            "carillon replay sub_1",
            "carillon subscriptions update sub_1",
            "carillon subscriptions create --endpoint https://a.example --header nocolon",
            "carillon listen",
            "carillon completions cobol",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse("carillon --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    }

    #[test]
    fn every_command_explains_itself() {
        fn walk(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} says nothing of itself");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} says nothing", argument.get_id());
            }
            for inner in command.get_subcommands() {
                walk(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        walk(&Arguments::command(), "carillon");
    }
}
