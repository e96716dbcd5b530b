//! A function's binary, and Lambda's Runtime API before it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::wire::{Reply, Request, serve};

/// Longer than any invocation takes, and than an unoptimised function needs to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the template gives to the functions whose runs are measured.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// The kernel tells times on the processor in such ticks (`sysconf(_SC_CLK_TCK)`, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// How much of what a function printed is shown when it fails, in bytes.
const SHOWN_BYTES: usize = 4 * 1024;

/// A function that runs, until this is dropped.
#[derive(Debug)]
pub struct Function {
    name: String,
    process: Child,
    invocations: Sender<Vec<u8>>,
    heard: Receiver<Heard>,
    output: Arc<Output>,
    /// From the start of its process to its first `/next`: its initialization.
    pub ready: Duration,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Seconds on a processor, in user space and in the kernel.
    pub processor: f64,
    /// The most memory that it ever had at one time, in KiB.
    pub peak_memory: u64,
    /// Bytes that it printed: its log.
    pub printed: u64,
}

/// What the Runtime API was called with, and when.
#[derive(Debug)]
enum Heard {
    Next(Instant),
    Answer(Instant, Vec<u8>),
    Error(String),
}

#[derive(Debug, Default)]
struct Output {
    bytes: AtomicU64,
    last: Mutex<Vec<u8>>,
}

impl Function {
    /// Starts a function's binary with this environment and nothing else, and waits until it asks for an invocation. Its
    /// calls to AWS go to `aws`.
    pub fn start(binary: &Path, environment: &Map<String, Value>, aws: &str) -> Result<Self> {
        let name = binary.file_name().context("a folder is no function")?.to_string_lossy().into_owned();
        let (invocations, waiting) = channel();
        let (hear, heard) = channel();
        let api = RuntimeApi { waiting: Mutex::new(waiting), hear };
        let address = serve(move |request| api.answer(request))?;
        let output = Arc::new(Output::default());
        let began = Instant::now();
        let mut process = command(binary, &name, environment, aws, address)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        output.follow(process.stdout.take());
        output.follow(process.stderr.take());
        let mut function = Self { name, process, invocations, heard, output, ready: Duration::ZERO };
        function.ready = match function.hear()? {
            Heard::Next(at) => at - began,
            other => bail!("{} began with {other:?}", function.name),
        };
        Ok(function)
    }

    /// Hands it an invocation, and gives its answer.
    pub fn invoke(&self, payload: Vec<u8>) -> Result<Vec<u8>> {
        self.invoke_timed(payload).map(|(answer, _)| answer)
    }

    /// The same with the time that it took from the hand-over to the answer.
    pub fn invoke_timed(&self, payload: Vec<u8>) -> Result<(Vec<u8>, Duration)> {
        let began = Instant::now();
        self.invocations.send(payload)?;
        loop {
            match self.hear()? {
                Heard::Next(_) => {}
                Heard::Answer(at, body) => return Ok((body, at - began)),
                Heard::Error(body) => bail!("{} failed: {body}\n{}", self.name, self.output.last()),
            }
        }
    }

    /// What its process has used so far.
    pub fn used(&self) -> Result<Used> {
        Ok(Used { printed: self.output.bytes.load(Relaxed), ..Used::by(self.process.id())? })
    }

    /// The end of what it printed.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.output.last()
    }

    fn hear(&self) -> Result<Heard> {
        let heard = self.heard.recv_timeout(PATIENCE);
        heard.with_context(|| format!("{} does nothing\n{}", self.name, self.output.last()))
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Used {
    /// What a process has used so far, as the kernel tells (proc(5)); nobody knows here what it printed.
    pub fn by(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name before it may hold anything but this.
        let (_, fields) = stat.rsplit_once(')').context("the kernel's statistics have no end of a name")?;
        let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks = ticks.sum::<Result<u32, _>>()?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.split_ascii_whitespace().next()?.parse().ok());
        let peak_memory = peak.context("the kernel tells no peak of memory")?;
        Ok(Self { processor: f64::from(ticks) / TICKS_PER_SECOND, peak_memory, printed: 0 })
    }
}

fn command(
    binary: &Path,
    name: &str,
    environment: &Map<String, Value>,
    aws: &str,
    runtime_api: SocketAddr,
) -> Command {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .envs(environment.iter().filter_map(|(name, value)| Some((name, value.as_str()?))))
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string())
        .env("AWS_ENDPOINT_URL", aws)
        .env("AWS_REGION", "us-east-1")
        // As a role's credentials are: with a session's token, which is signed and sent with each call.
        .env("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        .env("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLE".repeat(30))
        .env("AWS_LAMBDA_FUNCTION_NAME", format!("carillon-{name}"))
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        // What the template's `LoggingConfig` becomes.
        .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .env("AWS_LAMBDA_LOG_LEVEL", "TRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Lambda's Runtime API, of one function.
struct RuntimeApi {
    waiting: Mutex<Receiver<Vec<u8>>>,
    hear: Sender<Heard>,
}

impl RuntimeApi {
    /// The function that calls must not wait for who hears of it, so it is told first.
    fn answer(&self, request: Request) -> Option<Reply> {
        let at = Instant::now();
        let path = request.path();
        if path.ends_with("/next") {
            self.hear.send(Heard::Next(at)).ok()?;
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(invocation(waiting.recv().ok()?));
        }
        let heard = if path.ends_with("/response") {
            Heard::Answer(at, request.body)
        } else {
            Heard::Error(String::from_utf8_lossy(&request.body).into_owned())
        };
        self.hear.send(heard).ok()?;
        Some(Reply { status: 202, headers: String::new(), body: Vec::new() })
    }
}

fn invocation(payload: Vec<u8>) -> Reply {
    #[expect(clippy::disallowed_methods, reason = "Lambda's deadline is a time of day")]
    let deadline = SystemTime::now() + TIME_LIMIT;
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let headers = format!(
        "content-type: application/json\r\n\
         lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
         lambda-runtime-deadline-ms: {deadline}\r\n\
         lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:000000000000:function:f\r\n\
         lambda-runtime-trace-id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0\r\n"
    );
    Reply { status: 200, headers, body: payload }
}

impl Output {
    /// Reads along until the process ends, as Lambda does.
    fn follow(self: &Arc<Self>, stream: Option<impl Read + Send + 'static>) {
        let Some(mut stream) = stream else { return };
        let output = Arc::clone(self);
        thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                output.bytes.fetch_add(u64::try_from(count).unwrap_or_default(), Relaxed);
                let mut last = output.last.lock().unwrap_or_else(PoisonError::into_inner);
                last.extend_from_slice(&bytes[..count]);
                let excess = last.len().saturating_sub(SHOWN_BYTES);
                last.drain(..excess);
            }
        });
    }

    fn last(&self) -> String {
        String::from_utf8_lossy(&self.last.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
