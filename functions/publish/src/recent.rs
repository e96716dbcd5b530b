//! What was read a moment ago.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_core::time::UnixMillis;

/// How long what was read is taken to be so still: changes hold for every request 5 s after their answer.
const FRESH: Duration = Duration::from_secs(4);

/// Values by key, each with the time when it was read.
pub(crate) struct Recent<K, V> {
    entries: Mutex<HashMap<K, (UnixMillis, V)>>,
    most: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Keeps `most` values at most.
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most }
    }

    /// A value that can be gone by.
    pub(crate) fn fresh(&self, key: &K, now: UnixMillis) -> Option<V> {
        self.entries().get(key).filter(|(read_at, _)| is_fresh(*read_at, now)).map(|(_, value)| value.clone())
    }

    /// A value that may have been read long ago.
    pub(crate) fn stale(&self, key: &K) -> Option<V> {
        self.entries().get(key).map(|(_, value)| value.clone())
    }

    /// Keeps what was just read.
    pub(crate) fn put(&self, key: K, value: V, now: UnixMillis) {
        let mut entries = self.entries();
        if entries.len() >= self.most {
            entries.retain(|_, (read_at, _)| is_fresh(*read_at, now));
        }
        if entries.len() >= self.most {
            entries.clear();
        }
        entries.insert(key, (now, value));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, (UnixMillis, V)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(read_at: UnixMillis, now: UnixMillis) -> bool {
    now.since(read_at) < FRESH
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis(1_795_339_800_000);

    #[test]
    fn a_value_is_fresh_for_a_moment() {
        let recent = Recent::new(10);
        recent.put("a", 1, START);
        assert_eq!(recent.fresh(&"a", START + Duration::from_secs(3)), Some(1));
        assert_eq!(recent.fresh(&"a", START + FRESH), None);
        assert_eq!(recent.stale(&"a"), Some(1));
        assert_eq!(recent.fresh(&"b", START), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recent = Recent::new(10);
        for key in 0..9 {
            recent.put(key, key, START);
        }
        recent.put(9, 9, START + FRESH);
        recent.put(10, 10, START + FRESH);
        assert_eq!(recent.entries().len(), 2, "the stale ones went");
        for key in 11..100 {
            recent.put(key, key, START + FRESH);
            assert!(recent.entries().len() <= 10);
        }
    }
}
