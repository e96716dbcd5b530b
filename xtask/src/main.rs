//! The developer's commands: `cargo xtask help` lists them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks to its user")]

mod heavy;
mod lint;
mod test;
mod token;
mod up;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use carillon_local::ALL_SCOPES;

const HELP: &str = "\
Carillon's commands. All of them need Rust, a C compiler and Python 3.10 or newer with venv, and nothing else.

  cargo xtask up [--port N] [--fast-retries]
      Builds the functions, starts a local AWS, deploys the template to it, and shows events on their way to a
      receiver. Stays up until Ctrl-C, and leaves nothing behind.
        --port N          serve the local AWS on this port, not on any free one
        --fast-retries    an hour of the retry schedule passes in a second; adds a receiver that always fails,
                          so that its deliveries end as dead letters that can be replayed

  cargo xtask token [--scope SCOPE]... [--client NAME]
      Prints a token for the API that `cargo xtask up` runs, good for an hour.
        --scope SCOPE     carillon/admin, carillon/publish, carillon/subscribe or carillon/read; may be repeated.
                          Without it the token has all that the client can ask for
        --client NAME     for a client of this name, which is made if there is none; it is given no role in any
                          workspace. Without it the client is the owner of the demo workspace

  cargo xtask test
      Unit tests, property tests, the local AWS's own tests, and the end-to-end tests on a local AWS.

  cargo xtask lint
      Format, clippy, dependencies and their licences, the architecture, the template.

  cargo xtask openapi
      Writes infra/openapi.json anew from the code.

  cargo xtask prove NAME [--seed N]
      Shows one claim on a local AWS, at full size. It takes minutes.
        faults     2,000 events over 20 subscriptions while requests to AWS fail, functions are killed, receivers fail and
                   batches come twice: nothing is lost. --seed N repeats the faults of an earlier run
        deadlines  500 deadlines, started and settled in any order, late and twice, under such faults: each fires once or
                   never, as its rule says. With --seed N as well
        revisions  2,000 events by 16 publishers at once, under such faults: revisions 1 to 2,000, each once. With --seed N
                   as well
        deploy     `sam build && sam deploy`, then `cargo lambda build` and `deploy` of one function
        neighbour  a healthy receiver's events, alone and beside one and ten that hang (always a release build)
        rate       1,500 events at once for a receiver that takes 600 a minute
        pause      2,000 events for a paused subscription, which then goes on: all arrive, in their order but for a page
        clock      20,000 retries that are due within one minute: in how many runs they are sent, and when they come
        simulation the domain in memory, 200,000 runs: nothing is lost whatever comes twice, late or never
        redelivery 5,000 failed deliveries are made again by a job that is killed half-way
        many       one event for 20,000 subscribers, with a function time-out that cannot cover them at once
        load       1,000 events in batches for 5 subscriptions: 5,000 deliveries, none missing

  cargo xtask bench NAME [--release]
      Measures.
        latency    from the answer to publish to the receiver, over 200 events
        api        creating, reading, listing and changing subscriptions
        size       each function's binary, as it deploys (always a release build)
        coldstart  each function, from its process's start to its first answer (always a release build)
        deliver    a delivery's processor time, calls to AWS and memory, beside a bare loop (always a release build)
        publish    an event's, one by request and in batches (always a release build)
        fanout     an event's, by how many subscriptions it concerns (always a release build)
        together   a delivery's in all functions on its way (always a release build)
        redrive    a redelivery of 1,000,000: memory, and calls to AWS per delivery (always a release build)
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    match command(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn command(arguments: &[&str]) -> Result<()> {
    match arguments {
        [] | ["help" | "--help" | "-h", ..] => {
            print!("{HELP}");
            Ok(())
        }
        ["up", options @ ..] => up::up(up_options(options)?).await,
        ["token", options @ ..] => token::token(token_options(options)?).await,
        ["test"] => test::test(),
        ["lint"] => lint::lint(),
        ["openapi"] => test::write_openapi(),
        ["prove", name, "--seed", seed] => {
            heavy::prove_with(name, seed.parse().with_context(|| format!("`{seed}` is no seed"))?)
        }
        ["prove", name] => heavy::prove(name),
        ["bench", name] => heavy::bench(name, false),
        ["bench", name, "--release"] => heavy::bench(name, true),
        other => bail!("there is no command `{}`; `cargo xtask help` lists them", other.join(" ")),
    }
}

fn up_options(mut arguments: &[&str]) -> Result<up::Options> {
    let mut options = up::Options::default();
    loop {
        match arguments {
            [] => return Ok(options),
            ["--fast-retries", rest @ ..] => {
                options.fast_retries = true;
                arguments = rest;
            }
            ["--port", port, rest @ ..] => {
                options.port = Some(port.parse().with_context(|| format!("`{port}` is no port"))?);
                arguments = rest;
            }
            [other, ..] => bail!("`up` takes no `{other}`; `cargo xtask help` says what it takes"),
        }
    }
}

fn token_options<'a>(mut arguments: &[&'a str]) -> Result<token::Options<'a>> {
    let mut options = token::Options::default();
    loop {
        match arguments {
            [] => return Ok(options),
            ["--scope", scope, rest @ ..] => {
                ensure!(
                    ALL_SCOPES.contains(scope),
                    "`{scope}` is no scope; there are {}",
                    ALL_SCOPES.join(", ")
                );
                options.scopes.push(scope);
                arguments = rest;
            }
            ["--client", name, rest @ ..] => {
                options.client = Some(name);
                arguments = rest;
            }
            [other, ..] => bail!("`token` takes no `{other}`; `cargo xtask help` says what it takes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_up() {
        assert_eq!(up_options(&[]).unwrap(), up::Options::default());
        let both = up_options(&["--port", "4566", "--fast-retries"]).unwrap();
        assert_eq!(both, up::Options { port: Some(4566), fast_retries: true });
        assert!(up_options(&["--port", "many"]).is_err());
        assert!(up_options(&["--port"]).is_err());
        assert!(up_options(&["--slowly"]).is_err());
    }

    #[test]
    fn options_of_token() {
        assert_eq!(token_options(&[]).unwrap(), token::Options::default());
        let all = ["--scope", "carillon/read", "--client", "portal", "--scope", "carillon/publish"];
        let options =
            token::Options { scopes: vec!["carillon/read", "carillon/publish"], client: Some("portal") };
        assert_eq!(token_options(&all).unwrap(), options);
        for wrong in [&["--scope"][..], &["--scope", "read"], &["--client"], &["read"]] {
            assert!(token_options(wrong).is_err(), "{wrong:?}");
        }
    }
}
