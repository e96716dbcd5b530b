//! Puts of new items that come together, in one call.
//!
//! While one call is under way the next one collects, so nobody waits who is alone, and ten that come at the same time
//! make two calls and not ten. The statements of such a call (PartiQL) are carried out each by itself, on the condition
//! that no item has the key, and cost what puts cost.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{MutexGuard, oneshot};

use super::attributes::read;
use super::{Failed, Operation, Wire};

static BATCH_EXECUTE_STATEMENT: Operation =
    Operation { name: "dynamodb BatchExecuteStatement", target: "DynamoDB_20120810.BatchExecuteStatement" };

/// DynamoDB's own limit.
const STATEMENTS_MAX: usize = 25;

/// The items that wait for a call, and whose turn it is to make it.
#[derive(Debug, Default)]
pub(super) struct Inserts {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    table: String,
    item: Bytes,
    is_inserted: oneshot::Sender<bool>,
}

/// What has become of an item.
pub(super) enum Turn<'a> {
    /// It was inserted with others.
    Inserted,
    /// It has to be put by itself: nobody came with it. While this is kept, the next call collects.
    Alone(#[expect(dead_code, reason = "it is kept, and not looked at")] MutexGuard<'a, ()>),
    /// It has to be put by itself: with others it was not inserted, or nobody knows.
    Refused,
}

impl Inserts {
    /// Inserts an item with those that wait at the same time. Nothing is tried again here for one that is refused.
    pub(super) async fn turn(&self, wire: &Wire, table: &str, item: &Bytes) -> Turn<'_> {
        let (is_inserted, mut told) = oneshot::channel();
        self.waiting().push(Waiting { table: table.to_owned(), item: item.clone(), is_inserted });
        let turn = self.turn.lock().await;
        match told.try_recv() {
            Ok(true) => return Turn::Inserted,
            Ok(false) | Err(oneshot::error::TryRecvError::Closed) => return Turn::Refused,
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        // Those who are ready now come along.
        tokio::task::yield_now().await;
        let together: Vec<_> = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(STATEMENTS_MAX);
            waiting.drain(..count).collect()
        };
        if together.len() == 1 {
            return Turn::Alone(turn);
        }
        match insert(wire, &together).await {
            Ok(inserted) => {
                for (waiting, is_inserted) in together.into_iter().zip(inserted) {
                    _ = waiting.is_inserted.send(is_inserted);
                }
            }
            Err(error) => tracing::warn!(%error, "items could not be put together, each is put by itself"),
        }
        // The first of them is this one.
        if told.try_recv() == Ok(true) { Turn::Inserted } else { Turn::Refused }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Inserts items in one call, and says of each whether it was.
async fn insert(wire: &Wire, together: &[Waiting]) -> Result<Vec<bool>, Failed> {
    let statements = together.iter().map(Statement::inserting).collect::<Result<_, _>>();
    let input = BatchExecuteStatement { statements: statements.map_err(Failed::Senseless)? };
    let body = serde_json::to_vec(&input).map_err(Failed::Senseless)?;
    let answer = wire.call(&BATCH_EXECUTE_STATEMENT, body).await?;
    let answer: Executed = read(&answer)?;
    let mut inserted: Vec<_> = answer.responses.iter().map(|answer| answer.error.is_none()).collect();
    // What the answer does not tell of was not inserted, as far as anybody knows.
    inserted.resize(together.len(), false);
    Ok(inserted)
}

impl<'a> Statement<'a> {
    fn inserting(waiting: &'a Waiting) -> Result<Self, serde_json::Error> {
        let attributes: BTreeMap<&str, &RawValue> = serde_json::from_slice(&waiting.item)?;
        let mut statement = format!("INSERT INTO \"{}\" VALUE {{", waiting.table);
        for (place, name) in attributes.keys().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            statement.extend([comma, "'", name, "':?"]);
        }
        statement.push('}');
        Ok(Self { statement, parameters: attributes.into_values().collect() })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchExecuteStatement<'a> {
    statements: Vec<Statement<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement<'a> {
    statement: String,
    parameters: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Executed {
    responses: Vec<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    error: Option<serde::de::IgnoredAny>,
}
