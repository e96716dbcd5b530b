//! What travels through the queues and waits in the schedule: versioned, so that a function can read the tasks of the
//! release before it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::delivery::{Ask, FailReason};
use crate::event::{AcceptedEvent, Audience};
use crate::id::{DeliveryId, EventDigest, EventKey, SubscriptionId, WorkspaceId};
use crate::matching::Range;
use crate::pattern::EventType;
use crate::rate::Reserved;
use crate::time::UnixMillis;
use crate::trace::Trace;

/// The version of every task's shape that this release writes.
pub const VERSION: u32 = 1;

/// The largest event that a task carries inline, in bytes of its JSON text. Ten such tasks, as one batch takes them,
/// stay below the 1 MiB of a batch.
pub const INLINE_BYTES_MAX: usize = 48 * 1024;

/// A task of the delivery, slow and dead-letter queue, and of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryTask {
    /// Whom the event is for.
    pub subscription: SubscriptionId,
    /// The event.
    pub event: EventRef,
    /// What is asked for.
    pub ask: Ask,
    /// Why the round before failed: with [`Ask::NewRound`] alone.
    pub reason: Option<FailReason>,
    /// The time that was reserved for it by its subscription's rate.
    pub slot: Option<Reserved>,
}

/// A task of the expansion queue: the deliveries of one event to a range of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpansionTask {
    /// The event.
    pub event: EventRef,
    /// Whom the event is for; everybody if absent.
    pub audience: Option<Audience>,
    /// Which subscriptions.
    pub range: Range,
}

/// An event in a task: its identity, and its body if that is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// Which event.
    pub key: EventKey,
    /// When it was accepted: with the key it tells the keys of its deliveries.
    pub accepted_at: UnixMillis,
    /// What it is matched by.
    pub event_type: EventType,
    /// Its JSON text, unless it is larger than [`INLINE_BYTES_MAX`] or waits for long.
    pub json: Option<String>,
    /// The trace that it belongs to. It goes with the text, and is read with it where that is absent.
    pub trace: Option<Trace>,
}

/// Why a text is no task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No JSON, or not of the task's shape.
    #[error("the task does not have the shape of its version: {0}")]
    Shape(#[from] serde_json::Error),
    /// Written by a release that this one does not know.
    #[error("the task has version {0}, this release reads {VERSION}")]
    Version(u32),
    /// A task of another queue, or one that lacks a member of its kind.
    #[error("the task is no {0} with all that belongs to it")]
    Incomplete(&'static str),
}

impl DeliveryTask {
    /// The first attempt of an event's delivery.
    #[must_use]
    pub fn first(event: EventRef, subscription: SubscriptionId) -> Self {
        Self { subscription, event, ask: Ask::Attempt { round: 1, attempt: 1 }, reason: None, slot: None }
    }

    /// The delivery's id.
    #[must_use]
    pub fn delivery(&self) -> DeliveryId {
        DeliveryId::of(&self.event.key, self.subscription)
    }

    /// The task of another attempt of the same delivery.
    #[must_use]
    pub fn asking(&self, ask: Ask) -> Self {
        Self { ask, reason: None, slot: None, ..self.clone() }
    }

    /// The same task with the time that was reserved for it.
    #[must_use]
    pub fn at_slot(&self, slot: Reserved) -> Self {
        Self { slot: Some(slot), ..self.clone() }
    }

    /// The dead letter of a delivery whose `round` failed: ids and the reason, never the body.
    #[must_use]
    pub fn letter(&self, round: u32, reason: FailReason) -> Self {
        let ask = Ask::NewRound { after: round, forced: false };
        Self { ask, reason: Some(reason), slot: None, ..self.by_reference() }
    }

    /// The same task without the event's body: what waits for long must not take much room.
    #[must_use]
    pub fn by_reference(&self) -> Self {
        Self { event: EventRef { json: None, trace: None, ..self.event.clone() }, ..self.clone() }
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String, TaskError> {
        let shape = match self.ask {
            Ask::Attempt { round, attempt } => {
                Shape { round: Some(round), attempt: Some(attempt), ..Shape::of(Kind::Attempt, &self.event)? }
            }
            Ask::NewRound { after, forced } => Shape {
                round: Some(after),
                forced,
                reason: self.reason,
                ..Shape::of(Kind::DeadLetter, &self.event)?
            },
        };
        Ok(serde_json::to_string(&Shape { subscription: Some(self.subscription), slot: self.slot, ..shape })?)
    }

    /// From JSON.
    pub fn from_json(text: &str) -> Result<Self, TaskError> {
        let shape = Shape::read(text)?;
        let positive = |number: Option<u32>| number.filter(|number| *number > 0);
        let ask = match (shape.task, positive(shape.round), positive(shape.attempt)) {
            (Kind::Attempt, Some(round), Some(attempt)) => Ask::Attempt { round, attempt },
            (Kind::DeadLetter, Some(after), None) => Ask::NewRound { after, forced: shape.forced },
            _ => return Err(TaskError::Incomplete("delivery task")),
        };
        let subscription = shape.subscription.ok_or(TaskError::Incomplete("delivery task"))?;
        Ok(Self { subscription, ask, reason: shape.reason, slot: shape.slot, event: shape.event() })
    }
}

/// The first tasks of an event's deliveries, which differ in whom they are for. The event is looked at once for all of
/// them.
pub struct FirstTasks<'a>(Shape<'a>);

impl<'a> FirstTasks<'a> {
    /// Those of this event.
    pub fn of(event: &'a EventRef) -> Result<Self, TaskError> {
        Ok(Self(Shape { round: Some(1), attempt: Some(1), ..Shape::of(Kind::Attempt, event)? }))
    }

    /// That of the delivery to a subscription, as JSON: the same text as of [`DeliveryTask::first`].
    pub fn json(&mut self, subscription: SubscriptionId) -> Result<String, TaskError> {
        self.0.subscription = Some(subscription);
        Ok(serde_json::to_string(&self.0)?)
    }
}

impl ExpansionTask {
    /// As JSON.
    pub fn to_json(&self) -> Result<String, TaskError> {
        let Range { after, up_to } = self.range;
        let audience = self.audience.clone();
        let shape = Shape { after, up_to, audience, ..Shape::of(Kind::Expand, &self.event)? };
        Ok(serde_json::to_string(&shape)?)
    }

    /// From JSON.
    pub fn from_json(text: &str) -> Result<Self, TaskError> {
        let shape = Shape::read(text)?;
        match shape.task {
            Kind::Expand => {
                let range = Range { after: shape.after, up_to: shape.up_to };
                Ok(Self { range, audience: shape.audience.clone(), event: shape.event() })
            }
            Kind::Attempt | Kind::DeadLetter => Err(TaskError::Incomplete("expansion task")),
        }
    }
}

impl EventRef {
    /// With the body inline if it is small, and has no character that SQS refuses in messages.
    #[must_use]
    pub fn of(event: &AcceptedEvent) -> Self {
        let inline = event.json.len() <= INLINE_BYTES_MAX && !event.json.contains(['\u{fffe}', '\u{ffff}']);
        let json = inline.then(|| event.json.clone());
        let trace = event.trace.clone().filter(|_| inline);
        Self {
            key: event.key.clone(),
            accepted_at: event.accepted_at,
            event_type: event.event_type.clone(),
            json,
            trace,
        }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Attempt,
    DeadLetter,
    Expand,
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
    v: u32,
}

/// The members of version 1, flat. The body stands as JSON within the JSON: escaped as a text it could double in size.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    v: u32,
    task: Kind,
    workspace: WorkspaceId,
    event: EventDigest,
    accepted_at: UnixMillis,
    r#type: EventType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscription: Option<SubscriptionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<FailReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<Reserved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<SubscriptionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up_to: Option<SubscriptionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audience: Option<Audience>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
}

impl<'a> Shape<'a> {
    fn of(task: Kind, event: &'a EventRef) -> Result<Self, TaskError> {
        Ok(Self {
            v: VERSION,
            task,
            workspace: event.key.workspace.clone(),
            event: event.key.digest,
            accepted_at: event.accepted_at,
            r#type: event.event_type.clone(),
            subscription: None,
            round: None,
            attempt: None,
            forced: false,
            reason: None,
            slot: None,
            after: None,
            up_to: None,
            audience: None,
            trace: event.trace.clone(),
            body: event.json.as_deref().map(serde_json::from_str).transpose()?,
        })
    }

    fn read(text: &'a str) -> Result<Self, TaskError> {
        match serde_json::from_str::<Self>(text) {
            Ok(shape) if shape.v == VERSION => Ok(shape),
            // Other versions may have any shape.
            shape => match serde_json::from_str(text)? {
                Head { v: VERSION } => Ok(shape?),
                Head { v } => Err(TaskError::Version(v)),
            },
        }
    }

    fn event(self) -> EventRef {
        EventRef {
            key: EventKey { workspace: self.workspace, digest: self.event },
            accepted_at: self.accepted_at,
            event_type: self.r#type,
            json: self.body.map(|body| body.get().to_owned()),
            trace: self.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::Event;

    fn event_ref() -> EventRef {
        let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a": 1.10}}"#;
        let event = Event::from_structured(json).unwrap();
        EventRef::of(&event.accepted("acme".parse().unwrap(), UnixMillis(1_795_339_800_007)))
    }

    fn subscription() -> SubscriptionId {
        "sub_00000000000000000000000000".parse().unwrap()
    }

    #[test]
    fn the_shape_of_version_1() {
        let task = DeliveryTask::first(event_ref(), subscription());
        let digest = task.event.key.digest;
        let head = format!(
            r#"{{"v":1,"task":"attempt","workspace":"acme","event":"{digest}","acceptedAt":1795339800007,"type":"t","#
        );
        let body = r#""subscription":"sub_00000000000000000000000000","round":1,"attempt":1,"body":{"id":"1","source":"/s","specversion":"1.0","type":"t","data":{"a": 1.10}}}"#;
        assert_eq!(task.to_json().unwrap(), format!("{head}{body}"));
        let reference = event_ref();
        let mut first = FirstTasks::of(&reference).unwrap();
        for _ in 0..2 {
            assert_eq!(first.json(subscription()).unwrap(), format!("{head}{body}"));
        }
    }

    #[test]
    fn what_sqs_cannot_carry_goes_by_reference() {
        let json =
            "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"data\":\"\u{ffff}\"}";
        let event = Event::from_structured(json).unwrap();
        assert_eq!(EventRef::of(&event.accepted("acme".parse().unwrap(), UnixMillis(0))).json, None);
    }

    #[test]
    fn tasks_come_back_as_they_went() {
        let task = DeliveryTask::first(event_ref(), subscription());
        let trace = Trace::read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some("a=1"));
        let task = DeliveryTask { event: EventRef { trace, ..task.event }, ..task };
        let letter = task.letter(3, FailReason::Exhausted);
        assert_eq!((&letter.event.json, &letter.event.trace), (&None, &None));
        for task in [
            task.asking(Ask::Attempt { round: 2, attempt: 7 }),
            task.at_slot(Reserved { at: UnixMillis(7), spacing_micros: 9 }),
            task.by_reference(),
            task.asking(Ask::NewRound { after: 2, forced: true }),
            letter,
        ] {
            assert_eq!(DeliveryTask::from_json(&task.to_json().unwrap()).unwrap(), task);
        }
        let range = Range { after: None, up_to: Some(subscription()) };
        let audience = Some(BTreeSet::from(["tpp-1".parse().unwrap()]));
        let expansion = ExpansionTask { event: event_ref(), audience, range };
        assert_eq!(ExpansionTask::from_json(&expansion.to_json().unwrap()).unwrap(), expansion);
    }

    #[test]
    fn a_task_of_another_queue_or_release_is_refused() {
        let task = DeliveryTask::first(event_ref(), subscription()).to_json().unwrap();
        assert!(matches!(ExpansionTask::from_json(&task), Err(TaskError::Incomplete(_))));
        let newer = task.replace("\"v\":1", "\"v\":2");
        assert!(matches!(DeliveryTask::from_json(&newer), Err(TaskError::Version(2))));
        let zeroth = task.replace("\"attempt\":1", "\"attempt\":0");
        assert!(matches!(DeliveryTask::from_json(&zeroth), Err(TaskError::Incomplete(_))));
        assert!(matches!(DeliveryTask::from_json("{}"), Err(TaskError::Shape(_))));
    }
}
