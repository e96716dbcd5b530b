//! `cargo xtask up`: the whole pipeline on this machine, for a person to watch and play with.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use carillon_local::{
    ALL_SCOPES, Carillon, Credentials, LocalAws, Reply, Stack, Toolbox, build_functions, profile_dir, root,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

const WORKSPACE: &str = "demo";

/// The client that owns the workspace, by its name.
pub(crate) const CLIENT: &str = "up";

/// An hour passes in a second, so the 27.6 hours of the retry schedule pass within half a minute.
const FAST_RETRY_SCALE: &str = "0.000277";

const FIRST_DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the inboxes are asked for what is new.
const POLL_PERIOD: Duration = Duration::from_millis(500);

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

    let client = stack.client(CLIENT, &ALL_SCOPES).await?;
    let mut owner = Owner::of(&stack, &client).await?;
    owner.carillon.own_workspace(WORKSPACE, "consent").await?;
    println!("Made the client {CLIENT} ({}), the owner of the workspace {WORKSPACE}.", client.client_id);
    let mut inboxes = vec![Inbox::subscribed(&owner.carillon, "received", 200).await?];
    if options.fast_retries {
        inboxes.push(Inbox::subscribed(&owner.carillon, "failing", 500).await?);
    }

    let mut printed = Printed { owner: &mut owner, inboxes, began: Instant::now() };
    let samples = samples()?;
    for (file, event) in &samples {
        printed.owner.carillon.publish(WORKSPACE, event).await?.expect_status(202)?;
        printed.line(&format!("published  {} ({file})", described(event)));
    }
    let verified = printed.until_each_verified(samples.len()).await;
    verified.with_context(|| format!("the local AWS said:\n{}", aws.log_tail()))?;
    println!("\nUp after {:.0} s in all.\n", began.elapsed().as_secs_f64());
    print_guide(&aws, &stack, &client, &printed.inboxes)?;

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

/// The API, as the owner of the workspace calls it.
struct Owner<'a> {
    stack: &'a Stack,
    client: &'a Credentials,
    carillon: Carillon,
}

impl<'a> Owner<'a> {
    async fn of(stack: &'a Stack, client: &'a Credentials) -> Result<Self> {
        let token = stack.token(client).await?;
        let carillon = Carillon::new(stack.api_url()).with_token(token).with_client_id(&client.client_id);
        Ok(Self { stack, client, carillon })
    }

    /// Gets a path, with a new token when the one at hand is over.
    async fn get(&mut self, path: &str) -> Result<Reply> {
        let reply = self.carillon.get(path).await?;
        if reply.status != 401 {
            return Ok(reply);
        }
        *self = Self::of(self.stack, self.client).await?;
        self.carillon.get(path).await
    }
}

/// An inbox that is subscribed to every event, and what is known of it.
struct Inbox {
    /// What is printed before each of its requests.
    name: &'static str,
    path: String,
    url: String,
    /// The last request that was printed.
    last: String,
    /// How many attempts came of each delivery.
    attempts: HashMap<String, usize>,
    verified: usize,
}

impl Inbox {
    async fn subscribed(carillon: &Carillon, name: &'static str, status: u16) -> Result<Self> {
        let inboxes = format!("/v1/workspaces/{WORKSPACE}/inboxes");
        let body = json!({ "answer": { "status": status } });
        let made = carillon.post(&inboxes, "application/json", &body).await?.expect_status(201)?.json();
        let text = |member: &str| made[member].as_str().unwrap_or_default().to_owned();
        let (path, url) = (format!("{inboxes}/{}", text("id")), text("url"));
        let subscription = carillon.subscribe(WORKSPACE, &url, &["*"]).await?;
        println!("Subscribed an inbox that answers {status} to every event ({}).", subscription.id);
        let (last, attempts) = ("0".to_owned(), HashMap::new());
        Ok(Self { name, path, url, last, attempts, verified: 0 })
    }

    /// What came since it was last asked.
    async fn poll(&mut self, owner: &mut Owner<'_>) -> Result<Vec<String>> {
        let page = owner.get(&format!("{}/requests?after={}", self.path, self.last)).await?;
        let page = page.expect_status(200)?.json();
        if let Some(next) = page["next"].as_str() {
            next.clone_into(&mut self.last);
        }
        Ok(page["items"].as_array().into_iter().flatten().map(|request| self.line(request)).collect())
    }

    fn line(&mut self, request: &Value) -> String {
        let headers = request["headers"].as_array().into_iter().flatten();
        let id = headers.filter(|header| header[0] == "webhook-id").find_map(|header| header[1].as_str());
        let id = id.unwrap_or("no delivery");
        let attempt = self.attempts.entry(id.to_owned()).or_default();
        *attempt += 1;
        let event = request["body"].as_str().and_then(|body| serde_json::from_str(body).ok());
        let signature = request["signature"].as_str().unwrap_or_default();
        self.verified += usize::from(signature == "verified");
        format!(
            "{:<9}  {}, {id}, attempt {attempt}, signature {signature}",
            self.name,
            described(&event.unwrap_or(Value::Null)),
        )
    }
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

/// Prints what happens, each request that an inbox got once.
struct Printed<'a, 'b> {
    owner: &'a mut Owner<'b>,
    inboxes: Vec<Inbox>,
    began: Instant,
}

impl Printed<'_, '_> {
    /// Prints deliveries until the first inbox has so many with a verified signature.
    async fn until_each_verified(&mut self, count: usize) -> Result<()> {
        let all = async {
            while self.inboxes[0].verified < count {
                self.news().await?;
                sleep(POLL_PERIOD).await;
            }
            Ok(())
        };
        let ended = timeout(FIRST_DELIVERY_TIMEOUT, all).await;
        ended
            .with_context(|| format!("the sample events did not arrive within {FIRST_DELIVERY_TIMEOUT:?}"))?
    }

    async fn forever(&mut self) -> ! {
        loop {
            if let Err(error) = self.news().await {
                self.line(&format!("the inboxes cannot be read: {error:#}"));
            }
            sleep(POLL_PERIOD).await;
        }
    }

    async fn news(&mut self) -> Result<()> {
        for place in 0..self.inboxes.len() {
            for line in self.inboxes[place].poll(self.owner).await? {
                self.line(&line);
            }
        }
        Ok(())
    }

    fn line(&self, text: &str) {
        println!("{:>8.3} s  {text}", self.began.elapsed().as_secs_f64());
    }
}

fn described(event: &Value) -> String {
    let text = |attribute: &str| event[attribute].as_str().unwrap_or("?");
    format!("{} {}", text("type"), text("id"))
}

fn print_guide(aws: &LocalAws, stack: &Stack, client: &Credentials, inboxes: &[Inbox]) -> Result<()> {
    let api = stack.api_url();
    let endpoint = aws.endpoint();
    let cli = Toolbox::local_aws()?.program("aws");
    println!(
        "\
API        {api}
Local AWS  {endpoint}
Inbox      {url}

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

# The same with the command line
carillon() {{ '{carillon}' \"$@\"; }}
echo '{client_secret}' | carillon login --profile local --url \"$api\" --workspace {WORKSPACE} \\
  --token-url '{token_url}' --client-id '{client_id}'
carillon subscriptions list
carillon listen --forward-to http://localhost:3000 --types 'consent:*' --subscriber tpp-1

# What the inbox has received, with what its signatures are worth; and how it answers from now on
curl -sS \"$api{inbox}/requests\" -H \"authorization: Bearer $token\"; echo
curl -sS -X PATCH \"$api{inbox}\" -H \"authorization: Bearer $token\" \\
  -H 'content-type: application/merge-patch+json' -d '{{\"answer\": {{\"status\": 503, \"delayMs\": 500}}}}'; echo

# All that the API can, in a browser
echo \"$api/docs\"

# AWS, with the real command line tool
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
aws() {{ '{cli}' --endpoint-url {endpoint} \"$@\"; }}
aws dynamodb scan --table-name {deliveries} --query 'Items[].[pk.S, sk.S, status.S]' --output text
aws logs filter-log-events --log-group-name {logs} --query 'events[].message' --output text | tail",
        url = inboxes[0].url,
        inbox = inboxes[0].path,
        sample = root().join("events/consent-approved.cloudevents.json").display(),
        token_url = stack.output("TokenUrl"),
        client_id = client.client_id,
        client_secret = client.client_secret,
        cli = cli.display(),
        carillon = profile_dir()?.join("carillon").display(),
        deliveries = stack.output("DeliveriesTable"),
        logs = format_args!("/aws/lambda/{}", stack.output("DeliverFunctionName")),
    );
    if let Some(failing) = inboxes.get(1) {
        println!(
            "
# Within a minute the failing inbox's deliveries are dead letters: count them, let it recover, replay them
aws sqs get-queue-attributes --queue-url {dead_letters} --attribute-names ApproximateNumberOfMessages
curl -sS -X PATCH \"$api{failing}\" -H \"authorization: Bearer $token\" \\
  -H 'content-type: application/merge-patch+json' -d '{{\"answer\": {{\"status\": 204}}}}'; echo
aws sqs start-message-move-task --source-arn {source} --destination-arn {destination}",
            dead_letters = stack.output("DeadLetterQueueUrl"),
            failing = failing.path,
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
