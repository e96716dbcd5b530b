//! Deadlines under faults: events that start and settle them in any order, late and twice, while requests to AWS fail and
//! functions are killed. Then each has fired once or never, as its rule says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use carillon_aws::now;
use carillon_core::time::UnixMillis;
use carillon_local::{Dice, Rates, Tally, event};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::rough::{self, Weather};
use crate::{Scene, WORKSPACE, eventually};

/// How long a deadline runs.
const WITHIN: Duration = Duration::from_secs(6);

/// How far the time that an event tells lies behind its publication, at most.
const LATE: Duration = Duration::from_secs(3);

/// Over how long all of it is published.
const SPAN_MS: u64 = 9_000;

/// How many publishers there are.
const PUBLISHERS: usize = 8;

/// From the end of a run of the clock to the begin of the next. Two are under way at once.
const CLOCK_PAUSE: Duration = Duration::from_millis(300);

/// Whom to kill.
const VICTIMS: [&str; 3] = ["publish", "clock", "fanout"];

/// Where what came due is delivered.
const PATH: &str = "/expired";

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// What all throws come from.
    pub seed: u64,
    /// How many subjects there are, each with a deadline.
    pub subjects: usize,
    /// How often which fault befalls a request.
    pub rates: Rates,
    /// The longest time from one death to the next.
    pub deaths_apart: Duration,
    /// Seconds that a function may take, and after which a message comes again.
    pub timeout: &'static str,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Deadlines that fired.
    pub fired: usize,
    /// Those that were settled in time.
    pub settled: usize,
    /// Of those that fired how many were settled afterwards.
    pub settled_late: usize,
    /// The longest time from when one was due, or known to be, until it fired.
    pub latest: Duration,
    /// Requests that were repeated since they were not answered with 202.
    pub repeated: usize,
    /// Runs of the clock that failed.
    pub clock_failed: usize,
    /// Processes that were killed.
    pub killed: usize,
    /// What was injected.
    pub tally: Tally,
}

/// An event that is to be published.
#[derive(Clone, Debug)]
struct Plan {
    subject: usize,
    starts: bool,
    /// How long after the begin.
    after: Duration,
    /// What time it tells, also where it is published again: so long after the longest delay before the begin.
    time: Duration,
    number: usize,
}

/// What of a subject's events was published.
#[derive(Clone, Debug, Default)]
struct Published {
    /// When the deadline was due by the earliest start, and when the last start was answered.
    starts: Vec<(UnixMillis, UnixMillis)>,
    /// When settlements were about to be published, and when that was answered.
    settlements: Vec<(UnixMillis, UnixMillis)>,
}

impl Deadlines {
    /// Goes through with it. Fails where a deadline fired that should not have, or twice, or not at all.
    pub async fn undergo(self, name: &str) -> Result<Seen> {
        let timeouts = [
            "ClockTimeoutSeconds",
            "FanoutTimeoutSeconds",
            "DeliverTimeoutSeconds",
            "QueueVisibilitySeconds",
        ];
        let scene = Scene::set(name, &timeouts.map(|name| (name, self.timeout))).await?;
        write_rules(&scene).await?;
        scene.subscribe(PATH, &["order.expired"]).await?;
        let weather = Weather::over(&scene, self.seed, self.rates.clone()).await?;
        let (mut seen, mut killed) = (Seen::default(), 0);
        let (mut failed, mut others) = (0, 0);
        let published = tokio::select! {
            published = self.publish_and_settle(&scene, &mut seen) => published?,
            error = rough::kill_at_random(&scene, self.dice("deaths"), &VICTIMS, self.deaths_apart, &mut killed) => {
                bail!("killing came to an end: {error:?}")
            }
            () = ring(&scene, &mut failed) => bail!("the clock came to an end"),
            () = ring(&scene, &mut others) => bail!("the clock came to an end"),
        };
        (seen.killed, seen.clock_failed, seen.tally) = (killed, failed + others, weather.clear());
        self.check(&scene, &published, &mut seen).await?;
        scene.break_off().await?;
        Ok(seen)
    }

    fn dice(&self, name: impl fmt::Display) -> Dice {
        Dice::new(self.seed, name.to_string())
    }

    /// Publishes everything, and waits until each deadline has fired that must.
    async fn publish_and_settle(&self, scene: &Scene, seen: &mut Seen) -> Result<Vec<Published>> {
        let (began, base) = (Instant::now(), now().minus(LATE));
        let mut plans: Vec<_> = (0..self.subjects).flat_map(|subject| self.plans(subject)).collect();
        plans.sort_by_key(|plan| plan.after);
        let publishers = (0..PUBLISHERS).map(async |publisher| {
            let (mut told, mut repeated) = (Vec::new(), 0);
            for plan in plans.iter().skip(publisher).step_by(PUBLISHERS) {
                sleep(plan.after.saturating_sub(began.elapsed())).await;
                let at = now();
                let time = base + plan.time;
                repeated += rough::publish(scene, WORKSPACE, &[plan.event(time)]).await?.1;
                told.push((plan.clone(), at, time, now()));
            }
            anyhow::Ok((told, repeated))
        });
        let mut published = vec![Published::default(); self.subjects];
        for (told, repeated) in try_join_all(publishers).await? {
            seen.repeated += repeated;
            for (plan, at, time, answered) in told {
                let of_it = &mut published[plan.subject];
                if plan.starts {
                    of_it.starts.push((time + WITHIN, answered));
                } else {
                    of_it.settlements.push((at, answered));
                }
            }
        }
        let must = |of_it: &Published| !of_it.starts.is_empty() && of_it.settlements.is_empty();
        let must: Vec<_> = published
            .iter()
            .enumerate()
            .filter(|(_, of_it)| must(of_it))
            .map(|(subject, _)| subject)
            .collect();
        eventually("every deadline to fire that must", || async {
            let fired = fired(scene).await?;
            Ok(must.iter().all(|subject| fired.contains_key(subject)).then_some(()))
        })
        .await?;
        Ok(published)
    }

    /// What becomes of a subject.
    fn plans(&self, subject: usize) -> Vec<Plan> {
        let mut dice = self.dice(format_args!("subject {subject}"));
        let mut plans = Vec::new();
        let mut add = |starts: bool, dice: &mut Dice| {
            let after = Duration::from_millis(dice.below(SPAN_MS));
            let time = after
                + Duration::from_millis(dice.below(u64::try_from(LATE.as_millis()).unwrap_or_default()));
            let number = plans.len();
            plans.push(Plan { subject, starts, after, time, number });
            // Some are published twice.
            if dice.below(4) == 0 {
                let again = Duration::from_millis(dice.below(SPAN_MS));
                plans.push(Plan { subject, starts, after: after.max(again), time, number });
            }
        };
        for _ in 0..=dice.below(2) {
            add(true, &mut dice);
        }
        if dice.below(3) > 0 {
            add(false, &mut dice);
        }
        plans
    }

    async fn check(&self, scene: &Scene, published: &[Published], seen: &mut Seen) -> Result<()> {
        let fired = fired(scene).await?;
        for (subject, of_it) in published.iter().enumerate() {
            let due = of_it.starts.iter().map(|(due, _)| *due).min();
            // Known from the first answer on, at the latest.
            let known = of_it.starts.iter().map(|(_, answered)| *answered).min();
            match fired.get(&subject).map(Vec::as_slice) {
                None => {
                    ensure!(!of_it.settlements.is_empty(), "order {subject} never expired: {of_it:?}");
                    seen.settled += 1;
                }
                Some([at]) => {
                    let (due, known) =
                        due.zip(known).with_context(|| format!("order {subject} was never placed"))?;
                    ensure!(*at >= due, "order {subject} expired {:?} early", due.since(*at));
                    let settled = of_it.settlements.iter().map(|(_, answered)| *answered).min();
                    ensure!(
                        settled.is_none_or(|settled| *at <= settled),
                        "order {subject} expired, and was settled before: {of_it:?}"
                    );
                    seen.fired += 1;
                    seen.settled_late += usize::from(settled.is_some());
                    seen.latest = seen.latest.max(at.since(due.max(known)));
                }
                Some(more) => bail!("order {subject} expired {} times", more.len()),
            }
        }
        let told = |received: &[carillon_local::Received]| {
            let mut ids: Vec<_> = received.iter().map(|request| request.webhook_id().to_owned()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.len()
        };
        let received =
            scene.receiver.wait_until(PATH, crate::PATIENCE, |received| told(received) == seen.fired).await?;
        ensure!(told(&received) == seen.fired, "not each was told with one webhook-id");
        Ok(())
    }
}

impl Plan {
    /// The same event whenever it is published again.
    fn event(&self, time: UnixMillis) -> Value {
        let kind = if self.starts { "order.placed" } else { "order.paid" };
        let mut event = event(
            &format!("{kind}-{}-{}", self.subject, self.number),
            kind,
            &json!({ "order": self.subject }),
        );
        event["audience"] = json!(crate::SUBSCRIBER);
        event["time"] = json!(time.to_string());
        event
    }
}

/// The rule: an order that is not paid in time expires.
async fn write_rules(scene: &Scene) -> Result<()> {
    for name in ["order.placed", "order.paid", "order.expired"] {
        let path = format!("/v1/workspaces/{WORKSPACE}/event-types/{name}");
        let definition =
            json!({ "description": name, "schema": { "required": ["order"] }, "sample": { "order": 7 } });
        scene.carillon.put(&path, &definition).await?.expect_status(201)?;
    }
    let rules = json!({ "deadlines": [{
        "name": "unpaid", "after": ["order.placed"], "unless": ["order.paid"], "within": format!("PT{}S", WITHIN.as_secs()),
        "subject": "/order", "emits": "order.expired", "data": { "keep": ["/order"], "set": { "/expiredAt": "{due}" } },
    }] });
    scene.carillon.put(&format!("/v1/workspaces/{WORKSPACE}/rules"), &rules).await?.expect_status(200)?;
    Ok(())
}

/// When orders expired, each as often as there is an event of it.
async fn fired(scene: &Scene) -> Result<BTreeMap<usize, Vec<UnixMillis>>> {
    let mut fired: BTreeMap<usize, Vec<UnixMillis>> = BTreeMap::new();
    for row in scene.rows("EventsTable").await?.iter().filter(|row| row["type"]["S"] == "order.expired") {
        let event: Value =
            serde_json::from_str(row["event"]["S"].as_str().context("a row without its event")?)?;
        let subject = event["data"]["order"].as_u64().context("an event without its order")?;
        let at = row["accepted_at"]["N"].as_str().unwrap_or_default().parse()?;
        fired.entry(usize::try_from(subject)?).or_default().push(UnixMillis(at));
    }
    Ok(fired)
}

async fn ring(scene: &Scene, failed: &mut usize) {
    loop {
        if scene.stack.invoke("clock", &json!({})).await.is_err() {
            *failed += 1;
        }
        sleep(CLOCK_PAUSE).await;
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} deadlines fired, each once, none before its time, the latest {:.1} s after it was due; {} were settled in time, {} \
             of those that fired were settled afterwards.",
            self.fired,
            self.latest.as_secs_f64(),
            self.settled,
            self.settled_late
        )?;
        write!(
            f,
            "AWS: {}. {} processes were killed, {} runs of the clock failed, {} requests of publishers had to be repeated.",
            self.tally, self.killed, self.clock_failed, self.repeated
        )
    }
}
