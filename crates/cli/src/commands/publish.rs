//! `carillon publish`

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};

use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{Call, parsed, random_id};
use crate::clock::now;
use crate::context::Place;
use crate::failure::{Failure, usage};
use crate::input;
use crate::listing::Row;
use crate::table::{Cell, Table};

/// How many events a batch may have.
const BATCH_EVENTS_MAX: usize = 100;

/// How large a batch is made, in bytes: something less than the 4 MiB that it may have.
const BATCH_BYTES_MAX: usize = 4_000_000;

/// Of how many events each result is shown. Of more, those that were not accepted.
const RESULTS_SHOWN_MAX: usize = 30;

/// What an event comes from that names nothing.
const SOURCE: &str = "urn:carillon:cli";

const HELP: &str = "\
An event is a CloudEvent. What it lacks is filled in: specversion, source, and an id (a random one) with the time (now). A
file has one event, an array of them, or one after the other; many are published in batches. Publishing again what has its
id is harmless.

Examples:
  carillon publish --type consent:created --data '{\"consentId\": \"c-1\"}' --audience tpp-1
  carillon publish event.json
  jq -c '.[]' events.json | carillon publish --source https://bank.example/consents";

/// What `publish` takes.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Publish {
    /// A file with events in JSON; the standard input, if neither it nor --type is given
    #[arg(conflicts_with_all = ["event_type", "data", "id", "time", "subject"])]
    file: Option<String>,
    /// The type of an event
    #[arg(long = "type", id = "event_type", value_name = "TYPE")]
    event_type: Option<String>,
    /// What happened: JSON, or `@` and a file
    #[arg(long, value_name = "JSON", requires = "event_type")]
    data: Option<String>,
    /// What it is about
    #[arg(long, requires = "event_type")]
    subject: Option<String>,
    /// Tells it from the source's other events; a random one, if none is given
    #[arg(long, requires = "event_type")]
    id: Option<String>,
    /// When it happened (RFC 3339); now, if neither it nor --id is given
    #[arg(long, requires = "event_type")]
    time: Option<Timestamp>,
    /// What events come from that do not say it themselves
    #[arg(long, value_name = "URI", default_value = SOURCE)]
    source: String,
    /// The subscribers that events are for that do not say it themselves, between commas
    #[arg(long, value_name = "IDS")]
    audience: Option<String>,
}

/// Publishes an event, or many.
pub(crate) async fn publish(place: &Place, said: Publish) -> Result<(), Failure> {
    let (mut events, alone) = said.events()?;
    for event in &mut events {
        event.complete(&said.source, said.audience.as_deref())?;
    }
    if alone {
        let [event] = &events[..] else { return Err(usage("there is no event")) };
        let answer = posted(place, "application/cloudevents+json", serialized(event)?).await?;
        return Published::new(place, 1)
            .result(RawValue::from_string(text(&answer)).map_err(|error| unknown(&error))?);
    }
    let batches = batches(&events)?;
    let bar = if batches.len() > 1 { Some(events.len()) } else { None };
    let bar = bar.map(|count| place.output.progress("publishing", u64::try_from(count).ok()));
    let mut published = Published::new(place, events.len());
    for batch in batches {
        let answer = posted(place, "application/cloudevents-batch+json", batch.text()).await?;
        for result in parsed::<BatchResult>(&answer)?.results {
            published.take(result)?;
        }
        if let Some(bar) = &bar {
            bar.inc(u64::try_from(batch.events.len()).unwrap_or_default());
        }
    }
    bar.as_ref().map(ProgressBar::finish_and_clear);
    published.end()
}

impl Publish {
    /// The events, and whether they are one by itself.
    fn events(&self) -> Result<(Vec<Event>, bool), Failure> {
        let Some(event_type) = &self.event_type else {
            if self.file.is_none() && io::stdin().is_terminal() {
                return Err(usage(
                    "what is to be published? Give a file or --type; `carillon publish --help` says how",
                ));
            }
            return read(&input::file(self.file.as_deref().unwrap_or("-"))?);
        };
        let mut event = Event::default();
        event.say("type", event_type)?;
        if let Some(data) = &self.data {
            let data = RawValue::from_string(input::text_or_file(data)?);
            let data = data.map_err(|error| usage(format!("the data is no JSON: {error}")))?;
            event.0.insert("data".to_owned(), data);
            event.say("datacontenttype", "application/json")?;
        }
        for (name, value) in [("subject", &self.subject), ("id", &self.id)] {
            if let Some(value) = value {
                event.say(name, value)?;
            }
        }
        if let Some(time) = self.time {
            event.say("time", &time.to_string())?;
        }
        Ok((vec![event], true))
    }
}

/// A CloudEvent. Its attributes are kept as they were written, so that no number changes.
#[derive(Default, Deserialize, Serialize)]
struct Event(BTreeMap<String, Box<RawValue>>);

impl Event {
    /// Fills in what it lacks.
    fn complete(&mut self, source: &str, audience: Option<&str>) -> Result<(), Failure> {
        // What has an id may have been published before, without a time, and must be the same again.
        let time = (!self.0.contains_key("id")).then(|| format!("{:.3}", now()));
        let filled = [
            ("specversion", Some("1.0".to_owned())),
            ("id", Some(random_id()?)),
            ("time", time),
            ("source", Some(source.to_owned())),
            ("audience", audience.map(str::to_owned)),
        ];
        for (name, value) in filled {
            if let Some(value) = value.filter(|_| !self.0.contains_key(name)) {
                self.say(name, &value)?;
            }
        }
        Ok(())
    }

    fn say(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let value = serde_json::value::to_raw_value(value).map_err(|error| unknown(&error))?;
        self.0.insert(name.to_owned(), value);
        Ok(())
    }
}

/// The events of a file: one by itself, arrays of them, or one after the other.
fn read(content: &[u8]) -> Result<(Vec<Event>, bool), Failure> {
    let wrong = |error: serde_json::Error| usage(format!("there is no event in JSON: {error}"));
    let values = serde_json::Deserializer::from_slice(content).into_iter::<&RawValue>();
    let values = values.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let mut events = Vec::new();
    let mut alone = values.len() == 1;
    for value in values {
        if value.get().starts_with('[') {
            alone = false;
            events.extend(serde_json::from_str::<Vec<Event>>(value.get()).map_err(wrong)?);
        } else {
            events.push(serde_json::from_str(value.get()).map_err(wrong)?);
        }
    }
    if events.is_empty() { Err(usage("there is no event")) } else { Ok((events, alone)) }
}

/// Events that are published by one request.
#[derive(Default)]
struct Batch {
    events: Vec<String>,
    bytes: usize,
}

impl Batch {
    fn text(&self) -> String {
        format!("[{}]", self.events.join(","))
    }
}

fn batches(events: &[Event]) -> Result<Vec<Batch>, Failure> {
    let mut batches = vec![Batch::default()];
    for event in events {
        let event = serialized(event)?;
        // With the comma or bracket behind it.
        let bytes = event.len() + 1;
        if batches.last().is_none_or(|last| {
            last.events.len() == BATCH_EVENTS_MAX || (last.bytes > 0 && last.bytes + bytes > BATCH_BYTES_MAX)
        }) {
            batches.push(Batch::default());
        }
        if let Some(last) = batches.last_mut() {
            last.events.push(event);
            last.bytes += bytes;
        }
    }
    Ok(batches)
}

fn serialized(event: &Event) -> Result<String, Failure> {
    serde_json::to_string(event).map_err(|error| unknown(&error))
}

/// An event is known by its source and id, so one that comes twice is accepted once.
async fn posted(place: &Place, content_type: &'static str, body: String) -> Result<Bytes, Failure> {
    place.api.call(&Call::post_as(&place.at(&["events"]), content_type, body).repeatable()).await
}

fn text(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).into_owned()
}

fn unknown(error: &serde_json::Error) -> Failure {
    usage(format!("this is no JSON: {error}"))
}

/// What is shown of how events were taken.
struct Published<'a> {
    place: &'a Place,
    shows_all: bool,
    table: Table,
    counts: BTreeMap<String, usize>,
}

impl<'a> Published<'a> {
    fn new(place: &'a Place, count: usize) -> Self {
        let table = Table::new(EventResult::HEADINGS);
        Self { place, shows_all: count <= RESULTS_SHOWN_MAX, table, counts: BTreeMap::new() }
    }

    /// The one result that there is.
    fn result(mut self, result: Box<RawValue>) -> Result<(), Failure> {
        self.take(result)?;
        self.judged()
    }

    fn take(&mut self, result: Box<RawValue>) -> Result<(), Failure> {
        let view = parsed::<EventResult>(result.get().as_bytes())?;
        let output = self.place.output;
        if output.is_json() {
            output.json_lines(&[result])?;
        } else if self.shows_all || !view.is_accepted() {
            output.rows(&mut self.table, &[view.cells(now())])?;
        }
        *self.counts.entry(view.status).or_default() += 1;
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        if !self.place.output.is_json() {
            let counts = self.counts.iter().map(|(status, count)| format!("{count} {status}"));
            self.place.output.note(&counts.collect::<Vec<_>>().join(", "));
        }
        self.judged()
    }

    fn judged(self) -> Result<(), Failure> {
        let refused = self.counts.iter().filter(|(status, _)| !accepts(status)).map(|(_, count)| count).sum();
        match refused {
            0 => Ok(()),
            1 => Err(Failure::EndedBadly("an event was not accepted".to_owned())),
            count => Err(Failure::EndedBadly(format!("{count} events were not accepted"))),
        }
    }
}

#[derive(Deserialize)]
struct BatchResult {
    results: Vec<Box<RawValue>>,
}

/// How the submission of one event went.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventResult {
    status: String,
    id: Option<String>,
    event_id: Option<String>,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
    #[serde(default)]
    errors: Option<Vec<FieldError>>,
}

#[derive(Deserialize)]
struct FieldError {
    pointer: String,
    detail: String,
}

impl EventResult {
    fn is_accepted(&self) -> bool {
        accepts(&self.status)
    }
}

fn accepts(status: &str) -> bool {
    matches!(status, "accepted" | "duplicate")
}

impl Row for EventResult {
    const HEADINGS: &'static [&'static str] = &["STATUS", "ID", "EVENT", "WHY"];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let why = self.problem.as_ref().map(|problem| {
            let errors =
                problem.errors.iter().flatten().map(|error| format!("{} {}", error.pointer, error.detail));
            let parts = errors.chain(problem.detail.clone()).collect::<Vec<_>>();
            if parts.is_empty() { problem.title.clone() } else { parts.join("; ") }
        });
        vec![
            Cell::word(self.status.as_str()),
            self.id.clone().unwrap_or_default().into(),
            self.event_id.clone().unwrap_or_default().into(),
            why.unwrap_or_default().into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(content: &str) -> (Vec<String>, bool) {
        let (mut events, alone) = read(content.as_bytes()).unwrap();
        for event in &mut events {
            event.complete("urn:a", Some("tpp-1")).unwrap();
        }
        (events.iter().map(|event| serialized(event).unwrap()).collect(), alone)
    }

    #[test]
    fn what_an_event_lacks_is_filled_in() {
        let (events, alone) = completed(r#"{"type": "a"}"#);
        assert!(alone);
        let event: serde_json::Value = serde_json::from_str(&events[0]).unwrap();
        assert_eq!(
            (&event["specversion"], &event["source"], &event["audience"]),
            (&"1.0".into(), &"urn:a".into(), &"tpp-1".into())
        );
        assert_eq!(event["id"].as_str().map(str::len), Some(36));
        assert!(event["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        let (again, _) = completed(r#"{"type": "a", "id": "1"}"#);
        assert!(!again[0].contains("time"), "{again:?}");
    }

    #[test]
    fn what_it_says_stays_to_the_last_digit() {
        let said = r#"{"data":{"b":1.10,"a":12345678901234567890123},"id":"1","source":"urn:b","type":"a"}"#;
        let (events, _) = completed(said);
        assert!(
            events[0].contains(r#""data":{"b":1.10,"a":12345678901234567890123},"id":"1","source":"urn:b""#)
        );
    }

    #[test]
    fn files() {
        let kinds = [
            (r#"{"type": "a"}"#, 1, true),
            (r#"[{"type": "a"}]"#, 1, false),
            ("{\"type\": \"a\"}\n{\"type\": \"b\"}\n", 2, false),
            (r#"[{"type": "a"}, {"type": "b"}] {"type": "c"}"#, 3, false),
        ];
        for (content, count, alone) in kinds {
            let (events, found) = completed(content);
            assert_eq!((events.len(), found), (count, alone), "{content}");
        }
        for wrong in ["", "[]", "{", "1", "[1]", r#"{"type": "a"} x"#] {
            assert_eq!(read(wrong.as_bytes()).map(drop).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn batches_keep_to_their_bounds() {
        let event = |bytes: usize| {
            let mut event = Event::default();
            event.say("data", &"x".repeat(bytes)).unwrap();
            event
        };
        let sizes = |events: &[Event]| {
            let batches = batches(events).unwrap();
            assert!(
                batches
                    .iter()
                    .all(|batch| batch.text().len() <= BATCH_BYTES_MAX + 1 || batch.events.len() == 1)
            );
            batches.iter().map(|batch| batch.events.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&(0..250).map(|_| event(1)).collect::<Vec<_>>()), [100, 100, 50]);
        assert_eq!(sizes(&(0..5).map(|_| event(1_500_000)).collect::<Vec<_>>()), [2, 2, 1]);
        assert_eq!(sizes(&[event(5_000_000), event(1)]), [1, 1]);
    }
}
