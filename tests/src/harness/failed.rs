//! Deliveries of one subscription that failed, as many as are wanted, made up as they are asked for.

use carillon_core::id::EventDigest;
use serde_json::{Value, json};

/// How many partitions share the deliveries of a subscription.
const SHARDS: u8 = 16;

/// When the first of their events was accepted, in Unix milliseconds: each other one a millisecond later.
const FIRST: u64 = 1_795_339_800_000;

/// Deliveries that failed.
#[derive(Debug)]
pub struct Failed {
    subscription: String,
    workspace: String,
    /// Of each shard the times and digests of events, in the order of time.
    shards: Vec<Vec<(u64, EventDigest)>>,
}

impl Failed {
    /// So many of a subscription.
    #[must_use]
    pub fn new(workspace: &str, subscription: &str, count: u64) -> Self {
        let mut shards = vec![Vec::new(); usize::from(SHARDS)];
        for number in 0..count {
            let digest = EventDigest::of("urn:example:bank", &number.to_string());
            shards[usize::from(digest.shard(SHARDS))].push((FIRST + number, digest));
        }
        Self { subscription: subscription.to_owned(), workspace: workspace.to_owned(), shards }
    }

    /// Up to `limit` entries of the index `by_status` from the first to the last of these, behind `start`, and the key of the
    /// last one if there are more.
    pub(super) fn page(
        &self,
        pk: &str,
        (low, high): (&str, &str),
        start: &str,
        limit: usize,
    ) -> (Vec<Value>, Option<Value>) {
        let Some(shard) = self.shard(pk) else { return (Vec::new(), None) };
        let first = shard.partition_point(|event| {
            let stands = stands(*event);
            stands.as_str() < low || stands.as_str() <= start
        });
        let end = shard.partition_point(|event| stands(*event).as_str() <= high);
        let entry = |event: &(u64, EventDigest)| json!({ "pk": { "S": pk }, "sk": { "S": sort_key(*event) }, "stands": { "S": stands(*event) } });
        let items: Vec<_> = shard.get(first..end).unwrap_or_default().iter().take(limit).map(entry).collect();
        let next = items.last().filter(|_| first + items.len() < end).cloned();
        (items, next)
    }

    /// The row of one of them.
    pub(super) fn row(&self, pk: &str, sk: &str) -> Option<Value> {
        self.shard(pk)?;
        let (time, _) = sk.split_once('#')?;
        let attempt = json!({ "M": {
            "round": { "N": "1" }, "number": { "N": "1" }, "at": { "N": time }, "durationMs": { "N": "12" },
            "outcome": { "S": "unacceptable" }, "status": { "N": "413" }, "response": { "S": "too large" },
        } });
        Some(json!({
            "pk": { "S": pk }, "sk": { "S": sk }, "v": { "N": "1" }, "writer": { "N": "7" },
            "workspace": { "S": self.workspace }, "type": { "S": "consent:approved" },
            "status": { "S": "failed" }, "round": { "N": "1" }, "attempt": { "N": "1" },
            "reason": { "S": "refused" }, "attempts": { "L": [attempt] },
            "stands": { "S": format!("failed#{sk}") }, "expires_at": { "N": "9000000000" },
        }))
    }

    fn shard(&self, pk: &str) -> Option<&Vec<(u64, EventDigest)>> {
        let (subscription, shard) = pk.split_once('#')?;
        let shard: usize = shard.parse().ok().filter(|_| subscription == self.subscription)?;
        self.shards.get(shard)
    }
}

fn sort_key((time, digest): (u64, EventDigest)) -> String {
    format!("{time:013}#{digest}")
}

fn stands(event: (u64, EventDigest)) -> String {
    format!("failed#{}", sort_key(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lead_through_all_of_a_shard() {
        let failed = Failed::new("acme", "sub_x", 100);
        let mut count = 0;
        for shard in 0..SHARDS {
            let pk = format!("sub_x#{shard}");
            let mut start = String::new();
            loop {
                let (items, next) = failed.page(&pk, ("failed#0", "failed#:"), &start, 2);
                count += items.len();
                assert!(
                    items.iter().all(|item| failed.row(&pk, item["sk"]["S"].as_str().unwrap()).is_some())
                );
                let Some(next) = next else { break };
                start = next["stands"]["S"].as_str().unwrap().to_owned();
            }
        }
        assert_eq!(count, 100);
        let some = format!("failed#{:013}", FIRST + 50);
        let behind: usize = (0..SHARDS)
            .map(|shard| failed.page(&format!("sub_x#{shard}"), (&some, "failed#:"), "", 100).0.len())
            .sum();
        assert_eq!(behind, 50);
        assert!(failed.page("sub_x#0", ("held#0", "held#:"), "", 100).0.is_empty());
    }
}
