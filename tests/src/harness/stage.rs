//! The stage: stand-ins that know what a real deployment has written, and the invocations that Lambda would make of it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use carillon_core::id::JobId;
use carillon_core::time::UnixMillis;
use carillon_local::{ALL_SCOPES, FUNCTIONS, Issuer, LocalAws, profile_dir, root, send};
use serde_json::{Map, Value, json};

use super::{Failed, Function, Lane, Sink, StandIns};
use crate::payloads::{message_record, samples, stream_record};
use crate::{SUBSCRIBER, Scene, WORKSPACE};

/// Whom the tokens are for.
const TOKEN_AUDIENCE: &str = "carillon-bench";

/// How many records and messages Lambda hands over at once: the `BatchSize` of the template's mappings.
pub const STREAM_BATCH: usize = 100;
/// The same of the delivery queue.
pub const QUEUE_BATCH: usize = 10;

/// What of a subscription is its own among those that are made after its model.
const ORGANISATION: &str = "org-00000";
const ORGANISATIONS: usize = 1000;

/// What stands in the events for one of the organisations.
const CHOSEN: &str = "org-00007";

/// Whom events concern: each case has an event type of its own, and so subscriptions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matches {
    /// One subscription.
    One,
    /// Ten.
    Ten,
    /// A thousand.
    Thousand,
    /// Ten thousand ask for the type; the filters of ten let an event through.
    TenByFilter,
    /// Ten thousand ask for the type; the event names the subscribers of ten.
    TenByAudience,
}

impl Matches {
    /// Every case.
    pub const ALL: [Self; 5] = [Self::One, Self::Ten, Self::Thousand, Self::TenByFilter, Self::TenByAudience];

    /// How many deliveries an event makes.
    #[must_use]
    pub fn deliveries(self) -> usize {
        match self {
            Self::One => 1,
            Self::Ten | Self::TenByFilter | Self::TenByAudience => 10,
            Self::Thousand => 1000,
        }
    }

    /// How many subscriptions ask for its event type.
    #[must_use]
    pub fn subscriptions(self) -> usize {
        match self {
            Self::TenByFilter | Self::TenByAudience => 10_000,
            other => other.deliveries(),
        }
    }

    /// The first is one of the catalogue's, whose data is checked, and which no deadline waits for; the others take any data.
    fn event_type(self) -> &'static str {
        match self {
            Self::One => "before:consent:create",
            Self::Ten => "consent:created",
            Self::Thousand => "consent:revoked",
            Self::TenByFilter => "consent:payment:approved",
            Self::TenByAudience => "consent:payment:rejected",
        }
    }

    /// How many of its subscriptions are made by the API. The others are written as it has written the first one, under
    /// other ids: they are matched, but their secrets cannot be opened.
    fn real(self) -> usize {
        match self {
            Self::One | Self::Ten => self.subscriptions(),
            Self::Thousand | Self::TenByFilter | Self::TenByAudience => 1,
        }
    }

    fn audience(self) -> Option<String> {
        let subscribers = || (1..=self.deliveries()).map(subscriber).collect::<Vec<_>>().join(",");
        (self == Self::TenByAudience).then(subscribers)
    }
}

/// What functions are run on.
#[derive(Debug)]
pub struct Stage {
    /// What they call.
    pub stand_ins: StandIns,
    /// What they deliver to.
    pub sink: Sink,
    environments: BTreeMap<&'static str, Map<String, Value>>,
    subscriptions: Vec<String>,
    samples: HashMap<String, Value>,
    delivery_arn: String,
    expansion_arn: String,
    jobs_arn: String,
    event: Value,
    binaries: PathBuf,
    _issuer: Issuer,
}

impl Stage {
    /// Deploys on the local AWS, subscribes there, takes over what was written, and ends the deployment.
    pub async fn set(name: &str, cases: &[Matches]) -> Result<Self> {
        let issuer = Issuer::start().await?;
        let scene = Scene::set_behind(name, &issuer, TOKEN_AUDIENCE).await?;
        let sink = Sink::start()?;
        let mut models = Vec::new();
        for case in cases {
            for number in 0..case.real() {
                models.push((*case, subscribe(&scene, &sink, *case, number).await?));
            }
        }
        let mut environments = BTreeMap::new();
        for function in FUNCTIONS {
            environments.insert(function, scene.stack.environment(function).await?);
        }
        let rows = scene.rows("ConfigTable").await?;
        let stand_ins = StandIns::start(|name| scene.stack.output(name), data_keys(scene.aws, &rows).await?)?;
        for row in &rows {
            stand_ins.put(row);
        }
        for (case, model) in &models {
            multiply(&stand_ins, &rows, model, case.real()..case.subscriptions());
        }
        let arn = |name: &str| scene.stack.output(name).to_owned();
        let (delivery_arn, expansion_arn) = (arn("DeliveryQueueArn"), arn("ExpansionQueueArn"));
        let event = fs::read(root().join("events/consent-before-create.cloudevents.json"))?;
        let token = issuer.token(&issuer.claims("lead", TOKEN_AUDIENCE, &ALL_SCOPES.join(" ")))?;
        let samples = samples(&token)?.into_iter().map(|(function, _, payload)| (function, payload));
        let stage = Self {
            stand_ins,
            sink,
            environments,
            subscriptions: models.into_iter().map(|(_, model)| model).collect(),
            samples: samples.collect(),
            delivery_arn,
            expansion_arn,
            jobs_arn: arn("JobQueueArn"),
            event: serde_json::from_slice(&event)?,
            binaries: profile_dir()?,
            _issuer: issuer,
        };
        scene.break_off().await?;
        Ok(stage)
    }

    /// Starts a function as its template has it.
    pub fn start(&self, function: &str) -> Result<Function> {
        self.start_with(function, &[])
    }

    /// The same with other variables.
    pub fn start_with(&self, function: &str, variables: &[(&str, &str)]) -> Result<Function> {
        let mut environment = self.environments.get(function).context("there is no such function")?.clone();
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        Function::start(&self.binaries.join(function), &environment, self.stand_ins.url())
    }

    /// Says that so many deliveries of the first subscription have failed, and that all of them are to be delivered again:
    /// the task of the job.
    pub fn redelivery(&self, count: u64) -> Result<Value> {
        let subscription = self.subscriptions.first().context("there is no subscription")?;
        self.stand_ins.fail(Failed::new(WORKSPACE, subscription, count));
        let job = JobId::new(UnixMillis(count), [7; 10]);
        self.stand_ins.put(&job_item(job, subscription));
        Ok(json!({ "v": 1, "workspace": WORKSPACE, "job": job }))
    }

    /// Works a job off, run after run, as its queue hands it over. How many runs there were, and the seconds that they took.
    pub fn work_off(&self, redrive: &Function, task: &Value) -> Result<(usize, f64)> {
        let entry = json!({ "MessageBody": task.to_string(), "MessageGroupId": WORKSPACE });
        let (mut next, mut runs, mut seconds) = (Some(entry), 0, 0.0);
        while let Some(entry) = next {
            seconds += work_off(redrive, &[message_record(&self.jobs_arn, "0", &entry).to_string()])?;
            runs += 1;
            let sent = self.stand_ins.sent().messages;
            next = sent.into_iter().find_map(|(lane, entry)| (lane == Lane::Jobs).then_some(entry));
        }
        Ok((runs, seconds))
    }

    /// The function's invocation of `events/`.
    pub fn sample(&self, function: &str) -> Result<&Value> {
        self.samples.get(function).with_context(|| format!("events/ has no sample for {function}"))
    }

    /// An event, each number another one.
    #[must_use]
    pub fn event(&self, case: Matches, number: usize) -> Value {
        let mut event = self.event.clone();
        event["id"] = json!(format!("0f3b8f6e-{number:08}"));
        event["type"] = json!(case.event_type());
        event["data"]["client"]["organisationId"] = json!(CHOSEN);
        if let Some(audience) = case.audience() {
            event["audience"] = json!(audience);
        }
        event
    }

    /// Publishes events, so many by request; one is not published as a batch.
    pub fn publish(
        &self,
        publish: &Function,
        case: Matches,
        numbers: Range<usize>,
        batch: usize,
    ) -> Result<f64> {
        let numbers: Vec<_> = numbers.collect();
        let mut seconds = 0.0;
        for numbers in numbers.chunks(batch) {
            let events: Vec<_> = numbers.iter().map(|number| self.event(case, *number)).collect();
            let mut request = self.sample("publish")?.clone();
            let (content_type, body) = match &events[..] {
                [event] if batch == 1 => ("application/cloudevents+json", event.to_string()),
                events => ("application/cloudevents-batch+json", json!(events).to_string()),
            };
            request["headers"]["content-type"] = json!(content_type);
            request["body"] = json!(body);
            let (answer, took) = publish.invoke_timed(request.to_string().into_bytes())?;
            let status = serde_json::from_slice::<Value>(&answer)?["statusCode"].take();
            ensure!(status == 202, "publish answered {}", String::from_utf8_lossy(&answer));
            seconds += took.as_secs_f64();
        }
        Ok(seconds)
    }

    /// Fans out events by their items, as the stream hands them over; parts of events, too, until none is left.
    pub fn fan_out(&self, fanout: &Function, items: &[Value]) -> Result<Fanned> {
        let mut fanned = Fanned::default();
        for items in items.chunks(STREAM_BATCH) {
            let records =
                items.iter().enumerate().map(|(place, item)| stream_record(place, item).to_string());
            self.run(fanout, &records.collect::<Vec<_>>(), &mut fanned)?;
        }
        while let Some(part) = fanned.parts.pop() {
            let record = message_record(&self.expansion_arn, "0", &part).to_string();
            self.run(fanout, &[record], &mut fanned)?;
        }
        Ok(fanned)
    }

    fn run(&self, fanout: &Function, records: &[String], fanned: &mut Fanned) -> Result<()> {
        fanned.seconds += work_off(fanout, records)?;
        fanned.runs += 1;
        for (lane, message) in self.stand_ins.sent().messages {
            match lane {
                Lane::Delivery => fanned.tasks.push(message),
                Lane::Expansion => fanned.parts.push(message),
                other => bail!("fan-out has sent to {other:?}: {message}"),
            }
        }
        Ok(())
    }

    /// Delivers tasks, as the queue hands them over. The seconds that it took.
    pub fn deliver(&self, deliver: &Function, tasks: impl Iterator<Item = String>) -> Result<f64> {
        let mut seconds = 0.0;
        let mut tasks = tasks.peekable();
        while tasks.peek().is_some() {
            let records: Vec<_> = tasks.by_ref().take(QUEUE_BATCH).collect();
            seconds += work_off(deliver, &records)?;
        }
        Ok(seconds)
    }

    /// Tasks as records of the delivery queue.
    #[must_use]
    pub fn task_records(&self, tasks: &[Value]) -> Vec<String> {
        let record = |(place, task): (usize, &Value)| {
            message_record(&self.delivery_arn, &place.to_string(), task).to_string()
        };
        tasks.iter().enumerate().map(record).collect()
    }
}

/// What fan-out made of events.
#[derive(Debug, Default)]
pub struct Fanned {
    /// The tasks that it has sent, if they were kept.
    pub tasks: Vec<Value>,
    /// How long it took.
    pub seconds: f64,
    /// How often the function was invoked.
    pub runs: usize,
    parts: Vec<Value>,
}

/// The payload of an invocation with these records.
#[must_use]
pub fn records(records: &[String]) -> Vec<u8> {
    format!(r#"{{"Records":[{}]}}"#, records.join(",")).into_bytes()
}

/// Hands records to a function, which must finish all of them.
fn work_off(function: &Function, some: &[String]) -> Result<f64> {
    let (answer, took) = function.invoke_timed(records(some))?;
    let answered: Value = serde_json::from_slice(&answer)?;
    let is_done = answered["batchItemFailures"].as_array().is_some_and(Vec::is_empty);
    ensure!(is_done, "a function answered {answered}\n{}", function.last_words());
    Ok(took.as_secs_f64())
}

async fn subscribe(scene: &Scene, sink: &Sink, case: Matches, number: usize) -> Result<String> {
    let path = format!("/{case:?}/{number}");
    let mut body = json!({
        "subscriber": SUBSCRIBER,
        "endpoint": sink.url(&path),
        "types": [case.event_type()],
    });
    if case == Matches::TenByFilter {
        body["filter"] = json!({ "pattern": { "data": { "client": { "organisationId": [ORGANISATION] } } } });
    }
    let subscription = scene.carillon.subscribe_with(WORKSPACE, &body).await?;
    sink.trust(&path, &subscription.secret);
    Ok(subscription.id)
}

/// Writes subscriptions after a model, each under its own id, for its own subscriber, and with its own filter.
fn multiply(stand_ins: &StandIns, rows: &[Value], model: &str, numbers: Range<usize>) {
    let of_model: Vec<_> = rows.iter().map(Value::to_string).filter(|row| row.contains(model)).collect();
    for number in numbers {
        // As ids are: 26 signs, of which the last holds three bits. Behind the model's, so that each case has its own.
        let id = format!("{}{number:07}0", &model[..model.len() - 8]);
        let organisation = format!("org-{:05}", number % ORGANISATIONS);
        for row in &of_model {
            let row = row
                .replace(model, &id)
                .replace(ORGANISATION, &organisation)
                .replace(&format!("\"{SUBSCRIBER}\""), &format!("\"{}\"", subscriber(number)));
            if let Ok(row) = serde_json::from_str(&row) {
                stand_ins.put(&row);
            }
        }
    }
}

fn subscriber(number: usize) -> String {
    format!("tpp-{number:05}")
}

/// The data keys of workspaces, sealed and plain, both in base 64.
async fn data_keys(aws: &LocalAws, rows: &[Value]) -> Result<HashMap<String, String>> {
    let mut keys = HashMap::new();
    for row in rows {
        let (Some(sealed), Some(workspace)) = (row["data_key"]["B"].as_str(), row["id"]["S"].as_str()) else {
            continue;
        };
        let input = json!({ "CiphertextBlob": sealed, "EncryptionContext": { "workspace": workspace } });
        let request = http::Request::post(aws.endpoint())
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "TrentService.Decrypt")
            // The account's root, whom the local AWS takes at their word.
            .header("authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0")
            .body(input.to_string().into_bytes())?;
        let opened = send(request).await?.expect_status(200)?.json();
        let plain = opened["Plaintext"].as_str().context("KMS has opened nothing")?;
        keys.insert(sealed.to_owned(), plain.to_owned());
    }
    Ok(keys)
}

/// A job that delivers again all that failed of a subscription, as the API would have written it.
fn job_item(job: JobId, subscription: &str) -> Value {
    let kind = json!({ "M": { "redeliver": { "M": {
        "subscription": { "S": subscription }, "ended": { "S": "failed" }, "which": { "M": { "of": { "M": {} } } },
    } } } });
    // After all attempts.
    let now = json!({ "N": "1900000000000" });
    json!({
        "pk": { "S": format!("WS#{WORKSPACE}") }, "sk": { "S": format!("JOB#{job}") }, "v": { "N": "1" },
        "id": { "S": job }, "workspace": { "S": WORKSPACE }, "kind": kind, "state": { "S": "queued" },
        "done": { "N": "0" }, "looked": { "N": "0" }, "revision": { "N": "1" }, "writer": { "N": "1" },
        "created_at": now, "updated_at": now, "expires_at": { "N": "9000000000" },
    })
}
