//! What a delivery says of its event, in the format that its subscription asks for: the same bytes on every attempt,
//! since they are made of nothing but the stored event, the time when it was accepted, and what its subscription says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{REVISION, is_json};
use crate::id::{DeliveryId, EventDigest};
use crate::keys::{Key, NotSigned, Sign};
use crate::time::UnixMillis;

/// The part of a delivery's request that depends on the event alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The value of `Content-Type`.
    pub content_type: String,
    /// Other headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte as it is signed and sent.
    pub body: Vec<u8>,
}

/// The form of a payload: a subscription's [`Format`](crate::subscription::Format), with what it needs.
pub enum Form<'a> {
    /// [`Format::CloudEvents`](crate::subscription::Format::CloudEvents)
    CloudEvents,
    /// [`Format::CloudEventsBinary`](crate::subscription::Format::CloudEventsBinary)
    CloudEventsBinary,
    /// [`Format::StandardWebhooks`](crate::subscription::Format::StandardWebhooks)
    StandardWebhooks,
    /// [`Format::Resource`](crate::subscription::Format::Resource)
    Resource,
    /// [`Format::SecurityEventToken`](crate::subscription::Format::SecurityEventToken)
    SecurityEventToken(Token<'a>),
}

/// What a token says besides its event, and the key that signs it.
pub struct Token<'a> {
    /// Who says it: the workspace's URL.
    pub issuer: &'a str,
    /// Whom it is for.
    pub audience: &'a str,
    /// Which delivery it is: the token's id.
    pub delivery: DeliveryId,
    /// Which event it is about: the same for all that hear of it.
    pub event: EventDigest,
    /// The key that signs what was accepted when the event was.
    pub key: Key<&'a dyn Sign>,
}

/// Why an event has no payload in a form. It will never have one: nothing of it is the receiver's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPayload {
    /// What is stored is no event.
    #[error("the stored event cannot be read: {0}")]
    Unreadable(&'static str),
    /// Only events with a revision can be shown as resources.
    #[error("the event has no revision, so that it cannot be shown as a resource")]
    NoRevision,
    /// The token could not be signed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}

/// Media type of an event in structured mode (CloudEvents HTTP protocol binding 1.0, section 3.2.1).
const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";

/// What data is whose type the event does not tell (CloudEvents JSON format 1.0, section 3.1.2).
const JSON: &str = "application/json";

/// Media type of a Security Event Token, and the `typ` of its header (RFC 8417, section 2.3).
const TOKEN: &str = "application/secevent+jwt";
const TOKEN_TYPE: &str = "secevent+jwt";

/// The payload of a stored event, given as its JSON text.
pub fn payload(form: Form<'_>, json: String, accepted_at: UnixMillis) -> Result<Payload, NoPayload> {
    match form {
        Form::CloudEvents => {
            Ok(Payload { content_type: STRUCTURED.to_owned(), headers: Vec::new(), body: json.into_bytes() })
        }
        Form::CloudEventsBinary => binary(&Members::read(&json)?),
        Form::StandardWebhooks => standard(&Members::read(&json)?, accepted_at),
        Form::Resource => resource(&Members::read(&json)?, accepted_at),
        Form::SecurityEventToken(token) => security_event(&Members::read(&json)?, accepted_at, &token),
    }
}

/// Attributes as `ce-` headers, data as the body (CloudEvents HTTP protocol binding 1.0, section 3.1). An event without
/// data has an empty body.
fn binary(event: &Members<'_>) -> Result<Payload, NoPayload> {
    let content_type = match event.0.get("datacontenttype") {
        Some(value) => text(value)?.trim().to_owned(),
        None => JSON.to_owned(),
    };
    let attributes = event
        .0
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "data" | "data_base64" | "datacontenttype"));
    let headers = attributes.map(|(name, value)| {
        // Booleans and integers are written as in JSON ("Type System").
        let value = if value.get().starts_with('"') { text(value)? } else { value.get().to_owned() };
        Ok((format!("ce-{name}"), percent_encoded(&value)))
    });
    let headers = headers.collect::<Result<_, NoPayload>>()?;
    let body = match event.data() {
        EventData::Json(data) => plain(data, &content_type),
        EventData::Base64(base64) => BASE64_STANDARD
            .decode(text(base64)?)
            .map_err(|_| NoPayload::Unreadable("its data is no base64"))?,
        EventData::None => Vec::new(),
    };
    Ok(Payload { content_type, headers, body })
}

/// `type`, `timestamp` and `data` (Standard Webhooks 1.0.0, "Payload structure"). The timestamp is the event's `time`, or
/// when it was accepted. Data stands as it was stored, `null` if there is none. Binary data, which that format does not
/// know, stands in `data_base64` in the place of `data`, as in the JSON format of CloudEvents: within `data` it could
/// not be told from a text.
fn standard(event: &Members<'_>, accepted_at: UnixMillis) -> Result<Payload, NoPayload> {
    let event_type = event.get("type")?;
    let timestamp = event.timestamp(accepted_at);
    let (name, data) = match event.data() {
        EventData::Json(data) => ("data", data.get()),
        EventData::Base64(text) => ("data_base64", text.get()),
        EventData::None => ("data", "null"),
    };
    let body = format!("{{\"type\":{event_type},\"timestamp\":{timestamp},\"{name}\":{data}}}").into_bytes();
    Ok(Payload { content_type: JSON.to_owned(), headers: Vec::new(), body })
}

/// The members of a notification of a resource, but for its revision.
const RESOURCE: [&str; 3] = ["apiResource", "updateTimestamp", "resourcePayload"];

/// What happened to a resource, as directories tell it: which one, when, how it is since, and the place of the change in
/// the order of all, which is the event's revision. Data that says the other three, as the directory's own types have it,
/// stands for itself. Else the resource is the event's subject, or its source if it has none. As in Standard Webhooks,
/// binary data stands under a name of its own.
fn resource(event: &Members<'_>, accepted_at: UnixMillis) -> Result<Payload, NoPayload> {
    // In binary mode every attribute is published as a text, and so is a number of more than 32 bits.
    let revision = event.0.get(REVISION).map(|revision| revision.get().trim_matches('"'));
    let revision = revision.filter(|revision| is_integer(revision));
    if let Some(body) = notification(event, revision) {
        return Ok(Payload { content_type: JSON.to_owned(), headers: Vec::new(), body: body.into_bytes() });
    }
    let revision = revision.ok_or(NoPayload::NoRevision)?;
    let resource = event.0.get("subject").copied().map_or_else(|| event.get("source"), Ok)?;
    let timestamp = event.timestamp(accepted_at);
    let (name, data) = match event.data() {
        EventData::Json(data) => ("resourcePayload", data.get()),
        EventData::Base64(text) => ("resourcePayload_base64", text.get()),
        EventData::None => ("resourcePayload", "null"),
    };
    let body = format!(
        "{{\"apiResource\":{resource},\"updateTimestamp\":{timestamp},\"{name}\":{data},\"revision\":{revision}}}"
    );
    Ok(Payload { content_type: JSON.to_owned(), headers: Vec::new(), body: body.into_bytes() })
}

/// The four members, if the event's data is an object that has the first three; what else it has is no part of the format.
/// Where events have no revision, the data's own stands for it.
fn notification(event: &Members<'_>, revision: Option<&str>) -> Option<String> {
    let EventData::Json(data) = event.data() else { return None };
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(data.get()).ok()?;
    let revision = revision.or_else(|| members.get(REVISION).map(|revision| revision.get()))?;
    let member = |name: &str| Some(format!("\"{name}\":{}", members.get(name)?));
    let members = RESOURCE.iter().map(|name| member(name)).collect::<Option<Vec<_>>>()?;
    Some(format!("{{{},\"{REVISION}\":{revision}}}", members.join(",")))
}

/// A signed token (RFC 8417, section 2; RFC 7515, section 3.1) for a push (RFC 8935, section 2.1). It never expires, and
/// its subject is a subject identifier (RFC 9493, section 3.2.4) and no `sub`, so that nobody takes it for a token that
/// lets somebody in (RFC 8417, section 4).
fn security_event(
    event: &Members<'_>,
    accepted_at: UnixMillis,
    token: &Token<'_>,
) -> Result<Payload, NoPayload> {
    let Token { issuer, audience, delivery, event: digest, key } = token;
    let (data, data_base64) = match event.data() {
        EventData::Json(data) => (Some(data), None),
        EventData::Base64(text) => (None, Some(text)),
        EventData::None => (None, None),
    };
    let told = Told { id: event.get("id")?, source: event.get("source")?, data, data_base64 };
    let subject = event.0.get("subject").map(|id| SubjectIdentifier { format: "opaque", id });
    let time = event.0.get("time").map(|time| text(time)).transpose()?;
    let claims = Claims {
        iss: issuer,
        iat: accepted_at.as_secs(),
        jti: *delivery,
        aud: audience,
        txn: digest.to_string(),
        toe: time.and_then(|time| seconds(&time)),
        sub_id: subject,
        events: [(event_uri(issuer, &text(event.get("type")?)?), told)].into(),
    };
    let header = Header { typ: TOKEN_TYPE, alg: key.algorithm().as_str(), kid: &key.kid };
    let signed = format!("{}.{}", base64_json(&header)?, base64_json(&claims)?);
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.private.sign(signed.as_bytes())?);
    Ok(Payload {
        content_type: TOKEN.to_owned(),
        headers: vec![("accept".to_owned(), JSON.to_owned())],
        body: format!("{signed}.{signature}").into_bytes(),
    })
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    kid: &'a str,
}

/// RFC 8417, section 2.2.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: u64,
    jti: DeliveryId,
    aud: &'a str,
    txn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    toe: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_id: Option<SubjectIdentifier<'a>>,
    events: BTreeMap<String, Told<'a>>,
}

#[derive(Serialize)]
struct SubjectIdentifier<'a> {
    format: &'static str,
    id: &'a RawValue,
}

/// What a token tells of its event.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a RawValue,
    source: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<&'a RawValue>,
}

/// The URI of an event's type: the type itself where it is one, else where the type can be read about. A type like
/// `consent:approved` has the look of a URI, but its scheme would be nobody's.
fn event_uri(issuer: &str, event_type: &str) -> String {
    let is_uri = ["https://", "http://", "urn:"].iter().any(|scheme| event_type.starts_with(scheme));
    let has_only =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    if is_uri && has_only(event_type) && url::Url::parse(event_type).is_ok() {
        return event_type.to_owned();
    }
    let mut uri = format!("{issuer}/event-types/");
    for byte in event_type.bytes() {
        match byte {
            // What can stand in a path's segment (RFC 3986, section 3.3).
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => uri.push(char::from(byte)),
            _ if b"-._~!$&'()*+,;=:@".contains(&byte) => uri.push(char::from(byte)),
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri
}

/// A time of RFC 3339 as a number of seconds, as tokens have it (RFC 7519, section 2).
fn seconds(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn base64_json(value: &impl Serialize) -> Result<String, NoPayload> {
    let json = serde_json::to_vec(value).map_err(|_| NoPayload::Unreadable("it cannot be written"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(json))
}

/// The members of a stored event by name, their values as they stand.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    fn read(json: &'a str) -> Result<Self, NoPayload> {
        serde_json::from_str(json).map(Self).map_err(|_| NoPayload::Unreadable("it is no JSON object"))
    }

    /// An attribute that every event has.
    fn get(&self, name: &str) -> Result<&'a RawValue, NoPayload> {
        self.0.get(name).copied().ok_or(NoPayload::Unreadable("a required attribute is missing"))
    }

    /// The event's `time`, or when it was accepted, in JSON.
    fn timestamp(&self, accepted_at: UnixMillis) -> String {
        match self.0.get("time") {
            Some(time) => time.get().to_owned(),
            None => format!("\"{accepted_at}\""),
        }
    }

    fn data(&self) -> EventData<'a> {
        match (self.0.get("data"), self.0.get("data_base64")) {
            (Some(data), _) => EventData::Json(data),
            (None, Some(base64)) => EventData::Base64(base64),
            (None, None) => EventData::None,
        }
    }
}

/// An event's data as it stands.
enum EventData<'a> {
    Json(&'a RawValue),
    Base64(&'a RawValue),
    None,
}

/// Data out of the JSON format: itself where its type is a JSON, the content of its text where it is another (CloudEvents
/// JSON format 1.0, section 3.1.2).
fn plain(data: &RawValue, content_type: &str) -> Vec<u8> {
    match text(data) {
        Ok(text) if !is_json(content_type) => text.into_bytes(),
        _ => data.get().as_bytes().to_vec(),
    }
}

fn text(value: &RawValue) -> Result<String, NoPayload> {
    serde_json::from_str(value.get()).map_err(|_| NoPayload::Unreadable("one of its members is no text"))
}

/// Text as the value of a header (CloudEvents HTTP protocol binding 1.0, section 3.1.3.2).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => _ = write!(encoded, "%{byte:02X}"),
            b'!'..=b'~' => encoded.push(char::from(byte)),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;
    use crate::id::EventKey;
    use crate::keys::PublicJwk;
    use crate::subscription::Format;
    use crate::task::{DeliveryTask, EventRef};

    const ACCEPTED_AT: UnixMillis = UnixMillis(1_795_339_800_007);
    const FORMATS: [Format; 5] = [
        Format::CloudEvents,
        Format::CloudEventsBinary,
        Format::StandardWebhooks,
        Format::Resource,
        Format::SecurityEventToken,
    ];
    const ISSUER: &str = "https://carillon.example.com/v1/workspaces/acme";

    /// Stands for a key: its signature shows what was signed.
    struct Echo;

    impl Sign for Echo {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotSigned> {
            Ok([b"signed ", message].concat())
        }
    }

    fn form(format: Format) -> Form<'static> {
        match format {
            Format::CloudEvents => Form::CloudEvents,
            Format::CloudEventsBinary => Form::CloudEventsBinary,
            Format::StandardWebhooks => Form::StandardWebhooks,
            Format::Resource => Form::Resource,
            Format::SecurityEventToken => {
                let event: EventKey = "acme/00000000000000000000000000000000".parse().unwrap();
                let public = PublicJwk::p256(&[1; 32], &[2; 32]);
                Form::SecurityEventToken(Token {
                    issuer: ISSUER,
                    audience: "urn:example:tpp",
                    delivery: DeliveryId::of(&event, "sub_00000000000000000000000000".parse().unwrap()),
                    event: event.digest,
                    key: Key::new(public, &Echo, ACCEPTED_AT, ACCEPTED_AT),
                })
            }
        }
    }

    /// What is delivered of an event with these members besides the required ones.
    fn of(format: Format, members: &str) -> Payload {
        let json =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"consent:approved"{members}}}"#);
        payload(form(format), stored(&json).0, ACCEPTED_AT).unwrap()
    }

    /// Header and claims of a token, and what was signed.
    fn token(payload: &Payload) -> (String, String, String) {
        let part = |text: &str| String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
        let [header, claims, signature] = body(payload).split('.').collect::<Vec<_>>()[..] else {
            panic!("no token: {}", body(payload))
        };
        assert_eq!(part(signature), format!("signed {header}.{claims}"));
        (part(header), part(claims), signature.to_owned())
    }

    /// The JSON text as it is stored, and as a task brings it to `deliver`.
    fn stored(submitted: &str) -> (String, String) {
        let event = Event::from_structured(submitted).unwrap();
        let accepted = event.accepted("acme".parse().unwrap(), ACCEPTED_AT);
        let subscription = "sub_00000000000000000000000000".parse().unwrap();
        let task = DeliveryTask::first(EventRef::of(&accepted), subscription).to_json().unwrap();
        let carried = DeliveryTask::from_json(&task).unwrap().event.json;
        (accepted.json.clone(), carried.unwrap_or(accepted.json))
    }

    fn body(payload: &Payload) -> &str {
        std::str::from_utf8(&payload.body).unwrap()
    }

    fn header<'a>(payload: &'a Payload, name: &str) -> Option<&'a str> {
        payload.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn structured_mode_is_the_event_as_stored() {
        let made = of(Format::CloudEvents, r#","data":{"b": 1.10, "a":[ ]}"#);
        assert_eq!(made.content_type, "application/cloudevents+json; charset=utf-8");
        assert_eq!(made.headers, []);
        assert_eq!(
            body(&made),
            r#"{"id":"1","source":"/s","specversion":"1.0","type":"consent:approved","data":{"b": 1.10, "a":[ ]}}"#
        );
    }

    #[test]
    fn binary_mode_has_attributes_as_headers() {
        let made = of(
            Format::CloudEventsBinary,
            r#","subject":"Euro € 😀 \"50%\"","flag":true,"number":-7,"data":{"b": 1.10}"#,
        );
        let headers = [
            ("ce-flag", "true"),
            ("ce-id", "1"),
            ("ce-number", "-7"),
            ("ce-source", "/s"),
            ("ce-specversion", "1.0"),
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80%20%2250%25%22"),
            ("ce-type", "consent:approved"),
        ];
        assert_eq!(made.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((made.content_type.as_str(), body(&made)), ("application/json", r#"{"b": 1.10}"#));
    }

    #[test]
    fn binary_mode_has_data_in_its_own_type() {
        let in_binary = |members| {
            let made = of(Format::CloudEventsBinary, members);
            assert_eq!(header(&made, "ce-datacontenttype"), None);
            (made.content_type.clone(), made.body)
        };
        let made = |content_type: &str, body: &[u8]| (content_type.to_owned(), body.to_vec());
        for (members, expected) in [
            ("", made(JSON, b"")),
            (r#","data":null"#, made(JSON, b"null")),
            (r#","data":"just a text""#, made(JSON, br#""just a text""#)),
            (r#","data_base64":"AP+A""#, made(JSON, &[0, 255, 128])),
            (r#","datacontenttype":"image/png","data_base64":"AP+A""#, made("image/png", &[0, 255, 128])),
            (
                r#","datacontenttype":"application/xml","data":"<much wow=\"xml\"/>""#,
                made("application/xml", br#"<much wow="xml"/>"#),
            ),
            (
                r#","datacontenttype":"application/scim+JSON; v=2","data":"a\n""#,
                made("application/scim+JSON; v=2", br#""a\n""#),
            ),
            (r#","datacontenttype":"text/plain","data":[1.0]"#, made("text/plain", b"[1.0]")),
            (r#","datacontenttype":"text/plain","data":"\ud800""#, made("text/plain", br#""\ud800""#)),
        ] {
            assert_eq!(in_binary(members), expected, "{members}");
        }
    }

    #[test]
    fn standard_webhooks_have_three_members() {
        for (members, expected) in [
            ("", r#"{"type":"consent:approved","timestamp":"2026-11-22T09:30:00.007Z","data":null}"#),
            (
                r#","time":"2026-11-22T06:30:00+00:00","data":{"b": 1.10}"#,
                r#"{"type":"consent:approved","timestamp":"2026-11-22T06:30:00+00:00","data":{"b": 1.10}}"#,
            ),
            (
                r#","data_base64":"AP+A""#,
                r#"{"type":"consent:approved","timestamp":"2026-11-22T09:30:00.007Z","data_base64":"AP+A"}"#,
            ),
        ] {
            let made = of(Format::StandardWebhooks, members);
            assert_eq!((made.content_type.as_str(), body(&made)), ("application/json", expected));
            assert_eq!(made.headers, []);
        }
    }

    #[test]
    fn resources_have_four_members() {
        for (members, expected) in [
            (
                r#","revision":7"#,
                r#"{"apiResource":"/s","updateTimestamp":"2026-11-22T09:30:00.007Z","resourcePayload":null,"revision":7}"#,
            ),
            (
                r#","revision":1084485,"subject":"/organisations/1","time":"2024-12-12T17:32:57Z","data":{"b": 1.10}"#,
                r#"{"apiResource":"/organisations/1","updateTimestamp":"2024-12-12T17:32:57Z","resourcePayload":{"b": 1.10},"revision":1084485}"#,
            ),
            (
                r#","revision":"41","data":1"#,
                r#"{"apiResource":"/s","updateTimestamp":"2026-11-22T09:30:00.007Z","resourcePayload":1,"revision":41}"#,
            ),
            (
                r#","data":{"revision":3,"apiResource":"/a","more":0,"resourcePayload":{"b": 1.10},"updateTimestamp":"t"}"#,
                r#"{"apiResource":"/a","updateTimestamp":"t","resourcePayload":{"b": 1.10},"revision":3}"#,
            ),
            (
                r#","revision":0,"data_base64":"AP+A""#,
                r#"{"apiResource":"/s","updateTimestamp":"2026-11-22T09:30:00.007Z","resourcePayload_base64":"AP+A","revision":0}"#,
            ),
        ] {
            let made = of(Format::Resource, members);
            assert_eq!((made.content_type.as_str(), body(&made)), ("application/json", expected));
            assert_eq!(made.headers, []);
        }
    }

    #[test]
    fn without_a_revision_there_is_no_resource() {
        for revision in ["", r#","revision":"seven""#, r#","revision":true"#, r#","revision":1.0"#] {
            let json = format!(r#"{{"id":"1","source":"/s","type":"t"{revision}}}"#);
            assert_eq!(payload(Form::Resource, json, ACCEPTED_AT), Err(NoPayload::NoRevision), "{revision}");
        }
    }

    #[test]
    fn tokens_say_which_event_of_what_type_happened_when() {
        let made = of(
            Format::SecurityEventToken,
            r#","time":"2026-11-22T09:29:59.999Z","subject":"urn:consent:1","data":{"b": 1.10}"#,
        );
        assert_eq!(made.content_type, "application/secevent+jwt");
        assert_eq!(made.headers, [("accept".to_owned(), "application/json".to_owned())]);
        let (header, claims, _) = token(&made);
        let Form::SecurityEventToken(Token { delivery, key, .. }) = form(Format::SecurityEventToken) else {
            panic!("no token")
        };
        assert_eq!(header, format!(r#"{{"typ":"secevent+jwt","alg":"ES256","kid":"{}"}}"#, key.kid));
        assert_eq!(
            claims,
            format!(
                r#"{{"iss":"{ISSUER}","iat":1795339800,"jti":"{delivery}","aud":"urn:example:tpp","txn":"{}","toe":1795339799,"sub_id":{{"format":"opaque","id":"urn:consent:1"}},"events":{{"{ISSUER}/event-types/consent:approved":{{"id":"1","source":"/s","data":{{"b": 1.10}}}}}}}}"#,
                "0".repeat(32),
            )
        );
        let (_, claims, _) = token(&of(Format::SecurityEventToken, r#","data_base64":"AP+A""#));
        let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
        assert!(["toe", "sub", "sub_id", "exp"].iter().all(|claim| claims[claim].is_null()), "{claims}");
        let told = &claims["events"][format!("{ISSUER}/event-types/consent:approved")];
        assert_eq!(*told, serde_json::json!({"id": "1", "source": "/s", "data_base64": "AP+A"}));
    }

    #[test]
    fn a_type_that_is_a_uri_names_itself() {
        for uri in ["https://schemas.example.com/consent/approved", "urn:ietf:params:event:x"] {
            assert_eq!(event_uri(ISSUER, uri), uri);
        }
        for (event_type, segment) in [
            ("consent:approved", "consent:approved"),
            ("token.issued", "token.issued"),
            ("a/b?c#d%é\"", "a%2Fb%3Fc%23d%25%C3%A9%22"),
            ("https://", "https:%2F%2F"),
        ] {
            assert_eq!(event_uri(ISSUER, event_type), format!("{ISSUER}/event-types/{segment}"));
        }
    }

    #[test]
    fn the_audience_is_in_no_format() {
        for format in FORMATS {
            let made = of(format, r#","audience":"tpp-one, tpp-two","revision":1,"data":{}"#);
            let text =
                if format == Format::SecurityEventToken { token(&made).1 } else { body(&made).to_owned() };
            assert!(!format!("{:?} {text}", made.headers).contains("tpp-"), "{format:?}");
            assert!(!format!("{:?} {text}", made.headers).contains("audience"), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_event_has_no_payload() {
        for json in ["", "[]", "{}"] {
            for format in [Format::StandardWebhooks, Format::Resource, Format::SecurityEventToken] {
                assert!(payload(form(format), json.to_owned(), ACCEPTED_AT).is_err(), "{format:?} {json}");
            }
        }
        let broken = r#"{"type":"t","data_base64":"?"}"#.to_owned();
        assert!(payload(Form::CloudEventsBinary, broken, ACCEPTED_AT).is_err());
    }

    /// An event as its publisher might write it, with data of any kind.
    fn submitted() -> impl Strategy<Value = String> {
        let data = prop_oneof![
            Just(String::new()),
            "[ -~]{0,20}".prop_map(|text| format!(r#","data": {}"#, serde_json::json!(text))),
            "\\PC{0,20}".prop_map(|text| format!(r#","data":{{ "t" : {} }}"#, serde_json::json!(text))),
            (any::<i64>(), 0_u16..999).prop_map(|(a, b)| format!(r#","data":[{a}.{b}0, {a}e{b}]"#)),
            prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|bytes| format!(r#","data_base64":"{}""#, BASE64_STANDARD.encode(bytes))),
        ];
        let content_type = prop_oneof![Just("application/json"), Just("text/plain"), Just("a/b+json; c=d")];
        ("[!-~]{1,20}", "[^\\p{C}]{1,20}", content_type, data).prop_map(
            |(id, extension, content_type, data)| {
                let attributes = serde_json::json!({
                    "specversion": "1.0", "id": id, "source": "/s", "type": "t", "extension": extension,
                    "datacontenttype": content_type,
                });
                format!("{}{data}}}", attributes.to_string().trim_end_matches('}'))
            },
        )
    }

    proptest! {
        #[test]
        fn every_attempt_has_the_same_bytes(json in submitted()) {
            let (stored, carried) = stored(&json.replacen('{', r#"{"revision":7,"#, 1));
            for format in FORMATS {
                let first = payload(form(format), carried.clone(), ACCEPTED_AT).unwrap();
                let later = payload(form(format), stored.clone(), ACCEPTED_AT).unwrap();
                prop_assert_eq!(first, later, "{:?}", format);
            }
        }

        #[test]
        fn binary_mode_tells_all_of_the_event(json in submitted()) {
            let (stored, _) = stored(&json);
            let made = payload(Form::CloudEventsBinary, stored.clone(), ACCEPTED_AT).unwrap();
            let headers = made.headers.iter().map(|(name, value)| (&name[3..], value.as_bytes()));
            let read = Event::from_binary(headers, Some(&made.content_type), &made.body);
            let attributes = |json: &str| {
                let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).unwrap();
                members.retain(|name, _| !name.starts_with("data") || name == "datacontenttype");
                members.into_iter().map(|(name, value)| (name, value.to_string())).collect::<Vec<_>>()
            };
            let base64 = stored.contains(r#""data_base64":""#);
            match (read, is_json(&made.content_type)) {
                // Publishers may say of bytes that they are JSON when they are not.
                (Err(_), json) => prop_assert!(json && base64),
                (Ok(read), true) if !base64 => prop_assert_eq!(read.json(), &stored),
                // Text of other types comes back as bytes, and nothing as no data.
                (Ok(read), _) => prop_assert_eq!(attributes(read.json()), attributes(&stored)),
            }
        }
    }
}
