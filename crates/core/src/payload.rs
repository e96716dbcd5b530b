//! What a delivery says of its event, in the format that its subscription asks for: the same bytes on every attempt,
//! since they are made of nothing but the stored event and the time when it was accepted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use crate::event::is_json;
use crate::subscription::Format;
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

/// A text that is no event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored event cannot be read: {0}")]
pub struct Unreadable(&'static str);

/// Media type of an event in structured mode (CloudEvents HTTP protocol binding 1.0, section 3.2.1).
const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";

/// What data is whose type the event does not tell (CloudEvents JSON format 1.0, section 3.1.2).
const JSON: &str = "application/json";

/// The payload of a stored event, given as its JSON text. Fails only for what no event of ours is.
pub fn payload(format: Format, json: String, accepted_at: UnixMillis) -> Result<Payload, Unreadable> {
    match format {
        Format::CloudEvents => {
            Ok(Payload { content_type: STRUCTURED.to_owned(), headers: Vec::new(), body: json.into_bytes() })
        }
        Format::CloudEventsBinary => binary(&Members::read(&json)?),
        Format::StandardWebhooks => standard(&Members::read(&json)?, accepted_at),
    }
}

/// Attributes as `ce-` headers, data as the body (CloudEvents HTTP protocol binding 1.0, section 3.1). An event without
/// data has an empty body.
fn binary(event: &Members<'_>) -> Result<Payload, Unreadable> {
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
    let headers = headers.collect::<Result<_, _>>()?;
    let body = match (event.0.get("data"), event.0.get("data_base64")) {
        (Some(data), _) => plain(data, &content_type),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(text(base64)?).map_err(|_| Unreadable("its data is no base64"))?
        }
        (None, None) => Vec::new(),
    };
    Ok(Payload { content_type, headers, body })
}

/// `type`, `timestamp` and `data` (Standard Webhooks 1.0.0, "Payload structure"). The timestamp is the event's `time`, or
/// when it was accepted. Data stands as it was stored, `null` if there is none. Binary data, which that format does not
/// know, stands in `data_base64` in the place of `data`, as in the JSON format of CloudEvents: within `data` it could
/// not be told from a text.
fn standard(event: &Members<'_>, accepted_at: UnixMillis) -> Result<Payload, Unreadable> {
    let event_type = event.0.get("type").ok_or(Unreadable("it has no type"))?;
    let timestamp = match event.0.get("time") {
        Some(time) => time.get().to_owned(),
        None => format!("\"{accepted_at}\""),
    };
    let (name, data) = match (event.0.get("data"), event.0.get("data_base64")) {
        (Some(data), _) => ("data", data.get()),
        (None, Some(base64)) => ("data_base64", base64.get()),
        (None, None) => ("data", "null"),
    };
    let body = format!("{{\"type\":{event_type},\"timestamp\":{timestamp},\"{name}\":{data}}}").into_bytes();
    Ok(Payload { content_type: JSON.to_owned(), headers: Vec::new(), body })
}

/// The members of a stored event by name, their values as they stand.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    fn read(json: &'a str) -> Result<Self, Unreadable> {
        serde_json::from_str(json).map(Self).map_err(|_| Unreadable("it is no JSON object"))
    }
}

/// Data out of the JSON format: itself where its type is a JSON, the content of its text where it is another (CloudEvents
/// JSON format 1.0, section 3.1.2).
fn plain(data: &RawValue, content_type: &str) -> Vec<u8> {
    match text(data) {
        Ok(text) if !is_json(content_type) => text.into_bytes(),
        _ => data.get().as_bytes().to_vec(),
    }
}

fn text(value: &RawValue) -> Result<String, Unreadable> {
    serde_json::from_str(value.get()).map_err(|_| Unreadable("one of its members is no text"))
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
    use crate::task::{DeliveryTask, EventRef};

    const ACCEPTED_AT: UnixMillis = UnixMillis(1_795_339_800_007);
    const FORMATS: [Format; 3] = [Format::CloudEvents, Format::CloudEventsBinary, Format::StandardWebhooks];

    /// What is delivered of an event with these members besides the required ones.
    fn of(format: Format, members: &str) -> Payload {
        let json =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"consent:approved"{members}}}"#);
        payload(format, stored(&json).0, ACCEPTED_AT).unwrap()
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
    fn the_audience_is_in_no_format() {
        for format in FORMATS {
            let made = of(format, r#","audience":"tpp-one, tpp-two","data":{}"#);
            assert!(!format!("{:?} {}", made.headers, body(&made)).contains("tpp"), "{format:?}");
            assert!(!format!("{:?} {}", made.headers, body(&made)).contains("audience"), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_event_has_no_payload() {
        for json in ["", "[]", "{}"] {
            assert!(payload(Format::StandardWebhooks, json.to_owned(), ACCEPTED_AT).is_err(), "{json}");
        }
        let broken = r#"{"type":"t","data_base64":"?"}"#.to_owned();
        assert!(payload(Format::CloudEventsBinary, broken, ACCEPTED_AT).is_err());
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
            let (stored, carried) = stored(&json);
            for format in FORMATS {
                let first = payload(format, carried.clone(), ACCEPTED_AT).unwrap();
                let later = payload(format, stored.clone(), ACCEPTED_AT).unwrap();
                prop_assert_eq!(first, later, "{:?}", format);
            }
        }

        #[test]
        fn binary_mode_tells_all_of_the_event(json in submitted()) {
            let (stored, _) = stored(&json);
            let made = payload(Format::CloudEventsBinary, stored.clone(), ACCEPTED_AT).unwrap();
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
