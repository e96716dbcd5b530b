//! Many items of several tables in one call.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::error::AwsError;
use crate::wire::DynamoDb;

/// An item, attribute by attribute.
pub type Item = HashMap<String, AttributeValue>;

/// The most keys of one call.
const KEYS_MAX: usize = 100;

/// How often unprocessed keys are asked for again, with a growing pause before each.
const TRIES_MAX: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

const OPERATION: &str = "dynamodb BatchGetItem";

/// Where an item is: its table, partition and sort key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The table's name.
    pub table: String,
    /// `pk`
    pub pk: String,
    /// `sk`, where the table has one.
    pub sk: Option<String>,
}

impl Key {
    /// As the attributes of a request.
    pub(crate) fn attributes(&self) -> Item {
        let mut item = Item::from([("pk".to_owned(), AttributeValue::S(self.pk.clone()))]);
        item.extend(self.sk.clone().map(|sk| ("sk".to_owned(), AttributeValue::S(sk))));
        item
    }
}

/// Reads the items of these keys, each key once; a key without an item is absent from the answer. Reads are consistent:
/// who acts on the absence of an item must be able to trust it.
pub async fn batch_read(
    client: &DynamoDb,
    keys: impl IntoIterator<Item = Key>,
) -> Result<HashMap<Key, Item>, AwsError> {
    let mut wanted: Vec<Key> = keys.into_iter().collect();
    wanted.sort_by(|a, b| (&a.table, &a.pk, &a.sk).cmp(&(&b.table, &b.pk, &b.sk)));
    wanted.dedup();
    let mut found = HashMap::with_capacity(wanted.len());
    for chunk in wanted.chunks(KEYS_MAX) {
        read_chunk(client, chunk, &mut found).await?;
    }
    Ok(found)
}

async fn read_chunk(client: &DynamoDb, keys: &[Key], found: &mut HashMap<Key, Item>) -> Result<(), AwsError> {
    let mut left = Cow::Borrowed(keys);
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES_MAX {
        let (items, unprocessed) = client.batch_get(&left).await?;
        found.extend(items.into_iter().filter_map(|(table, item)| Some((key_of(table, &item)?, item))));
        if unprocessed.is_empty() {
            return Ok(());
        }
        left = Cow::Owned(unprocessed);
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(AwsError::Undone { operation: OPERATION, count: left.len() })
}

fn key_of(table: String, item: &Item) -> Option<Key> {
    let text = |name| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    Some(Key { table, pk: text("pk")?, sk: text("sk") })
}
