//! What an attempt sends: its payload, the subscription's own headers, the signature and the proof.

use bytes::Bytes;
use carillon_core::id::DeliveryId;
use carillon_core::payload::Payload;
use carillon_core::time::UnixMillis;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};

use crate::authorization::Proof;
use crate::targets::Target;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const WEBHOOK_REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

/// Headers and body of an attempt, all but a token. The headers may hold secrets, so it has no `Debug`.
pub(crate) struct Prepared {
    pub(crate) headers: HeaderMap,
    /// The very bytes that are signed.
    pub(crate) body: Bytes,
}

/// Why a request cannot be written. None of it is the receiver's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwritable {
    #[error("a header cannot be written")]
    Value(#[from] InvalidHeaderValue),
    #[error("an attribute's name cannot be a header's")]
    Name(#[from] InvalidHeaderName),
    #[error("there is no live secret to sign with")]
    Unsigned,
}

/// The request of an attempt that begins `now`, with the headers of Standard Webhooks 1.0.0, signed by every secret that
/// is live then. Where the endpoint's owner consented, it names the `origin` that was consented to (CloudEvents HTTP
/// webhook 1.0, section 4). What Carillon says of the event stands over what the subscription says.
pub(crate) fn prepare(
    delivery: DeliveryId,
    target: &Target,
    payload: Payload,
    origin: &HeaderValue,
    now: UnixMillis,
) -> Result<Prepared, Unwritable> {
    let body = Bytes::from(payload.body);
    let timestamp = now.as_secs();
    let signatures: Vec<_> = target.live(now).map(|secret| secret.sign(delivery, timestamp, &body)).collect();
    if signatures.is_empty() {
        return Err(Unwritable::Unsigned);
    }
    let mut headers = target.headers.clone();
    for (name, value) in payload.headers {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    // A media type's parameters may be in UTF-8.
    headers.insert(CONTENT_TYPE, HeaderValue::from_bytes(payload.content_type.as_bytes())?);
    headers.insert(WEBHOOK_ID, HeaderValue::from_str(&delivery.to_string())?);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_str(&signatures.join(" "))?);
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
    use std::time::Duration;

    use carillon_core::payload::payload;
    use carillon_core::subscription::{Authorization, Format};
    use standardwebhooks::Webhook;

    use super::*;
    use crate::targets::tests::{PROOF, SECRET, target, with};

    const EVENT: &str = r#"{"id":"1","source":"/s","specversion":"1.0","type":"t","data":{"a": 1.10}}"#;

    const ORIGIN: HeaderValue = HeaderValue::from_static("hooks.example.com");

    fn delivery() -> DeliveryId {
        let event = "acme/00000000000000000000000000000000".parse().unwrap();
        DeliveryId::of(&event, "sub_00000000000000000000000000".parse().unwrap())
    }

    fn prepared(target: &Target, format: Format) -> Prepared {
        let payload = payload(format, EVENT.to_owned(), UnixMillis(0)).unwrap();
        prepare(delivery(), target, payload, &ORIGIN, carillon_aws::now())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn verifies(secret: &[u8], prepared: &Prepared) -> bool {
        Webhook::from_bytes(secret.to_vec()).unwrap().verify(&prepared.body, &prepared.headers).is_ok()
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
            let prepared = prepared(&target("https://example.com"), format);
            assert!(verifies(SECRET, &prepared), "{format:?}");
            assert_eq!(
                (&prepared.body[..], &prepared.headers[CONTENT_TYPE]),
                (body.as_bytes(), &content_type.parse().unwrap())
            );
            assert_eq!(prepared.headers[WEBHOOK_ID], delivery().to_string());
        }
    }

    #[test]
    fn a_confirmed_endpoint_is_told_in_whose_name_it_is_called() {
        for confirmed in [false, true] {
            let target = with("https://example.com", |parts| parts.confirmed = confirmed);
            let prepared = prepared(&target, Format::CloudEvents);
            assert_eq!(prepared.headers.get("webhook-request-origin"), confirmed.then_some(&ORIGIN));
        }
    }

    #[test]
    fn binary_mode_has_the_attributes_beside() {
        let prepared = prepared(&target("https://example.com"), Format::CloudEventsBinary);
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
        let signatures = |now| {
            let payload = payload(Format::CloudEvents, EVENT.to_owned(), now).unwrap();
            let prepared =
                prepare(delivery(), &target, payload, &ORIGIN, now).unwrap_or_else(|error| panic!("{error}"));
            prepared.headers[WEBHOOK_SIGNATURE].to_str().unwrap().split(' ').count()
        };
        assert_eq!([signatures(now), signatures(now + Duration::from_millis(1))], [2, 1]);
        let expired = with("https://example.com", |stored| stored.signing[0].1 = Some(now));
        let payload = payload(Format::CloudEvents, EVENT.to_owned(), now).unwrap();
        assert!(matches!(prepare(delivery(), &expired, payload, &ORIGIN, now), Err(Unwritable::Unsigned)));
    }

    #[test]
    fn own_headers_and_the_proof_are_sent_along() {
        let target = with("https://example.com", |stored| {
            stored.headers =
                [("X-Tenant", "a"), ("X-Api-Key", "mine")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
            stored.authorization =
                Authorization::ApiKey { header: "X-Api-Key".to_owned().try_into().unwrap() };
        });
        let prepared = prepared(&target, Format::CloudEvents);
        assert_eq!(
            (&prepared.headers["x-tenant"], &prepared.headers["x-api-key"]),
            (&"a".parse().unwrap(), &PROOF.parse().unwrap())
        );
        assert!(verifies(SECRET, &prepared));
    }
}
