//! The stage of the end-to-end tests: a deployment of its own for each scenario, on one local AWS.

#![allow(clippy::print_stderr, reason = "a scenario that failed shows what the local AWS said")]

pub mod deadlines;
pub mod door;
pub mod harness;
pub mod ordeal;
pub mod payloads;
pub mod revisions;
pub mod rough;
pub mod story;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use carillon_local::{
    ALL_SCOPES, Carillon, Issuer, LocalAws, Options, Received, Receiver, Reply, Stack, Subscription, Verdict,
    build_functions,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

/// Long enough for anything that a scenario waits for, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How often a condition is looked at that nothing announces.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// How often a test rings the clock, which on AWS a schedule does once a minute.
const CLOCK_PERIOD: Duration = Duration::from_millis(250);

/// Where work waits, by the names of the outputs with the queues' URLs.
const WORK_QUEUES: [&str; 3] = ["DeliveryQueueUrl", "SlowQueueUrl", "ExpansionQueueUrl"];

/// Where failed work ends.
const FAILURE_QUEUES: [&str; 3] = ["CrashedTasksQueueUrl", "DeadLetterQueueUrl", "FanoutFailureQueueUrl"];

/// The workspace of every scenario: each has a deployment of its own.
pub const WORKSPACE: &str = "acme";

/// Whose subscriptions the scenarios make, unless they say otherwise.
pub const SUBSCRIBER: &str = "tpp-1";

/// Event types that the workspace has besides those of its kind: their data may be anything.
const TYPES: [&str; 4] =
    ["consent:created", "consent:revoked", "consent:payment:approved", "consent:payment:rejected"];

/// The local AWS of this program. Its processes end with the program.
pub async fn local_aws() -> Result<&'static LocalAws> {
    static LOCAL_AWS: OnceCell<LocalAws> = OnceCell::const_new();
    LOCAL_AWS
        .get_or_try_init(|| async {
            // Nothing to do under `cargo xtask test`; under a plain `cargo test` the functions may be missing or old.
            build_functions()?;
            LocalAws::start(Options::default()).await
        })
        .await
}

/// A deployment with a workspace and a receiver, for one scenario.
#[derive(Debug)]
pub struct Scene {
    /// The local AWS that it is on.
    pub aws: &'static LocalAws,
    /// The deployment.
    pub stack: Stack,
    /// Its API.
    pub carillon: Carillon,
    /// The subscribers' server.
    pub receiver: Receiver,
    clean: bool,
    _name: Name,
}

/// A scenario's name, as long as it is under way: another one of this name would deploy over it.
#[derive(Debug)]
struct Name(String);

static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Name {
    fn take(name: &str) -> Result<Self> {
        let is_new = NAMES.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        ensure!(is_new, "another scenario is called {name} too");
        Ok(Self(name.to_owned()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        NAMES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

impl Scene {
    /// Deploys under a name that no other scenario has.
    pub async fn set(name: &str, parameters: &[(&str, &str)]) -> Result<Self> {
        let taken = Name::take(name)?;
        let aws = local_aws().await?;
        let stack = aws.deploy(name, parameters)?;
        let carillon = stack.carillon().await?;
        Self::with(taken, aws, stack, carillon).await
    }

    /// Deploys with an issuer of the test's own, whose tokens are for this audience.
    pub async fn set_behind(name: &str, issuer: &Issuer, audience: &str) -> Result<Self> {
        let taken = Name::take(name)?;
        let aws = local_aws().await?;
        let stack = aws.deploy(name, &[("JwtIssuer", &issuer.url()), ("JwtAudience", audience)])?;
        let token = issuer.token(&issuer.claims("lead", audience, &ALL_SCOPES.join(" ")))?;
        let carillon = Carillon::new(stack.api_url()).with_token(token).with_client_id("lead");
        Self::with(taken, aws, stack, carillon).await
    }

    async fn with(name: Name, aws: &'static LocalAws, stack: Stack, carillon: Carillon) -> Result<Self> {
        carillon.own_workspace(WORKSPACE, "consent").await?;
        let receiver = Receiver::start().await?;
        let scene = Self { aws, stack, carillon, receiver, clean: false, _name: name };
        for name in TYPES {
            scene.add_type(name).await?;
        }
        Ok(scene)
    }

    /// Adds an event type whose data may be anything.
    pub async fn add_type(&self, name: &str) -> Result<()> {
        let path = format!("/v1/workspaces/{WORKSPACE}/event-types/{name}");
        let anything = json!({ "description": name, "schema": {}, "sample": {}, "validate": false });
        self.carillon.put(&path, &anything).await?.expect_status(201)?;
        Ok(())
    }

    /// Subscribes a path of the receiver, and has what comes there verified.
    pub async fn subscribe(&self, path: &str, types: &[&str]) -> Result<Subscription> {
        let subscription = self.carillon.subscribe(WORKSPACE, &self.receiver.url(path), types).await?;
        self.receiver.trust(path, &subscription.secret);
        Ok(subscription)
    }

    /// The same with more than types: whatever a subscription can say.
    pub async fn subscribe_with(&self, path: &str, said: &Value) -> Result<Subscription> {
        let mut body = said.clone();
        body["endpoint"] = json!(self.receiver.url(path));
        if body["subscriber"].is_null() {
            body["subscriber"] = json!(SUBSCRIBER);
        }
        let subscription = self.carillon.subscribe_with(WORKSPACE, &body).await?;
        self.receiver.trust(path, &subscription.secret);
        Ok(subscription)
    }

    /// Publishes one event that must be accepted.
    pub async fn publish(&self, event: &Value) -> Result<()> {
        self.carillon.publish(WORKSPACE, event).await?.expect_status(202)?;
        Ok(())
    }

    /// Waits until so many requests came to a path, each of them rightly signed.
    pub async fn received(&self, path: &str, count: usize) -> Result<Vec<Received>> {
        self.received_behind(path, 0, count).await
    }

    /// The same behind the first `unsigned` ones, which are no deliveries.
    pub async fn received_behind(&self, path: &str, unsigned: usize, count: usize) -> Result<Vec<Received>> {
        let received = self.receiver.wait_for(path, unsigned + count, PATIENCE).await?.split_off(unsigned);
        for request in &received {
            if request.verdict != Verdict::Verified {
                bail!("{path} received a request with its {}", request.verdict);
            }
        }
        Ok(received)
    }

    /// Waits until no task waits and none is being worked on.
    pub async fn quiet(&self) -> Result<()> {
        eventually("the queues of work to be empty", || async {
            for queue in WORK_QUEUES {
                if self.stack.queue_depth(queue).await? > 0 {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// The row of every delivery.
    pub async fn deliveries(&self) -> Result<Vec<Value>> {
        let mut rows = self.rows("DeliveriesTable").await?;
        // The table also holds what changes of a subscription as it runs.
        rows.retain(|row| row["sk"]["S"] != "state");
        Ok(rows)
    }

    /// What deliveries have in the schedule: tasks, and notes of what is held. It also holds the leases of its shards, and
    /// what was accepted with events: deadlines, and the last revision.
    pub async fn scheduled(&self) -> Result<Vec<Value>> {
        let mut rows = self.rows("ScheduleTable").await?;
        let kinds = ["due#", "held#"];
        rows.retain(|row| {
            row["pk"]["S"].as_str().is_some_and(|pk| kinds.iter().any(|kind| pk.starts_with(kind)))
        });
        Ok(rows)
    }

    /// Every row of a table, by the name of the output with its name.
    pub async fn rows(&self, table_output: &str) -> Result<Vec<Value>> {
        let mut rows = Vec::new();
        let mut scan = json!({ "TableName": self.stack.output(table_output), "ConsistentRead": true });
        loop {
            let page = self.stack.dynamodb("Scan", scan.clone()).await?;
            rows.extend(page["Items"].as_array().into_iter().flatten().cloned());
            if page["LastEvaluatedKey"].is_null() {
                return Ok(rows);
            }
            scan["ExclusiveStartKey"] = page["LastEvaluatedKey"].clone();
        }
    }

    /// Waits until the deliveries table has so many rows, all of them with this status.
    pub async fn all_deliveries(&self, count: usize, status: &str) -> Result<Vec<Value>> {
        let waited = eventually(&format!("{count} deliveries to be {status}"), || async {
            let rows = self.deliveries().await?;
            let there = rows.len() == count && rows.iter().all(|row| row["status"]["S"] == status);
            Ok(there.then_some(rows))
        })
        .await;
        match waited {
            Ok(rows) => Ok(rows),
            Err(error) => {
                let rows = json!(self.deliveries().await?);
                Err(error.context(format!("there are other deliveries: {rows}")))
            }
        }
    }

    /// Waits until the job that an answer has named has ended, and gives it.
    pub async fn job_ended(&self, accepted: &Reply) -> Result<Value> {
        let Some(location) = accepted.headers.get("location").filter(|_| accepted.status == 202) else {
            bail!("no job was begun: {} {}", accepted.status, String::from_utf8_lossy(&accepted.body));
        };
        let location = location.to_str()?;
        eventually("the job to end", || async {
            let job = self.carillon.get(location).await?.expect_status(200)?.json();
            Ok((!matches!(job["status"].as_str(), Some("queued" | "running"))).then_some(job))
        })
        .await
    }

    /// Rings the clock again and again, until what this returns is dropped.
    #[must_use]
    pub fn ring_clock(&self) -> Ringing {
        let stack = self.stack.clone();
        Ringing(tokio::spawn(async move {
            let mut ticks = interval(CLOCK_PERIOD);
            loop {
                ticks.tick().await;
                if let Err(error) = stack.invoke("clock", &json!({})).await {
                    eprintln!("the clock failed: {error:#}");
                }
            }
        }))
    }

    /// Ends the scenario: it must have left no work over in any queue or in the schedule.
    pub async fn end(self) -> Result<()> {
        self.quiet().await?;
        for queue in FAILURE_QUEUES {
            let left = self.stack.queue_depth(queue).await?;
            if left > 0 {
                bail!("{left} messages are left over in {queue}");
            }
        }
        if let Some(left) = self.scheduled().await?.first() {
            bail!("work is left over in the schedule: {left}");
        }
        self.break_off().await
    }

    /// Ends a scenario that sets off more than it waits for.
    pub async fn break_off(mut self) -> Result<()> {
        self.clean = true;
        // The scenarios after this one have the processor to themselves.
        self.stack.delete().await
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !self.clean {
            eprintln!(
                "The scenario {} failed. The local AWS said:\n{}",
                self.stack.name(),
                self.aws.log_tail()
            );
        }
    }
}

/// The problem that an answer with this status must be (RFC 9457).
///
/// # Panics
///
/// When it is none, or another one.
pub fn problem(reply: &Reply, status: u16) -> Value {
    let body = reply.json();
    assert_eq!(reply.status, status, "{body}");
    let content_type = reply.headers.get("content-type").and_then(|value| value.to_str().ok());
    assert_eq!(content_type, Some("application/problem+json"), "{body}");
    assert_eq!(body["status"], status, "{body}");
    for member in ["type", "title", "instance"] {
        assert!(body[member].is_string(), "{member} of {body}");
    }
    body
}

/// A clock that rings until this is dropped.
#[derive(Debug)]
pub struct Ringing(JoinHandle<()>);

impl Drop for Ringing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until something gives a result, for as long as [`PATIENCE`] lasts.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} for {what}");
        }
        sleep(LOOK_PERIOD).await;
    }
}
