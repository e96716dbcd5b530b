//! Events that follow from others, as the rules of a catalogue have it. All of such an event is made of the one that it
//! follows from, so that it is the same whenever it is made: its `id` of that one's identity, the rule and the part's own
//! key, its `source` that of the other, whose `id` is its `causationid` (CloudEvents extension "Correlation").

use std::borrow::Cow;
use std::collections::BTreeMap;

use carillon_core::deadline::{DeadlineKey, Effects, Start, Touch};
use carillon_core::event::{AcceptedEvent, Audience, EVENT_BYTES_MAX, Event, REVISION, Rejected};
use carillon_core::id::EventDigest;
use carillon_core::invalid::Invalid;
use carillon_core::pattern::EventType;
use carillon_core::time::UnixMillis;
use carillon_core::trace::Trace;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::definition::EventTypeDefinition;
use crate::rules::{CascadeRule, DeadlineRule, Plan, RuleName, Rules};
use crate::tree::{Found, Pointer, Tree, pointer};

/// The most events that one event may bring about by cascades, all that follow from these included.
pub const CASCADED_MAX: usize = 500;

/// The longest key of a part, and the longest subject of a deadline, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// An event that others follow from.
#[derive(Clone, Copy)]
pub struct Parent<'a> {
    json: &'a str,
    audience: Option<&'a Audience>,
    trace: Option<&'a Trace>,
    accepted_at: UnixMillis,
}

impl<'a> Parent<'a> {
    /// When samples are taken to have happened.
    pub(crate) const SAMPLE_TIME: UnixMillis = UnixMillis(1_795_339_800_000);

    /// One that was accepted.
    #[must_use]
    pub fn accepted(event: &'a AcceptedEvent) -> Self {
        let AcceptedEvent { json, audience, trace, accepted_at, .. } = event;
        Self { json, audience: audience.as_ref(), trace: trace.as_ref(), accepted_at: *accepted_at }
    }

    /// One that is about to be.
    #[must_use]
    pub fn submitted(event: &'a Event, now: UnixMillis) -> Self {
        Self { json: event.json(), audience: event.audience(), trace: None, accepted_at: now }
    }

    pub(crate) fn of_sample(json: &'a str) -> Self {
        Self { json, audience: None, trace: None, accepted_at: Self::SAMPLE_TIME }
    }

    fn told(&self) -> Result<Told<'a>, Invalid> {
        serde_json::from_str(self.json)
            .map_err(|error| Invalid::field("", format!("must be a CloudEvent: {error}")))
    }
}

/// The sample of a type as an event.
pub(crate) fn sample_event(definition: &EventTypeDefinition) -> String {
    serde_json::json!({
        "specversion": "1.0",
        "id": "sample",
        "source": "/sample",
        "type": definition.name,
        "subject": "sample",
        "time": Parent::SAMPLE_TIME.to_string(),
        "data": definition.sample,
    })
    .to_string()
}

impl Rules {
    /// What the acceptance of an event brings about. An event that should touch a deadline and does not say whose is
    /// refused, and so is one that would bring more than [`CASCADED_MAX`] others, or says its revision itself.
    pub fn effects(&self, event: &Event, now: UnixMillis) -> Result<Effects, Invalid> {
        let parent = Parent::submitted(event, now);
        if self.revisions && parent.told()?.revision.is_some() {
            let detail = "must not be given: the order in which events are accepted tells it";
            return Err(Invalid::field(format!("/{REVISION}"), detail));
        }
        let touches = self.touches(event, &parent)?;
        let cascades = self.bring(event.event_type());
        if cascades {
            self.check_brought(event.event_type(), &parent)?;
        }
        Ok(Effects { cascades, touches })
    }

    fn touches(&self, event: &Event, parent: &Parent<'_>) -> Result<Vec<(DeadlineKey, Touch)>, Invalid> {
        let event_type = event.event_type();
        let mut touches = Vec::new();
        for rule in &self.deadlines {
            let starts = rule.after.contains(event_type);
            if starts || rule.unless.contains(event_type) {
                let told = parent.told()?;
                let key = DeadlineKey { rule: rule.name.to_string(), subject: rule.subject_in(&told)? };
                let due = told.time(parent.accepted_at) + rule.within.duration();
                let start = Start { due, event: EventDigest::of(event.source(), event.id()) };
                touches.push((key, if starts { Touch::Start(start) } else { Touch::Settle }));
            }
        }
        Ok(touches)
    }

    /// The events that follow from one by cascades, each of which may bring others in its turn.
    pub fn brought_by(&self, event_type: &EventType, parent: &Parent<'_>) -> Result<Vec<Event>, Invalid> {
        let mut brought = Vec::new();
        for rule in self.cascades.iter().filter(|rule| rule.when == *event_type) {
            brought.extend(rule.events(parent)?);
        }
        Ok(brought)
    }

    /// The event that a deadline brings which has become due; `None`: there is no such rule any more.
    #[must_use]
    pub fn due_event(
        &self,
        key: &DeadlineKey,
        started_by: &AcceptedEvent,
        due: UnixMillis,
    ) -> Option<Result<Event, Invalid>> {
        let rule = self.deadlines.iter().find(|rule| rule.name.as_str() == key.rule)?;
        Some(rule.event(&Parent::accepted(started_by), &key.subject, due))
    }

    fn bring(&self, event_type: &EventType) -> bool {
        self.cascades.iter().any(|rule| rule.when == *event_type)
    }

    /// Tries all that would follow from an event, what follows from that included.
    fn check_brought(&self, event_type: &EventType, parent: &Parent<'_>) -> Result<(), Invalid> {
        let mut left = self.brought_by(event_type, parent)?;
        let mut count = left.len();
        while let Some(event) = left.pop() {
            if count > CASCADED_MAX {
                return Err(too_many());
            }
            let of_it = Parent::submitted(&event, parent.accepted_at);
            self.touches(&event, &of_it)?;
            if self.bring(event.event_type()) {
                let more = self.brought_by(event.event_type(), &of_it)?;
                count += more.len();
                left.extend(more);
            }
        }
        Ok(())
    }
}

impl DeadlineRule {
    /// Whose deadline an event touches.
    pub(crate) fn subject_of(&self, parent: &Parent<'_>) -> Result<String, Invalid> {
        self.subject_in(&parent.told()?)
    }

    fn subject_in(&self, told: &Told<'_>) -> Result<String, Invalid> {
        let Some(pointer) = &self.subject else {
            let detail = format!("is required: it tells whose deadline `{}` is meant", self.name);
            return told
                .subject
                .as_deref()
                .map(str::to_owned)
                .ok_or_else(|| Invalid::field("/subject", detail));
        };
        let found = told.data.and_then(|data| pointer.find(data)).map(|found| found.value);
        found.and_then(key_text).ok_or_else(|| {
            let detail = format!(
                "must be a text or a number of at most {KEY_BYTES_MAX} bytes: it tells whose deadline `{}` is meant",
                self.name
            );
            Invalid::field(format!("/data{pointer}"), detail)
        })
    }

    /// The event that it brings for a subject.
    pub(crate) fn event(
        &self,
        parent: &Parent<'_>,
        subject: &str,
        due: UnixMillis,
    ) -> Result<Event, Invalid> {
        let told = parent.told()?;
        let mut tree = Tree::empty();
        self.data.apply(&mut tree, &Facts { data: told.data, key: None, due: Some(due) });
        let id = EventDigest::of("deadline", &format!("{}\n{subject}", self.name));
        let following = Following { rule: &self.name, id, event_type: &self.emits, subject, time: due };
        following.event(&told, parent, &tree)
    }
}

impl CascadeRule {
    /// The events that it brings: one for each part. Parts without a key, or with that of another, are refused.
    pub(crate) fn events(&self, parent: &Parent<'_>) -> Result<Vec<Event>, Invalid> {
        let told = parent.told()?;
        let Some(data) = told.data else { return Ok(Vec::new()) };
        let parts = self.each.find(data);
        if parts.len() > CASCADED_MAX {
            return Err(too_many());
        }
        let mut places = BTreeMap::new();
        let mut events = Vec::with_capacity(parts.len());
        for part in parts {
            let at = || format!("/data{}{}", pointer(&part.place), self.key);
            let key = self.key.find(part.value).map(|found| found.value);
            let text = key.and_then(key_text).ok_or_else(|| {
                let detail = format!("must be a text or a number of at most {KEY_BYTES_MAX} bytes: it tells apart what this event brings");
                Invalid::field(at(), detail)
            })?;
            if let Some(before) = places.insert(text.clone(), at()) {
                return Err(Invalid::field(at(), format!("must not be the same as {before}")));
            }
            events.push(self.event(&told, parent, &part, &text)?);
        }
        Ok(events)
    }

    fn event(
        &self,
        told: &Told<'_>,
        parent: &Parent<'_>,
        part: &Found<'_>,
        key: &str,
    ) -> Result<Event, Invalid> {
        let mut tree = Tree::empty();
        tree.put(&part.place, Cow::Borrowed(part.value));
        let raw_key = self.key.find(part.value).map(|found| found.value);
        self.data.apply(&mut tree, &Facts { data: told.data, key: raw_key, due: None });
        let of = EventDigest::of(&told.source, &told.id);
        let id = EventDigest::of(&of.to_string(), &format!("{}\n{key}", self.name));
        let time = told.time(parent.accepted_at);
        let following = Following { rule: &self.name, id, event_type: &self.emits, subject: key, time };
        following.event(told, parent, &tree)
    }
}

/// What an event has of its own that follows from another.
struct Following<'a> {
    rule: &'a RuleName,
    id: EventDigest,
    event_type: &'a EventType,
    subject: &'a str,
    time: UnixMillis,
}

impl Following<'_> {
    fn event(&self, told: &Told<'_>, parent: &Parent<'_>, data: &Tree<'_>) -> Result<Event, Invalid> {
        let audience = parent
            .audience
            .map(|audience| audience.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        let unwritable = |error: serde_json::Error| Invalid::field("/data", error.to_string());
        let written = Written {
            specversion: "1.0",
            id: format!("{}-{}", self.rule, self.id),
            source: &told.source,
            r#type: self.event_type,
            subject: self.subject,
            time: self.time.to_string(),
            datacontenttype: "application/json",
            causationid: &told.id,
            audience,
            data: RawValue::from_string(data.to_string()).map_err(unwritable)?,
        };
        let json = serde_json::to_string(&written).map_err(unwritable)?;
        let event = Event::from_structured(&json).map_err(|rejected| match rejected {
            Rejected::Invalid(invalid) => invalid,
            Rejected::TooLarge { .. } => {
                let detail =
                    format!("brings by `{}` an event of more than {EVENT_BYTES_MAX} bytes", self.rule);
                Invalid::field("/data", detail)
            }
        })?;
        Ok(event.traced(parent.trace.cloned()))
    }
}

#[derive(Serialize)]
struct Written<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: &'a EventType,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    causationid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    data: Box<RawValue>,
}

/// What is looked at of an event.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(default, borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default, borrow)]
    revision: Option<&'a RawValue>,
}

impl Told<'_> {
    /// When it happened; when it was accepted if it does not say so.
    fn time(&self, accepted_at: UnixMillis) -> UnixMillis {
        self.time.as_deref().and_then(|time| time.parse().ok()).unwrap_or(accepted_at)
    }
}

/// What a plan can speak of.
struct Facts<'a> {
    data: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    due: Option<UnixMillis>,
}

impl Plan {
    fn apply<'a>(&self, tree: &mut Tree<'a>, facts: &Facts<'a>) {
        let Some(data) = facts.data else { return };
        for found in self.keep.iter().filter_map(|pointer| pointer.find(data)) {
            tree.put(&found.place, Cow::Borrowed(found.value));
        }
        for (pointer, value) in &self.set {
            let filled = filled(value, facts).and_then(|json| RawValue::from_string(json).ok());
            if let Some(filled) = filled {
                tree.put(&pointer.members(), Cow::Owned(filled));
            }
        }
    }

    /// The first of its texts that makes no sense.
    pub(crate) fn senseless(&self) -> Option<&Pointer> {
        fn makes_sense(value: &Value) -> bool {
            match value {
                Value::String(text) => pieces(text).is_some(),
                Value::Array(values) => values.iter().all(makes_sense),
                Value::Object(members) => members.values().all(makes_sense),
                Value::Null | Value::Bool(_) | Value::Number(_) => true,
            }
        }
        self.set.iter().find(|(_, value)| !makes_sense(value)).map(|(pointer, _)| pointer)
    }
}

/// A value with its texts filled in, as JSON; `None`: there is nothing to fill in.
fn filled(value: &Value, facts: &Facts<'_>) -> Option<String> {
    match value {
        Value::String(text) => match &pieces(text)?[..] {
            [Piece::Place(place)] => place.json(facts),
            pieces => {
                let text: String = pieces.iter().map(|piece| piece.text(facts)).collect();
                Some(Value::from(text).to_string())
            }
        },
        Value::Array(values) => {
            let values: Vec<_> = values.iter().filter_map(|value| filled(value, facts)).collect();
            Some(format!("[{}]", values.join(",")))
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                Some(format!("{}:{}", Value::from(name.as_str()), filled(value, facts)?))
            };
            Some(format!("{{{}}}", members.iter().filter_map(member).collect::<Vec<_>>().join(",")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
    }
}

/// A part of a text with places to be filled in.
enum Piece {
    Text(String),
    Place(Place),
}

/// What is filled in.
enum Place {
    Data(Pointer),
    Key,
    Due,
}

/// The parts of a text; `None` if a brace opens nothing that is known.
fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        if let Some(behind) = after.strip_prefix('{') {
            pieces.push(Piece::Text("{".to_owned()));
            rest = behind;
            continue;
        }
        let (name, behind) = after.split_once('}')?;
        pieces.push(Piece::Place(match name {
            "key" => Place::Key,
            "due" => Place::Due,
            name if name.starts_with('/') => Place::Data(name.parse().ok()?),
            _ => return None,
        }));
        rest = behind;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Some(pieces)
}

impl Piece {
    fn text(&self, facts: &Facts<'_>) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Place(place) => {
                let json = place.json(facts).unwrap_or_default();
                serde_json::from_str(&json).unwrap_or(json)
            }
        }
    }
}

impl Place {
    fn json(&self, facts: &Facts<'_>) -> Option<String> {
        match self {
            Self::Data(pointer) => Some(pointer.find(facts.data?)?.value.get().to_owned()),
            Self::Key => Some(facts.key?.get().to_owned()),
            Self::Due => Some(Value::from(facts.due?.to_string()).to_string()),
        }
    }
}

/// A text, or a number as it was written.
fn key_text(value: &RawValue) -> Option<String> {
    let text = match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok()?,
        b'-' | b'0'..=b'9' => value.get().to_owned(),
        _ => return None,
    };
    (1..=KEY_BYTES_MAX).contains(&text.len()).then_some(text)
}

fn too_many() -> Invalid {
    Invalid::field("/data", format!("brings more than {CASCADED_MAX} other events"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cascade() -> CascadeRule {
        serde_json::from_value(json!({
            "name": "keys",
            "when": "application.suspended",
            "each": "/applications/*/keys/*",
            "key": "/id",
            "emits": "key.disabled",
            "data": {
                "keep": ["/owner"],
                "set": {"/path": "{/path}/keys/{key}", "/of": "{/owner}", "/none": "{/nothing}", "/brace": "{{x"},
            },
        }))
        .unwrap()
    }

    fn parent(data: &str) -> String {
        format!(
            r#"{{"id":"7","source":"/s","specversion":"1.0","time":"2026-11-22T09:30:00Z","type":"application.suspended","data":{data}}}"#
        )
    }

    fn events(data: &str) -> Result<Vec<Event>, Invalid> {
        cascade().events(&Parent::of_sample(&parent(data)))
    }

    fn data(event: &Event) -> Value {
        serde_json::from_str::<Value>(event.json()).unwrap()["data"].clone()
    }

    #[test]
    fn an_event_follows_for_each_part_with_what_leads_there() {
        let brought = events(
            r#"{"path": "/a/1", "owner": {"n": 1.50}, "rest": 1, "applications": {"x": {"name": "X", "keys": [{"id": "k1", "u": 1e400}, {"id": 2}]}}}"#,
        )
        .unwrap();
        assert_eq!(brought.len(), 2);
        let json = brought[0].json();
        assert!(
            json.ends_with(
                r#""data":{"applications":{"x":{"keys":[{"id": "k1", "u": 1e400}]}},"brace":"{x","of":{"n": 1.50},"owner":{"n": 1.50},"path":"/a/1/keys/k1"}}"#
            ),
            "{json}"
        );
        for member in [
            r#""causationid":"7""#,
            r#""source":"/s""#,
            r#""subject":"k1""#,
            r#""time":"2026-11-22T09:30:00.000Z""#,
            r#""type":"key.disabled""#,
        ] {
            assert!(json.contains(member), "{member} in {json}");
        }
        assert_eq!(data(&brought[1])["path"], "/a/1/keys/2");
    }

    #[test]
    fn ids_are_of_the_parts_key_and_not_of_its_place() {
        let of = |keys: &str| {
            let events = events(&format!(r#"{{"applications": [{{"keys": [{keys}]}}]}}"#)).unwrap();
            events.into_iter().map(|event| event.id().to_owned()).collect::<Vec<_>>()
        };
        let [a, b] = &of(r#"{"id": "a"}, {"id": "b"}"#)[..] else { panic!() };
        assert!(a.starts_with("keys-") && a != b);
        assert_eq!(of(r#"{"id": "b"}, {"id": "a"}"#), [b.clone(), a.clone()]);
    }

    #[test]
    fn parts_are_told_apart_by_their_keys() {
        let pointer = |keys: &str| {
            let Invalid(errors) =
                events(&format!(r#"{{"applications": [{{"keys": [{keys}]}}]}}"#)).unwrap_err();
            errors[0].pointer.clone()
        };
        for keys in [
            r#"{"id": "a"}, {"id": "a"}"#,
            r#"{"id": "a"}, {}"#,
            r#"{"id": "a"}, {"id": ""}"#,
            r#"{"id": "a"}, {"id": true}"#,
        ] {
            assert_eq!(pointer(keys), "/data/applications/0/keys/1/id", "{keys}");
        }
        let long = format!(r#"{{"id": "{}"}}"#, "a".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(pointer(&long), "/data/applications/0/keys/0/id");
    }

    #[test]
    fn no_event_brings_too_many() {
        let second = CascadeRule {
            name: "twos".to_owned().try_into().unwrap(),
            when: "key.disabled".parse().unwrap(),
            each: "/applications/*/keys/*/two/*".parse().unwrap(),
            key: "".parse().unwrap(),
            emits: "two.gone".parse().unwrap(),
            data: Plan::default(),
        };
        let rules = Rules { cascades: vec![cascade(), second], ..Rules::default() };
        let effects = |keys: usize| {
            let keys: Vec<_> = (0..keys).map(|id| json!({ "id": id, "two": [1, 2, 3] })).collect();
            let json = parent(&json!({ "applications": [{ "keys": keys }] }).to_string());
            rules.effects(&Event::from_structured(&json).unwrap(), UnixMillis(0))
        };
        // Each key brings itself and three others.
        assert!(effects(CASCADED_MAX / 4).unwrap().cascades);
        assert_eq!(effects(CASCADED_MAX / 4 + 1), Err(too_many()));
        assert_eq!(effects(CASCADED_MAX + 1), Err(too_many()));
    }

    fn deadline(subject: Option<&str>) -> Rules {
        let rule = json!({
            "name": "late", "after": ["order.placed"], "unless": ["order.paid"], "within": "PT60M",
            "subject": subject, "emits": "order.expired",
            "data": {"keep": ["/order"], "set": {"/expiredAt": "{due}", "/was": "{/status}"}},
        });
        serde_json::from_value(json!({ "deadlines": [rule] })).unwrap()
    }

    fn order(event_type: &str, members: &str) -> Event {
        let json =
            format!(r#"{{"id":"1","source":"/s","specversion":"1.0","type":"{event_type}"{members}}}"#);
        Event::from_structured(&json).unwrap()
    }

    #[test]
    fn events_touch_the_deadlines_of_their_subjects() {
        let now = UnixMillis(1_795_339_800_000);
        let touch = |rules: &Rules, event: &Event| rules.effects(event, now).map(|effects| effects.touches);
        let by_data = deadline(Some("/order"));
        let start = |due| Touch::Start(Start { due, event: EventDigest::of("/s", "1") });
        let key = |subject: &str| DeadlineKey { rule: "late".into(), subject: subject.into() };
        let placed = order("order.placed", r#","time":"2026-11-22T09:30:00.5Z","data":{"order":7}"#);
        let due = "2026-11-22T10:30:00.5Z".parse().unwrap();
        assert_eq!(touch(&by_data, &placed), Ok(vec![(key("7"), start(due))]));
        let paid = order("order.paid", r#","data":{"order":"7"}"#);
        assert_eq!(touch(&by_data, &paid), Ok(vec![(key("7"), Touch::Settle)]));
        let untimed = order("order.placed", r#","subject":"x""#);
        let later = now + std::time::Duration::from_hours(1);
        assert_eq!(touch(&deadline(None), &untimed), Ok(vec![(key("x"), start(later))]));
        assert_eq!(touch(&by_data, &order("order.other", "")), Ok(vec![]));
        let pointer =
            |rules: &Rules| touch(rules, &order("order.paid", "")).unwrap_err().0[0].pointer.clone();
        assert_eq!(
            (pointer(&by_data).as_str(), pointer(&deadline(None)).as_str()),
            ("/data/order", "/subject")
        );
    }

    #[test]
    fn what_is_due_is_the_same_whatever_started_it() {
        let placed =
            order("order.placed", r#","audience":"tpp-1,tpp-2","data":{"order":7.0,"status":"NEW"}"#);
        let started_by = placed.accepted("acme".parse().unwrap(), UnixMillis(0));
        let key = DeadlineKey { rule: "late".into(), subject: "7.0".into() };
        let due = UnixMillis(1_795_339_800_000);
        let event = deadline(None).due_event(&key, &started_by, due).unwrap().unwrap();
        assert_eq!(event.event_type().as_str(), "order.expired");
        assert!(
            event.json().contains(r#""subject":"7.0","time":"2026-11-22T09:30:00.000Z""#),
            "{}",
            event.json()
        );
        assert!(
            event
                .json()
                .ends_with(r#""data":{"expiredAt":"2026-11-22T09:30:00.000Z","order":7.0,"was":"NEW"}}"#)
        );
        assert_eq!(event.audience(), started_by.audience.as_ref());
        let gone = DeadlineKey { rule: "gone".into(), subject: "7.0".into() };
        assert!(deadline(None).due_event(&gone, &started_by, due).is_none());
    }

    #[test]
    fn texts_make_sense_or_are_refused() {
        let plan =
            |text: &str| Plan { keep: Vec::new(), set: [("/a".parse().unwrap(), json!([text]))].into() };
        for text in ["", "a", "{key}", "{due}", "a{/b/c}d", "{{", "}"] {
            assert_eq!(plan(text).senseless(), None, "{text}");
        }
        for text in ["{", "{a}", "{/~}", "{key"] {
            assert!(plan(text).senseless().is_some(), "{text}");
        }
    }
}
