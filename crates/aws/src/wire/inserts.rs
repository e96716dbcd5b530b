//! Puts of new items that come together, in one call.
//!
//! While one call is under way the next one collects, so that of ten that come at the same time two calls are made. The
//! statements of such a call (PartiQL) are carried out each by itself, on the condition that no item has the key, and cost
//! what puts cost. It is only a shorter way: whatever it does not confirm is put as if there were none.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{MutexGuard, oneshot};
use tokio::time::timeout;

use super::attributes::read;
use super::{Failed, Operation, Wire, item};

static BATCH_EXECUTE_STATEMENT: Operation =
    Operation { name: "dynamodb BatchExecuteStatement", target: "DynamoDB_20120810.BatchExecuteStatement" };

/// DynamoDB's own limit.
const STATEMENTS_MAX: usize = 25;

/// How long an item waits for the call before its own: many times as long as calls take. One that hangs holds up nobody
/// for longer.
const WAIT_MAX: Duration = Duration::from_millis(300);

/// How many turns of the scheduler without a new item end the wait for others.
const IDLE_TURNS: u32 = 3;

/// Most statements are shorter, as JSON.
const STATEMENT_BYTES: usize = 2048;

/// Most items have fewer attributes.
const ATTRIBUTES: usize = 20;

/// What a statement is answered whose key another item has. The put that follows tells which.
const DUPLICATE: &str = "DuplicateItem";

/// The items that wait for a call, and whose turn it is to make it.
#[derive(Debug, Default)]
pub(super) struct Inserts {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    /// Its statement, as JSON.
    statement: Vec<u8>,
    /// Tells whether it was inserted.
    tell: oneshot::Sender<bool>,
}

impl Inserts {
    /// Whether an item was inserted, with those that wait at the same time. Otherwise it has to be put by itself; if it is
    /// because nobody came with it, the next call collects for as long as the guard is kept.
    pub(super) async fn insert(&self, wire: &Wire, statement: Vec<u8>) -> (bool, Option<MutexGuard<'_, ()>>) {
        let (tell, mut told) = oneshot::channel();
        self.waiting().push(Waiting { statement, tell });
        let Ok(turn) = timeout(WAIT_MAX, self.turn.lock()).await else { return (false, None) };
        match told.try_recv() {
            Ok(is_inserted) => return (is_inserted, None),
            Err(oneshot::error::TryRecvError::Closed) => return (false, None),
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        self.gather().await;
        let together = self.next();
        if together.len() == 1 {
            return (false, Some(turn));
        }
        match execute(wire, &together).await {
            Ok(inserted) => {
                for (waiting, is_inserted) in together.into_iter().zip(inserted) {
                    _ = waiting.tell.send(is_inserted);
                }
            }
            Err(error) => {
                let error = error.of(&BATCH_EXECUTE_STATEMENT);
                tracing::warn!(%error, "items could not be put together, each is put by itself");
            }
        }
        (told.try_recv() == Ok(true), None)
    }

    /// Lets those come along who are ready now, for as long as any do.
    async fn gather(&self) {
        let (mut count, mut idle) = (0, 0);
        while idle < IDLE_TURNS && count < STATEMENTS_MAX {
            tokio::task::yield_now().await;
            let waiting = self.waiting().len();
            idle = if waiting > count { 0 } else { idle + 1 };
            count = waiting;
        }
    }

    /// The items of the next call, in the order in which they came, without those that nobody waits for any more.
    fn next(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        waiting.retain(|waiting| !waiting.tell.is_closed());
        let count = waiting.len().min(STATEMENTS_MAX);
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

/// The statement that inserts an item, as JSON. The item is a struct whose fields have plain names.
pub(super) fn statement(table: &str, item: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let (mut names, mut json) = (Vec::with_capacity(ATTRIBUTES), Vec::with_capacity(STATEMENT_BYTES));
    json.extend_from_slice(b"{\"Parameters\":");
    item::write_apart(&mut json, &mut names, item)?;
    let mut text = format!("INSERT INTO \"{table}\" VALUE {{");
    for (place, name) in names.into_iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        text.extend([comma, "'", name, "':?"]);
    }
    text.push('}');
    json.extend_from_slice(b",\"Statement\":");
    serde_json::to_writer(&mut json, &text)?;
    json.push(b'}');
    Ok(json)
}

/// Inserts items in one call, which is tried once, and says of each whether it was inserted.
async fn execute(wire: &Wire, together: &[Waiting]) -> Result<Vec<bool>, Failed> {
    let length: usize = together.iter().map(|waiting| waiting.statement.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 32);
    body.extend_from_slice(b"{\"Statements\":[");
    for (place, waiting) in together.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&waiting.statement);
    }
    body.extend_from_slice(b"]}");
    let answer = wire.call_once(&BATCH_EXECUTE_STATEMENT, body).await?;
    let answer: Executed = read(&answer)?;
    for error in answer.responses.iter().filter_map(|response| response.error.as_ref()) {
        if error.code != DUPLICATE {
            tracing::warn!(code = error.code, detail = error.message, "an item was not put with the others");
        }
    }
    let mut inserted: Vec<_> = answer.responses.iter().map(|response| response.error.is_none()).collect();
    // What the answer does not tell of was not inserted, as far as anybody knows.
    inserted.resize(together.len(), false);
    Ok(inserted)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Executed {
    responses: Vec<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    error: Option<StatementError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatementError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}
