//! `cargo xtask up`: the whole pipeline on this machine, for a person to watch and play with.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use carillon_local::{
    ALL_SCOPES, Answer, Carillon, Credentials, LocalAws, Received, Receiver, Stack, Toolbox, Verdict,
    build_functions, profile_dir, root,
};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

const WORKSPACE: &str = "demo";

/// The client that owns the workspace, by its name.
pub(crate) const CLIENT: &str = "up";

/// Where a receiver that works listens, and one that always fails.
const INBOX: &str = "/inbox";
const FAILING: &str = "/failing";
/// A request here makes the failing receiver work.
const RECOVER: &str = "/recover";

/// An hour passes in a second, so the 27.6 hours of the retry schedule pass within half a minute.
const FAST_RETRY_SCALE: &str = "0.000277";

const FIRST_DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// What `up` was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) port: Option<u16>,
    pub(crate) fast_retries: bool,
}

pub(crate) async fn up(options: Options) -> Result<()> {
    tokio::select! {
        ended = run(options) => ended,
        // Everything that was started ends with the future that is dropped here.
        () = asked_to_end() => {
            println!("\nStopped: nothing is left running.");
            Ok(())
        }
    }
}

/// Where `up` writes down what it runs, while it does.
pub(crate) fn place() -> Result<PathBuf> {
    Ok(profile_dir()?.with_file_name("local-aws").join("up.json"))
}

async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    prepare().await?;

    let local_aws_began = Instant::now();
    println!("Starting the local AWS ...");
    let aws = LocalAws::start(carillon_local::Options { port: options.port }).await?;
    println!("Deploying the template ...");
    let parameters: &[_] = if options.fast_retries { &[("RetryScale", FAST_RETRY_SCALE)] } else { &[] };
    let stack = aws.deploy("carillon", parameters)?;
    println!("Deployed in {:.1} s.\n", local_aws_began.elapsed().as_secs_f64());
    let _note = Note::write(&stack)?;

    let receiver = Receiver::start().await?;
    let client = stack.client(CLIENT, &ALL_SCOPES).await?;
    let token = stack.token(&client).await?;
    let carillon = Carillon::new(stack.api_url()).with_token(token).with_client_id(&client.client_id);
    carillon.own_workspace(WORKSPACE, "consent").await?;
    println!("Made the client {CLIENT} ({}), the owner of the workspace {WORKSPACE}.", client.client_id);
    subscribe(&carillon, &receiver, INBOX).await?;
    if options.fast_retries {
        receiver.answer(FAILING, [Answer::status(500)]);
        subscribe(&carillon, &receiver, FAILING).await?;
    }

    let mut printed = Printed { receiver: &receiver, began: Instant::now(), count: 0 };
    let samples = samples()?;
    for (file, event) in &samples {
        carillon.publish(WORKSPACE, event).await?.expect_status(202)?;
        printed.line(&format!("published  {} ({file})", described(event)));
    }
    let verified = printed.until_each_verified(samples.len()).await;
    verified.with_context(|| format!("the local AWS said:\n{}", aws.log_tail()))?;
    println!("\nUp after {:.0} s in all.\n", began.elapsed().as_secs_f64());
    print_guide(&aws, &stack, &client, &receiver, options)?;

    printed.forever().await
}

/// Tells other programs where the stack is, for as long as it lasts.
struct Note {
    place: PathBuf,
}

impl Note {
    fn write(stack: &Stack) -> Result<Self> {
        let note = Self { place: place()? };
        stack.save(&note.place)?;
        Ok(note)
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // When it cannot be removed, `token` finds nobody there.
        let _ = fs::remove_file(&self.place);
    }
}

/// Makes the Python environment while cargo builds: one waits for the network, the other for the processor.
async fn prepare() -> Result<()> {
    println!("Building the functions (minutes the first time, seconds later) ...");
    let began = Instant::now();
    let toolbox = thread::spawn(Toolbox::local_aws);
    let built = tokio::task::spawn_blocking(build_functions).await?;
    toolbox.join().ok().context("making the Python environment crashed")??;
    built?;
    println!("Built in {:.0} s.", began.elapsed().as_secs_f64());
    Ok(())
}

async fn subscribe(carillon: &Carillon, receiver: &Receiver, path: &str) -> Result<()> {
    let subscription = carillon.subscribe(WORKSPACE, &receiver.url(path), &["*"]).await?;
    receiver.trust(path, &subscription.secret);
    println!("Subscribed {} to every event ({}).", receiver.url(path), subscription.id);
    Ok(())
}

/// The sample events of `events/`, in the order of their names.
fn samples() -> Result<Vec<(String, Value)>> {
    let folder = root().join("events");
    let mut files =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    let mut samples = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("consent-") && name.ends_with(".cloudevents.json") {
            let event = serde_json::from_slice(&fs::read(&path)?).with_context(|| name.clone())?;
            samples.push((name, event));
        }
    }
    if samples.is_empty() {
        bail!("{} holds no sample events", folder.display());
    }
    Ok(samples)
}

/// Prints what happens, each request that the receiver got once.
struct Printed<'a> {
    receiver: &'a Receiver,
    began: Instant,
    count: usize,
}

impl Printed<'_> {
    /// Prints deliveries until so many were accepted with a verified signature.
    async fn until_each_verified(&mut self, count: usize) -> Result<()> {
        let all = async {
            while self.receiver.received(INBOX).iter().filter(|got| got.verdict == Verdict::Verified).count()
                < count
            {
                self.next().await;
            }
        };
        if tokio::time::timeout(FIRST_DELIVERY_TIMEOUT, all).await.is_err() {
            bail!("the sample events did not reach the receiver within {FIRST_DELIVERY_TIMEOUT:?}");
        }
        self.rest();
        Ok(())
    }

    async fn forever(&mut self) -> ! {
        loop {
            self.next().await;
        }
    }

    async fn next(&mut self) {
        self.receiver.more_than(self.count).await;
        self.rest();
    }

    fn rest(&mut self) {
        for request in self.receiver.received_since(self.count) {
            self.count += 1;
            self.request(&request);
        }
    }

    fn request(&self, request: &Received) {
        if request.path == RECOVER {
            self.receiver.answer(FAILING, [Answer::status(204)]);
            self.line("recovered  the failing receiver accepts from now on");
            return;
        }
        let attempt = self
            .receiver
            .received(&request.path)
            .iter()
            .filter(|other| other.webhook_id() == request.webhook_id() && other.at <= request.at)
            .count();
        self.line(&format!(
            "{:<9}  {}, {}, attempt {attempt}, {}, answered {}",
            request.path.trim_start_matches('/'),
            described(&request.json()),
            request.webhook_id(),
            request.verdict,
            request.answer.unwrap_or_default(),
        ));
    }

    fn line(&self, text: &str) {
        println!("{:>8.3} s  {text}", self.began.elapsed().as_secs_f64());
    }
}

fn described(event: &Value) -> String {
    let text = |attribute: &str| event[attribute].as_str().unwrap_or("?");
    format!("{} {}", text("type"), text("id"))
}

fn print_guide(
    aws: &LocalAws,
    stack: &Stack,
    client: &Credentials,
    receiver: &Receiver,
    options: Options,
) -> Result<()> {
    let api = stack.api_url();
    let endpoint = aws.endpoint();
    let cli = Toolbox::local_aws()?.program("aws");
    println!(
        "\
API        {api}
Local AWS  {endpoint}
Receiver   {inbox}

Paste these into another terminal.

# A token, good for an hour, and whom it is for. With fewer scopes: `cargo xtask token --scope carillon/read`
client='{client_id}'
token=$(curl -sS '{token_url}' --user '{client_id}:{client_secret}' \\
  -d grant_type=client_credentials | sed -E 's/.*\"access_token\": *\"([^\"]*)\".*/\\1/')

# The API, and an event of your own
api='{api}'
curl -sS \"$api/v1/workspaces/{WORKSPACE}/subscriptions\" -H \"authorization: Bearer $token\"; echo
sed \"s/0f3b8f6e-approved/$(date +%s%N)/\" '{sample}' |
  curl -sS \"$api/v1/workspaces/{WORKSPACE}/events\" -H \"authorization: Bearer $token\" \\
    -H 'content-type: application/cloudevents+json' -d @-; echo

# All that the API can, in a browser
echo \"$api/docs\"

# AWS, with the real command line tool
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
aws() {{ '{cli}' --endpoint-url {endpoint} \"$@\"; }}
aws dynamodb scan --table-name {deliveries} --query 'Items[].[pk.S, sk.S, status.S]' --output text
aws logs filter-log-events --log-group-name {logs} --query 'events[].message' --output text | tail",
        inbox = receiver.url(INBOX),
        sample = root().join("events/consent-approved.cloudevents.json").display(),
        token_url = stack.output("TokenUrl"),
        client_id = client.client_id,
        client_secret = client.client_secret,
        cli = cli.display(),
        deliveries = stack.output("DeliveriesTable"),
        logs = format_args!("/aws/lambda/{}", stack.output("DeliverFunctionName")),
    );
    if options.fast_retries {
        println!(
            "
# Within a minute the failing receiver's deliveries are dead letters: count them, let it recover, replay them
aws sqs get-queue-attributes --queue-url {dead_letters} --attribute-names ApproximateNumberOfMessages
curl -sS {recover}
aws sqs start-message-move-task --source-arn {source} --destination-arn {destination}",
            dead_letters = stack.output("DeadLetterQueueUrl"),
            recover = receiver.url(RECOVER),
            source = stack.output("DeadLetterQueueArn"),
            destination = stack.output("DeliveryQueueArn"),
        );
    }
    println!("\nCtrl-C ends it. Deliveries are shown as they arrive:\n");
    Ok(())
}

async fn asked_to_end() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        // Without a handler the signal ends this program, and the local AWS ends when it notices.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
