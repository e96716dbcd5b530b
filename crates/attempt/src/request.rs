//! What an attempt sends: its payload, the subscription's own headers, the signature and the proof.

use bytes::Bytes;
use carillon_core::keys::NotSigned;
use carillon_core::payload::Payload;
use carillon_core::task::DeliveryTask;
use carillon_core::time::UnixMillis;
use carillon_core::trace::{TRACEPARENT, TRACESTATE};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};

use crate::authorization::Proof;
use crate::targets::Target;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACE_PARENT: HeaderName = HeaderName::from_static(TRACEPARENT);
const TRACE_STATE: HeaderName = HeaderName::from_static(TRACESTATE);
const WEBHOOK_REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

/// As many headers as most requests have besides the subscription's own.
const HEADERS: usize = 12;

/// Headers and body of an attempt, all but a token. The headers may hold secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct Prepared {
    pub(crate) headers: HeaderMap,
    /// The very bytes that are signed.
    pub(crate) body: Bytes,
}

impl Prepared {
    /// Sends this besides, or instead.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }
}

/// Why a request cannot be written. None of it is the receiver's doing.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// A value is none that a header can have.
    #[error("a header cannot be written")]
    Value(#[from] InvalidHeaderValue),
    /// A name is none that a header can have.
    #[error("an attribute's name cannot be a header's")]
    Name(#[from] InvalidHeaderName),
    /// It would not be signed.
    #[error("there is no live secret to sign with")]
    Unsigned,
    /// A key failed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}

/// The request of an attempt that begins `now`, with the headers of Standard Webhooks 1.0.0 whatever the payload's form,
/// signed by all that the subscription asks for. Where the endpoint's owner consented, it names the `origin` that was consented to (CloudEvents HTTP
/// webhook 1.0, section 4). What Carillon says of the event stands over what the subscription says.
pub fn prepare(
    task: &DeliveryTask,
    target: &Target,
    payload: Payload,
    origin: &HeaderValue,
    now: UnixMillis,
) -> Result<Prepared, Unwritable> {
    let body = Bytes::from(payload.body);
    let signatures = target.signatures(task, &body, now)?;
    if signatures.is_empty() {
        return Err(Unwritable::Unsigned);
    }
    let mut headers = target.headers.clone();
    headers.reserve(HEADERS);
    for (name, value) in payload.headers {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    // A media type's parameters may be in UTF-8.
    headers.insert(CONTENT_TYPE, HeaderValue::from_bytes(payload.content_type.as_bytes())?);
    headers.insert(WEBHOOK_ID, HeaderValue::from_str(&task.delivery().to_string())?);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_secs()));
    headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_str(&signatures.join(" "))?);
    if let Some(trace) = &task.event.trace {
        headers.insert(TRACE_PARENT, HeaderValue::from_str(trace.traceparent())?);
        if let Some(state) = trace.tracestate() {
            headers.insert(TRACE_STATE, HeaderValue::from_str(state)?);
        }
    }
    if target.confirmed {
        headers.insert(WEBHOOK_REQUEST_ORIGIN, origin.clone());
    }
    if let Proof::Header(name, value) = &target.proof {
        headers.insert(name, value.clone());
    }
    Ok(Prepared { headers, body })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use carillon_aws::signing::{NewKey, PrivateKey};
    use carillon_core::event::Event;
    use carillon_core::keys::{Key, KeyAlgorithm, PublicJwk};
    use carillon_core::subscription::{
        Authorization, Format, SignatureScheme, TokenAlgorithm, TokenSettings,
    };
    use carillon_core::task::EventRef;
    use carillon_core::trace::Trace;
    use secrecy::ExposeSecret as _;
    use standardwebhooks::Webhook;

    use super::*;
    use crate::keyring::KeyRing;
    use crate::targets::tests::{ISSUER, PROOF, SECRET, with};

    const EVENT: &str = r#"{"id":"1","source":"/s","specversion":"1.0","type":"t","data":{"a": 1.10}}"#;

    const ORIGIN: HeaderValue = HeaderValue::from_static("hooks.example.com");

    fn task(accepted_at: UnixMillis) -> DeliveryTask {
        let event = Event::from_structured(EVENT).unwrap().accepted("acme".parse().unwrap(), accepted_at);
        DeliveryTask::first(EventRef::of(&event), "sub_00000000000000000000000000".parse().unwrap())
    }

    fn prepared_at(
        target: &Target,
        accepted_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Prepared, Unwritable> {
        let task = task(accepted_at);
        let payload = target.payload(&task, EVENT.to_owned()).unwrap();
        prepare(&task, target, payload, &ORIGIN, now)
    }

    fn prepared(target: &Target) -> Prepared {
        prepared_at(target, UnixMillis(0), carillon_aws::now()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn verifies(secret: &[u8], prepared: &Prepared) -> bool {
        Webhook::from_bytes(secret.to_vec()).unwrap().verify(&prepared.body, &prepared.headers).is_ok()
    }

    fn signatures(prepared: &Prepared) -> Vec<&str> {
        prepared.headers[WEBHOOK_SIGNATURE].to_str().unwrap().split(' ').collect()
    }

    /// Two keys of an algorithm, the second of which takes over at a time.
    fn rotated(algorithm: KeyAlgorithm, at: UnixMillis) -> (KeyRing, [PublicJwk; 2]) {
        let keys = [UnixMillis(0), at].map(|signs_from| {
            let NewKey { public, pkcs8 } = NewKey::generate(algorithm).unwrap();
            let private = PrivateKey::from_pkcs8(algorithm, pkcs8.expose_secret()).unwrap();
            Key::new(public, Arc::new(private), UnixMillis(0), signs_from)
        });
        let publics = keys.each_ref().map(|key| key.public.clone());
        (keys.into_iter().collect(), publics)
    }

    fn decoded(text: &str) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn the_signature_covers_the_body_of_each_format() {
        let bodies = [
            (Format::CloudEvents, EVENT, "application/cloudevents+json; charset=utf-8"),
            (Format::CloudEventsBinary, r#"{"a": 1.10}"#, "application/json"),
            (
                Format::StandardWebhooks,
                r#"{"type":"t","timestamp":"1970-01-01T00:00:00.000Z","data":{"a": 1.10}}"#,
                "application/json",
            ),
        ];
        for (format, body, content_type) in bodies {
            let prepared = prepared(&with("https://example.com", |parts| parts.format = format));
            assert!(verifies(SECRET, &prepared), "{format:?}");
            assert_eq!(
                (&prepared.body[..], &prepared.headers[CONTENT_TYPE]),
                (body.as_bytes(), &content_type.parse().unwrap())
            );
            assert_eq!(prepared.headers[WEBHOOK_ID], task(UnixMillis(0)).delivery().to_string());
        }
    }

    #[test]
    fn a_token_is_signed_by_the_key_of_its_events_time_and_the_same_on_every_attempt() {
        let rotated_at = UnixMillis(1000);
        let (keys, publics) = rotated(KeyAlgorithm::Es256, rotated_at);
        let target = with("https://example.com", |parts| {
            parts.format = Format::SecurityEventToken;
            let (audience, algorithm) = ("urn:example:tpp".to_owned(), TokenAlgorithm::Es256);
            parts.token = Some(TokenSettings { audience, algorithm });
            parts.keys = keys;
        });
        let now = carillon_aws::now();
        for (accepted_at, public) in [(UnixMillis(999), &publics[0]), (rotated_at, &publics[1])] {
            let attempt =
                |now| prepared_at(&target, accepted_at, now).unwrap_or_else(|error| panic!("{error}"));
            let first = attempt(now);
            assert!(verifies(SECRET, &first));
            assert_eq!(first.headers[CONTENT_TYPE], "application/secevent+jwt");
            assert_eq!(first.headers["accept"], "application/json");
            assert_eq!(first.body, attempt(now + Duration::from_hours(24)).body);
            let token = std::str::from_utf8(&first.body).unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let PublicJwk::P256 { x, y, .. } = public else { panic!("{public:?}") };
            let point = [vec![4], decoded(x), decoded(y)].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            assert!(key.verify(signed.as_bytes(), &decoded(signature)).is_ok(), "{accepted_at}");
            let claims: serde_json::Value =
                serde_json::from_slice(&decoded(signed.split('.').nth(1).unwrap())).unwrap();
            assert_eq!((&claims["iss"], &claims["aud"]), (&ISSUER.into(), &"urn:example:tpp".into()));
        }
    }

    #[test]
    fn asymmetric_signatures_are_of_the_attempt_by_the_key_of_the_events_time() {
        let rotated_at = UnixMillis(1000);
        let (keys, publics) = rotated(KeyAlgorithm::EdDsa, rotated_at);
        let now = UnixMillis(1_795_339_800_000);
        for schemes in [vec![SignatureScheme::V1a], vec![SignatureScheme::V1, SignatureScheme::V1a]] {
            let target = with("https://example.com", |parts| {
                parts.signatures = schemes.clone().try_into().unwrap();
                parts.keys = keys.clone();
            });
            for (accepted_at, public) in [(UnixMillis(999), &publics[0]), (rotated_at, &publics[1])] {
                let prepared =
                    prepared_at(&target, accepted_at, now).unwrap_or_else(|error| panic!("{error}"));
                let signatures = signatures(&prepared);
                assert_eq!(signatures.len(), schemes.len());
                let signature = signatures.last().unwrap().strip_prefix("v1a,").unwrap();
                let id = prepared.headers[WEBHOOK_ID].to_str().unwrap();
                let signed = [format!("{id}.1795339800.").as_bytes(), &prepared.body].concat();
                let PublicJwk::Ed25519 { x, .. } = public else { panic!("{public:?}") };
                let key = UnparsedPublicKey::new(&ED25519, decoded(x));
                let signature = BASE64_STANDARD.decode(signature).unwrap();
                assert!(key.verify(&signed, &signature).is_ok(), "{accepted_at}");
            }
        }
    }

    #[test]
    fn without_its_key_nothing_is_sent() {
        let target = with("https://example.com", |parts| {
            parts.signatures = vec![SignatureScheme::V1a].try_into().unwrap();
        });
        let prepared = prepared_at(&target, UnixMillis(0), UnixMillis(0));
        assert!(matches!(prepared, Err(Unwritable::NotSigned(_))));
    }

    #[test]
    fn a_confirmed_endpoint_is_told_in_whose_name_it_is_called() {
        for confirmed in [false, true] {
            let target = with("https://example.com", |parts| parts.confirmed = confirmed);
            let prepared = prepared(&target);
            assert_eq!(prepared.headers.get("webhook-request-origin"), confirmed.then_some(&ORIGIN));
        }
    }

    #[test]
    fn the_trace_of_the_event_is_told() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let told = |trace| {
            let (target, mut task) = (with("https://example.com", |_| {}), task(UnixMillis(0)));
            task.event.trace = trace;
            let payload = target.payload(&task, EVENT.to_owned()).unwrap();
            let prepared = prepare(&task, &target, payload, &ORIGIN, carillon_aws::now());
            let headers = prepared.unwrap_or_else(|error| panic!("{error}")).headers;
            ["traceparent", "tracestate"].map(|name| headers.get(name).cloned())
        };
        let value = HeaderValue::from_static;
        assert_eq!(told(None), [None, None]);
        assert_eq!(told(Trace::read(PARENT, None)), [Some(value(PARENT)), None]);
        assert_eq!(told(Trace::read(PARENT, Some("a=1"))), [Some(value(PARENT)), Some(value("a=1"))]);
    }

    #[test]
    fn binary_mode_has_the_attributes_beside() {
        let target = with("https://example.com", |parts| parts.format = Format::CloudEventsBinary);
        let prepared = prepared(&target);
        let of = |name: &str| prepared.headers[name].to_str().unwrap();
        assert_eq!(
            [of("ce-id"), of("ce-source"), of("ce-type"), of("ce-specversion")],
            ["1", "/s", "t", "1.0"]
        );
    }

    #[test]
    fn every_secret_signs_that_is_live_at_the_time_of_the_attempt() {
        let now = UnixMillis(1_795_339_800_000);
        let target = with("https://example.com", |stored| {
            stored
                .signing
                .push((b"the second secret, 24+ bytes".to_vec(), Some(now + Duration::from_millis(1))));
        });
        let count = |now| {
            let prepared = prepared_at(&target, UnixMillis(0), now).unwrap_or_else(|error| panic!("{error}"));
            signatures(&prepared).len()
        };
        assert_eq!([count(now), count(now + Duration::from_millis(1))], [2, 1]);
        let expired = with("https://example.com", |stored| stored.signing[0].1 = Some(now));
        assert!(matches!(prepared_at(&expired, UnixMillis(0), now), Err(Unwritable::Unsigned)));
    }

    #[test]
    fn own_headers_and_the_proof_are_sent_along() {
        let target = with("https://example.com", |stored| {
            stored.headers =
                [("X-Tenant", "a"), ("X-Api-Key", "mine")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
            stored.authorization =
                Authorization::ApiKey { header: "X-Api-Key".to_owned().try_into().unwrap() };
        });
        let prepared = prepared(&target);
        assert_eq!(
            (&prepared.headers["x-tenant"], &prepared.headers["x-api-key"]),
            (&"a".parse().unwrap(), &PROOF.parse().unwrap())
        );
        assert!(verifies(SECRET, &prepared));
    }
}
