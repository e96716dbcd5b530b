//! The claim that nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use carillon_local::Rates;
use carillon_tests::ordeal::Ordeal;

const EVENTS: usize = 2_000;
const SUBSCRIPTIONS: usize = 20;

/// 2,000 events over 20 subscriptions, each for two of them, while all goes wrong that can.
pub(crate) async fn faults(seed: u64) -> Result<()> {
    println!(
        "{EVENTS} events over {SUBSCRIPTIONS} subscriptions, each for two of them, under the faults of seed {seed} ..."
    );
    let began = Instant::now();
    let ordeal = Ordeal {
        seed,
        events: EVENTS,
        subscriptions: SUBSCRIPTIONS,
        rates: Rates::rough(),
        waits: &[20, 40, 80],
        deaths_apart: Duration::from_secs(6),
        clock_pause: Duration::from_millis(1500),
        concurrency: "12",
        scale: "0.05",
        timeout: "10",
        patience: Duration::from_mins(15),
    };
    let seen = ordeal.undergo("faults").await;
    let seen = seen.with_context(|| format!("with `cargo xtask prove faults --seed {seed}`"))?;
    println!("{seen}");
    println!(
        "It took {:.0} s. Once more: cargo xtask prove faults --seed {seed}",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
