//! Stand-ins for DynamoDB, SQS and KMS: they refuse what the real ones would refuse or what no function should ask for,
//! count the rest, and answer at once or after a while.
//!
//! Reads are answered from the rows of the config table, which somebody must have filled; of what functions write, jobs
//! are kept there. The other tables stay empty: each event is new, each delivery is at its first attempt, and a conditional
//! write takes place. But one subscription can be said to have any number of deliveries that failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::failed::Failed;
use super::tally::{Count, REQUEST_BYTES, Tally, item_bytes, read_units, units, write_units};
use super::wire::{Reply, Request, serve};

/// How much an answer to a query holds, in bytes of its items.
const PAGE_BYTES: usize = 1024 * 1024;

/// The most keys of a `BatchGetItem`, statements of a `BatchExecuteStatement`, and messages of a `SendMessageBatch`.
const KEYS_MAX: usize = 100;
const STATEMENTS_MAX: u64 = 25;
const MESSAGES_MAX: usize = 10;

/// The stand-ins, on one free port of this machine until this program ends.
#[derive(Clone, Debug)]
pub struct StandIns {
    url: String,
    shared: Arc<Shared>,
}

/// A queue of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Attempts.
    Delivery,
    /// Attempts at slow receivers.
    Slow,
    /// Parts of events with many matches.
    Expansion,
    /// What failed for good, of whatever kind.
    Failure,
    /// Work that outlasts a request.
    Jobs,
}

/// What was written or sent while it was kept.
#[derive(Debug, Default)]
pub struct Sent {
    /// The items of events, as a stream would show them.
    pub events: Vec<Value>,
    /// The entries of batches, and the queue of each.
    pub messages: Vec<(Lane, Value)>,
}

#[derive(Debug)]
struct Shared {
    tables: HashMap<String, Table>,
    queues: HashMap<String, Lane>,
    config: RwLock<Rows>,
    failed: RwLock<Option<Failed>>,
    data_keys: HashMap<String, String>,
    delay_micros: AtomicU64,
    keeps: AtomicBool,
    sent: Mutex<Sent>,
    tally: Mutex<Tally>,
    fault: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Config,
    Events,
    Deliveries,
    Schedule,
}

/// Items by partition and sort key.
type Rows = BTreeMap<String, BTreeMap<String, Row>>;

/// An item as it is answered, and its size as it is billed.
#[derive(Debug)]
struct Row {
    json: String,
    bytes: usize,
}

/// A call that was as it should be: its kind, what it amounts to, and the answer.
struct Good {
    kind: String,
    count: Count,
    answer: String,
}

/// Why a call is not as it should be.
type Fault = String;

impl StandIns {
    /// Starts them for tables and queues of these names and URLs, and data keys that KMS would open: from their sealed to
    /// their plain form, both in base 64. `output` tells what the deployment calls its tables and queues.
    pub fn start<'a>(output: impl Fn(&str) -> &'a str, data_keys: HashMap<String, String>) -> Result<Self> {
        let tables = [
            ("ConfigTable", Table::Config),
            ("EventsTable", Table::Events),
            ("DeliveriesTable", Table::Deliveries),
            ("ScheduleTable", Table::Schedule),
        ];
        let queues = [
            ("DeliveryQueueUrl", Lane::Delivery),
            ("SlowQueueUrl", Lane::Slow),
            ("ExpansionQueueUrl", Lane::Expansion),
            ("FanoutFailureQueueUrl", Lane::Failure),
            ("DeadLetterQueueUrl", Lane::Failure),
            ("JobQueueUrl", Lane::Jobs),
        ];
        let shared = Arc::new(Shared {
            tables: tables.into_iter().map(|(name, table)| (output(name).to_owned(), table)).collect(),
            queues: queues.into_iter().map(|(name, lane)| (output(name).to_owned(), lane)).collect(),
            config: RwLock::default(),
            failed: RwLock::default(),
            data_keys,
            delay_micros: AtomicU64::new(0),
            keeps: AtomicBool::new(false),
            sent: Mutex::default(),
            tally: Mutex::default(),
            fault: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let address = serve(move |request| Some(serving.answer(&request)))?;
        Ok(Self { url: format!("http://{address}"), shared })
    }

    /// Where they are.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Puts an item into the config table.
    pub fn put(&self, item: &Value) {
        self.shared.put(item);
    }

    /// From now on there are these deliveries as well.
    pub fn fail(&self, failed: Failed) {
        *self.shared.failed.write().unwrap_or_else(PoisonError::into_inner) = Some(failed);
    }

    /// Has each answer wait for so long from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether what is written and sent from now on is kept, for [`StandIns::sent`].
    pub fn keep(&self, keeps: bool) {
        self.shared.keeps.store(keeps, Relaxed);
    }

    /// What was written and sent since it was asked last, as far as it was kept; the tasks of jobs always are.
    #[must_use]
    pub fn sent(&self) -> Sent {
        std::mem::take(&mut *lock(&self.shared.sent))
    }

    /// The calls since it was asked last. Fails if one of them was not as it should be.
    pub fn tally(&self) -> Result<Tally> {
        if let Some(fault) = lock(&self.shared.fault).take() {
            bail!("a call to AWS that should not be: {fault}");
        }
        Ok(std::mem::take(&mut *lock(&self.shared.tally)))
    }
}

impl Shared {
    fn put(&self, item: &Value) {
        let text = |name: &str| item[name]["S"].as_str().unwrap_or_default().to_owned();
        let row = Row { json: item.to_string(), bytes: item_bytes(item) };
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        config.entry(text("pk")).or_default().insert(text("sk"), row);
    }

    fn answer(&self, request: &Request) -> Reply {
        let delay = self.delay_micros.load(Relaxed);
        if delay > 0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "an answer that takes a while is what is asked for"
            )]
            thread::sleep(Duration::from_micros(delay));
        }
        match self.call(request) {
            Ok(Good { kind, count, answer }) => {
                lock(&self.tally).add(&kind, Count { calls: 1, ..count });
                Reply::json(200, answer)
            }
            Err(fault) => {
                let reply = json!({ "__type": "ValidationException", "message": fault }).to_string();
                lock(&self.fault).get_or_insert(fault);
                Reply::json(400, reply)
            }
        }
    }

    fn call(&self, request: &Request) -> Result<Good, Fault> {
        let target = request.header("x-amz-target").unwrap_or_default();
        let told = |fault: Fault| {
            let body: String = String::from_utf8_lossy(&request.body).chars().take(2000).collect();
            format!("{target}: {fault} in {body}")
        };
        let input: Value = serde_json::from_slice(&request.body).map_err(|error| told(error.to_string()))?;
        let (service, operation) = target.split_once('.').ok_or_else(|| told("no target".to_owned()))?;
        let (name, version) = match service {
            "DynamoDB_20120810" => ("dynamodb", "1.0"),
            "AmazonSQS" => ("sqs", "1.0"),
            "TrentService" => ("kms", "1.1"),
            _ => return Err(told("an unknown service".to_owned())),
        };
        let content_type = format!("application/x-amz-json-{version}");
        check(request.header("content-type") == Some(&content_type), "another content type").map_err(told)?;
        let authorization = request.header("authorization").unwrap_or_default();
        let is_signed = authorization.starts_with("AWS4-HMAC-SHA256 Credential=")
            && authorization.contains(&format!("/us-east-1/{name}/aws4_request"));
        check(is_signed, "no signature for the service").map_err(told)?;
        let bytes = request.body.len();
        match name {
            "dynamodb" => self.dynamodb(operation, &input),
            "sqs" => self.sqs(operation, &input, bytes),
            _ => self.kms(operation, &input),
        }
        .map_err(told)
    }

    fn dynamodb(&self, operation: &str, input: &Value) -> Result<Good, Fault> {
        let good = |table: Table, count, answer| {
            let kind = format!("{operation} {}", table.name());
            Ok(Good { kind, count, answer })
        };
        match operation {
            "PutItem" | "UpdateItem" | "DeleteItem" => {
                let (table, count) = self.write(operation, input)?;
                good(table, count, "{}".to_owned())
            }
            "TransactWriteItems" => self.transaction(input),
            "BatchExecuteStatement" => self.inserts(input),
            "GetItem" => {
                let (table, row) = self.get(input)?;
                check(input["ConsistentRead"] == true, "a read that may be stale")?;
                let (json, count) = row;
                good(
                    table,
                    count,
                    json.map_or_else(|| "{}".to_owned(), |json| format!(r#"{{"Item":{json}}}"#)),
                )
            }
            "TransactGetItems" => {
                let mut answers = Vec::new();
                let mut sum = Count::default();
                let mut of = Table::Config;
                for item in elements(&input["TransactItems"])? {
                    let (table, (json, count)) = self.get(&item["Get"])?;
                    sum.reads += 2.0 * count.reads;
                    sum.items += 1;
                    of = table;
                    answers
                        .push(json.map_or_else(|| "{}".to_owned(), |json| format!(r#"{{"Item":{json}}}"#)));
                }
                good(of, sum, format!(r#"{{"Responses":[{}]}}"#, answers.join(",")))
            }
            "BatchGetItem" => self.batch_get(input),
            "Query" => self.query(input),
            _ => Err("an operation that no function needs".to_owned()),
        }
    }

    /// A write, alone or within a transaction. What must not be written twice is written on a condition.
    fn write(&self, operation: &str, input: &Value) -> Result<(Table, Count), Fault> {
        let table = self.table(input)?;
        expressions(input)?;
        let condition = input["ConditionExpression"].as_str().unwrap_or_default();
        let keyed = match operation {
            "PutItem" => &input["Item"],
            _ => &input["Key"],
        };
        table.key(keyed)?;
        let is_new = operation != "PutItem" || condition.contains("attribute_not_exists(pk)");
        let is_state = keyed["sk"]["S"].as_str().is_some_and(|sk| sk.starts_with("state"));
        match table {
            Table::Events => check(is_new && !condition.is_empty(), "an event that is written over another")?,
            Table::Deliveries if !is_state => {
                check(is_new && !condition.is_empty(), "a delivery that is written without a condition")?;
            }
            _ => {}
        }
        if operation == "UpdateItem" {
            check(input["UpdateExpression"].is_string(), "an update of nothing")?;
        }
        if table == Table::Events && self.keeps.load(Relaxed) {
            lock(&self.sent).events.push(keyed.clone());
        }
        if table == Table::Config && operation == "PutItem" && text_of(keyed, "sk").starts_with("JOB#") {
            self.put(keyed);
        }
        let values = || input["ExpressionAttributeValues"].as_object().into_iter().flatten();
        let bytes = match operation {
            "PutItem" => item_bytes(keyed),
            // The item is not known here: what is written of it is the least that it can be.
            _ => {
                item_bytes(keyed)
                    + values().map(|(name, value)| item_bytes(&json!({ name: value }))).sum::<usize>()
            }
        };
        let touches = |attribute: &str| {
            let update = input["UpdateExpression"].as_str().unwrap_or_default();
            !input["Item"][attribute].is_null() || update.contains(attribute)
        };
        let is_indexed = match table {
            Table::Events => touches("hour_pk"),
            Table::Deliveries => touches("open_pk") || touches("stands"),
            Table::Config | Table::Schedule => false,
        };
        let count = Count {
            items: 1,
            writes: write_units(bytes),
            index_writes: is_indexed.into(),
            ..Count::default()
        };
        Ok((table, count))
    }

    /// Statements that insert an item each: puts on the condition that none has the key.
    fn inserts(&self, input: &Value) -> Result<Good, Fault> {
        let mut sum = Count::default();
        let mut tables = BTreeSet::new();
        for statement in elements(&input["Statements"])? {
            let text = statement["Statement"].as_str().ok_or("no statement")?;
            let (table, names) = text
                .strip_prefix("INSERT INTO \"")
                .and_then(|text| text.strip_suffix('}')?.split_once("\" VALUE {"))
                .ok_or("a statement that inserts nothing")?;
            let values = elements(&statement["Parameters"])?;
            let names: Option<Vec<_>> =
                names.split(',').map(|name| name.strip_prefix('\'')?.strip_suffix("':?")).collect();
            let names =
                names.filter(|names| names.len() == values.len()).ok_or("a value without its name")?;
            let item: Map<_, _> = names.into_iter().map(str::to_owned).zip(values.iter().cloned()).collect();
            let put = json!({
                "TableName": table,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(pk)",
            });
            let (table, count) = self.write("PutItem", &put)?;
            tables.insert(table.name());
            sum.items += 1;
            sum.writes += count.writes;
            sum.index_writes += count.index_writes;
        }
        check((2..=STATEMENTS_MAX).contains(&sum.items), "too many statements, or one that could be a put")?;
        let tables: Vec<_> = tables.into_iter().collect();
        let answers = vec!["{}"; usize::try_from(sum.items).unwrap_or_default()];
        Ok(Good {
            kind: format!("BatchExecuteStatement {}", tables.join("+")),
            count: sum,
            answer: format!(r#"{{"Responses":[{}]}}"#, answers.join(",")),
        })
    }

    fn transaction(&self, input: &Value) -> Result<Good, Fault> {
        let mut sum = Count::default();
        let mut tables = BTreeSet::new();
        for item in elements(&input["TransactItems"])? {
            let (kind, write) =
                item.as_object().and_then(|item| item.iter().next()).ok_or("an empty write")?;
            let operation = match kind.as_str() {
                "Put" => "PutItem",
                "Delete" => "DeleteItem",
                "Update" => "UpdateItem",
                "ConditionCheck" => "ConditionCheck",
                other => return Err(format!("a write that is {other}")),
            };
            let (table, count) = self.write(operation, write)?;
            tables.insert(table.name());
            sum.items += 1;
            sum.writes += 2 * count.writes;
            sum.index_writes += count.index_writes;
        }
        let tables: Vec<_> = tables.into_iter().collect();
        Ok(Good {
            kind: format!("TransactWriteItems {}", tables.join("+")),
            count: sum,
            answer: "{}".to_owned(),
        })
    }

    fn get(&self, input: &Value) -> Result<(Table, (Option<String>, Count)), Fault> {
        let table = self.table(input)?;
        let (pk, sk) = table.key(&input["Key"])?;
        let (json, bytes) = self.row(table, pk, sk);
        #[expect(clippy::cast_precision_loss, reason = "an item has few units")]
        let count = Count { items: 1, reads: read_units(bytes) as f64, ..Count::default() };
        Ok((table, (json, count)))
    }

    fn row(&self, table: Table, pk: &str, sk: &str) -> (Option<String>, usize) {
        if table == Table::Deliveries {
            let failed = self.failed.read().unwrap_or_else(PoisonError::into_inner);
            let row = failed.as_ref().and_then(|failed| failed.row(pk, sk));
            return row.map_or((None, 0), |row| (Some(row.to_string()), item_bytes(&row)));
        }
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        let row = config.get(pk).and_then(|partition| partition.get(sk)).filter(|_| table == Table::Config);
        (row.map(|row| row.json.clone()), row.map_or(0, |row| row.bytes))
    }

    fn batch_get(&self, input: &Value) -> Result<Good, Fault> {
        let mut answer = r#"{"UnprocessedKeys":{},"Responses":{"#.to_owned();
        let mut sum = Count::default();
        let mut names = BTreeSet::new();
        for (name, request) in input["RequestItems"].as_object().ok_or("no tables")? {
            let table = self.table(&json!({ "TableName": name }))?;
            check(request["ConsistentRead"] == true, "a read that may be stale")?;
            let mut items = Vec::new();
            let mut keys = BTreeSet::new();
            for key in elements(&request["Keys"])? {
                let (pk, sk) = table.key(key)?;
                check(keys.insert((pk, sk)), "a key that is read twice")?;
                let (json, bytes) = self.row(table, pk, sk);
                items.extend(json);
                sum.items += 1;
                #[expect(clippy::cast_precision_loss, reason = "an item has few units")]
                let units = read_units(bytes) as f64;
                sum.reads += units;
            }
            let comma = if names.is_empty() { "" } else { "," };
            write!(answer, "{comma}{}:[{}]", json!(name), items.join(","))
                .map_err(|error| error.to_string())?;
            names.insert(table.name());
        }
        check((1..=KEYS_MAX as u64).contains(&sum.items), "too many keys, or none")?;
        answer.push_str("}}");
        Ok(Good { kind: "BatchGetItem".to_owned(), count: sum, answer })
    }

    fn query(&self, input: &Value) -> Result<Good, Fault> {
        let table = self.table(input)?;
        expressions(input)?;
        let value = |name: &str| input["ExpressionAttributeValues"][name]["S"].as_str().unwrap_or_default();
        if table == Table::Deliveries
            && let Some(failed) = &*self.failed.read().unwrap_or_else(PoisonError::into_inner)
        {
            return Ok(failed_page(failed, input));
        }
        let condition = input["KeyConditionExpression"].as_str().ok_or("no condition")?;
        let wanted: Box<dyn Fn(&str) -> bool> = match condition.split_once(" AND ") {
            None => Box::new(|_| true),
            Some((_, "begins_with(sk, :prefix)")) => Box::new(|sk| sk.starts_with(value(":prefix"))),
            Some((_, "sk BETWEEN :after AND :up_to")) => {
                Box::new(|sk| (value(":after")..=value(":up_to")).contains(&sk))
            }
            // Of tables that are empty here.
            Some(_) if table != Table::Config => Box::new(|_| false),
            Some((_, other)) => return Err(format!("a condition that is not known here: {other}")),
        };
        let start = input["ExclusiveStartKey"]["sk"]["S"].as_str().unwrap_or_default();
        let limit = input["Limit"].as_u64().unwrap_or(u64::MAX);
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        let partition = config.get(value(":pk")).filter(|_| table == Table::Config);
        let mut items = Vec::new();
        let (mut bytes, mut next) = (0, None);
        for (sk, row) in partition.into_iter().flatten().filter(|(sk, _)| sk.as_str() > start && wanted(sk)) {
            items.push(row.json.as_str());
            bytes += row.bytes;
            if bytes >= PAGE_BYTES || items.len() as u64 >= limit {
                next = Some(json!({ "pk": { "S": value(":pk") }, "sk": { "S": sk } }));
                break;
            }
        }
        let next = next.map(|key| format!(r#","LastEvaluatedKey":{key}"#)).unwrap_or_default();
        let answer = format!(r#"{{"Count":{},"Items":[{}]{next}}}"#, items.len(), items.join(","));
        #[expect(clippy::cast_precision_loss, reason = "a page has few units")]
        let reads = read_units(bytes) as f64 * if input["ConsistentRead"] == true { 1.0 } else { 0.5 };
        let count = Count { items: items.len() as u64, reads, ..Count::default() };
        Ok(Good { kind: format!("Query {}", table.name()), count, answer })
    }

    fn sqs(&self, operation: &str, input: &Value, bytes: usize) -> Result<Good, Fault> {
        check(operation == "SendMessageBatch", "an operation that no function needs")?;
        let url = input["QueueUrl"].as_str().unwrap_or_default();
        let lane = *self.queues.get(url).ok_or("an unknown queue")?;
        let entries = elements(&input["Entries"])?;
        check((1..=MESSAGES_MAX).contains(&entries.len()), "too many messages, or none")?;
        let mut ids = BTreeSet::new();
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = entry["Id"].as_str().ok_or("a message without an id")?;
            check(ids.insert(id), "an id that stands twice")?;
            check(entry["MessageGroupId"].is_string(), "a message that is nobody's")?;
            let body = entry["MessageBody"].as_str().unwrap_or_default();
            check(body.starts_with(r#"{"v":"#), "a message without a version")?;
            answers.push(json!({ "Id": id, "MessageId": id, "MD5OfMessageBody": "" }));
        }
        if self.keeps.load(Relaxed) || lane == Lane::Jobs {
            lock(&self.sent).messages.extend(entries.iter().map(|entry| (lane, entry.clone())));
        }
        let answer = json!({ "Successful": answers, "Failed": [] }).to_string();
        let requests = units(bytes, REQUEST_BYTES);
        let count = Count { items: ids.len() as u64, requests, ..Count::default() };
        Ok(Good { kind: format!("{operation} {}", lane.name()), count, answer })
    }

    fn kms(&self, operation: &str, input: &Value) -> Result<Good, Fault> {
        check(operation == "Decrypt", "an operation that no function needs here")?;
        check(input["EncryptionContext"]["workspace"].is_string(), "no workspace in the context")?;
        check(input["KeyId"].is_string(), "no key")?;
        let sealed = input["CiphertextBlob"].as_str().unwrap_or_default();
        let plain = self.data_keys.get(sealed).ok_or("a data key that is not known")?;
        let answer = json!({ "KeyId": input["KeyId"], "Plaintext": plain }).to_string();
        Ok(Good { kind: format!("{operation} kms"), count: Count::default(), answer })
    }

    fn table(&self, input: &Value) -> Result<Table, Fault> {
        let name = input["TableName"].as_str().unwrap_or_default();
        self.tables.get(name).copied().ok_or_else(|| format!("an unknown table `{name}`"))
    }
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Events => "events",
            Self::Deliveries => "deliveries",
            Self::Schedule => "schedule",
        }
    }

    /// The partition and sort key of a key or item.
    fn key(self, keyed: &Value) -> Result<(&str, &str), Fault> {
        let text = |name: &str| keyed[name]["S"].as_str().filter(|text| !text.is_empty());
        let pk = text("pk").ok_or("no partition key")?;
        match (self, text("sk")) {
            (Self::Events, None) => Ok((pk, "")),
            (Self::Events, Some(_)) | (_, None) => Err("a key of another table".to_owned()),
            (_, Some(sk)) => Ok((pk, sk)),
        }
    }
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Slow => "slow",
            Self::Expansion => "expansion",
            Self::Failure => "failure",
            Self::Jobs => "jobs",
        }
    }
}

/// A page of the index of what has failed, or of what else is asked for of it, which is nothing.
fn failed_page(failed: &Failed, input: &Value) -> Good {
    let value = |name: &str| text_of(&input["ExpressionAttributeValues"], name);
    let limit = input["Limit"].as_u64().and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX);
    let start = text_of(&input["ExclusiveStartKey"], "stands");
    let (items, next) = failed.page(value(":pk"), (value(":low"), value(":high")), start, limit);
    let bytes: usize = items.iter().map(item_bytes).sum();
    #[expect(clippy::cast_precision_loss, reason = "a page has few units")]
    let reads = read_units(bytes) as f64 * 0.5;
    let count = Count { items: items.len() as u64, reads, ..Count::default() };
    let mut answer = json!({ "Count": items.len(), "Items": items });
    if let Some(next) = next {
        answer["LastEvaluatedKey"] = next;
    }
    Good { kind: format!("Query {}", Table::Deliveries.name()), count, answer: answer.to_string() }
}

/// A text among attributes.
fn text_of<'a>(attributes: &'a Value, name: &str) -> &'a str {
    attributes[name]["S"].as_str().unwrap_or_default()
}

/// What expressions name must be given, and what is given must be named: DynamoDB refuses anything else.
fn expressions(input: &Value) -> Result<(), Fault> {
    let mut named = BTreeSet::new();
    for (_, expression) in
        input.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("Expression"))
    {
        let text = expression.as_str().unwrap_or_default();
        let words = text.split(|sign: char| !(sign.is_ascii_alphanumeric() || "_:#".contains(sign)));
        named.extend(words.filter(|word| word.starts_with([':', '#'])));
    }
    let given = |name: &str| input[name].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    let given: BTreeSet<_> =
        given("ExpressionAttributeValues").chain(given("ExpressionAttributeNames")).collect();
    check(named == given, "expressions that name other things than are given")
}

fn elements(value: &Value) -> Result<&Vec<Value>, Fault> {
    value.as_array().ok_or_else(|| "no list where one belongs".to_owned())
}

fn check(is_so: bool, otherwise: &str) -> Result<(), Fault> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
