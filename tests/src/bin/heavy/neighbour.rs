//! The claim that a receiver that hangs does not hold up the others.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carillon_local::{Answer, Received, Verdict, event};
use carillon_tests::{Scene, WORKSPACE, eventually, rough};
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;
use tokio::time::sleep;

/// The template's own; other local deployments have less.
const DEFAULTS: [(&str, &str); 2] = [("DeliveryConcurrency", "50"), ("SlowConcurrency", "10")];

/// For how long each part lasts, from its very first event.
const LASTS: Duration = Duration::from_mins(2);

/// How many subscriptions are healthy, each with event types of its own: so many, that a moment that is worse than all
/// others is not taken for the rule.
const HEALTHY: u32 = 10;

/// From one event of a healthy subscription to its next. Ten that hang then have 25 deliveries a second, and each of
/// the calls for them takes the local AWS some 3 ms of its one thread.
const HEALTHY_PERIOD: Duration = Duration::from_secs(8);

/// How many events each hanging subscription gets for one of a healthy one.
const TIMES: u32 = 20;

/// At how many moments between two of the hanging ones' events healthy events are published, in turn: so many that none
/// weighs more than it does. No divisor is one of [`HEALTHY`]'s too, so that each healthy one meets each moment.
const MOMENTS: u32 = 49;

/// How many of the hanging ones' events may be under way to be accepted.
const LATE_MAX: usize = 50;

/// What takes longer is told by itself.
const TOLD_FROM: Duration = Duration::from_millis(100);

/// How often the local AWS is asked something simple, to see how busy that itself is.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// How much longer the healthy ones' events may take beside hanging ones.
const FACTOR: f64 = 2.0;

/// How many hang, in each part after the first.
const HANGING: [usize; 2] = [1, 10];

/// How long the healthy ones' events took, from before their publishing until they were received.
struct Took(Vec<Duration>);

/// A healthy one's event.
struct Published {
    id: String,
    path: String,
    at: Instant,
}

/// When the local AWS was asked something simple, and when it had answered.
type Asked = Vec<(Instant, Instant)>;

/// Healthy subscriptions alone, beside one and beside ten that hang on every request, with twenty times the traffic of a
/// healthy one each. They are alone before and after each of these, since a machine's speed changes within minutes.
pub(crate) async fn neighbour() -> Result<()> {
    println!(
        "An event each {HEALTHY_PERIOD:?} for each of {HEALTHY} healthy subscriptions, over {LASTS:?} from the first on, \
         alone and beside others with {TIMES} times a healthy one's traffic each, that never answer."
    );
    let mut worst: f64 = 1.0;
    let mut before = part(0).await?;
    println!("alone:            {before}");
    for hanging in HANGING {
        let beside = part(hanging).await?;
        println!("beside {hanging:>2} hanging: {beside}");
        let after = part(0).await?;
        println!("alone:            {after}");
        let alone = Took::of(before.0.iter().chain(&after.0).copied());
        let factor = beside.quantile(95).as_secs_f64() / alone.quantile(95).as_secs_f64();
        println!("p95 beside {hanging} hanging is {factor:.2} times as long as alone before and after");
        worst = worst.max(factor);
        before = after;
    }
    ensure!(worst <= FACTOR, "it was held up: p95 is {worst:.2} times as long, {FACTOR} are allowed");
    Ok(())
}

async fn part(hanging: usize) -> Result<Took> {
    let scene = Scene::set(&format!("neighbour-{hanging}"), &DEFAULTS).await?;
    for number in 0..HEALTHY {
        let (path, of_type) = healthy_one(number);
        scene.add_type(&of_type).await?;
        scene.subscribe(&path, &[&of_type]).await?;
    }
    for number in 0..hanging {
        let path = format!("/hanging/{number}");
        scene.subscribe(&path, &["consent:revoked"]).await?;
        scene.receiver.answer(&path, [Answer::hang()]);
    }
    // The functions are started, and know the healthy ones; of those that hang nothing is known.
    for number in 0..HEALTHY {
        let (path, of_type) = healthy_one(number);
        scene.publish(&event(&format!("warm-{number}"), &of_type, &json!({}))).await?;
        scene.received(&path, 1).await?;
        scene.quiet().await?;
    }

    let (published, (), asked) = tokio::try_join!(healthy(&scene), burden(&scene, hanging), ask(&scene))?;
    let mut took = Vec::with_capacity(published.len());
    let mut told = Vec::new();
    for event in &published {
        let of_this = |request: &Received| request.json()["id"] == *event.id;
        let request = eventually("an event to be received", || async {
            Ok(scene.receiver.received(&event.path).into_iter().find(of_this))
        });
        let request = request.await?;
        ensure!(request.verdict == Verdict::Verified, "a signature was refused");
        let span = request.at.duration_since(event.at);
        if span > TOLD_FROM {
            told.push(format!(
                "  the event of second {:.1} took {:.0} ms; meanwhile the local AWS needed up to {:.0} ms to count messages",
                event.at.duration_since(published[0].at).as_secs_f64(),
                millis(span),
                millis(slowest(&asked, event.at, request.at))
            ));
        }
        took.push(span);
    }
    scene.break_off().await?;
    for line in told {
        println!("{line}");
    }
    let answers = Took::of(asked.iter().map(|(asked, answered)| answered.duration_since(*asked)));
    println!(
        "  to count messages the local AWS needed p50 {:.0} ms, p95 {:.0} ms, the longest {:.0} ms",
        millis(answers.quantile(50)),
        millis(answers.quantile(95)),
        millis(answers.quantile(100))
    );
    Ok(Took::of(took))
}

/// Asks the local AWS something simple, again and again.
async fn ask(scene: &Scene) -> Result<Asked> {
    let began = Instant::now();
    let mut asked = Vec::new();
    while began.elapsed() < LASTS {
        let at = Instant::now();
        scene.stack.queue_depth("DeadLetterQueueUrl").await?;
        asked.push((at, Instant::now()));
        sleep(ASKED_EVERY).await;
    }
    Ok(asked)
}

/// The longest of the answers that were waited for at some time of a span.
fn slowest(asked: &Asked, from: Instant, until: Instant) -> Duration {
    let within = asked.iter().filter(|(asked, answered)| *asked < until && *answered > from);
    within.map(|(asked, answered)| answered.duration_since(*asked)).max().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The path of a healthy subscription, and the event type that it alone has.
fn healthy_one(number: u32) -> (String, String) {
    (format!("/healthy/{number}"), format!("consent:healthy:{number}"))
}

/// An event of each healthy subscription in turn, each at another moment between two of the hanging ones' events.
async fn healthy(scene: &Scene) -> Result<Vec<Published>> {
    let began = Instant::now();
    let mut published = Vec::new();
    for number in 0.. {
        let at = HEALTHY_PERIOD / HEALTHY * number + HEALTHY_PERIOD / TIMES * (number % MOMENTS) / MOMENTS;
        if at >= LASTS {
            break;
        }
        let (path, of_type) = healthy_one(number % HEALTHY);
        sleep(at.saturating_sub(began.elapsed())).await;
        let event = Published { id: format!("healthy-{number}"), path, at: Instant::now() };
        scene.publish(&carillon_local::event(&event.id, &of_type, &json!({}))).await?;
        published.push(event);
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
    fn of(took: impl IntoIterator<Item = Duration>) -> Self {
        let mut took: Vec<_> = took.into_iter().collect();
        took.sort_unstable();
        Self(took)
    }

    /// Sorted as they are: the value that so many of a hundred do not exceed.
    fn quantile(&self, percent: usize) -> Duration {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0[place.min(self.0.len() - 1)]
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |percent| millis(self.quantile(percent));
        let (count, median, late, longest) = (self.0.len(), of(50), of(95), of(100));
        write!(f, "{count} events, p50 {median:.1} ms, p95 {late:.1} ms, the longest {longest:.0} ms")
    }
}
