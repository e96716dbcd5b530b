//! The claim that a receiver that hangs does not hold up the others.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Answer, Verdict, event};
use carillon_tests::{Scene, WORKSPACE, rough};
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;
use tokio::time::sleep;

/// The template's own; other local deployments have less.
const DEFAULTS: [(&str, &str); 2] = [("DeliveryConcurrency", "50"), ("SlowConcurrency", "10")];

/// For how long each part lasts, from its very first event.
const LASTS: Duration = Duration::from_mins(2);

/// From one event of the healthy subscription to the next. Ten that hang then have 50 deliveries a second, and each of
/// the calls for them takes the local AWS some 3 ms of its one thread.
const HEALTHY_PERIOD: Duration = Duration::from_secs(4);

/// How many events each hanging subscription gets for one of the healthy one.
const TIMES: u32 = 20;

/// At how many moments between two of the hanging ones' events healthy events are published, in turn.
const MOMENTS: u32 = 10;

/// How many of the hanging ones' events may be under way to be accepted.
const LATE_MAX: usize = 50;

/// Events before the first that counts.
const WARM_UP: usize = 3;

/// What takes longer is told by itself.
const TOLD_FROM: Duration = Duration::from_millis(100);

/// How much longer the healthy one's events may take beside hanging ones.
const FACTOR: f64 = 2.0;

/// How many hang, in each part after the first.
const HANGING: [usize; 2] = [1, 10];

/// How long the last healthy event may take until it is missed.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the healthy one's events took, from before their publishing until they were received.
struct Took(Vec<Duration>);

/// A healthy subscription alone, beside one and beside ten that hang on every request, with twenty times its traffic each.
pub(crate) async fn neighbour() -> Result<()> {
    println!(
        "One event each {HEALTHY_PERIOD:?} for a healthy subscription, over {LASTS:?} from the first on, alone and beside \
         others with {TIMES} times its traffic each, that never answer."
    );
    let alone = part(0).await?;
    println!("alone:            {alone}");
    let mut worst: f64 = 1.0;
    for hanging in HANGING {
        let beside = part(hanging).await?;
        let factor = beside.quantile(95).as_secs_f64() / alone.quantile(95).as_secs_f64();
        println!("beside {hanging:>2} hanging: {beside}; p95 is {factor:.2} times as long");
        worst = worst.max(factor);
    }
    ensure!(worst <= FACTOR, "it was held up: p95 is {worst:.2} times as long, {FACTOR} are allowed");
    Ok(())
}

async fn part(hanging: usize) -> Result<Took> {
    let scene = Scene::set(&format!("neighbour-{hanging}"), &DEFAULTS).await?;
    scene.subscribe("/healthy", &["consent:created"]).await?;
    for number in 0..hanging {
        let path = format!("/hanging/{number}");
        scene.subscribe(&path, &["consent:revoked"]).await?;
        scene.receiver.answer(&path, [Answer::hang()]);
    }
    // The functions are started, and know the healthy one; of those that hang nothing is known.
    for number in 0..WARM_UP {
        scene.publish(&event(&format!("warm-{number}"), "consent:created", &json!({}))).await?;
        scene.received("/healthy", number + 1).await?;
        scene.quiet().await?;
    }

    let (published, ()) = tokio::try_join!(healthy(&scene), burden(&scene, hanging))?;
    let mut took = Vec::with_capacity(published.len());
    for (number, at) in published.iter().enumerate() {
        let received = scene.receiver.wait_for("/healthy", WARM_UP + published.len(), PATIENCE).await?;
        let of_event = |id: &str| received.iter().find(|request| request.json()["id"] == *id);
        let request = of_event(&format!("healthy-{number}")).context("an event is missing")?;
        ensure!(request.verdict == Verdict::Verified, "a signature was refused");
        took.push(request.at.duration_since(*at));
    }
    scene.break_off().await?;
    for (number, took) in took.iter().enumerate().filter(|(_, took)| **took > TOLD_FROM) {
        println!(
            "  the event of second {} took {:.1} s",
            HEALTHY_PERIOD.as_secs() * u64::try_from(number).unwrap_or_default(),
            took.as_secs_f64()
        );
    }
    took.sort_unstable();
    Ok(Took(took))
}

/// When each event was about to be published: each at another moment between two of the hanging ones' events.
async fn healthy(scene: &Scene) -> Result<Vec<Instant>> {
    let began = Instant::now();
    let mut published = Vec::new();
    for number in 0.. {
        let at = HEALTHY_PERIOD * number + HEALTHY_PERIOD / TIMES * (number % MOMENTS) / MOMENTS;
        if at >= LASTS {
            break;
        }
        sleep(at.saturating_sub(began.elapsed())).await;
        let at = Instant::now();
        scene.publish(&event(&format!("healthy-{number}"), "consent:created", &json!({}))).await?;
        published.push(at);
    }
    Ok(published)
}

/// Events for all that hang, one after the other at even distances; fails if they cannot be published so fast.
async fn burden(scene: &Scene, hanging: usize) -> Result<()> {
    if hanging == 0 {
        return Ok(());
    }
    let began = Instant::now();
    let mut publishing = FuturesUnordered::new();
    for number in 0.. {
        let at = HEALTHY_PERIOD / TIMES * number;
        if at >= LASTS {
            break;
        }
        let next = sleep(at.saturating_sub(began.elapsed()));
        tokio::pin!(next);
        // Those before it are waited for meanwhile; how long one takes must not put off the others.
        loop {
            tokio::select! {
                () = &mut next => break,
                Some(published) = publishing.next() => published?,
            }
        }
        publishing.push(async move {
            let event = event(&format!("hanging-{number}"), "consent:revoked", &json!({}));
            // As publishers do: what was not accepted is sent again.
            rough::publish(scene, WORKSPACE, &[event]).await.map(drop)
        });
        ensure!(publishing.len() <= LATE_MAX, "the hanging ones' events cannot be published so fast");
    }
    while let Some(published) = publishing.next().await {
        published?;
    }
    Ok(())
}

impl Took {
    /// Sorted as they are: the value that so many of a hundred do not exceed.
    fn quantile(&self, percent: usize) -> Duration {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0[place.min(self.0.len() - 1)]
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |percent| self.quantile(percent).as_secs_f64() * 1000.0;
        write!(
            f,
            "{} events, p50 {:.1} ms, p95 {:.1} ms, the longest {:.0} ms",
            self.0.len(),
            millis(50),
            millis(95),
            millis(100)
        )
    }
}
