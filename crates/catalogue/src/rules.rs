//! What a catalogue says of its event types among one another: what is due when something did not happen in time
//! (deadlines), what one event brings about (cascades), and whether events are numbered (revisions).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use carillon_core::invalid::{Findings, Invalid};
use carillon_core::pattern::EventType;
use carillon_core::workspace::WorkspaceKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::builtin::builtin_rules;
use crate::data::DataRule;
use crate::definition::{EventTypeDefinition, RESERVED_PREFIX};
use crate::derive::{Parent, sample_event};
use crate::tree::{Path, Pointer};

/// The most deadlines of a catalogue, and the most cascades.
pub const RULES_MAX: usize = 20;

/// The most event types that one deadline starts with, and the most that settle it.
pub const TYPES_OF_RULE_MAX: usize = 20;

/// The longest that a deadline may run. The event that started it must still be kept when it fires.
pub const WITHIN_MAX: Duration = Duration::from_hours(10 * 24);

/// How many cascades may follow from one another.
pub const CASCADES_DEEP_MAX: usize = 4;

/// The most parts of the data that events take over, and the most that they are given.
const PARTS_MAX: usize = 40;

/// The longest name of a rule, in characters.
const NAME_CHARS_MAX: usize = 40;

/// What a catalogue says of its event types among one another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rules {
    /// Whether each event has a revision: a number that grows by one with each event of the workspace.
    #[serde(default)]
    pub revisions: bool,
    /// What is due when something did not happen in time.
    #[serde(default)]
    pub deadlines: Vec<DeadlineRule>,
    /// What one event brings about.
    #[serde(default)]
    pub cascades: Vec<CascadeRule>,
}

/// An event type that is due when something did not happen in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadlineRule {
    /// What it is called, among the deadlines and cascades of its workspace.
    pub name: RuleName,
    /// Events of these types start it.
    pub after: Vec<EventType>,
    /// Events of these types settle it.
    pub unless: Vec<EventType>,
    /// How long it runs, from the time of the event that started it.
    pub within: Within,
    /// Where the data says whose deadline it is: a text or a number. Absent: the event's `subject` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Pointer>,
    /// Of which type the event is that it brings.
    pub emits: EventType,
    /// What data that has.
    #[serde(default)]
    pub data: Plan,
}

/// An event type of which there are events for each of several parts of another event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CascadeRule {
    /// What it is called, among the deadlines and cascades of its workspace.
    pub name: RuleName,
    /// Events of this type bring others.
    pub when: EventType,
    /// Where the parts stand in its data; `*` stands for each member of an object or element of an array.
    pub each: Path,
    /// Where in such a part its key stands, by which it is told from the others: a text or a number.
    pub key: Pointer,
    /// Of which type the events are that it brings.
    pub emits: EventType,
    /// What data they have, besides the part itself in its place.
    #[serde(default)]
    pub data: Plan,
}

/// What data an event has that follows from another: some of the other's, at the same places, and some of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// What is taken over.
    #[serde(default)]
    pub keep: Vec<Pointer>,
    /// What is given. In its texts `{/a/b}` stands for what the other event's data has there, `{key}` for the key of the
    /// part, `{due}` for the time when a deadline was due, `{{` for a brace. Of a text that is nothing but one of these
    /// the value stands as it is, of whatever type; where there is none, nothing is given.
    #[serde(default)]
    pub set: BTreeMap<Pointer, Value>,
}

/// What a deadline or cascade is called: a small letter, then up to 39 of small letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(String);

/// A text that is no rule's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {NAME_CHARS_MAX} of `a` to `z`, digits and hyphens, and begin with a letter")]
pub struct NotARuleName;

/// How long a deadline runs, up to [`WITHIN_MAX`]: a duration of ISO 8601 in hours, minutes and seconds, such as `PT1H30M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Within(Duration);

/// A text that is no such time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a duration (ISO 8601) from PT1S to PT240H, such as PT1H30M")]
pub struct NotWithin;

impl Rules {
    /// Those of a workspace: of its kind's catalogue, and its own, as they were stored.
    pub fn of(kind: WorkspaceKind, own: Option<&str>) -> Result<Self, serde_json::Error> {
        let own = own.map_or(Ok(Self::default()), serde_json::from_str)?;
        Ok(Self::merged(builtin_rules(kind), own))
    }

    /// Those of the kind's catalogue and of the workspace's own.
    #[must_use]
    pub fn merged(given: &Self, own: Self) -> Self {
        let Self { revisions, mut deadlines, mut cascades } = given.clone();
        deadlines.extend(own.deadlines);
        cascades.extend(own.cascades);
        Self { revisions: revisions || own.revisions, deadlines, cascades }
    }

    /// Every type that they name.
    pub fn types(&self) -> impl Iterator<Item = &EventType> {
        let of_deadlines =
            self.deadlines.iter().flat_map(|rule| rule.after.iter().chain(&rule.unless).chain([&rule.emits]));
        of_deadlines.chain(self.cascades.iter().flat_map(|rule| [&rule.when, &rule.emits]))
    }

    /// Checks them, with those that the kind's catalogue brings and the types that they may name. Each is tried with the
    /// samples of its types: what follows from these must be as its own type says.
    pub fn check<'a>(
        &self,
        given: &Self,
        find: impl Fn(&EventType) -> Option<&'a EventTypeDefinition>,
    ) -> Result<(), Invalid> {
        let mut findings = Findings::default();
        self.check_names(given, &mut findings);
        for (place, rule) in self.deadlines.iter().enumerate() {
            rule.check(&format!("/deadlines/{place}"), &find, &mut findings);
        }
        for (place, rule) in self.cascades.iter().enumerate() {
            rule.check(&format!("/cascades/{place}"), &find, &mut findings);
        }
        let all = Self::merged(given, self.clone());
        if let Some(event_type) = all.cycle() {
            findings.add("", format!("must not lead from an event of `{event_type}` to another one of it"));
        } else if all.cascades_deep() > CASCADES_DEEP_MAX {
            findings.add(
                "/cascades",
                format!("must not follow from one another more than {CASCADES_DEEP_MAX} deep"),
            );
        }
        findings.into_result(())
    }

    fn check_names(&self, given: &Self, findings: &mut Findings) {
        fn names(rules: &Rules) -> impl Iterator<Item = (String, &RuleName)> {
            let deadlines = rules.deadlines.iter().map(|rule| &rule.name).enumerate();
            let cascades = rules.cascades.iter().map(|rule| &rule.name).enumerate();
            let deadlines = deadlines.map(|(place, name)| (format!("/deadlines/{place}/name"), name));
            deadlines.chain(cascades.map(|(place, name)| (format!("/cascades/{place}/name"), name)))
        }
        let mut taken: BTreeSet<_> = names(given).map(|(_, name)| name).collect();
        for (pointer, name) in names(self) {
            if !taken.insert(name) {
                findings.add(pointer, format!("must be the only one: there is another `{name}`"));
            }
        }
        for (pointer, count) in [("/deadlines", self.deadlines.len()), ("/cascades", self.cascades.len())] {
            if count > RULES_MAX {
                findings.add(pointer, format!("must be at most {RULES_MAX}"));
            }
        }
    }

    /// A type whose events lead to another event of that type, if there is one.
    fn cycle(&self) -> Option<&EventType> {
        let mut next: BTreeMap<&EventType, BTreeSet<&EventType>> = BTreeMap::new();
        for rule in &self.deadlines {
            rule.after.iter().for_each(|after| _ = next.entry(after).or_default().insert(&rule.emits));
        }
        for rule in &self.cascades {
            next.entry(&rule.when).or_default().insert(&rule.emits);
        }
        next.keys().copied().find(|start| {
            let mut reached = BTreeSet::new();
            let mut left: Vec<_> = next[start].iter().copied().collect();
            while let Some(event_type) = left.pop() {
                if reached.insert(event_type) {
                    left.extend(next.get(event_type).into_iter().flatten().copied());
                }
            }
            reached.contains(start)
        })
    }

    /// How many cascades follow from one another at most, where there is no cycle.
    fn cascades_deep(&self) -> usize {
        let mut reached: BTreeSet<_> = self.cascades.iter().map(|rule| &rule.when).collect();
        let mut deep = 0;
        while !reached.is_empty() && deep <= RULES_MAX {
            let follow = self.cascades.iter().filter(|rule| reached.contains(&rule.when));
            reached = follow.map(|rule| &rule.emits).collect();
            deep += usize::from(!reached.is_empty());
        }
        deep
    }
}

impl DeadlineRule {
    fn check<'a>(
        &self,
        at: &str,
        find: &impl Fn(&EventType) -> Option<&'a EventTypeDefinition>,
        findings: &mut Findings,
    ) {
        for (name, types) in [("after", &self.after), ("unless", &self.unless)] {
            if !(1..=TYPES_OF_RULE_MAX).contains(&types.len()) {
                findings.add(format!("{at}/{name}"), format!("must be 1 to {TYPES_OF_RULE_MAX} event types"));
            }
            for (place, event_type) in types.iter().enumerate() {
                known(&format!("{at}/{name}/{place}"), event_type, find, findings);
            }
        }
        for (place, event_type) in self.unless.iter().enumerate() {
            if self.after.contains(event_type) {
                findings.add(format!("{at}/unless/{place}"), "must not both start and settle it");
            }
        }
        self.data.check(at, findings);
        let Some(emitted) = known(&format!("{at}/emits"), &self.emits, find, findings) else { return };
        for definition in self.after.iter().filter_map(find) {
            let sample = sample_event(definition);
            let brought = self.event(&Parent::of_sample(&sample), "sample", Parent::SAMPLE_TIME);
            tried(at, definition, emitted, [brought], findings);
        }
        for (name, event_type) in self
            .after
            .iter()
            .map(|name| ("after", name))
            .chain(self.unless.iter().map(|name| ("unless", name)))
        {
            let Some(definition) = find(event_type) else { continue };
            if self.subject.is_some()
                && self.subject_of(&Parent::of_sample(&sample_event(definition))).is_err()
            {
                findings.add(
                    format!("{at}/subject"),
                    format!("is not in the sample of `{event_type}`, which is in `{name}`"),
                );
            }
        }
    }
}

impl CascadeRule {
    fn check<'a>(
        &self,
        at: &str,
        find: &impl Fn(&EventType) -> Option<&'a EventTypeDefinition>,
        findings: &mut Findings,
    ) {
        self.data.check(at, findings);
        let when = known(&format!("{at}/when"), &self.when, find, findings);
        let emits = known(&format!("{at}/emits"), &self.emits, find, findings);
        let (Some(definition), Some(emitted)) = (when, emits) else { return };
        let sample = sample_event(definition);
        match self.events(&Parent::of_sample(&sample)) {
            Ok(brought) if brought.is_empty() => {
                findings.add(format!("{at}/each"), format!("finds nothing in the sample of `{}`", self.when));
            }
            Ok(brought) => tried(at, definition, emitted, brought.into_iter().map(Ok), findings),
            Err(Invalid(errors)) => {
                for error in errors {
                    let detail = format!(
                        "cannot be followed in the sample of `{}`: {}: {}",
                        self.when, error.pointer, error.detail
                    );
                    findings.add(format!("{at}/key"), detail);
                }
            }
        }
    }
}

impl Plan {
    fn check(&self, at: &str, findings: &mut Findings) {
        for (name, count) in [("keep", self.keep.len()), ("set", self.set.len())] {
            if count > PARTS_MAX {
                findings.add(format!("{at}/data/{name}"), format!("must be at most {PARTS_MAX}"));
            }
        }
        if let Some(pointer) = self.senseless() {
            let detail = format!(
                "has at `{pointer}` a brace that opens nothing that is known: write `{{{{` for a brace"
            );
            findings.add(format!("{at}/data/set"), detail);
        }
    }
}

/// The type of this name, which can be published; or the finding that it is none.
fn known<'a>(
    pointer: &str,
    event_type: &EventType,
    find: &impl Fn(&EventType) -> Option<&'a EventTypeDefinition>,
    findings: &mut Findings,
) -> Option<&'a EventTypeDefinition> {
    let found = find(event_type).filter(|_| !event_type.as_str().starts_with(RESERVED_PREFIX));
    if found.is_none() {
        findings.add(pointer, format!("`{event_type}` is no event type of this workspace"));
    }
    found
}

/// Checks what followed from a sample by the type that it is of.
fn tried(
    at: &str,
    of: &EventTypeDefinition,
    emitted: &EventTypeDefinition,
    brought: impl IntoIterator<Item = Result<carillon_core::event::Event, Invalid>>,
    findings: &mut Findings,
) {
    let Ok(rule) = DataRule::of(emitted) else { return };
    let checked = |event: Result<carillon_core::event::Event, Invalid>| {
        event.and_then(|event| rule.check_event(event.json()))
    };
    let faults = brought.into_iter().filter_map(|event| checked(event).err()).flat_map(|invalid| invalid.0);
    for fault in faults {
        let detail = format!(
            "gives from the sample of `{}` what `{}` does not allow: {}: {}",
            of.name, emitted.name, fault.pointer, fault.detail
        );
        findings.add(format!("{at}/data"), detail);
    }
}

impl RuleName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RuleName {
    type Error = NotARuleName;

    fn try_from(text: String) -> Result<Self, NotARuleName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = text.len() <= NAME_CHARS_MAX && text.bytes().all(allowed);
        if fits && text.starts_with(|c: char| c.is_ascii_lowercase()) {
            Ok(Self(text))
        } else {
            Err(NotARuleName)
        }
    }
}

impl From<RuleName> for String {
    fn from(name: RuleName) -> Self {
        name.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Within {
    /// How long that is.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Within {
    type Err = NotWithin;

    fn from_str(text: &str) -> Result<Self, NotWithin> {
        // The parser knows forms for people as well, such as `1h 30m`.
        let iso = text.starts_with("PT").then(|| text.parse::<jiff::SignedDuration>().ok()).flatten();
        let duration = iso.and_then(|iso| Duration::try_from(iso).ok()).ok_or(NotWithin)?;
        let whole = duration.subsec_nanos() == 0;
        let fits = whole && (Duration::from_secs(1)..=WITHIN_MAX).contains(&duration);
        if fits { Ok(Self(duration)) } else { Err(NotWithin) }
    }
}

impl TryFrom<String> for Within {
    type Error = NotWithin;

    fn try_from(text: String) -> Result<Self, NotWithin> {
        text.parse()
    }
}

impl From<Within> for String {
    fn from(within: Within) -> Self {
        within.to_string()
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        f.write_str("PT")?;
        for (unit, count) in [("H", seconds / 3600), ("M", seconds / 60 % 60), ("S", seconds % 60)] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definition::TypeSource;

    fn types() -> Vec<EventTypeDefinition> {
        let of = |name: &str, schema: Value, sample: Value| EventTypeDefinition {
            name: name.parse().unwrap(),
            version: 1,
            description: "x".into(),
            schema,
            sample,
            validate: true,
            source: TypeSource::Workspace,
        };
        let order = json!({"order": 7, "items": [{"sku": "a"}, {"sku": "b"}]});
        vec![
            of("order.placed", json!({"required": ["order"]}), order.clone()),
            of("order.paid", json!({"required": ["order"]}), order.clone()),
            of(
                "order.expired",
                json!({"required": ["order", "expiredAt"]}),
                json!({"order": 7, "expiredAt": "t"}),
            ),
            of("item.gone", json!({"required": ["items"]}), order),
            of("item.dropped", json!({"required": ["nothing"]}), json!({"nothing": 1})),
        ]
    }

    fn checked(given: &Rules, own: Value) -> Vec<String> {
        let own: Rules = serde_json::from_value(own).unwrap();
        let types = types();
        let found = own.check(given, |name| types.iter().find(|definition| definition.name == *name));
        found
            .err()
            .map_or_else(Vec::new, |Invalid(errors)| errors.into_iter().map(|error| error.pointer).collect())
    }

    fn deadline(changes: Value) -> Value {
        let mut rule = json!({
            "name": "late", "after": ["order.placed"], "unless": ["order.paid"], "within": "PT60M", "subject": "/order",
            "emits": "order.expired", "data": {"keep": ["/order"], "set": {"/expiredAt": "{due}"}},
        });
        let Value::Object(changes) = changes else { panic!("{changes}") };
        rule.as_object_mut().unwrap().extend(changes);
        rule
    }

    fn cascade(changes: Value) -> Value {
        let mut rule = json!({
            "name": "items", "when": "order.expired", "each": "/items/*", "key": "/sku", "emits": "item.gone",
        });
        let Value::Object(changes) = changes else { panic!("{changes}") };
        rule.as_object_mut().unwrap().extend(changes);
        rule
    }

    fn with_deadline(changes: Value) -> Vec<String> {
        checked(&Rules::default(), json!({ "deadlines": [deadline(changes)] }))
    }

    fn with_cascade(changes: Value) -> Vec<String> {
        checked(&Rules::default(), json!({ "cascades": [cascade(changes)] }))
    }

    #[test]
    fn what_makes_sense_is_taken() {
        assert!(with_deadline(json!({})).is_empty());
        assert!(with_cascade(json!({"when": "order.paid"})).is_empty());
        assert!(checked(&Rules::default(), json!({"revisions": true})).is_empty());
    }

    #[test]
    fn what_makes_none_is_refused_by_its_field() {
        for (changes, pointer) in [
            (json!({"after": []}), "/deadlines/0/after"),
            (json!({"unless": []}), "/deadlines/0/unless"),
            (json!({"unless": ["order.lost"]}), "/deadlines/0/unless/0"),
            (json!({"unless": ["order.placed"]}), "/deadlines/0/unless/0"),
            (json!({"emits": "carillon.subscription.disabled"}), "/deadlines/0/emits"),
            (json!({"subject": "/customer"}), "/deadlines/0/subject"),
            (json!({"data": {"keep": ["/order"]}}), "/deadlines/0/data"),
            (json!({"data": {"set": {"/expiredAt": "{now}", "/order": 7}}}), "/deadlines/0/data/set"),
        ] {
            assert!(with_deadline(changes.clone()).iter().any(|at| at == pointer), "{changes}");
        }
        for (changes, pointer) in [
            (json!({}), "/cascades/0/each"),
            (json!({"when": "order.paid", "key": "/id"}), "/cascades/0/key"),
            (json!({"when": "order.paid", "emits": "item.dropped"}), "/cascades/0/data"),
            (json!({"when": "order.lost"}), "/cascades/0/when"),
        ] {
            assert!(with_cascade(changes.clone()).iter().any(|at| at == pointer), "{changes}");
        }
    }

    #[test]
    fn no_event_leads_to_another_of_its_type() {
        let there = json!({"when": "order.paid", "emits": "item.gone", "name": "there"});
        let back = json!({"when": "item.gone", "emits": "order.paid", "name": "back", "data": {"set": {"/order": 7}}});
        let both = json!({ "cascades": [cascade(there.clone()), cascade(back.clone())] });
        assert_eq!(checked(&Rules::default(), both), [""]);
        let given: Rules = serde_json::from_value(json!({ "cascades": [cascade(there)] })).unwrap();
        assert_eq!(checked(&given, json!({ "cascades": [cascade(back)] })), [""], "with the catalogue's own");
        let itself = json!({"emits": "order.placed"});
        assert_eq!(with_deadline(itself), [""]);
    }

    #[test]
    fn cascades_follow_one_another_only_so_deep() {
        let name = |n: usize| format!("step-{n}");
        let definition =
            |n: usize| EventTypeDefinition { name: name(n).parse().unwrap(), ..types().remove(0) };
        let types: Vec<_> = (0..=CASCADES_DEEP_MAX + 1).map(definition).collect();
        let checked = |deep: usize| {
            let cascades = (0..deep).map(|n| {
                let (when, emits, name) = (name(n), name(n + 1), format!("rule-{n}"));
                cascade(json!({ "name": name, "when": when, "emits": emits, "data": {"keep": ["/order"]} }))
            });
            let rules: Rules =
                serde_json::from_value(json!({ "cascades": cascades.collect::<Vec<_>>() })).unwrap();
            let found = rules
                .check(&Rules::default(), |name| types.iter().find(|definition| definition.name == *name));
            found.err().map(|Invalid(errors)| errors[0].pointer.clone())
        };
        assert_eq!(checked(CASCADES_DEEP_MAX), None);
        assert_eq!(checked(CASCADES_DEEP_MAX + 1).as_deref(), Some("/cascades"));
    }

    #[test]
    fn names_are_taken_once() {
        let twice = json!({ "deadlines": [deadline(json!({})), deadline(json!({}))] });
        assert_eq!(checked(&Rules::default(), twice), ["/deadlines/1/name"]);
        let given: Rules = serde_json::from_value(json!({ "deadlines": [deadline(json!({}))] })).unwrap();
        assert_eq!(checked(&given, json!({ "deadlines": [deadline(json!({}))] })), ["/deadlines/0/name"]);
        let many: Vec<_> =
            (0..=RULES_MAX).map(|n| deadline(json!({ "name": format!("late-{n}") }))).collect();
        assert_eq!(checked(&Rules::default(), json!({ "deadlines": many })), ["/deadlines"]);
    }

    #[test]
    fn rules_come_back_as_they_were_written() {
        let rules = json!({ "revisions": true, "deadlines": [deadline(json!({}))], "cascades": [cascade(json!({}))] });
        let read: Rules = serde_json::from_value(rules).unwrap();
        let again: Rules = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn times_are_bounded() {
        for (text, seconds) in [("PT1S", 1), ("PT60M", 3600), ("PT1H30M", 5400), ("PT240H", 864_000)] {
            let within: Within = text.parse().unwrap();
            assert_eq!(within.duration(), Duration::from_secs(seconds));
            assert_eq!(within.to_string().parse(), Ok(within), "{text}");
        }
        for wrong in ["", "PT0S", "PT241H", "P1D", "-PT1H", "60", "1h", "PT0.5S"] {
            assert_eq!(wrong.parse::<Within>(), Err(NotWithin), "{wrong}");
        }
    }
}
