//! Events under faults: requests to AWS fail as a seed wants it, functions are killed, receivers fail, batches come twice.
//! Then it is counted whether anything was lost.
//!
//! A seed repeats what is thrown: faults, receivers' answers, who is killed after what time, events and their types. How the
//! functions' processes take turns it cannot repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use carillon_core::delivery::Ask;
use carillon_core::id::{DeliveryId, EventDigest, EventKey, SubscriptionId, WorkspaceId};
use carillon_core::task::DeliveryTask;
use carillon_local::{Answer, Dice, FUNCTIONS, Faults, Proxy, Rates, Received, Tally, Verdict, event};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::door::Door;
use crate::payloads::stream_record;
use crate::{Scene, WORKSPACE, rough};

/// Who publishes, as the events say.
const SOURCE: &str = "urn:example:bank";

/// How many publishers there are.
const PUBLISHERS: usize = 8;

/// How many events a publisher sends at once.
const BATCHES: [usize; 3] = [1, 5, 20];

/// How often it is looked whether all is done, at most.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// How often it is told how far it is.
const TOLD_PERIOD: Duration = Duration::from_secs(20);

/// A look takes so long and no more of the time: it is work for the local AWS too.
const LOOKS_ONE_OF: u32 = 5;

/// Whom to kill: most often who has most to lose.
const VICTIMS: [&str; 6] = ["deliver", "deliver", "deliver", "fanout", "publish", "clock"];

/// How many answers of a receiver are thrown; all that follow are good.
const ANSWERS: usize = 5_000;

/// How many requests a receiver that hangs at first leaves unanswered.
const HANGS: usize = 6;

/// The longest time from one change of subscriptions to the next, in milliseconds: after each fan-out reads them anew.
const CHANGES_APART_MS: u64 = 20_000;

/// How many messages are read from a queue at once.
const MESSAGES_AT_ONCE: usize = 10;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Ordeal {
    /// What all throws come from.
    pub seed: u64,
    /// How many events are published, each for two subscriptions.
    pub events: usize,
    /// How many subscriptions there are: two at least.
    pub subscriptions: usize,
    /// How often which fault befalls a request.
    pub rates: Rates,
    /// What a subscription waits from attempt to attempt, in seconds before scaling.
    pub waits: &'static [u64],
    /// The longest time from one death to the next.
    pub deaths_apart: Duration,
    /// From the end of one run of the clock to the begin of the next: its index is walked as a whole by the local AWS.
    pub clock_pause: Duration,
    /// How many batches are delivered at once: the template's `DeliveryConcurrency`.
    pub concurrency: &'static str,
    /// How fast time passes for retries: the template's `RetryScale`.
    pub scale: &'static str,
    /// Seconds that a function may take, and after which a message comes again.
    pub timeout: &'static str,
    /// How long all of it may take until something must have been lost.
    pub patience: Duration,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Events that were accepted.
    pub events: usize,
    /// Requests of publishers that were not answered with 202, and so repeated.
    pub publishings_repeated: usize,
    /// Requests to receivers in all.
    pub posts: usize,
    /// Of them those beyond the attempts that rows tell of.
    pub unrecorded: usize,
    /// Of them those of deliveries that the receiver had accepted before.
    pub duplicates: usize,
    /// Deliveries that ended well under faults.
    pub delivered: usize,
    /// Deliveries that failed under faults, by reason.
    pub failed: BTreeMap<String, usize>,
    /// Dead letters beyond one of each failed delivery.
    pub letters_doubled: usize,
    /// Processes that were killed at a time, besides those that were at a request.
    pub killed: usize,
    /// Events that were handed to `fanout` once more.
    pub fanned_out_again: usize,
    /// Subscriptions that were made and deleted meanwhile.
    pub subscriptions_changed: usize,
    /// Runs of the clock that failed.
    pub clock_failed: usize,
    /// Tasks that functions could not finish, and that were moved back as the runbook says.
    pub crashed_tasks: u64,
    /// What was injected.
    pub tally: Tally,
    /// How long it took until every delivery had ended.
    pub settled_after: Duration,
    /// How long the redelivery of all that had failed took.
    pub redelivered_after: Duration,
}

/// How a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    /// Mostly good, with some of everything.
    Moody,
    /// It fails on every request.
    Failing,
    /// It hangs at first.
    Hanging,
    /// Connections to it are refused at times.
    Shut,
    /// It takes few requests in a minute.
    Limited,
    /// It needs more time than the usual lane gives.
    Slow,
}

/// One subscription of the run.
struct Subscriber {
    id: SubscriptionId,
    path: String,
}

struct Stage {
    ordeal: Ordeal,
    scene: Scene,
    proxy: Proxy,
    door: Door,
    subscribers: Vec<Subscriber>,
}

/// What a delivery's row says.
#[derive(Clone, Debug)]
struct Row {
    status: String,
    reason: Option<String>,
    round: u64,
    attempts: usize,
    /// Of them those that the receiver answered.
    answered: usize,
}

/// Which event for which subscription, by their places.
type Pair = (usize, usize);

impl Ordeal {
    /// Goes through with it. Fails when anything was lost, is left over, or is not as it should be.
    pub async fn undergo(self, name: &str) -> Result<Seen> {
        let stage = Stage::set(name, self).await?;
        let mut seen = Seen::default();
        stage.storm(&mut seen).await.context("under faults")?;
        stage.audit(&mut seen).await.context("after the faults")?;
        stage.redeliver(&mut seen).await.context("while all that failed was delivered again")?;
        stage.scene.end().await?;
        Ok(seen)
    }

    fn dice(&self, name: impl fmt::Display) -> Dice {
        Dice::new(self.seed, name.to_string())
    }

    /// The type of an event, by its place: that of two subscriptions.
    fn kind(&self, place: usize) -> usize {
        let mut dice = self.dice(format_args!("event {place}"));
        usize::try_from(dice.below(self.subscriptions as u64)).unwrap_or_default()
    }

    fn event(&self, place: usize) -> Value {
        event(&event_id(place), &type_name(self.kind(place)), &json!({ "number": place }))
    }

    /// The subscriptions that an event is for.
    fn pair(&self, place: usize) -> [usize; 2] {
        let kind = self.kind(place);
        [kind, (kind + 1) % self.subscriptions]
    }

    /// Everything that must become of the events.
    fn pairs(&self) -> BTreeSet<Pair> {
        (0..self.events).flat_map(|event| self.pair(event).map(|subscriber| (event, subscriber))).collect()
    }
}

fn event_id(place: usize) -> String {
    format!("e-{place}")
}

fn type_name(kind: usize) -> String {
    format!("consent:kind-{kind}")
}

impl Temper {
    fn of(place: usize) -> Self {
        match place {
            1 => Self::Failing,
            2 => Self::Hanging,
            3 => Self::Shut,
            5 => Self::Limited,
            6 => Self::Slow,
            _ => Self::Moody,
        }
    }

    fn settings(self, waits: &[u64], dice: &mut Dice) -> Value {
        let policy = json!({ "waitsSeconds": waits });
        // So short that no function waits for long.
        let mut settings = json!({ "retryPolicy": policy, "timeoutSeconds": 1 + dice.below(2) });
        match self {
            Self::Limited => settings["ratePerMinute"] = json!(600),
            Self::Slow => settings["timeoutSeconds"] = json!(4),
            _ => {}
        }
        settings
    }

    fn answers(self, mut dice: Dice) -> Vec<Answer> {
        let good = || Answer::status(204);
        match self {
            Self::Moody => (0..ANSWERS).map(|_| moody(&mut dice)).collect(),
            Self::Failing => vec![Answer::status(500)],
            Self::Hanging => (0..HANGS).map(|_| Answer::hang()).chain([good()]).collect(),
            Self::Slow => {
                let late = |_| good().after(Duration::from_millis(200 + dice.below(3_300)));
                (0..HANGS).map(late).chain([good()]).collect()
            }
            Self::Shut | Self::Limited => vec![good()],
        }
    }
}

/// Of a hundred requests 70 are accepted at once.
fn moody(dice: &mut Dice) -> Answer {
    match dice.below(100) {
        0..70 => Answer::status(204),
        70..76 => Answer::status(204).after(Duration::from_millis(dice.below(800))),
        76..88 => Answer::status(500),
        88..91 => Answer::status(503).header("retry-after", "1"),
        91..93 => Answer::status(429),
        93..97 => Answer::close(),
        97..99 => Answer::hang(),
        // Refused for good.
        _ => Answer::status(413),
    }
}

impl Stage {
    async fn set(name: &str, ordeal: Ordeal) -> Result<Self> {
        let times = [
            ("RetryScale", ordeal.scale),
            ("DeliveryConcurrency", ordeal.concurrency),
            ("DeliverTimeoutSeconds", ordeal.timeout),
            ("FanoutTimeoutSeconds", ordeal.timeout),
            ("ClockTimeoutSeconds", ordeal.timeout),
            ("QueueVisibilitySeconds", ordeal.timeout),
        ];
        let scene = Scene::set(name, &times).await?;
        let door = Door::to(&scene.receiver.url("")).await?;
        for kind in 0..ordeal.subscriptions {
            scene.add_type(&type_name(kind)).await?;
        }
        let mut subscribers = Vec::with_capacity(ordeal.subscriptions);
        for place in 0..ordeal.subscriptions {
            let (path, temper) = (format!("/receivers/{place}"), Temper::of(place));
            let mut dice = ordeal.dice(format_args!("receiver {place}"));
            let mut settings = temper.settings(ordeal.waits, &mut dice);
            let before = (place + ordeal.subscriptions - 1) % ordeal.subscriptions;
            settings["types"] = json!([type_name(place), type_name(before)]);
            settings["subscriber"] = json!(format!("tpp-{place}"));
            settings["endpoint"] = match temper {
                Temper::Shut => json!(door.url(&path)),
                _ => json!(scene.receiver.url(&path)),
            };
            let made = scene.carillon.subscribe_with(WORKSPACE, &settings).await?;
            scene.receiver.trust(&path, &made.secret);
            scene.receiver.answer(&path, temper.answers(dice));
            subscribers.push(Subscriber { id: made.id.parse()?, path });
        }
        let proxy = Proxy::start(scene.stack.endpoint()).await?;
        for function in FUNCTIONS {
            proxy.stand_before(&scene.stack, function).await?;
        }
        Ok(Self { ordeal, scene, proxy, door, subscribers })
    }

    /// Publishes, with everything going wrong, until each delivery has ended.
    async fn storm(&self, seen: &mut Seen) -> Result<()> {
        let began = Instant::now();
        let faults = self.proxy.inject(Faults::new(self.ordeal.seed, self.ordeal.rates.clone()));
        let (mut killed, mut again, mut changed, mut failed) = (0, 0, 0, 0);
        let settled = async {
            seen.publishings_repeated = self.publish().await?;
            self.settle(began).await
        };
        tokio::select! {
            settled = settled => settled?,
            error = rough::kill_at_random(&self.scene, self.ordeal.dice("deaths"), &VICTIMS, self.ordeal.deaths_apart, &mut killed) => bail!("killing came to an end: {error:?}"),
            error = self.fan_out_again(&mut again) => bail!("fanning out again came to an end: {error:?}"),
            error = self.meddle(&mut changed) => bail!("changing subscriptions came to an end: {error:?}"),
            () = self.ring(&mut failed) => bail!("the clock came to an end"),
            () = self.slam_the_door() => bail!("the door came to an end"),
        }
        self.proxy.calm();
        self.door.open();
        seen.settled_after = began.elapsed();
        (seen.killed, seen.fanned_out_again, seen.clock_failed) = (killed, again, failed);
        (seen.subscriptions_changed, seen.tally) = (changed, faults.tally());
        Ok(())
    }

    /// All events, by some publishers at once, each repeated until it is accepted; how often that was needed.
    async fn publish(&self) -> Result<usize> {
        let mut dice = self.ordeal.dice("batches");
        let (mut batches, mut next) = (vec![Vec::new(); PUBLISHERS], 0);
        while next < self.ordeal.events {
            let end = self.ordeal.events.min(next + dice.one_of(&BATCHES));
            let publisher = usize::try_from(dice.below(PUBLISHERS as u64)).unwrap_or_default();
            batches[publisher].push(next..end);
            next = end;
        }
        let publishers = batches.into_iter().map(async |batches| {
            let mut repeated = 0;
            for batch in batches {
                let events: Vec<_> = batch.map(|place| self.ordeal.event(place)).collect();
                repeated += rough::publish(&self.scene, WORKSPACE, &events).await?.1;
            }
            anyhow::Ok(repeated)
        });
        Ok(try_join_all(publishers).await?.into_iter().sum())
    }

    /// Waits until every delivery has ended.
    async fn settle(&self, began: Instant) -> Result<()> {
        let pairs = self.ordeal.pairs();
        let mut told = Instant::now();
        loop {
            let look = Instant::now();
            let rows = self.rows().await?;
            let open: Vec<_> = pairs.iter().filter(|pair| !has_ended(rows.get(pair))).collect();
            if open.is_empty() {
                return Ok(());
            }
            if told.elapsed() > TOLD_PERIOD {
                told = Instant::now();
                let (ended, after) = (pairs.len() - open.len(), began.elapsed().as_secs());
                let receivers: BTreeSet<_> = open.iter().map(|(_, receiver)| receiver).collect();
                eprintln!(
                    "{ended} of {} deliveries have ended after {after} s; those for {receivers:?} have not",
                    pairs.len()
                );
            }
            if began.elapsed() > self.ordeal.patience {
                let some = open.iter().take(5).map(|pair| format!("{pair:?}: {:?}", rows.get(pair)));
                let some = some.collect::<Vec<_>>().join("; ");
                bail!("{} of {} deliveries have not ended: {some}", open.len(), pairs.len());
            }
            sleep(LOOK_PERIOD.max(look.elapsed() * LOOKS_ONE_OF)).await;
        }
    }

    /// Hands events to `fanout` that it has had, or that it is about to get.
    async fn fan_out_again(&self, count: &mut usize) -> Result<()> {
        let mut dice = self.ordeal.dice("fan-out");
        loop {
            sleep(Duration::from_millis(dice.below(4_000))).await;
            let some = (0..5).map(|_| usize::try_from(dice.below(self.ordeal.events as u64)));
            let some = some.collect::<Result<Vec<_>, _>>()?;
            let rows = try_join_all(some.into_iter().map(|place| self.event_row(place))).await?;
            let records = rows.iter().flatten().enumerate();
            let records: Vec<_> = records.map(|(place, row)| stream_record(place, row)).collect();
            // Whether it succeeds is nobody's concern: the stream has them as well.
            if self.scene.stack.invoke("fanout", &json!({ "Records": records })).await.is_ok() {
                *count += records.len();
            }
        }
    }

    /// Makes subscriptions to what nobody publishes and deletes them, so that what fan-out knows is never the latest for long.
    async fn meddle(&self, count: &mut usize) -> Result<()> {
        let mut dice = self.ordeal.dice("changes");
        let subscriptions = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
        let (endpoint, types) = (self.scene.receiver.url("/nobody"), ["consent:revoked"]);
        let body = json!({ "subscriber": "tpp-nobody", "endpoint": endpoint, "types": types });
        loop {
            sleep(Duration::from_millis(dice.below(CHANGES_APART_MS))).await;
            // An answer that says that it failed, or none: it may be there, and disturbs nobody.
            let made = self.scene.carillon.post(&subscriptions, "application/json", &body).await;
            let Ok(made) = made else { continue };
            ensure!(made.status == 201 || made.status >= 500, "answered {}: {}", made.status, made.json());
            let Some(id) = made.json()["id"].as_str().map(str::to_owned) else { continue };
            *count += 1;
            // Not found: the answer to an earlier try was lost.
            if let Ok(gone) = self.scene.carillon.delete(&format!("{subscriptions}/{id}")).await {
                let status = gone.status;
                ensure!(matches!(status, 204 | 404) || status >= 500, "answered {status}: {}", gone.json());
            }
        }
    }

    async fn event_row(&self, place: usize) -> Result<Option<Value>> {
        let key = json!({ "pk": { "S": event_key(place)?.to_string() } });
        let get = json!({ "TableName": self.scene.stack.output("EventsTable"), "Key": key });
        Ok(self.scene.stack.dynamodb("GetItem", get).await?.get("Item").cloned())
    }

    async fn ring(&self, failed: &mut usize) {
        loop {
            if self.scene.stack.invoke("clock", &json!({})).await.is_err() {
                *failed += 1;
            }
            sleep(self.ordeal.clock_pause).await;
        }
    }

    async fn slam_the_door(&self) {
        let mut dice = self.ordeal.dice("door");
        loop {
            self.door.shut();
            sleep(Duration::from_millis(dice.below(3_000))).await;
            self.door.open();
            sleep(Duration::from_millis(dice.below(6_000))).await;
        }
    }

    /// Everything is where it belongs, and nothing is anywhere else.
    async fn audit(&self, seen: &mut Seen) -> Result<()> {
        seen.crashed_tasks = self.empty_out().await?;
        let rows = self.rows().await?;
        let pairs = self.ordeal.pairs();
        let unknown: Vec<_> = rows.keys().filter(|pair| !pairs.contains(pair)).collect();
        ensure!(unknown.is_empty(), "there are deliveries of nothing: {unknown:?}");
        seen.events = self.ordeal.events;
        for pair in &pairs {
            let row = rows.get(pair).with_context(|| format!("{pair:?} has no row"))?;
            match (row.status.as_str(), &row.reason) {
                ("delivered", _) => seen.delivered += 1,
                ("failed", Some(reason)) => *seen.failed.entry(reason.clone()).or_default() += 1,
                _ => bail!("{pair:?} has not ended: {row:?}"),
            }
        }
        let posts = self.posts()?;
        check_posts(&rows, &posts)?;
        seen.posts = posts.values().map(Vec::len).sum();
        // Not the difference of the sums: attempts that find no connection make no post.
        let recorded = |pair| rows.get(pair).map_or(0, |row| row.attempts);
        seen.unrecorded = posts.iter().map(|(pair, posts)| posts.len().saturating_sub(recorded(pair))).sum();
        seen.duplicates = posts.values().map(|posts| accepted_before(posts)).sum();
        let failed: BTreeMap<_, _> = rows
            .iter()
            .filter(|(_, row)| row.status == "failed")
            .map(|(pair, row)| (*pair, row.round))
            .collect();
        let letters = self.letters().await?;
        for (pair, after) in &letters {
            ensure!(
                failed.get(pair) == Some(after),
                "a dead letter of {pair:?}, which is {:?}",
                rows.get(pair)
            );
        }
        let told: BTreeSet<_> = letters.iter().map(|(pair, _)| *pair).collect();
        let untold: Vec<_> = failed.keys().filter(|pair| !told.contains(pair)).collect();
        ensure!(untold.is_empty(), "{} failed without a dead letter: {untold:?}", untold.len());
        seen.letters_doubled = letters.len() - told.len();
        Ok(())
    }

    /// Moves all dead letters back, as the runbook says, while all is well, and sees that everything is delivered then.
    async fn redeliver(&self, seen: &mut Seen) -> Result<()> {
        let began = Instant::now();
        for subscriber in &self.subscribers {
            self.scene.receiver.answer(&subscriber.path, [Answer::status(204)]);
        }
        self.move_messages("DeadLetterQueueArn").await?;
        let mut failed = 0;
        let delivered = async {
            loop {
                let rows = self.rows().await?;
                if rows.values().all(|row| row.status == "delivered") {
                    return Ok(());
                }
                if began.elapsed() > self.ordeal.patience {
                    let open = rows.iter().find(|(_, row)| row.status != "delivered");
                    bail!("not everything is delivered, {open:?} for example");
                }
                sleep(LOOK_PERIOD).await;
            }
        };
        tokio::select! {
            delivered = delivered => delivered?,
            () = self.ring(&mut failed) => bail!("the clock came to an end"),
        }
        seen.redelivered_after = began.elapsed();
        self.empty_out().await?;
        check_posts(&self.rows().await?, &self.posts()?)
    }

    /// Waits until no work is left in any queue or in the schedule. What functions could not finish is moved back; how
    /// much that was.
    async fn empty_out(&self) -> Result<u64> {
        let (began, mut failed, mut moved) = (Instant::now(), 0, 0);
        let empty = async {
            loop {
                let crashed = self.depth("CrashedTasksQueueUrl").await?;
                if crashed > 0 {
                    moved += crashed;
                    self.move_messages("CrashedTasksQueueArn").await?;
                }
                let mut left = Vec::new();
                for queue in ["DeliveryQueueUrl", "SlowQueueUrl", "ExpansionQueueUrl", "JobQueueUrl"] {
                    left.push((queue, self.depth(queue).await?));
                }
                left.push(("schedule", self.scene.scheduled().await?.len() as u64));
                if crashed == 0 && left.iter().all(|(_, count)| *count == 0) {
                    return Ok(());
                }
                ensure!(began.elapsed() < self.ordeal.patience, "work is left over: {left:?}");
                sleep(LOOK_PERIOD).await;
            }
        };
        tokio::select! {
            empty = empty => empty?,
            () = self.ring(&mut failed) => bail!("the clock came to an end"),
        }
        let given_up = self.depth("FanoutFailureQueueUrl").await?;
        ensure!(given_up == 0, "fan-out gave {given_up} records up");
        Ok(moved)
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        self.scene.stack.queue_depth(queue).await
    }

    async fn move_messages(&self, from: &str) -> Result<()> {
        let stack = &self.scene.stack;
        let task =
            json!({ "SourceArn": stack.output(from), "DestinationArn": stack.output("DeliveryQueueArn") });
        stack.sqs("StartMessageMoveTask", task).await?;
        Ok(())
    }

    /// Each delivery's row.
    async fn rows(&self) -> Result<BTreeMap<Pair, Row>> {
        let places = self.places()?;
        let rows = self.scene.deliveries().await?;
        let rows = rows.iter().map(|row| {
            let text = |name: &str| row[name]["S"].as_str();
            let keys = || {
                let (subscription, _) = text("pk")?.split_once('#')?;
                let (_, digest) = text("sk")?.split_once('#')?;
                Some((*places.events.get(digest)?, *places.subscribers.get(subscription)?))
            };
            let pair = keys().with_context(|| format!("a row of no delivery: {row}"))?;
            let attempts = row["attempts"]["L"].as_array().map_or(&[][..], Vec::as_slice);
            let found = Row {
                status: text("status").unwrap_or_default().to_owned(),
                reason: text("reason").map(str::to_owned),
                round: row["round"]["N"].as_str().unwrap_or_default().parse()?,
                attempts: attempts.len(),
                answered: attempts.iter().filter(|attempt| !attempt["M"]["status"].is_null()).count(),
            };
            Ok((pair, found))
        });
        rows.collect()
    }

    /// The dead letters: whose, and after which round. They stay where they are.
    async fn letters(&self) -> Result<Vec<(Pair, u64)>> {
        let places = self.places()?;
        let queue = self.scene.stack.output("DeadLetterQueueUrl");
        let mut letters = Vec::new();
        let mut receipts = Vec::new();
        loop {
            let receive = json!({
                "QueueUrl": queue, "MaxNumberOfMessages": MESSAGES_AT_ONCE, "VisibilityTimeout": 600,
            });
            let received = self.scene.stack.sqs("ReceiveMessage", receive).await?;
            let messages = received["Messages"].as_array().cloned().unwrap_or_default();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                let task = DeliveryTask::from_json(message["Body"].as_str().unwrap_or_default())?;
                let Ask::NewRound { after, .. } = task.ask else { bail!("it is no dead letter: {message}") };
                let event = places.events.get(&task.event.key.digest.to_string());
                let subscriber = places.subscribers.get(&task.subscription.to_string());
                let pair = event.copied().zip(subscriber.copied());
                letters.push((pair.with_context(|| format!("of no delivery: {message}"))?, after.into()));
                receipts.push(message["ReceiptHandle"].clone());
            }
        }
        join_all(receipts.iter().map(|receipt| {
            let visible = json!({ "QueueUrl": queue, "ReceiptHandle": receipt, "VisibilityTimeout": 0 });
            self.scene.stack.sqs("ChangeMessageVisibility", visible)
        }))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
        Ok(letters)
    }

    /// What receivers got, by delivery. Each request is rightly signed and has the id of its delivery, computed here from
    /// its event and its subscription.
    fn posts(&self) -> Result<BTreeMap<Pair, Vec<Received>>> {
        let mut posts: BTreeMap<Pair, Vec<Received>> = BTreeMap::new();
        for (place, subscriber) in self.subscribers.iter().enumerate() {
            for post in self.scene.receiver.received(&subscriber.path) {
                ensure!(
                    post.verdict == Verdict::Verified,
                    "{} got a request with its {}",
                    post.path,
                    post.verdict
                );
                let told = post.json()["data"]["number"].as_u64().context("an event without its number")?;
                let event = usize::try_from(told)?;
                let id = DeliveryId::of(&event_key(event)?, subscriber.id).to_string();
                ensure!(post.webhook_id() == id, "{} instead of {id}", post.webhook_id());
                posts.entry((event, place)).or_default().push(post);
            }
        }
        Ok(posts)
    }

    fn places(&self) -> Result<Places> {
        let events = (0..self.ordeal.events).map(|place| Ok((event_key(place)?.digest.to_string(), place)));
        let subscribers = self.subscribers.iter().enumerate();
        Ok(Places {
            events: events.collect::<Result<_>>()?,
            subscribers: subscribers.map(|(place, subscriber)| (subscriber.id.to_string(), place)).collect(),
        })
    }
}

/// Events by their digests and subscriptions by their ids.
struct Places {
    events: BTreeMap<String, usize>,
    subscribers: BTreeMap<String, usize>,
}

fn event_key(place: usize) -> Result<EventKey> {
    let workspace: WorkspaceId = WORKSPACE.parse()?;
    Ok(EventKey { workspace, digest: EventDigest::of(SOURCE, &event_id(place)) })
}

fn has_ended(row: Option<&Row>) -> bool {
    row.is_some_and(|row| ["delivered", "failed"].contains(&row.status.as_str()))
}

/// What rows say was seen, and the other way round.
fn check_posts(rows: &BTreeMap<Pair, Row>, posts: &BTreeMap<Pair, Vec<Received>>) -> Result<()> {
    for (pair, posts) in posts {
        ensure!(rows.contains_key(pair), "{pair:?} was posted and has no row");
        let same = posts.iter().all(|post| post.body == posts[0].body);
        ensure!(same, "{pair:?} was posted with different bodies");
    }
    for (pair, row) in rows {
        let posts = posts.get(pair).map_or(&[][..], Vec::as_slice);
        let accepted = posts.iter().any(is_accepted);
        ensure!(
            accepted || row.status != "delivered",
            "{pair:?} is delivered, and nobody accepted it: {row:?}"
        );
        let answered = posts.iter().filter(|post| post.answer.is_some()).count();
        ensure!(answered >= row.answered, "{pair:?} was answered {answered} times: {row:?}");
    }
    Ok(())
}

fn is_accepted(post: &Received) -> bool {
    post.answer.is_some_and(|status| (200..300).contains(&status))
}

/// How many of a delivery's requests came after one that was accepted.
fn accepted_before(posts: &[Received]) -> usize {
    let first = posts.iter().position(is_accepted);
    first.map_or(0, |first| posts.len() - first - 1)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.failed.values().sum();
        writeln!(
            f,
            "{} events were accepted; {} requests of publishers had to be repeated.",
            self.events, self.publishings_repeated
        )?;
        writeln!(
            f,
            "All deliveries had ended after {:.0} s: {} delivered, {failed} failed {:?}, each with a dead letter ({} more).",
            self.settled_after.as_secs_f64(),
            self.delivered,
            self.failed,
            self.letters_doubled
        )?;
        writeln!(
            f,
            "{} posts: {} of attempts that were not recorded, {} of what the receiver had accepted; each with the one \
             webhook-id of its delivery.",
            self.posts, self.unrecorded, self.duplicates
        )?;
        writeln!(f, "AWS: {}.", self.tally)?;
        writeln!(
            f,
            "Besides, {} processes were killed, {} events fanned out again, {} subscriptions made and deleted, {} runs of the \
             clock failed, {} crashed tasks moved back.",
            self.killed,
            self.fanned_out_again,
            self.subscriptions_changed,
            self.clock_failed,
            self.crashed_tasks
        )?;
        write!(
            f,
            "Nothing else is left anywhere. Delivered again within {:.0} s: {failed} of {failed}, none is failed.",
            self.redelivered_after.as_secs_f64()
        )
    }
}
