//! What runs under faults have in common: publishers that repeat what was not accepted, and deaths at random.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use carillon_local::{Dice, FUNCTIONS, Faults, Proxy, Rates, Reply, Tally, kill};
use serde_json::Value;
use tokio::time::sleep;

use crate::Scene;

/// What a publisher waits before it repeats what was not accepted.
const PUBLISHERS_PAUSE: Duration = Duration::from_millis(300);

/// How often a publisher repeats a request.
const PUBLISHINGS_MAX: usize = 60;

/// A proxy before all functions of a deployment, with the faults of a seed.
pub struct Weather {
    proxy: Proxy,
    faults: Arc<Faults>,
}

impl Weather {
    /// From now on.
    pub async fn over(scene: &Scene, seed: u64, rates: Rates) -> Result<Self> {
        let proxy = Proxy::start(scene.stack.endpoint()).await?;
        for function in FUNCTIONS {
            proxy.stand_before(&scene.stack, function).await?;
        }
        let faults = proxy.inject(Faults::new(seed, rates));
        Ok(Self { proxy, faults })
    }

    /// No more faults; what there was.
    #[must_use]
    pub fn clear(&self) -> Tally {
        self.proxy.calm();
        self.faults.tally()
    }
}

/// Publishes until all is accepted; the answer, and how often that had to be repeated.
pub async fn publish(scene: &Scene, workspace: &str, events: &[Value]) -> Result<(Reply, usize)> {
    for repeated in 0..PUBLISHINGS_MAX {
        let answer = match events {
            [event] => scene.carillon.publish(workspace, event).await,
            events => scene.carillon.publish_batch(workspace, events).await,
        };
        match answer {
            Ok(answer) if answer.status == 202 => return Ok((answer, repeated)),
            Ok(answer) if answer.status < 500 && answer.status != 429 => {
                bail!("an event was refused ({}): {}", answer.status, answer.json());
            }
            // The publisher cannot tell what became of it, and says it again.
            Ok(_) | Err(_) => sleep(PUBLISHERS_PAUSE).await,
        }
    }
    bail!("a publisher was turned away {PUBLISHINGS_MAX} times")
}

/// Kills a process of one of these functions again and again, after up to so long each time.
pub async fn kill_at_random(
    scene: &Scene,
    mut dice: Dice,
    victims: &[&str],
    apart: Duration,
    killed: &mut usize,
) -> Result<()> {
    let apart = u64::try_from(apart.as_millis())?;
    loop {
        sleep(Duration::from_millis(dice.below(apart))).await;
        let processes = scene.stack.processes(dice.one_of::<&str>(victims));
        if !processes.is_empty() && kill(*dice.one_of(&processes)).is_ok() {
            *killed += 1;
        }
    }
}
