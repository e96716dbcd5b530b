//! What goes wrong between the functions and AWS, and what the local AWS never does by itself: drawn from a seed.
//!
//! The n-th request of an action meets the same fault in every run with one seed. Which request that is, and what it finds,
//! depends on how the functions' processes take turns: a seed repeats the faults, not the whole run.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::client::Reply;
use crate::dice::Dice;
use crate::proxy::Passage;

/// The longest of the usual delays, in milliseconds.
const DELAY_MAX_MS: u64 = 300;

/// One delay of so many is a long one.
const LONG_DELAY_ONE_OF: u64 = 20;
const LONG_DELAY: Duration = Duration::from_secs(2);

/// How old a stale answer is: an index or a replica lags behind by less than a second as a rule, and by more at times.
const STALE_MIN: Duration = Duration::from_millis(100);
const STALE_MAX: Duration = Duration::from_secs(3);

/// The namespaces of error types, as the services write them.
const DYNAMODB_ERROR: &str = "com.amazonaws.dynamodb.v20120810#";
const SQS_ERROR: &str = "com.amazonaws.sqs#";

/// What can go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It is refused, since there are too many.
    Throttled,
    /// A transaction is under way over its items.
    Conflicted,
    /// The service fails before it has done anything.
    Failed,
    /// A part of its batch is not done, and the answer says which.
    Unprocessed,
    /// A read that is not consistent is answered with what was so a moment ago.
    Stale,
    /// Its connection ends before it was carried out.
    RequestLost,
    /// It is carried out, and then its connection ends, or the answer is that the service failed.
    AnswerLost,
    /// What it sends to a queue is in there twice.
    Doubled,
    /// Whoever sent it dies, before it is carried out or after.
    Killed,
    /// It takes up to 300 ms longer, seldom 2 s; besides any other fault.
    Delayed,
}

impl Fault {
    /// All of them. Of those that a request could meet it meets the first.
    pub const ALL: [Self; 10] = [
        Self::Throttled,
        Self::Conflicted,
        Self::Failed,
        Self::Unprocessed,
        Self::Stale,
        Self::RequestLost,
        Self::AnswerLost,
        Self::Doubled,
        Self::Killed,
        Self::Delayed,
    ];

    /// As it stands in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Conflicted => "in conflict",
            Self::Failed => "failed",
            Self::Unprocessed => "partly unprocessed",
            Self::Stale => "stale",
            Self::RequestLost => "request lost",
            Self::AnswerLost => "answer lost",
            Self::Doubled => "doubled",
            Self::Killed => "sender killed",
            Self::Delayed => "delayed",
        }
    }

    /// Whether such a request can meet it.
    fn befalls(self, call: &Call) -> bool {
        let action = call.action.as_str();
        match self {
            Self::Throttled
            | Self::Failed
            | Self::RequestLost
            | Self::AnswerLost
            | Self::Killed
            | Self::Delayed => true,
            Self::Conflicted => {
                let actions =
                    ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "TransactGetItems"];
                actions.contains(&action)
            }
            Self::Unprocessed => {
                ["BatchExecuteStatement", "BatchGetItem", "BatchWriteItem", "SendMessageBatch"]
                    .contains(&action)
            }
            Self::Stale => call.question().is_some(),
            Self::Doubled => ["SendMessage", "SendMessageBatch"].contains(&action),
        }
    }
}

/// How often each fault befalls a request that can meet it, from 0 (never) to 1 (always).
#[derive(Clone, Debug, Default)]
pub struct Rates(BTreeMap<Fault, f64>);

impl Rates {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A bad day: about one request in fifteen meets something, but seldom the death of its sender.
    #[must_use]
    pub fn rough() -> Self {
        let rates = [
            (Fault::Throttled, 0.01),
            (Fault::Conflicted, 0.005),
            (Fault::Failed, 0.01),
            (Fault::Unprocessed, 0.03),
            (Fault::Stale, 0.25),
            (Fault::RequestLost, 0.005),
            (Fault::AnswerLost, 0.01),
            (Fault::Doubled, 0.05),
            (Fault::Killed, 0.001),
            (Fault::Delayed, 0.03),
        ];
        Self(BTreeMap::from(rates))
    }

    /// The same, but with this rate.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: f64) -> Self {
        self.0.insert(fault, rate);
        self
    }

    fn of(&self, fault: Fault) -> f64 {
        self.0.get(&fault).copied().unwrap_or_default()
    }
}

/// A plan of faults, and what became of it.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    rates: Rates,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many requests of each action there were.
    requests: HashMap<String, u64>,
    injected: BTreeMap<Fault, u64>,
    /// What was answered to each question lately, the latest last.
    answers: HashMap<String, VecDeque<(Instant, Reply)>>,
}

/// What was injected so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many requests there were.
    pub requests: u64,
    /// How many met each fault.
    pub faults: BTreeMap<Fault, u64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} requests", self.requests)?;
        for (fault, count) in &self.faults {
            write!(formatter, ", {count} {}", fault.name())?;
        }
        Ok(())
    }
}

/// What a request meets.
#[derive(Clone, Debug)]
struct Fate {
    fault: Option<Fault>,
    /// How long it takes more, and whether that is before it is carried out.
    delay: Option<(Duration, bool)>,
    /// Decides between the forms of a fault.
    dice: Dice,
}

impl Faults {
    /// The plan of this seed.
    #[must_use]
    pub fn new(seed: u64, rates: Rates) -> Self {
        Self { seed, rates, state: Mutex::default() }
    }

    /// What was injected so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let state = self.state();
        Tally { requests: state.requests.values().sum(), faults: state.injected.clone() }
    }

    /// Passes a request on as its fate wants it. An error: its connection ends.
    pub(crate) async fn pass(&self, passage: &Passage<'_>) -> Result<Reply> {
        let call = Call::read(passage);
        let Fate { fault, delay, mut dice } = self.fate(&call);
        if let Some((delay, true)) = delay {
            sleep(delay).await;
        }
        let reply = match fault {
            Some(fault) => self.befall(fault, &call, passage, &mut dice).await?,
            None => self.ask(&call, passage).await?,
        };
        if let Some((delay, false)) = delay {
            sleep(delay).await;
        }
        Ok(reply)
    }

    async fn befall(
        &self,
        fault: Fault,
        call: &Call,
        passage: &Passage<'_>,
        dice: &mut Dice,
    ) -> Result<Reply> {
        let reply = match fault {
            Fault::Throttled => call.throttled(dice),
            Fault::Conflicted => call.conflicted(dice),
            Fault::Failed => call.failed(),
            Fault::Unprocessed => call.processed_in_part(passage, dice).await?,
            Fault::Stale => match self.earlier_answer(call) {
                Some(reply) => reply,
                // Nobody asked lately, so that there is nothing to count.
                None => return self.ask(call, passage).await,
            },
            Fault::Doubled => {
                passage.forward().await?;
                passage.forward().await?
            }
            Fault::AnswerLost => {
                passage.forward().await?;
                self.count(fault);
                if dice.happens(0.5) {
                    bail!("the answer is lost");
                }
                return Ok(call.failed());
            }
            Fault::RequestLost => {
                self.count(fault);
                bail!("the request is lost");
            }
            Fault::Killed => {
                if dice.happens(0.5) {
                    passage.forward().await?;
                }
                passage.kill_sender()?;
                self.count(fault);
                bail!("the sender is no more");
            }
            Fault::Delayed => self.ask(call, passage).await?,
        };
        self.count(fault);
        Ok(reply)
    }

    /// Carries a request out, and remembers what could be answered once more.
    async fn ask(&self, call: &Call, passage: &Passage<'_>) -> Result<Reply> {
        let reply = passage.forward().await?;
        if let Some(question) = call.question().filter(|_| reply.status == 200) {
            let mut state = self.state();
            let answers = state.answers.entry(question).or_default();
            while answers.front().is_some_and(|(at, _)| at.elapsed() > STALE_MAX) {
                answers.pop_front();
            }
            answers.push_back((Instant::now(), reply.clone()));
        }
        Ok(reply)
    }

    /// The answer to the same question a moment ago.
    fn earlier_answer(&self, call: &Call) -> Option<Reply> {
        let state = self.state();
        let answers = state.answers.get(&call.question()?)?;
        let is_earlier = |(at, _): &&(Instant, Reply)| (STALE_MIN..STALE_MAX).contains(&at.elapsed());
        answers.iter().rev().find(is_earlier).map(|(_, reply)| reply.clone())
    }

    /// What the next request of its action meets.
    fn fate(&self, call: &Call) -> Fate {
        let number = {
            let mut state = self.state();
            let number = state.requests.entry(call.action.clone()).or_default();
            *number += 1;
            *number
        };
        let mut dice = Dice::new(self.seed, format!("{} {number}", call.action));
        // All dice are thrown for every request, so that one rate does not move what another one does.
        let met: Vec<_> = Fault::ALL
            .into_iter()
            .filter(|fault| dice.happens(self.rates.of(*fault)))
            .filter(|fault| fault.befalls(call))
            .collect();
        let delay = met.contains(&Fault::Delayed).then(|| {
            self.count(Fault::Delayed);
            let is_long = dice.below(LONG_DELAY_ONE_OF) == 0;
            let delay = Duration::from_millis(dice.below(DELAY_MAX_MS + 1));
            (if is_long { LONG_DELAY } else { delay }, dice.happens(0.5))
        });
        Fate { fault: met.into_iter().find(|fault| *fault != Fault::Delayed), delay, dice }
    }

    fn count(&self, fault: Fault) {
        *self.state().injected.entry(fault).or_default() += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, as the service reads it.
#[derive(Debug)]
struct Call {
    service: Service,
    action: String,
    input: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    DynamoDb,
    Sqs,
    Kms,
}

impl Call {
    fn read(passage: &Passage<'_>) -> Self {
        let (service, action) = passage.target().split_once('.').unwrap_or_default();
        let service = match service {
            "AmazonSQS" => Service::Sqs,
            "TrentService" => Service::Kms,
            _ => Service::DynamoDb,
        };
        Self {
            service,
            action: action.to_owned(),
            input: serde_json::from_slice(passage.body()).unwrap_or_default(),
        }
    }

    /// What a read asks for that may be answered as of a moment ago; `None`: this must not. Two reads ask the same also
    /// where their upper bounds differ: those are the times of asking.
    fn question(&self) -> Option<String> {
        let is_consistent = |read: &Value| read["ConsistentRead"] == true;
        let may_lag = match self.action.as_str() {
            "GetItem" | "Query" | "Scan" => !is_consistent(&self.input),
            "BatchGetItem" => {
                let tables = self.input["RequestItems"].as_object()?;
                !tables.values().any(is_consistent)
            }
            _ => false,
        };
        // The pages of one walk belong together.
        if !may_lag || !self.input["ExclusiveStartKey"].is_null() {
            return None;
        }
        let mut input = self.input.clone();
        let condition = self.input["KeyConditionExpression"].as_str().unwrap_or_default();
        let words: Vec<_> = condition.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| ["<", "<="].contains(&pair[0])) {
            if let Some(values) = input["ExpressionAttributeValues"].as_object_mut() {
                values.remove(pair[1]);
            }
        }
        Some(format!("{} {input}", self.action))
    }

    fn throttled(&self, dice: &mut Dice) -> Reply {
        let kind = match self.service {
            Service::DynamoDb if self.action == "TransactWriteItems" && dice.happens(0.5) => {
                return self.cancelled("ThrottlingError", dice);
            }
            Service::DynamoDb => *dice.one_of(&[
                "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
                "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded",
                "com.amazon.coral.availability#ThrottlingException",
            ]),
            Service::Sqs => "com.amazonaws.sqs#RequestThrottled",
            Service::Kms => "ThrottlingException",
        };
        error(400, kind, "Too much is asked for.")
    }

    fn conflicted(&self, dice: &mut Dice) -> Reply {
        if self.action.starts_with("Transact") {
            return self.cancelled("TransactionConflict", dice);
        }
        let kind = format!("{DYNAMODB_ERROR}TransactionConflictException");
        error(400, &kind, "Transaction is ongoing for the item")
    }

    /// The answer to a transaction that is refused for one of its items.
    fn cancelled(&self, code: &str, dice: &mut Dice) -> Reply {
        let items = self.input["TransactItems"].as_array().map_or(0, Vec::len).max(1);
        let mut reasons = vec![json!({ "Code": "None" }); items];
        let place = usize::try_from(dice.below(items as u64)).unwrap_or_default();
        reasons[place] = json!({ "Code": code, "Message": "It cannot be done at the moment." });
        let codes: Vec<_> = reasons.iter().filter_map(|reason| reason["Code"].as_str()).collect();
        let message = format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        );
        reply(
            400,
            &json!({
                "__type": format!("{DYNAMODB_ERROR}TransactionCanceledException"),
                "Message": message,
                "CancellationReasons": reasons,
            }),
        )
    }

    fn failed(&self) -> Reply {
        let kind = match self.service {
            Service::DynamoDb => format!("{DYNAMODB_ERROR}InternalServerError"),
            Service::Sqs => format!("{SQS_ERROR}InternalError"),
            Service::Kms => "KMSInternalException".to_owned(),
        };
        error(500, &kind, "Something inside went wrong.")
    }

    /// Carries out a part of a batch, which may be nothing of it, and says what is left.
    async fn processed_in_part(&self, passage: &Passage<'_>, dice: &mut Dice) -> Result<Reply> {
        if self.action == "BatchExecuteStatement" {
            return self.executed_in_part(passage, dice).await;
        }
        let (some, left) = self.parted(dice);
        let mut answer = match some {
            None => self.nothing_done(),
            Some(input) => {
                let reply = passage.forward_instead(self.service.name(), &input).await?;
                if reply.status != 200 {
                    return Ok(reply);
                }
                reply.json()
            }
        };
        match self.action.as_str() {
            "SendMessageBatch" => answer["Failed"] = left,
            "BatchGetItem" => answer["UnprocessedKeys"] = left,
            _ => answer["UnprocessedItems"] = left,
        }
        Ok(reply(200, &answer))
    }

    /// Carries out some of the statements, which may be none of them, and refuses the others, one at least. Answers stand
    /// in the order of the statements.
    async fn executed_in_part(&self, passage: &Passage<'_>, dice: &mut Dice) -> Result<Reply> {
        let statements = self.input["Statements"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut is_done: Vec<_> = statements.iter().map(|_| dice.happens(0.5)).collect();
        if let Some(last) = is_done.last_mut() {
            *last = false;
        }
        let done = statements.iter().zip(&is_done).filter(|(_, is_done)| **is_done);
        let mut answers = Vec::new();
        if let Some(input) = self.with("Statements", done.map(|(statement, _)| statement.clone()).collect()) {
            let reply = passage.forward_instead(self.service.name(), &input).await?;
            if reply.status != 200 {
                return Ok(reply);
            }
            answers = reply.json()["Responses"].as_array().cloned().unwrap_or_default();
        }
        let mut answers = answers.into_iter();
        let refused = json!({ "Error": { "Code": "ThrottlingError", "Message": "Too much is asked for." } });
        let responses: Vec<_> = is_done
            .iter()
            .map(|is_done| is_done.then(|| answers.next()).flatten().unwrap_or_else(|| refused.clone()))
            .collect();
        Ok(reply(200, &json!({ "Responses": responses })))
    }

    /// The request for some of its entries, if any, and what the answer says of the others, one at least.
    fn parted(&self, dice: &mut Dice) -> (Option<Value>, Value) {
        let (some, left) = match self.input["RequestItems"].as_object() {
            None => self.parted_entries(|_| dice.happens(0.5)),
            Some(tables) => self.parted_tables(tables, |_| dice.happens(0.5)),
        };
        if !is_empty(&left) {
            return (some, left);
        }
        let (_, all) = match self.input["RequestItems"].as_object() {
            None => self.parted_entries(|_| false),
            Some(tables) => self.parted_tables(tables, |_| false),
        };
        (None, all)
    }

    fn parted_entries(&self, is_done: impl FnMut(&Value) -> bool) -> (Option<Value>, Value) {
        let (some, left) = parted(&self.input["Entries"], is_done);
        let failed = left.iter().map(|entry| {
            json!({
                "Id": entry["Id"],
                "SenderFault": false,
                "Code": "InternalError",
                "Message": "Something inside went wrong.",
            })
        });
        (self.with("Entries", Value::Array(some)), failed.collect())
    }

    fn parted_tables(
        &self,
        tables: &Map<String, Value>,
        mut is_done: impl FnMut(&Value) -> bool,
    ) -> (Option<Value>, Value) {
        let (mut some, mut left) = (Map::new(), Map::new());
        for (name, asked) in tables {
            // Keys stand below what is asked of all of them, writes do not.
            let entries = if asked.is_array() { asked } else { &asked["Keys"] };
            let (done, undone) = parted(entries, &mut is_done);
            for (tables, entries) in [(&mut some, done), (&mut left, undone)] {
                if entries.is_empty() {
                    continue;
                }
                let mut part = asked.clone();
                if asked.is_array() {
                    part = Value::Array(entries);
                } else {
                    part["Keys"] = Value::Array(entries);
                }
                tables.insert(name.clone(), part);
            }
        }
        (self.with("RequestItems", Value::Object(some)), Value::Object(left))
    }

    /// The request with this member instead of its own; `None`: it would be empty.
    fn with(&self, member: &str, value: Value) -> Option<Value> {
        let is_empty = is_empty(&value);
        let mut input = self.input.clone();
        input[member] = value;
        (!is_empty).then_some(input)
    }

    /// The answer to a batch of which nothing was done.
    fn nothing_done(&self) -> Value {
        match self.action.as_str() {
            "SendMessageBatch" => json!({ "Successful": [] }),
            "BatchGetItem" => json!({ "Responses": {} }),
            _ => json!({}),
        }
    }
}

impl Service {
    /// As it stands in credentials.
    fn name(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Sqs => "sqs",
            Self::Kms => "kms",
        }
    }
}

fn parted(entries: &Value, is_done: impl FnMut(&Value) -> bool) -> (Vec<Value>, Vec<Value>) {
    let mut is_done = is_done;
    let entries = entries.as_array().into_iter().flatten().cloned();
    entries.partition(|entry| is_done(entry))
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

fn error(status: u16, kind: &str, message: &str) -> Reply {
    reply(status, &json!({ "__type": kind, "message": message }))
}

fn reply(status: u16, body: &Value) -> Reply {
    let content_type = HeaderValue::from_static("application/x-amz-json-1.0");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    Reply { status, headers, body: Bytes::from(body.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use tokio::task::spawn_blocking;

    use super::*;
    use crate::proxy::Proxy;
    use crate::receiver::{Answer, Received, Receiver};

    /// An upstream that answers 200, and a proxy to it that injects these faults.
    struct Scene {
        upstream: Receiver,
        proxy: Proxy,
        faults: Arc<Faults>,
    }

    impl Scene {
        async fn set(rates: Rates, answers: impl IntoIterator<Item = Value>) -> Self {
            let upstream = Receiver::start().await.unwrap();
            upstream.answer("/", answers.into_iter().map(|answer| Answer::status(200).json(&answer)));
            let proxy = Proxy::start(&upstream.url("")).await.unwrap();
            let faults = proxy.inject(Faults::new(1, rates));
            Self { upstream, proxy, faults }
        }

        /// One in which each request that can meets this fault.
        async fn always(fault: Fault, answers: impl IntoIterator<Item = Value>) -> Self {
            Self::set(Rates::none().with(fault, 1.0), answers).await
        }

        async fn call(&self, target: &str, input: &Value) -> Result<Reply> {
            let request = http::Request::post(self.proxy.url())
                .header("x-amz-target", target)
                .header("authorization", "AWS4-HMAC-SHA256 Credential=ROLE/20260101/us-east-1/x/aws4_request")
                .header("x-amz-security-token", "of the role")
                .body(input.to_string().into_bytes())?;
            crate::client::send(request).await
        }

        async fn dynamodb(&self, action: &str, input: &Value) -> Result<Reply> {
            self.call(&format!("DynamoDB_20120810.{action}"), input).await
        }

        async fn sqs(&self, action: &str, input: &Value) -> Result<Reply> {
            self.call(&format!("AmazonSQS.{action}"), input).await
        }

        fn reached(&self) -> Vec<Received> {
            self.upstream.received("/")
        }

        fn count(&self, fault: Fault) -> u64 {
            self.faults.tally().faults.get(&fault).copied().unwrap_or_default()
        }
    }

    fn kind(reply: &Reply) -> String {
        reply.json()["__type"].as_str().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_throttle_is_an_error_that_clients_try_again() {
        let scene = Scene::always(Fault::Throttled, [json!({})]).await;
        let throttles = [
            "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded",
            "com.amazon.coral.availability#ThrottlingException",
        ];
        for _ in 0..10 {
            let reply = scene.dynamodb("GetItem", &json!({})).await.unwrap();
            assert_eq!(reply.status, 400);
            assert!(throttles.contains(&kind(&reply).as_str()), "{}", kind(&reply));
        }
        let reply = scene.sqs("SendMessage", &json!({})).await.unwrap();
        assert_eq!((reply.status, kind(&reply).as_str()), (400, "com.amazonaws.sqs#RequestThrottled"));
        let reply = scene.call("TrentService.Decrypt", &json!({})).await.unwrap();
        assert_eq!((reply.status, kind(&reply).as_str()), (400, "ThrottlingException"));
        assert!(scene.reached().is_empty());
        assert_eq!(scene.faults.tally().to_string(), "12 requests, 12 throttled");
    }

    #[tokio::test]
    async fn a_conflict_befalls_writes_and_transactions() {
        let scene = Scene::always(Fault::Conflicted, [json!({})]).await;
        let reply = scene.dynamodb("UpdateItem", &json!({})).await.unwrap();
        assert_eq!(
            kind(&reply),
            "com.amazonaws.dynamodb.v20120810#TransactionConflictException",
            "{}",
            reply.json()
        );
        let items = json!({ "TransactItems": [{}, {}, {}] });
        for action in ["TransactWriteItems", "TransactGetItems"] {
            let reply = scene.dynamodb(action, &items).await.unwrap();
            assert_eq!(kind(&reply), "com.amazonaws.dynamodb.v20120810#TransactionCanceledException");
            let reasons = reply.json()["CancellationReasons"].as_array().cloned().unwrap();
            let codes: Vec<_> = reasons.iter().map(|reason| reason["Code"].as_str().unwrap()).collect();
            let count = |code| codes.iter().filter(|found| **found == code).count();
            assert_eq!((count("TransactionConflict"), count("None")), (1, 2));
        }
        assert!(scene.reached().is_empty());
        assert_eq!(scene.dynamodb("Query", &json!({})).await.unwrap().status, 200, "a read meets none");
        assert_eq!(scene.count(Fault::Conflicted), 3);
    }

    #[tokio::test]
    async fn a_failure_does_nothing() {
        let scene = Scene::always(Fault::Failed, [json!({})]).await;
        let reply = scene.dynamodb("PutItem", &json!({})).await.unwrap();
        assert_eq!(
            (reply.status, kind(&reply).as_str()),
            (500, "com.amazonaws.dynamodb.v20120810#InternalServerError")
        );
        assert!(scene.reached().is_empty());
    }

    #[tokio::test]
    async fn unprocessed_messages_are_not_sent_and_the_others_are() {
        let scene = Scene::always(Fault::Unprocessed, [json!({ "Successful": ["by the queue"] })]).await;
        let entries: Vec<_> = (0..10).map(|number| json!({ "Id": number.to_string() })).collect();
        let batch = json!({ "QueueUrl": "q", "Entries": entries });
        let reply = scene.sqs("SendMessageBatch", &batch).await.unwrap();
        assert_eq!((reply.status, &reply.json()["Successful"]), (200, &json!(["by the queue"])));
        let failed = reply.json()["Failed"].as_array().cloned().unwrap();
        let reached = scene.reached();
        let sent = reached[0].json()["Entries"].as_array().cloned().unwrap();
        let mut ids: Vec<_> = sent.iter().chain(&failed).map(|entry| entry["Id"].clone()).collect();
        ids.sort_by_key(ToString::to_string);
        assert_eq!(ids, entries.iter().map(|entry| entry["Id"].clone()).collect::<Vec<_>>());
        assert!(!failed.is_empty() && !sent.is_empty(), "{failed:?}");
        assert!(failed.iter().all(|entry| entry["SenderFault"] == false));
        // The role has not signed this request: it goes as the account's root, whom the local AWS believes.
        assert!(reached[0].header("authorization").contains("Credential=test/"));
        assert_eq!(reached[0].header("x-amz-security-token"), "");
        assert_eq!(reached[0].header("x-amz-target"), "AmazonSQS.SendMessageBatch");
    }

    #[tokio::test]
    async fn of_statements_some_are_refused_in_their_places() {
        let done = json!({ "TableName": "t" });
        let scene = Scene::always(Fault::Unprocessed, [json!({ "Responses": vec![done.clone(); 8] })]).await;
        let statements: Vec<_> = (0..8).map(|number| json!({ "Statement": number.to_string() })).collect();
        let asked = json!({ "Statements": statements });
        let answer = scene.dynamodb("BatchExecuteStatement", &asked).await.unwrap().json();
        let answers = answer["Responses"].as_array().unwrap();
        assert_eq!(answers.len(), 8);
        let places = answers.iter().zip(&statements).filter(|(answer, _)| **answer == done);
        let expected: Vec<_> = places.map(|(_, statement)| statement.clone()).collect();
        assert_eq!(scene.reached()[0].json()["Statements"], json!(expected));
        assert_eq!(answers[7]["Error"]["Code"], "ThrottlingError");
    }

    #[tokio::test]
    async fn of_one_message_none_is_sent() {
        let scene = Scene::always(Fault::Unprocessed, [json!({})]).await;
        let batch = json!({ "QueueUrl": "q", "Entries": [{ "Id": "0" }] });
        for _ in 0..5 {
            let reply = scene.sqs("SendMessageBatch", &batch).await.unwrap();
            assert_eq!(reply.json()["Failed"][0]["Id"], "0");
            assert_eq!(reply.json()["Successful"], json!([]));
        }
        assert!(scene.reached().is_empty());
    }

    #[tokio::test]
    async fn unprocessed_keys_and_items_are_told_as_they_were_asked() {
        let scene = Scene::always(Fault::Unprocessed, [json!({ "Responses": { "t": [] } })]).await;
        let keys: Vec<_> = (0..8).map(|number| json!({ "pk": { "S": number.to_string() } })).collect();
        let asked = json!({ "RequestItems": { "t": { "Keys": keys, "ConsistentRead": true } } });
        let answer = scene.dynamodb("BatchGetItem", &asked).await.unwrap().json();
        let left = &answer["UnprocessedKeys"]["t"];
        assert_eq!(left["ConsistentRead"], true);
        let sent = scene.reached()[0].json()["RequestItems"]["t"].clone();
        assert_eq!(sent["ConsistentRead"], true);
        let count = |part: &Value| part["Keys"].as_array().map_or(0, Vec::len);
        assert!(count(left) > 0);
        assert_eq!(count(left) + count(&sent), 8);

        let deletes: Vec<_> = keys.iter().map(|key| json!({ "DeleteRequest": { "Key": key } })).collect();
        let asked = json!({ "RequestItems": { "t": deletes } });
        let answer = scene.dynamodb("BatchWriteItem", &asked).await.unwrap().json();
        let left = answer["UnprocessedItems"]["t"].as_array().cloned().unwrap();
        let sent = scene.reached()[1].json()["RequestItems"]["t"].as_array().cloned().unwrap();
        assert_eq!(left.len() + sent.len(), 8);
        assert!(deletes.contains(&left[0]));
    }

    #[tokio::test]
    async fn a_stale_read_is_answered_as_a_moment_ago() {
        let scene = Scene::always(Fault::Stale, (1..9).map(|number| json!({ "Count": number }))).await;
        let query = |end: u64| {
            json!({
                "TableName": "t",
                "KeyConditionExpression": "pk = :pk AND sk < :end",
                "ExpressionAttributeValues": { ":pk": { "S": "p" }, ":end": { "N": end.to_string() } },
            })
        };
        let count =
            async |query: Value| scene.dynamodb("Query", &query).await.unwrap().json()["Count"].clone();
        assert_eq!(count(query(1)).await, 1, "nobody asked before");
        sleep(STALE_MIN * 2).await;
        assert_eq!(count(query(2)).await, 1, "the bound is the time of asking");
        let of = |member: &str, value: Value| {
            let mut query = query(3);
            query[member] = value;
            query
        };
        assert_eq!(count(of("ConsistentRead", json!(true))).await, 2);
        assert_eq!(count(of("ExclusiveStartKey", json!({}))).await, 3);
        assert_eq!(count(of("Limit", json!(7))).await, 4, "another question");
        assert_eq!(scene.count(Fault::Stale), 1, "what met nothing is not counted");
        let batch = |consistent: bool| json!({ "RequestItems": { "t": { "Keys": [], "ConsistentRead": consistent } } });
        for (consistent, met) in [(true, 1), (false, 2)] {
            scene.dynamodb("BatchGetItem", &batch(consistent)).await.unwrap();
            sleep(STALE_MIN * 2).await;
            scene.dynamodb("BatchGetItem", &batch(consistent)).await.unwrap();
            assert_eq!(scene.count(Fault::Stale), met);
        }
    }

    #[tokio::test]
    async fn a_lost_request_is_not_carried_out_and_a_lost_answer_is() {
        let scene = Scene::always(Fault::RequestLost, [json!({})]).await;
        assert!(scene.sqs("SendMessage", &json!({})).await.is_err());
        assert!(scene.reached().is_empty());
        assert_eq!(scene.count(Fault::RequestLost), 1);

        let scene = Scene::always(Fault::AnswerLost, [json!({})]).await;
        let (mut cut, mut failed) = (0, 0);
        for _ in 0..20 {
            match scene.sqs("SendMessage", &json!({})).await {
                Ok(reply) => failed += u64::from(reply.status == 500),
                Err(_) => cut += 1,
            }
        }
        assert_eq!((cut + failed, scene.reached().len(), scene.count(Fault::AnswerLost)), (20, 20, 20));
        assert!(cut > 0 && failed > 0, "{cut} and {failed}");
    }

    #[tokio::test]
    async fn what_is_doubled_is_sent_twice() {
        let scene = Scene::always(Fault::Doubled, [json!({})]).await;
        assert_eq!(scene.sqs("SendMessageBatch", &json!({ "Entries": [] })).await.unwrap().status, 200);
        assert_eq!(scene.dynamodb("PutItem", &json!({})).await.unwrap().status, 200);
        let targets: Vec<_> =
            scene.reached().iter().map(|request| request.header("x-amz-target").to_owned()).collect();
        let sent = "AmazonSQS.SendMessageBatch";
        assert_eq!(targets, [sent, sent, "DynamoDB_20120810.PutItem"]);
    }

    #[tokio::test]
    async fn who_is_killed_is_dead() {
        const REQUEST: &str = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], b'{}')";
        let scene = Scene::always(Fault::Killed, [json!({})]).await;
        for count in 1..=6 {
            let url = scene.proxy.url();
            let mut sender = Command::new("python3");
            sender.args(["-c", REQUEST, &url]).stderr(Stdio::null());
            let status = spawn_blocking(move || sender.status()).await.unwrap().unwrap();
            assert_eq!(status.signal(), Some(9), "{status}");
            assert_eq!(scene.count(Fault::Killed), count);
        }
        let carried_out = scene.reached().len();
        assert!((1..6).contains(&carried_out), "{carried_out} of 6");
    }

    #[tokio::test]
    async fn a_delay_comes_beside_other_faults() {
        let rates = Rates::none().with(Fault::Delayed, 1.0).with(Fault::Failed, 1.0);
        let scene = Scene::set(rates, [json!({})]).await;
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(scene.dynamodb("GetItem", &json!({})).await.unwrap().status, 500);
        }
        assert!(began.elapsed() > Duration::from_millis(DELAY_MAX_MS), "{:?}", began.elapsed());
        assert_eq!((scene.count(Fault::Delayed), scene.count(Fault::Failed)), (10, 10));
    }

    #[tokio::test]
    async fn calm_injects_nothing() {
        let scene = Scene::always(Fault::Failed, [json!({})]).await;
        assert_eq!(scene.dynamodb("GetItem", &json!({})).await.unwrap().status, 500);
        scene.proxy.calm();
        assert_eq!(scene.dynamodb("GetItem", &json!({})).await.unwrap().status, 200);
        assert_eq!(scene.faults.tally().requests, 1);
    }

    #[test]
    fn a_seed_repeats_the_faults_of_an_action_whatever_others_are_called() {
        let call =
            |action: &str| Call { service: Service::DynamoDb, action: action.to_owned(), input: Value::Null };
        let met = |seed, others: bool| {
            let faults = Faults::new(seed, Rates::rough());
            let fates = (0..200).map(|_| {
                if others {
                    faults.fate(&call("Query"));
                }
                let fate = faults.fate(&call("PutItem"));
                (fate.fault, fate.delay)
            });
            fates.collect::<Vec<_>>()
        };
        assert_eq!(met(1, false), met(1, true));
        assert_ne!(met(1, false), met(2, false));
    }
}
