//! `carillon redeliver`, `replay` and `fanout`

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Call, parsed};
use crate::clock::now;
use crate::commands::deliveries;
use crate::context::Place;
use crate::failure::Failure;
use crate::job;
use crate::listing::Times;
use crate::moment::Moment;

const REDELIVER_HELP: &str = "\
With one delivery it is sent now; otherwise a job sends all that fit, at a pace that lets live traffic go first.
`carillon jobs cancel` ends it.

Examples:
  carillon redeliver sub_... dlv_...
  carillon redeliver sub_... --since 2h --dry-run
  carillon redeliver sub_... --status failed,cancelled --event-type 'consent:*' --since 2026-11-20 --wait";

/// What `redeliver` takes.
#[derive(Args, Debug)]
#[command(after_help = REDELIVER_HELP)]
pub(crate) struct Redeliver {
    /// The subscription
    subscription: String,
    /// Certain deliveries, `dlv_...`; without any, all that fit
    #[arg(conflicts_with_all = ["statuses", "since", "until", "event_types", "dry_run"])]
    deliveries: Vec<String>,
    /// Though it is delivered already, or under way
    #[arg(long, requires = "deliveries", conflicts_with = "wait")]
    force: bool,
    /// Those that are so; failed, if nothing is said. Several between commas
    #[arg(long = "status", id = "statuses", value_name = "STATUS", value_delimiter = ',')]
    statuses: Vec<String>,
    /// Those of events of these types or patterns (`consent:*`). Several between commas
    #[arg(long = "event-type", id = "event_types", value_name = "TYPE", value_delimiter = ',')]
    event_types: Vec<String>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    doing: Doing,
}

/// What `replay` takes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  carillon replay sub_... --since 7d --dry-run")]
pub(crate) struct Replay {
    /// The subscription
    subscription: String,
    /// Events that were accepted from then on: `2h` (ago), `7d`, `2026-11-20`, `2026-11-20T13:06:51Z`
    #[arg(long, value_name = "TIME")]
    since: Moment,
    /// Until then, likewise
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    #[command(flatten)]
    doing: Doing,
}

/// What `fanout` takes.
#[derive(Args, Debug)]
#[command(after_help = "What was delivered meanwhile is not sent again.\n\nExample:
  carillon fanout --since 2026-11-20T13:00:00Z --until 2026-11-20T14:00:00Z --wait")]
pub(crate) struct FanOut {
    /// Events that were accepted from then on: `2h` (ago), `7d`, `2026-11-20`, `2026-11-20T13:06:51Z`
    #[arg(long, value_name = "TIME")]
    since: Moment,
    /// Until then, likewise; now, if nothing is said
    #[arg(long, value_name = "TIME", default_value = "0s")]
    until: Moment,
    /// Wait for the job that does it, and show how far it is
    #[arg(long)]
    wait: bool,
}

/// How it is done.
#[derive(Args, Clone, Copy, Debug)]
struct Doing {
    /// Only count what would be sent
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait for the job that does it, and show how far it is
    #[arg(long)]
    wait: bool,
}

/// Delivers one or many again.
pub(crate) async fn redeliver(place: &Place, said: Redeliver) -> Result<(), Failure> {
    let subscription = ["subscriptions", &said.subscription];
    if said.force || (said.deliveries.len() == 1 && !said.doing.wait) {
        let body = if said.force { json!({ "force": true }) } else { json!({}) };
        for delivery in &said.deliveries {
            let path = place.at(&[&subscription[..], &["deliveries", delivery, "redeliver"]].concat());
            deliveries::shown(place, &Call::post(&path, &body)).await?;
        }
        return Ok(());
    }
    let path = place.at(&[&subscription[..], &["redeliveries"]].concat());
    work(place, &path, said.body(), said.doing).await
}

/// Delivers what a subscription never got.
pub(crate) async fn replay(place: &Place, said: Replay) -> Result<(), Failure> {
    let path = place.at(&["subscriptions", &said.subscription, "replays"]);
    let now = now();
    let mut body = json!({ "since": said.since.rfc3339(now) });
    if let Some(until) = said.until {
        body["until"] = json!(until.rfc3339(now));
    }
    work(place, &path, body, said.doing).await
}

/// Fans all events of a time out again.
pub(crate) async fn fan_out(place: &Place, said: FanOut) -> Result<(), Failure> {
    let now = now();
    let body = json!({ "since": said.since.rfc3339(now), "until": said.until.rfc3339(now) });
    let answer = place.api.call(&Call::post(&place.at(&["fanouts"]), &body)).await?;
    job::shown(place, answer, said.wait, None).await
}

impl Redeliver {
    fn body(&self) -> Value {
        let (since, until) = self.times.since_and_until();
        let mut body = json!({});
        let some = |texts: &[String]| (!texts.is_empty()).then(|| json!(texts));
        let statuses = some(&self.statuses).or_else(|| self.deliveries.is_empty().then(|| json!(["failed"])));
        for (member, value) in [
            ("statuses", statuses),
            ("since", since.map(Value::from)),
            ("until", until.map(Value::from)),
            ("eventTypes", some(&self.event_types)),
            ("deliveries", some(&self.deliveries)),
        ] {
            if let Some(value) = value {
                body[member] = value;
            }
        }
        body
    }
}

/// What would be done, counted as far as a bound.
#[derive(Deserialize)]
struct Count {
    count: u64,
    complete: bool,
}

async fn work(place: &Place, path: &[&str], body: Value, doing: Doing) -> Result<(), Failure> {
    if doing.dry_run {
        let answer = counted(place, path, &body).await?;
        if place.output.is_json() {
            return place.output.json(&String::from_utf8_lossy(&answer));
        }
        let Count { count, complete } = parsed(&answer)?;
        let more = if complete { "" } else { " or more" };
        return place.output.line(&format!("{count}{more} would be delivered."));
    }
    // Whoever waits sees how much there is to do.
    let total = if doing.wait { total(place, path, &body).await? } else { None };
    let answer = place.api.call(&Call::post(path, &body)).await?;
    job::shown(place, answer, doing.wait, total).await
}

async fn counted(place: &Place, path: &[&str], body: &Value) -> Result<Bytes, Failure> {
    let mut body = body.clone();
    body["dryRun"] = json!(true);
    place.api.call(&Call::post(path, &body).repeatable()).await
}

async fn total(place: &Place, path: &[&str], body: &Value) -> Result<Option<u64>, Failure> {
    let Count { count, complete } = parsed(&counted(place, path, body).await?)?;
    Ok(complete.then_some(count))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        redeliver: Redeliver,
    }

    fn body(words: &[&str]) -> Value {
        Line::try_parse_from([&["redeliver", "sub_1"], words].concat()).unwrap().redeliver.body()
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(body(&[]), json!({ "statuses": ["failed"] }));
        let words = ["--status", "failed,cancelled", "--event-type", "a,b:*", "--since", "2026-11-20"];
        assert_eq!(
            body(&words),
            json!({ "statuses": ["failed", "cancelled"], "eventTypes": ["a", "b:*"],
                "since": "2026-11-20T00:00:00.000Z" })
        );
        assert_eq!(body(&["dlv_1", "dlv_2"]), json!({ "deliveries": ["dlv_1", "dlv_2"] }));
    }
}
