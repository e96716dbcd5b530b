//! What wakes `fanout`: records of the events table's stream, or messages of the expansion queue.
//!
//! Each record is parsed by itself, so that one that cannot be read does not take its batch along.

use carillon_aws::events::read_event;
use carillon_core::event::AcceptedEvent;
use carillon_core::task::ExpansionTask;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The payload of an invocation.
#[derive(Debug, Deserialize)]
pub(crate) struct Woken {
    #[serde(rename = "Records")]
    records: Vec<Box<RawValue>>,
}

/// Where an invocation's records come from: decides what an unfinished one means for those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In order: whatever follows an unfinished record comes again as well.
    Stream,
    /// Each message for itself.
    Queue,
}

/// A record, and what it asks for.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) source: Source,
    /// What names it in the answer: sequence number or message id.
    pub(crate) id: String,
    /// The event's key, as far as it can be told.
    pub(crate) event: String,
    pub(crate) step: Step,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Find the subscriptions of an event.
    Match(AcceptedEvent),
    /// Do so for a range of them.
    Expand(ExpansionTask),
    /// Nothing can be done with it, ever.
    Poisoned { reason: String },
}

impl Woken {
    pub(crate) fn records(self) -> Vec<Record> {
        self.records.into_iter().map(|record| read(&record)).collect()
    }
}

/// A record of either source, as far as it is looked at.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    dynamodb: Option<Change<'a>>,
    #[serde(rename = "messageId")]
    message_id: Option<String>,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change<'a> {
    sequence_number: String,
    keys: serde_json::Value,
    #[serde(borrow)]
    new_image: Option<&'a RawValue>,
}

fn read(record: &RawValue) -> Record {
    match serde_json::from_str(record.get()) {
        Ok(Shape { dynamodb: Some(Change { sequence_number, keys, new_image }), .. }) => {
            let key = keys.pointer("/pk/S").and_then(serde_json::Value::as_str).unwrap_or_default();
            let step = event(new_image).map_or_else(|reason| Step::Poisoned { reason }, Step::Match);
            Record { source: Source::Stream, id: sequence_number, event: key.to_owned(), step }
        }
        Ok(Shape { message_id: Some(message_id), body: Some(body), .. }) => {
            let (event, step) = match ExpansionTask::from_json(&body) {
                Ok(task) => (task.event.key.to_string(), Step::Expand(task)),
                Err(error) => (String::new(), Step::Poisoned { reason: error.to_string() }),
            };
            Record { source: Source::Queue, id: message_id, event, step }
        }
        Ok(_) => unknown("it is of neither source".to_owned()),
        Err(error) => unknown(error.to_string()),
    }
}

/// No record of either source, so there is no id by which it could come again.
fn unknown(reason: String) -> Record {
    Record {
        source: Source::Stream,
        id: String::new(),
        event: String::new(),
        step: Step::Poisoned { reason },
    }
}

fn event(new_image: Option<&RawValue>) -> Result<AcceptedEvent, String> {
    let image = new_image.ok_or("it has no image")?;
    let item: serde_dynamo::Item = serde_json::from_str(image.get()).map_err(|error| error.to_string())?;
    read_event(item).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn records(payload: &str) -> Vec<Record> {
        serde_json::from_str::<Woken>(payload).unwrap().records()
    }

    #[test]
    fn the_samples_are_understood() {
        let stream = records(include_str!("../../../events/fanout-stream.json"));
        let [Record { source: Source::Stream, step: Step::Match(event), .. }] = &stream[..] else {
            panic!("{stream:?}");
        };
        let queue = records(include_str!("../../../events/fanout-expansion.json"));
        let [Record { source: Source::Queue, step: Step::Expand(task), .. }] = &queue[..] else {
            panic!("{queue:?}");
        };
        assert_eq!((event.audience.as_ref().map(BTreeSet::len), &event.audience), (Some(1), &task.audience));
    }

    #[test]
    fn a_record_that_cannot_be_read_keeps_its_id_and_its_events_key() {
        let records = records(
            r#"{"Records": [
                {"dynamodb": {"SequenceNumber": "7", "Keys": {"pk": {"S": "acme/x"}}, "NewImage": {"v": {"N": "9"}}}},
                {"messageId": "m", "body": "nonsense"},
                {"something": "else"}
            ]}"#,
        );
        let told: Vec<_> = records.iter().map(|record| (record.id.as_str(), record.event.as_str())).collect();
        assert_eq!(told, [("7", "acme/x"), ("m", ""), ("", "")]);
        assert!(records.iter().all(|record| matches!(record.step, Step::Poisoned { .. })));
    }
}
