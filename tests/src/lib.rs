//! The stage of the end-to-end tests: a deployment of its own for each scenario, on one local AWS.

#![allow(clippy::print_stderr, reason = "a scenario that failed shows what the local AWS said")]

pub mod payloads;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use carillon_local::{
    Carillon, LocalAws, Options, Received, Receiver, Stack, Subscription, Verdict, build_functions,
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
}

impl Scene {
    /// Deploys under a name that no other scenario has.
    pub async fn set(name: &str, parameters: &[(&str, &str)]) -> Result<Self> {
        let aws = local_aws().await?;
        let stack = aws.deploy(name, parameters)?;
        let carillon = Carillon::new(stack.api_url());
        carillon.create_workspace(WORKSPACE, "consent").await?;
        Ok(Self { aws, stack, carillon, receiver: Receiver::start().await?, clean: false })
    }

    /// Subscribes a path of the receiver, and has what comes there verified.
    pub async fn subscribe(&self, path: &str, types: &[&str]) -> Result<Subscription> {
        let subscription = self.carillon.subscribe(WORKSPACE, &self.receiver.url(path), types).await?;
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
        let received = self.receiver.wait_for(path, count, PATIENCE).await?;
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
        eventually(&format!("{count} deliveries to be {status}"), || async {
            let rows = self.deliveries().await?;
            let there = rows.len() == count && rows.iter().all(|row| row["status"]["S"] == status);
            Ok(there.then_some(rows))
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
        // The schedule also holds the leases of its shards.
        let is_lease = |row: &Value| row["sk"]["S"] == "lease";
        if let Some(left) = self.rows("ScheduleTable").await?.iter().find(|row| !is_lease(row)) {
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
