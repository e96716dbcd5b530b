//! `carillon events`

use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Call, parsed};
use crate::clock::now;
use crate::context::{Place, View};
use crate::failure::Failure;
use crate::listing::{Paging, Row, Times, list};
use crate::moment::{ago, full};
use crate::table::{Cell, Members, Tone};

/// What there is to do with events.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// List them, the newest first
    #[command(after_help = "Example:\n  carillon events list --type consent:created --since 2h")]
    List {
        /// Only those of this type
        #[arg(long = "type", value_name = "TYPE", visible_alias = "event-type")]
        event_type: Option<String>,
        #[command(flatten)]
        times: Times,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one, as it is delivered (`deliveries list --event` has its deliveries)
    Show {
        /// Its id, `evt_...`
        id: String,
    },
}

/// Does one of them.
pub(crate) async fn run(place: &Place, command: EventsCommand) -> Result<(), Failure> {
    let Place { api, output, .. } = place;
    match command {
        EventsCommand::List { event_type, times, paging } => {
            let call = times.narrow(Call::get(&place.at(&["events"])).with_some("type", event_type));
            list::<Event>(api, *output, &call, &paging, "such events").await
        }
        EventsCommand::Show { id } => {
            let answer = api.call(&Call::get(&place.at(&["events", &id]))).await?;
            if output.is_json() {
                return output.json(&String::from_utf8_lossy(&answer));
            }
            let event = parsed::<Event>(&answer)?;
            output.members(&event.members(now()))?;
            output.line("")?;
            output.line(&serde_json::to_string_pretty(&event.delivered).unwrap_or_default())
        }
    }
}

/// What is shown of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    accepted_at: String,
    #[serde(default)]
    audience: Option<Vec<String>>,
    #[serde(default, rename = "event")]
    delivered: Value,
}

impl Event {
    fn attribute(&self, name: &str) -> &str {
        self.delivered[name].as_str().unwrap_or_default()
    }
}

impl View for Event {
    fn members(&self, now: Timestamp) -> Members {
        Members::default()
            .with("id", self.id.as_str())
            .with("type", self.kind.as_str())
            .with("accepted", full(&self.accepted_at, now))
            .with_some("audience", self.audience.as_ref().map(|audience| audience.join(", ")))
    }
}

impl Row for Event {
    const HEADINGS: &'static [&'static str] = &["EVENT", "TYPE", "ID", "SOURCE", "ACCEPTED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.kind.as_str().into(),
            self.attribute("id").into(),
            self.attribute("source").into(),
            Cell::toned(ago(&self.accepted_at, now), Tone::Quiet),
        ]
    }
}
