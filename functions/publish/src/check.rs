//! What a workspace asks of its events, beyond what every event must be.

use carillon_catalogue::{DataRule, Rules};
use carillon_core::deadline::Effects;
use carillon_core::event::{AUDIENCE, Event};
use carillon_core::invalid::{FieldError, Findings, Invalid};
use carillon_core::time::UnixMillis;
use carillon_core::workspace::AudienceRule;

/// In what form an event came, which decides where its parts stand (CloudEvents HTTP protocol binding 1.0, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As one JSON object.
    Structured,
    /// The attributes as headers, and the body is the data: pointers into data are pointers into the body.
    Binary,
}

impl Mode {
    fn attribute(self, name: &str) -> String {
        match self {
            Self::Structured => format!("/{name}"),
            Self::Binary => format!("header:ce-{name}"),
        }
    }

    /// Where in the request something stands that the event has at `pointer`, in its data or beside it.
    fn place(self, pointer: String) -> String {
        match (self, pointer.strip_prefix("/data")) {
            (Self::Binary, Some(within)) if within.is_empty() || within.starts_with('/') => within.to_owned(),
            // What is not JSON is so by its media type.
            (Self::Binary, Some(_)) => "header:content-type".to_owned(),
            (Self::Binary, None) if pointer.starts_with('/') => self.attribute(&pointer[1..]),
            _ => pointer,
        }
    }
}

/// Checks an event by its workspace's rule for audiences, by its type's for data, and by what its workspace's types have
/// to do with one another. `None`: the workspace has no such type. What its acceptance brings about.
pub(crate) fn check(
    event: &Event,
    mode: Mode,
    (audience, rules): (AudienceRule, &Rules),
    rule: Option<&DataRule>,
    now: UnixMillis,
) -> Result<Effects, Invalid> {
    let mut findings = Findings::default();
    if audience == AudienceRule::Required && event.audience().is_none() {
        let detail = "is required in this workspace: name the subscribers that the event is for";
        findings.add(mode.attribute(AUDIENCE), detail);
    }
    match rule.map(|rule| rule.check_event(event.json())) {
        None => findings.add(mode.attribute("type"), "is no event type of this workspace"),
        Some(Ok(())) => {}
        Some(Err(invalid)) => _ = findings.take::<()>(Err(placed(invalid, mode))),
    }
    findings.into_result(())?;
    rules.effects(event, now).map_err(|invalid| placed(invalid, mode))
}

fn placed(Invalid(errors): Invalid, mode: Mode) -> Invalid {
    let placed = |FieldError { pointer, detail }| FieldError { pointer: mode.place(pointer), detail };
    Invalid(errors.into_iter().map(placed).collect())
}

#[cfg(test)]
mod tests {
    use carillon_catalogue::{EventTypeDefinition, TypeSource};
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_000);
    const RULES: &Rules = &Rules { revisions: false, deadlines: Vec::new(), cascades: Vec::new() };
    const OPEN: (AudienceRule, &Rules) = (AudienceRule::Open, RULES);
    const REQUIRED: (AudienceRule, &Rules) = (AudienceRule::Required, RULES);

    fn structured(members: &str) -> Event {
        let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b"{members}}}"#);
        Event::from_structured(&json).unwrap()
    }

    fn binary(content_type: &str, body: &str) -> Event {
        let headers = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "a.b")];
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        Event::from_binary(headers.into_iter(), Some(content_type), body.as_bytes()).unwrap()
    }

    fn rule(validate: bool) -> DataRule {
        let definition = EventTypeDefinition {
            name: "a.b".parse().unwrap(),
            version: 1,
            description: "It happened.".to_owned(),
            schema: json!({"properties": {"a": {"properties": {"b": {"type": "integer"}}}}}),
            sample: json!({}),
            validate,
            source: TypeSource::Workspace,
        };
        DataRule::of(&definition).unwrap()
    }

    fn pointers(event: &Event, mode: Mode) -> Vec<String> {
        let invalid = check(event, mode, OPEN, Some(&rule(true)), NOW).err();
        assert_eq!(check(event, mode, OPEN, Some(&rule(false)), NOW), Ok(Effects::default()));
        invalid.into_iter().flat_map(|invalid| invalid.0).map(|error| error.pointer).collect()
    }

    #[test]
    fn data_is_checked_if_the_type_asks_for_it() {
        assert_eq!(pointers(&structured(r#","data":{"a":{"b":"x"}}"#), Mode::Structured), ["/data/a/b"]);
        assert_eq!(pointers(&structured(r#","data":{"a":{"b":1}}"#), Mode::Structured), [""; 0]);
        assert_eq!(pointers(&structured(r#","data_base64":"eA==""#), Mode::Structured), ["/data_base64"]);
    }

    #[test]
    fn in_binary_mode_pointers_are_into_the_body() {
        let pointers = |content_type, body| pointers(&binary(content_type, body), Mode::Binary);
        assert_eq!(pointers("application/json", r#"{"a":{"b":"x"}}"#), ["/a/b"]);
        assert_eq!(pointers("application/json", r#"{"a":{"b":1}}"#), [""; 0]);
        assert_eq!(pointers("application/json", "1e999"), [""]);
        assert_eq!(pointers("application/json", ""), [""]);
        assert_eq!(pointers("text/plain", "a"), ["header:content-type"]);
    }

    #[test]
    fn all_that_a_workspace_misses_is_told_at_once() {
        let event = structured("");
        let missing = |mode, rule: Option<&DataRule>| {
            let invalid = check(&event, mode, REQUIRED, rule, NOW).unwrap_err();
            invalid.0.into_iter().map(|error| error.pointer).collect::<Vec<_>>()
        };
        assert_eq!(missing(Mode::Structured, None), ["/audience", "/type"]);
        assert_eq!(missing(Mode::Binary, None), ["header:ce-audience", "header:ce-type"]);
        assert_eq!(missing(Mode::Structured, Some(&rule(true))), ["/audience", "/data"]);
    }

    #[test]
    fn an_audience_is_enough_where_one_is_required() {
        let event = structured(r#","audience":"tpp-1""#);
        let checked = check(&event, Mode::Structured, REQUIRED, Some(&rule(false)), NOW);
        assert_eq!(checked, Ok(Effects::default()));
    }
}
