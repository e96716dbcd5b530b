//! The small version of `cargo xtask prove faults`: nothing is lost, whatever goes wrong.

use std::time::Duration;

use anyhow::{Result, ensure};
use carillon_local::{Fault, Rates};
use carillon_tests::PATIENCE;
use carillon_tests::ordeal::Ordeal;

const SEED: u64 = 1;

#[tokio::test]
async fn nothing_is_lost_under_faults() -> Result<()> {
    let ordeal = Ordeal {
        seed: SEED,
        events: 40,
        subscriptions: 4,
        rates: Rates::rough(),
        waits: &[50, 100],
        deaths_apart: Duration::from_secs(6),
        clock_pause: Duration::from_millis(500),
        concurrency: "5",
        scale: "0.006",
        timeout: "5",
        patience: PATIENCE * 2,
    };
    let seen = ordeal.undergo("faults").await?;
    // What was thrown is enough to show something.
    let count = |fault| seen.tally.faults.get(&fault).copied().unwrap_or_default();
    ensure!(seen.delivered > 0 && !seen.failed.is_empty() && seen.killed > 0, "{seen}");
    ensure!(count(Fault::Throttled) > 0 && count(Fault::AnswerLost) > 0, "{seen}");
    Ok(())
}
