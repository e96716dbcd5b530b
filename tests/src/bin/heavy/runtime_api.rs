//! Lambda's Runtime API, just enough to see a function start and answer once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

const PATIENCE: Duration = Duration::from_secs(30);
const REQUEST: &str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd";

/// How long a function took from the start of its process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Until it asked for its first invocation: its initialization.
    pub(crate) ready: Duration,
    /// Until it had answered that.
    pub(crate) answered: Duration,
}

/// Starts a function's binary anew, hands it one invocation, and ends it.
pub(crate) fn start(
    binary: &std::path::Path,
    environment: &Map<String, Value>,
    payload: &Value,
) -> Result<Start> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let (seen, sightings) = channel();
    let payload = payload.to_string();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let (seen, payload) = (seen.clone(), payload.clone());
            // An error is a function that ended.
            thread::spawn(move || serve(connection, &payload, &seen));
        }
    });

    let began = Instant::now();
    let _process = Ended(
        Command::new(binary)
            .env_clear()
            .envs(environment.iter().filter_map(|(name, value)| Some((name, value.as_str()?))))
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?,
    );
    let ready = next(&sightings, "/next")? - began;
    let answered = next(&sightings, "/response")? - began;
    Ok(Start { ready, answered })
}

fn next(sightings: &Receiver<(Instant, String)>, ending: &str) -> Result<Instant> {
    let (at, path) = sightings.recv_timeout(PATIENCE).context("the function did nothing")?;
    if !path.ends_with(ending) {
        bail!("the function called {path}, not {ending}");
    }
    Ok(at)
}

fn serve(mut connection: TcpStream, payload: &str, seen: &Sender<(Instant, String)>) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut invoked = false;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_next = path.ends_with("/next");
        if is_next && invoked {
            return Ok(());
        }
        seen.send((Instant::now(), path))?;
        if !is_next {
            // Its answer is all that was waited for.
            return Ok(());
        }
        invoked = true;
        write!(
            connection,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             lambda-runtime-aws-request-id: {REQUEST}\r\nlambda-runtime-deadline-ms: 4102444800000\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:000000000000:function:f\r\n\
             lambda-runtime-trace-id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0\r\n\r\n{payload}",
            payload.len(),
        )?;
    }
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
