//! `carillon deliveries`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;

use crate::api::{Call, parsed};
use crate::clock::now;
use crate::commands::subscriptions::status;
use crate::context::{Place, View};
use crate::failure::Failure;
use crate::listing::{Paging, Row, Times, list};
use crate::moment::{ago, full};
use crate::table::{Cell, Members, Table, Tone};

/// What there is to do with deliveries.
#[derive(Debug, Subcommand)]
pub(crate) enum DeliveriesCommand {
    /// List those of a subscription, the newest events first, or those of an event
    List(List),
    /// Show one, with its attempts
    Show {
        /// Its subscription
        subscription: String,
        /// Its id, `dlv_...`, as `webhook-id` says
        id: String,
    },
    /// How many of a subscription's failed, are tried again, or are held
    Counts {
        /// The subscription
        subscription: String,
    },
}

const LIST_HELP: &str = "\
Examples:
  carillon deliveries list sub_... --status failed --since 2h
  carillon deliveries list sub_... --outcome timedOut --follow --json | jq -r .id
  carillon deliveries list --event evt_...";

/// What `list` takes.
#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(crate) struct List {
    /// Which subscription's
    #[arg(required_unless_present = "event", conflicts_with = "event")]
    subscription: Option<String>,
    /// Which event's
    #[arg(long, value_name = "ID", conflicts_with_all = ["status", "outcome", "event_type", "since", "until"])]
    event: Option<String>,
    /// Only those that are so: retrying, held, delivered, failed or cancelled
    #[arg(long)]
    status: Option<String>,
    /// Only those whose last attempt ended so: timedOut or serverError, for example
    #[arg(long)]
    outcome: Option<String>,
    /// Only those of events of this type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    paging: Paging,
}

/// Does one of them.
pub(crate) async fn run(place: &Place, command: DeliveriesCommand) -> Result<(), Failure> {
    match command {
        DeliveriesCommand::List(said) => listed(place, said).await,
        DeliveriesCommand::Show { subscription, id } => {
            shown(place, &Call::get(&place.at(&["subscriptions", &subscription, "deliveries", &id]))).await
        }
        DeliveriesCommand::Counts { subscription } => counts(place, &subscription).await,
    }
}

async fn listed(place: &Place, said: List) -> Result<(), Failure> {
    let Place { api, output, .. } = place;
    if let Some(event) = &said.event {
        let call = Call::get(&place.at(&["events", event, "deliveries"]));
        return list::<OfEvent>(api, *output, &call, &said.paging, "deliveries of it").await;
    }
    let subscription = said.subscription.unwrap_or_default();
    let call = Call::get(&place.at(&["subscriptions", &subscription, "deliveries"]))
        .with_some("status", said.status)
        .with_some("outcome", said.outcome)
        .with_some("eventType", said.event_type);
    list::<Delivery>(api, *output, &said.times.narrow(call), &said.paging, "such deliveries").await
}

/// Shows a delivery, with its attempts.
pub(crate) async fn shown(place: &Place, call: &Call) -> Result<(), Failure> {
    let answer = place.api.call(call).await?;
    let output = place.output;
    if output.is_json() {
        return output.json(&String::from_utf8_lossy(&answer));
    }
    let delivery = parsed::<Delivery>(&answer)?;
    let now = now();
    output.members(&delivery.members(now))?;
    if delivery.attempts.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows = delivery.attempts.iter().map(|attempt| attempt.cells(now)).collect::<Vec<_>>();
    output.rows(&mut Table::new(Attempt::HEADINGS), &rows)
}

async fn counts(place: &Place, subscription: &str) -> Result<(), Failure> {
    let path = place.at(&["subscriptions", subscription, "deliveryCounts"]);
    let answer = place.api.call(&Call::get(&path)).await?;
    if place.output.is_json() {
        return place.output.json(&String::from_utf8_lossy(&answer));
    }
    let row = |(name, count): (String, Count)| {
        let more = if count.complete { "" } else { " or more" };
        vec![Cell::word(name), format!("{}{more}", count.count).into()]
    };
    let rows = parsed::<BTreeMap<String, Count>>(&answer)?.into_iter().map(row).collect::<Vec<_>>();
    place.output.rows(&mut Table::new(&["STATUS", "DELIVERIES"]), &rows)
}

/// How many there are, counted as far as a bound.
#[derive(Deserialize)]
struct Count {
    count: u64,
    complete: bool,
}

/// What is shown of a delivery.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    id: String,
    #[serde(default)]
    subscription: String,
    event: Event,
    status: String,
    reason: Option<String>,
    held_by: Option<String>,
    #[serde(default)]
    round: u32,
    next_attempt_at: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    accepted_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    round: u32,
    number: u32,
    at: String,
    duration_ms: u64,
    outcome: String,
    status: Option<u64>,
    response: Option<String>,
}

impl Delivery {
    fn status(&self) -> Cell {
        status(&self.status, self.reason.as_deref().or(self.held_by.as_deref()))
    }

    /// How the last attempt ended.
    fn last(&self) -> Cell {
        self.attempts.last().map(Attempt::outcome).unwrap_or_default()
    }

    fn next(&self, now: Timestamp) -> Cell {
        self.next_attempt_at.as_deref().map(|next| ago(next, now)).unwrap_or_default().into()
    }
}

impl Attempt {
    fn outcome(&self) -> Cell {
        let tone = if self.outcome == "delivered" { Tone::Good } else { Tone::Bad };
        match self.status {
            Some(status) => Cell::toned(format!("{} {status}", self.outcome), tone),
            None => Cell::toned(self.outcome.as_str(), tone),
        }
    }
}

impl View for Delivery {
    fn members(&self, now: Timestamp) -> Members {
        Members::default()
            .with("id", self.id.as_str())
            .with("subscription", self.subscription.as_str())
            .with("event", self.event.id.as_str())
            .with("type", self.event.kind.as_str())
            .with("accepted", full(&self.event.accepted_at, now))
            .with("status", self.status())
            .with("round", self.round.to_string())
            .with_some("next attempt", self.next_attempt_at.as_deref().map(|next| full(next, now)))
    }
}

impl Row for Delivery {
    const HEADINGS: &'static [&'static str] =
        &["DELIVERY", "TYPE", "STATUS", "ATTEMPTS", "LAST", "NEXT", "ACCEPTED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.event.kind.as_str().into(),
            self.status(),
            self.attempts.len().to_string().into(),
            self.last(),
            self.next(now),
            Cell::toned(ago(&self.event.accepted_at, now), Tone::Quiet),
        ]
    }
}

impl Row for Attempt {
    const HEADINGS: &'static [&'static str] = &["ATTEMPT", "AT", "TOOK", "OUTCOME", "RESPONSE"];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            format!("{}.{}", self.round, self.number).into(),
            self.at.as_str().into(),
            format!("{} ms", self.duration_ms).into(),
            self.outcome(),
            Cell::toned(self.response.clone().unwrap_or_default(), Tone::Quiet),
        ]
    }
}

/// A delivery in the list of an event's: the event is known, the subscription is not.
#[derive(Deserialize)]
#[serde(transparent)]
struct OfEvent(Delivery);

impl Row for OfEvent {
    const HEADINGS: &'static [&'static str] =
        &["DELIVERY", "SUBSCRIPTION", "STATUS", "ATTEMPTS", "LAST", "NEXT"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let Self(delivery) = self;
        vec![
            delivery.id.as_str().into(),
            delivery.subscription.as_str().into(),
            delivery.status(),
            delivery.attempts.len().to_string().into(),
            delivery.last(),
            delivery.next(now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(answer: serde_json::Value) -> Vec<String> {
        let delivery: Delivery = serde_json::from_value(answer).unwrap();
        let cells = delivery.cells("2026-11-22T10:00:00Z".parse().unwrap());
        cells.iter().map(|cell| cell.painted(0, false)).collect()
    }

    #[test]
    fn rows() {
        let event = json!({ "id": "evt_1", "type": "consent:created", "acceptedAt": "2026-11-22T09:00:00Z" });
        let attempt = json!({ "round": 1, "number": 1, "at": "2026-11-22T09:00:00.2Z", "durationMs": 12,
            "outcome": "serverError", "status": 500, "response": "oops" });
        let retrying = json!({ "id": "dlv_1", "subscription": "sub_1", "event": event, "status": "retrying",
            "round": 1, "nextAttemptAt": "2026-11-22T10:05:00Z", "attempts": [attempt] });
        assert_eq!(
            cells(retrying),
            ["dlv_1", "consent:created", "retrying", "1", "serverError 500", "in 5m", "1h ago"]
        );
        let pending =
            json!({ "id": "dlv_1", "event": event, "status": "held", "heldBy": "pause", "attempts": [] });
        assert_eq!(cells(pending), ["dlv_1", "consent:created", "held (pause)", "0", "", "", "1h ago"]);
    }
}
