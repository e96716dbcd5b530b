//! Events as publishers submit them: CloudEvents 1.0, parsed once into a type that cannot be wrong.
//!
//! What is delivered is made here, too: one JSON text in structured mode, the same bytes on every attempt. Numbers and
//! the order of members inside `data` stay as submitted, since `data` is never taken apart.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::id::{EventDigest, EventKey, SubscriberId, WorkspaceId};
use crate::invalid::{Findings, Invalid};
use crate::pattern::EventType;
use crate::time::UnixMillis;
use crate::trace::{TRACEPARENT, TRACESTATE, Trace};

/// The largest event, in bytes of its JSON text.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;

/// The most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 100;

/// The largest request with a batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest value of an attribute, in bytes: far above what identifiers need, far below what an item holds.
pub const ATTRIBUTE_BYTES_MAX: usize = 2048;

/// The longest name of an attribute, in bytes: each becomes a header where events are delivered in binary mode.
/// CloudEvents 1.0 wants no more than 20.
pub const NAME_BYTES_MAX: usize = 64;

/// The longest that the names and values of an event's attributes may be together, in bytes: in binary mode they are
/// headers, three times as long at worst, and receivers take only so much of those.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;

/// The most extension attributes of an event.
pub const EXTENSIONS_MAX: usize = 40;

/// A checked event as submitted, not yet accepted.
#[derive(Clone, Debug)]
pub struct Event {
    source: String,
    id: String,
    kind: EventType,
    audience: Option<Audience>,
    trace: Option<Trace>,
    json: String,
    content: [u8; 32],
}

/// The subscribers that an event is for: no others' subscriptions can match it.
pub type Audience = BTreeSet<SubscriberId>;

/// The extension attribute that names an event's audience: subscriber ids between commas or spaces. It is no part of
/// what is delivered, since no subscriber must learn of the others.
pub const AUDIENCE: &str = "audience";

/// The extension attribute that gives an event its place in the order of its workspace's.
pub const REVISION: &str = "revision";

/// Why an event is not accepted as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Fields that break CloudEvents 1.0 or a bound of ours.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Larger than [`EVENT_BYTES_MAX`].
    #[error("the event has {bytes} bytes as JSON, at most {EVENT_BYTES_MAX} are accepted")]
    TooLarge {
        /// Its size as JSON, or as much of it as was read.
        bytes: usize,
    },
}

/// An event at rest: what the events table holds, the stream brings to fan-out and tasks refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedEvent {
    /// Its identity.
    pub key: EventKey,
    /// What subscriptions are matched by.
    pub event_type: EventType,
    /// When the first put of it succeeded, by the clock of the function that made it.
    pub accepted_at: UnixMillis,
    /// Whom it is for; everybody if absent.
    pub audience: Option<Audience>,
    /// The trace that it belongs to.
    pub trace: Option<Trace>,
    /// Whether other events follow from it by cascades.
    pub cascades: bool,
    /// The event in structured mode, without its audience: the body of its deliveries.
    pub json: String,
}

impl Event {
    /// From a request in structured mode, or from one element of a batch (CloudEvents JSON format 1.0).
    pub fn from_structured(json: &str) -> Result<Self, Rejected> {
        if json.len() > EVENT_BYTES_MAX {
            return Err(Rejected::TooLarge { bytes: json.len() });
        }
        let members: Members = serde_json::from_str(json)
            .map_err(|error| Invalid::field("", format!("must be a CloudEvent as a JSON object: {error}")))?;
        let mut findings = Findings::default();
        let mut attributes = BTreeMap::new();
        let mut data = Data::None;
        for (name, value) in members.0 {
            match name.as_str() {
                // The JSON format has an absent attribute where a member is null.
                _ if value.get() == "null" && name != "data" => {}
                "data" if matches!(data, Data::None) => data = Data::Json(value),
                "data_base64" if matches!(data, Data::None) => match checked_base64(&value) {
                    Some(text) => data = Data::Base64(text),
                    None => findings.add("/data_base64", "must be a string in base64 (RFC 4648, section 4)"),
                },
                "data" | "data_base64" => findings.add("/data_base64", "must not stand beside `data`"),
                _ => match serde_json::from_str::<Attribute>(value.get()) {
                    Ok(attribute) => _ = attributes.insert(name, attribute),
                    Err(_) => findings.add(
                        pointer(&name),
                        "must be a string, a boolean or an integer of 32 bits, as attributes of CloudEvents are",
                    ),
                },
            }
        }
        Self::checked(attributes, &data, findings, pointer)
    }

    /// From a request in binary mode: its `ce-` headers (names in lower case, without the prefix), its `Content-Type`
    /// and its body (CloudEvents HTTP protocol binding 1.0, section 3.1).
    pub fn from_binary<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, Rejected> {
        let header = |name: &str| match name {
            "datacontenttype" => "header:content-type".to_owned(),
            _ => format!("header:ce-{name}"),
        };
        if body.len() > EVENT_BYTES_MAX {
            return Err(Rejected::TooLarge { bytes: body.len() });
        }
        let mut findings = Findings::default();
        let mut attributes = BTreeMap::new();
        for (name, value) in headers {
            match (attributes.entry(name.to_owned()), percent_decoded(value)) {
                _ if name == "datacontenttype" => {
                    findings.add("header:ce-datacontenttype", "must not be given: `Content-Type` says it");
                }
                (Entry::Occupied(_), _) => findings.add(header(name), "must be given once"),
                (Entry::Vacant(_), None) => findings.add(header(name), "must be percent-encoded UTF-8"),
                (Entry::Vacant(entry), Some(text)) => _ = entry.insert(Attribute::Text(text)),
            }
        }
        let json = content_type.is_some_and(is_json);
        if let Some(content_type) = content_type {
            attributes.insert("datacontenttype".to_owned(), Attribute::Text(content_type.to_owned()));
        }
        let data = if body.is_empty() {
            Data::None
        } else if json {
            match serde_json::from_slice(body) {
                Ok(data) => Data::Json(data),
                Err(error) => {
                    findings.add("", format!("the body must be JSON, as its `Content-Type` says: {error}"));
                    Data::None
                }
            }
        } else {
            Data::Base64(BASE64_STANDARD.encode(body))
        };
        Self::checked(attributes, &data, findings, header)
    }

    fn checked(
        mut attributes: BTreeMap<String, Attribute>,
        data: &Data,
        mut findings: Findings,
        pointer: impl Fn(&str) -> String,
    ) -> Result<Self, Rejected> {
        let mut event_type = None;
        for required in ["specversion", "id", "source", "type"] {
            if !attributes.contains_key(required) {
                findings.add(pointer(required), "is required");
            }
        }
        for (name, attribute) in &attributes {
            match check_attribute(name, attribute) {
                Ok(None) => {}
                Ok(Some(parsed)) => event_type = Some(parsed),
                Err(detail) => findings.add(pointer(name), detail),
            }
        }
        if attributes.len() > CORE_ATTRIBUTES.len() + EXTENSIONS_MAX {
            findings.add("", format!("must have at most {EXTENSIONS_MAX} extension attributes"));
        }
        if attributes.iter().map(|(name, value)| name.len() + value.length()).sum::<usize>()
            > ATTRIBUTES_BYTES_MAX
        {
            let detail = format!(
                "must have at most {ATTRIBUTES_BYTES_MAX} bytes of attributes, their names and values together"
            );
            findings.add("", detail);
        }
        findings.into_result(())?;
        let (Some(event_type), Some(Attribute::Text(source)), Some(Attribute::Text(id))) =
            (event_type, attributes.get("source"), attributes.get("id"))
        else {
            return Err(Invalid::field("", "must be a CloudEvent").into());
        };
        let (source, id) = (source.clone(), id.clone());
        let mut json = structured(&attributes, data);
        if json.len() > EVENT_BYTES_MAX {
            return Err(Rejected::TooLarge { bytes: json.len() });
        }
        let content = Sha256::digest(json.as_bytes()).into();
        let audience = match attributes.remove(AUDIENCE) {
            Some(Attribute::Text(text)) => audience(&text),
            _ => None,
        };
        if audience.is_some() {
            json = structured(&attributes, data);
        }
        let trace = trace(&attributes);
        Ok(Self { source, id, kind: event_type, audience, trace, json, content })
    }

    /// The `source` attribute.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The `id` attribute.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The `type` attribute.
    #[must_use]
    pub fn event_type(&self) -> &EventType {
        &self.kind
    }

    /// Whom it is for; everybody if absent.
    #[must_use]
    pub fn audience(&self) -> Option<&Audience> {
        self.audience.as_ref()
    }

    /// The same event in the trace of the request that brought it, unless its own attributes name one. It is kept beside
    /// the event: as no part of its content, it makes no other event of a repetition.
    #[must_use]
    pub fn traced(self, by_request: Option<Trace>) -> Self {
        Self { trace: self.trace.or(by_request), ..self }
    }

    /// The same event with its place in the order of its workspace's: an extension attribute `revision`, an integer while
    /// it is one of CloudEvents (32 bits), then a text. It is no part of the content that was submitted.
    #[must_use]
    pub fn revised(self, revision: u64) -> Self {
        let quote = if i32::try_from(revision).is_ok() { "" } else { "\"" };
        let members = self.json.strip_prefix('{').unwrap_or_default();
        Self { json: format!("{{\"{REVISION}\":{quote}{revision}{quote},{members}"), ..self }
    }

    /// The event in structured mode, as it is delivered.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// A SHA-256 over attributes and data as submitted, whatever the mode: tells a repeated submission from another
    /// event under the same identity.
    #[must_use]
    pub fn content(&self) -> &[u8; 32] {
        &self.content
    }

    /// The event as it is to be stored.
    #[must_use]
    pub fn accepted(self, workspace: WorkspaceId, accepted_at: UnixMillis) -> AcceptedEvent {
        let key = EventKey { workspace, digest: EventDigest::of(&self.source, &self.id) };
        let Self { kind, audience, trace, json, .. } = self;
        AcceptedEvent { key, event_type: kind, accepted_at, audience, trace, cascades: false, json }
    }
}

/// A value of an attribute in the JSON format: the types that JSON keeps apart.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Attribute {
    Text(String),
    Boolean(bool),
    Integer(i32),
}

impl Attribute {
    /// How long it is as a text, in bytes.
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Boolean(value) => value.to_string().len(),
            Self::Integer(value) => value.to_string().len(),
        }
    }
}

enum Data {
    None,
    Json(Box<RawValue>),
    Base64(String),
}

const CORE_ATTRIBUTES: [&str; 8] =
    ["specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time"];

/// What is wrong with an attribute (CloudEvents 1.0, "Context Attributes"); the parsed `type` if it is that.
fn check_attribute(name: &str, attribute: &Attribute) -> Result<Option<EventType>, String> {
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        || !(1..=NAME_BYTES_MAX).contains(&name.len())
    {
        return Err(format!(
            "is no attribute's name: those have 1 to {NAME_BYTES_MAX} of `a` to `z` and digits"
        ));
    }
    if name == "data" {
        return Err("is no attribute: data is the body".to_owned());
    }
    let Attribute::Text(text) = attribute else {
        let wrong = CORE_ATTRIBUTES.contains(&name) || name == AUDIENCE;
        return if wrong { Err("must be a string".to_owned()) } else { Ok(None) };
    };
    if text.len() > ATTRIBUTE_BYTES_MAX {
        return Err(format!("must be at most {ATTRIBUTE_BYTES_MAX} bytes long"));
    }
    if text.contains(|c: char| c.is_control() || is_noncharacter(c)) {
        return Err("must not contain control characters or noncharacters".to_owned());
    }
    let core = CORE_ATTRIBUTES.contains(&name);
    match name {
        _ if core && text.is_empty() => Err("must not be empty".to_owned()),
        "specversion" if text != "1.0" => Err("must be `1.0`".to_owned()),
        "type" => text.parse().map(Some).map_err(|error: crate::pattern::PatternError| error.to_string()),
        "source" if !is_uri_reference(text) => Err("must be a URI reference (RFC 3986)".to_owned()),
        "dataschema" if url::Url::parse(text).is_err() => Err("must be a URI (RFC 3986)".to_owned()),
        "time" => text.parse::<UnixMillis>().map(|_| None).map_err(|error| error.to_string()),
        AUDIENCE if audience(text).is_none() => {
            Err("must name at least one subscriber, their ids between commas or spaces".to_owned())
        }
        "datacontenttype" if !text.split(';').next().is_some_and(is_media_type) => {
            Err("must be a media type (RFC 2046), such as application/json".to_owned())
        }
        _ => Ok(None),
    }
}

/// `None` if a part is no subscriber's id, or there is none.
fn audience(text: &str) -> Option<Audience> {
    let ids = text.split([',', ' ']).filter(|id| !id.is_empty()).map(str::parse);
    ids.collect::<Result<Audience, _>>().ok().filter(|audience| !audience.is_empty())
}

/// The trace that an event's own attributes name (CloudEvents, "Distributed tracing").
fn trace(attributes: &BTreeMap<String, Attribute>) -> Option<Trace> {
    let text = |name| match attributes.get(name) {
        Some(Attribute::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    Trace::read(text(TRACEPARENT)?, text(TRACESTATE))
}

/// White space and the characters that RFC 3986 leaves out have no place in a reference; the rest is taken as it is.
fn is_uri_reference(text: &str) -> bool {
    let excluded =
        |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}');
    !text.contains(excluded)
}

/// Code points that Unicode never assigns, which attributes must not hold (CloudEvents 1.0, "Type System").
fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+%'*`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    text.trim().split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// `application/json`, `text/json` or a type with the suffix `+json` (CloudEvents JSON format, section 3.1).
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// The event's JSON text: attributes by name, then the data as it came.
fn structured(attributes: &BTreeMap<String, Attribute>, data: &Data) -> String {
    let mut json = String::from("{");
    for (name, attribute) in attributes {
        // A name has letters and digits alone; the value is text, a boolean or a number, which always serialise.
        _ = write!(json, "\"{name}\":{},", serde_json::json!(attribute));
    }
    match data {
        Data::None => _ = json.pop(),
        Data::Json(data) => _ = write!(json, "\"data\":{data}"),
        Data::Base64(text) => _ = write!(json, "\"data_base64\":\"{text}\""),
    }
    json.push('}');
    json
}

fn checked_base64(value: &RawValue) -> Option<String> {
    let text: String = serde_json::from_str(value.get()).ok()?;
    BASE64_STANDARD.decode(&text).ok().map(|_| text)
}

/// A header's value as text (CloudEvents HTTP protocol binding, section 3.1.3.2): out of its quotes, if it has them,
/// then percent-decoded.
fn percent_decoded(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let unquoted = unquoted(value);
    let mut rest = &unquoted[..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The content of a quoted string (RFC 9110, section 5.6.4), or what was no such thing as it is.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', content @ .., b'"'] = value else { return Cow::Borrowed(value) };
    let mut bytes = Vec::with_capacity(content.len());
    let mut escaped = false;
    for byte in content {
        if *byte == b'\\' && !escaped {
            escaped = true;
        } else {
            bytes.push(*byte);
            escaped = false;
        }
    }
    Cow::Owned(bytes)
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The members of a JSON object, values untouched; a name that stands twice is an error, since readers differ in which
/// of the two they believe.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format_args!("`{name}` stands twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINIMAL: &str = r#"{"specversion":"1.0","id":"1","source":"/consents","type":"consent:approved"}"#;

    const MINIMAL_SORTED: &str =
        r#"{"id":"1","source":"/consents","specversion":"1.0","type":"consent:approved"}"#;

    fn pointers(json: &str) -> Vec<String> {
        match Event::from_structured(json) {
            Err(Rejected::Invalid(invalid)) => invalid.0.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn with(member: &str) -> String {
        MINIMAL.replace('}', &format!(",{member}}}"))
    }

    #[test]
    fn data_stays_as_submitted() {
        let data = r#"{"amount": 12345678901234567890.10, "b":1,"a":[1e400]}"#;
        let event =
            Event::from_structured(&with(&format!(r#""data":{data},"retry":3,"urgent":true"#))).unwrap();
        assert_eq!(
            event.json,
            format!(
                r#"{{"id":"1","retry":3,"source":"/consents","specversion":"1.0","type":"consent:approved","urgent":true,"data":{data}}}"#
            )
        );
    }

    #[test]
    fn the_trace_is_the_events_own_or_else_the_requests() {
        let parent = |n: u8| format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{n}-01");
        let by_request = Trace::read(&parent(1), None);
        let traced = |json: &str| Event::from_structured(json).unwrap().traced(by_request.clone());
        let own = with(&format!(r#""traceparent":"{}","tracestate":"a=1""#, parent(2)));
        assert_eq!(traced(&own).trace, Trace::read(&parent(2), Some("a=1")));
        assert!(traced(&own).json.contains("traceparent"), "its attributes are delivered as all others");
        for event in
            [MINIMAL, &with(r#""traceparent":"nonsense","tracestate":"a=1""#), &with(r#""traceparent":1"#)]
        {
            assert_eq!(traced(event).trace, by_request);
        }
        assert_eq!(traced(MINIMAL).content, Event::from_structured(MINIMAL).unwrap().content);
        assert!(!traced(MINIMAL).json.contains("traceparent"));
        let accepted = traced(MINIMAL).accepted("acme".parse().unwrap(), UnixMillis(0));
        assert_eq!(accepted.trace, by_request);
    }

    #[test]
    fn a_revision_is_added_and_changes_nothing_else() {
        let event = Event::from_structured(MINIMAL).unwrap();
        let revised = event.clone().revised(7);
        assert_eq!(revised.json, MINIMAL_SORTED.replacen('{', r#"{"revision":7,"#, 1));
        assert_eq!(revised.content, event.content);
        assert!(event.clone().revised(2_147_483_647).json.contains(r#""revision":2147483647,"#));
        assert!(event.revised(2_147_483_648).json.contains(r#""revision":"2147483648","#));
        assert!(Event::from_structured(&revised.json).is_ok());
    }

    #[test]
    fn attributes_are_bounded_together() {
        // Eight of 2,000 bytes with names of 1, and one that fills up.
        let of = |last: usize| {
            let long = ('a'..='h').map(|name| format!(r#","{name}":"{}""#, "x".repeat(2000)));
            let last = format!(r#","z":"{}","flag":false,"number":-7"#, "x".repeat(last));
            MINIMAL.replace('}', &format!("{}{last}}}", long.collect::<String>()))
        };
        let others = "specversion1.0id1source/consentstypeconsent:approvedzflagfalsenumber-7".len();
        let fits = ATTRIBUTES_BYTES_MAX - 8 * 2001 - others;
        assert!(Event::from_structured(&of(fits)).is_ok());
        assert_eq!(pointers(&of(fits + 1)), [""]);
    }

    #[test]
    fn both_modes_make_the_same_event() {
        let structured = Event::from_structured(&with(
            r#""datacontenttype":"application/json","subject":"ü 1","data":{"a": 1}"#,
        ))
        .unwrap();
        let headers = [
            ("specversion", "1.0"),
            ("id", "1"),
            ("source", "/consents"),
            ("type", "consent:approved"),
            ("subject", "%C3%BC%201"),
        ];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let binary = Event::from_binary(headers, Some("application/json"), br#"{"a": 1}"#).unwrap();
        assert_eq!(binary.json, structured.json);
        assert_eq!(binary.content(), structured.content());
    }

    #[test]
    fn binary_data_that_is_no_json_travels_in_base64() {
        let headers = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let event = Event::from_binary(headers, Some("application/octet-stream"), &[0, 255]).unwrap();
        assert!(event.json.ends_with(r#","data_base64":"AP8="}"#), "{}", event.json);
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(pointers("{}"), ["/specversion", "/id", "/source", "/type"]);
        assert_eq!(pointers("[]"), [""]);
        assert_eq!(pointers(r#"{"id":"1","id":"2"}"#), [""]);
        assert_eq!(
            pointers(&with(r#""time":"yesterday","dataschema":"x","datacontenttype":"json""#)).len(),
            3
        );
        assert_eq!(pointers(&with(r#""subject":"""#)), ["/subject"]);
        assert_eq!(pointers(&with("\"subject\":\"\u{ffff}\"")), ["/subject"]);
        assert_eq!(pointers(&with(r#""Upper":"x""#)), ["/Upper"]);
        assert_eq!(pointers(&with(r#""a/b":"x""#)), ["/a~1b"]);
        assert_eq!(pointers(&with(r#""ext":1.5"#)), ["/ext"]);
        assert_eq!(pointers(&with(r#""ext":4294967296"#)), ["/ext"]);
        assert_eq!(pointers(&with(r#""ext":{"a":1}"#)), ["/ext"]);
        assert_eq!(pointers(&with(r#""data":1,"data_base64":"AA==""#)), ["/data_base64"]);
        assert_eq!(pointers(&with(r#""data_base64":"?""#)), ["/data_base64"]);
        assert_eq!(pointers(&MINIMAL.replace("\"1.0\"", "1")), ["/specversion"]);
        assert_eq!(pointers(&MINIMAL.replace("\"1.0\"", "\"0.3\"")), ["/specversion"]);
        assert_eq!(pointers(&MINIMAL.replace("/consents", "a b")), ["/source"]);
        assert_eq!(pointers(&MINIMAL.replace("consent:approved", "consent:*")), ["/type"]);
    }

    #[test]
    fn headers_may_be_quoted_and_do_not_name_data() {
        assert_eq!(percent_decoded(br#""a%20\"b\"""#).as_deref(), Some("a \"b\""));
        assert_eq!(percent_decoded(b"a\"b").as_deref(), Some("a\"b"));
        assert_eq!(percent_decoded(b"%2"), None);
        let headers = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t"), ("data", "x")];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let Err(Rejected::Invalid(invalid)) = Event::from_binary(headers, None, b"") else { panic!() };
        assert_eq!(invalid.0[0].pointer, "header:ce-data");
    }

    #[test]
    fn null_is_absence() {
        let event = Event::from_structured(&with(r#""subject":null,"data":null"#)).unwrap();
        assert!(!event.json.contains("subject") && event.json.ends_with(r#""data":null}"#));
        assert_eq!(pointers(&MINIMAL.replace("\"/consents\"", "null")), ["/source"]);
    }

    #[test]
    fn the_largest_event_is_accepted_and_no_larger_one() {
        let envelope = with(r#""data":"""#).len();
        let filled = |bytes: usize| with(&format!(r#""data":"{}""#, "x".repeat(bytes - envelope)));
        assert!(Event::from_structured(&filled(EVENT_BYTES_MAX)).is_ok());
        let error = Event::from_structured(&filled(EVENT_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error, Rejected::TooLarge { bytes: EVENT_BYTES_MAX + 1 });
    }

    proptest! {
        #[test]
        fn nothing_submitted_can_panic(text in "\\PC{0,60}|\\{(\"(id|data|time|x)\":(\"\\PC{0,5}\"|[0-9]{1,12}|null),?){0,4}\\}") {
            let _ = Event::from_structured(&text);
        }

        #[test]
        fn an_event_parses_from_its_own_json(id in "[^\\p{C}]{1,20}", data in "\\PC{0,40}") {
            let id = serde_json::json!(id);
            let submitted = format!(r#"{{"specversion":"1.0","id":{id},"source":"/s","type":"t","data":{}}}"#, serde_json::json!(data));
            let event = Event::from_structured(&submitted).unwrap();
            let again = Event::from_structured(&event.json).unwrap();
            prop_assert_eq!(again.json, event.json);
        }
    }
}
