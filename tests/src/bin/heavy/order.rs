//! The claims of rules: deadlines fire once or never, revisions have no gap.

use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{Fault, Rates};
use carillon_tests::deadlines::Deadlines;
use carillon_tests::revisions::Revisions;

const SUBJECTS: usize = 500;
const EVENTS: usize = 2_000;
const PUBLISHERS: usize = 16;

/// 500 deadlines, started and settled in any order, late and twice, under faults and deaths.
pub(crate) async fn deadlines(seed: u64) -> Result<()> {
    println!("{SUBJECTS} deadlines under the faults of seed {seed} ...");
    let deadlines = Deadlines {
        seed,
        subjects: SUBJECTS,
        rates: Rates::rough(),
        deaths_apart: Duration::from_secs(5),
        timeout: "10",
    };
    let seen = deadlines.undergo("deadlines").await;
    println!("{}", seen.with_context(|| format!("with `cargo xtask prove deadlines --seed {seed}`"))?);
    println!("Once more: cargo xtask prove deadlines --seed {seed}");
    Ok(())
}

/// 2,000 events with revisions, published by 16 clients at once, with conflicts, repetitions and deaths.
pub(crate) async fn revisions(seed: u64) -> Result<()> {
    println!("{EVENTS} events by {PUBLISHERS} publishers at once under the faults of seed {seed} ...");
    let revisions = Revisions {
        seed,
        events: EVENTS,
        publishers: PUBLISHERS,
        rates: Rates::rough().with(Fault::Conflicted, 0.05),
        deaths_apart: Duration::from_secs(5),
    };
    let seen = revisions.undergo("revisions").await;
    println!("{}", seen.with_context(|| format!("with `cargo xtask prove revisions --seed {seed}`"))?);
    println!("Once more: cargo xtask prove revisions --seed {seed}");
    Ok(())
}
