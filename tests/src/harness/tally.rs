//! What calls to AWS cost, counted as AWS bills them.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a write unit holds, in bytes.
const WRITE_BYTES: usize = 1024;

/// What a read unit holds, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// What a request to SQS holds as it is billed, in bytes.
pub(super) const REQUEST_BYTES: usize = 64 * 1024;

/// Calls by their kind, such as `PutItem deliveries`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally(BTreeMap<String, Count>);

/// What calls of one kind amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// How many.
    pub calls: u64,
    /// Items, keys or messages that they were about.
    pub items: u64,
    /// Write units of the tables; within a transaction each counts twice.
    pub writes: u64,
    /// Write units of indexes, besides.
    pub index_writes: u64,
    /// Read units, halves where reads may be stale.
    pub reads: f64,
    /// What SQS bills: requests by each 64 KiB of them.
    pub requests: u64,
}

impl Tally {
    /// Adds a call.
    pub(super) fn add(&mut self, kind: &str, count: Count) {
        match self.0.get_mut(kind) {
            Some(sum) => sum.add(count),
            None => _ = self.0.insert(kind.to_owned(), count),
        }
    }

    /// Each kind of calls, in the order of their names.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &Count)> {
        self.0.iter().map(|(kind, count)| (kind.as_str(), count))
    }

    /// The calls of one kind.
    #[must_use]
    pub fn of(&self, kind: &str) -> Count {
        self.0.get(kind).copied().unwrap_or_default()
    }

    /// All calls together.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        self.0.values().for_each(|count| total.add(*count));
        total
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        other.kinds().for_each(|(kind, count)| self.add(kind, *count));
        self
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.items += other.items;
        self.writes += other.writes;
        self.index_writes += other.index_writes;
        self.reads += other.reads;
        self.requests += other.requests;
    }
}

/// The write units of an item of this size.
pub(super) fn write_units(bytes: usize) -> u64 {
    units(bytes, WRITE_BYTES)
}

/// The read units of items of this size together, read consistently; what is not there costs one as well.
pub(super) fn read_units(bytes: usize) -> u64 {
    units(bytes, READ_BYTES)
}

pub(super) fn units(bytes: usize, unit: usize) -> u64 {
    u64::try_from(bytes.div_ceil(unit).max(1)).unwrap_or(u64::MAX)
}

/// The size of an item as DynamoDB counts it: names and values, in bytes.
pub(super) fn item_bytes(item: &Value) -> usize {
    let attributes = item.as_object().into_iter().flatten();
    attributes.map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    /// Of a list, a map, and each of their elements.
    const OF_LIST: usize = 3;
    const OF_ELEMENT: usize = 1;
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    let text = value.as_str().map_or(0, str::len);
    match kind.as_str() {
        "S" => text,
        "N" => text.div_ceil(2) + 1,
        // As base 64 it is longer by a third.
        "B" => text / 4 * 3,
        "L" => {
            let elements = value.as_array().into_iter().flatten();
            OF_LIST + elements.map(|element| OF_ELEMENT + value_bytes(element)).sum::<usize>()
        }
        "M" => {
            let elements = value.as_object().map_or(0, serde_json::Map::len);
            OF_LIST + OF_ELEMENT * elements + item_bytes(value)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_as_large_as_dynamodb_says() {
        let item = json!({ "pk": { "S": "abc" }, "n": { "N": "1795339800007" }, "b": { "B": "AAAA" } });
        assert_eq!(item_bytes(&item), (2 + 3) + (1 + 8) + (1 + 3));
        let nested = json!({ "l": { "L": [{ "BOOL": true }, { "M": { "a": { "S": "b" } } }] } });
        assert_eq!(item_bytes(&nested), 1 + 3 + (1 + 1) + (1 + 3 + 1 + 2));
    }

    #[test]
    fn units_are_whole() {
        assert_eq!([1, 1024, 1025].map(write_units), [1, 1, 2]);
        assert_eq!([0, 4096, 4097].map(read_units), [1, 1, 2]);
    }
}
