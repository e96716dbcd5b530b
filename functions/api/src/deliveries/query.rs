//! Which deliveries to list.

use std::fmt;
use std::str::FromStr;

use carillon_aws::deliveries::{Delivery, Open, Place};
use carillon_core::delivery::Status;
use carillon_core::id::EventDigest;
use carillon_core::invalid::{Findings, Invalid};
use carillon_core::outcome::OutcomeClass;
use carillon_core::pattern::EventType;
use carillon_core::time::UnixMillis;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::shown::OutcomeShown;

/// Which deliveries to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// Those that stand so. What is pending is found by its event.
    #[param(value_type = Option<AttemptedStatus>)]
    status: Option<String>,
    /// Those whose latest attempt ended so.
    #[param(value_type = Option<OutcomeShown>)]
    outcome: Option<String>,
    /// Those of events of this type.
    #[param(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\s*\u0000-\u001f\u007f-\u009f]+$",
        example = "consent:approved"
    )]
    event_type: Option<String>,
}

/// Of which time.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SpanQuery {
    /// Of events that were accepted then or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-22T09:30:00Z")]
    since: Option<String>,
    /// Of events that were accepted before.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-22T10:30:00Z")]
    until: Option<String>,
}

/// Where a delivery with a row can stand.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes Status of the core, which knows no OpenAPI")]
pub(crate) enum AttemptedStatus {
    Retrying,
    Held,
    Delivered,
    Failed,
    Cancelled,
}

/// Which deliveries are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    status: Option<Status>,
    outcome: Option<OutcomeClass>,
    event_type: Option<EventType>,
}

/// The time that is wanted: from the first to before the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: Option<UnixMillis>,
    pub(crate) until: Option<UnixMillis>,
}

/// A place in the order of time, as clients keep it: `{time}.{event}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) Place);

impl DeliveryQuery {
    pub(super) fn check(self) -> Result<Wanted, Invalid> {
        let mut findings = Findings::default();
        let status = self.status.map(|text| {
            let status = serde_json::from_value::<Status>(text.into());
            let known = "must be `retrying`, `held`, `delivered`, `failed` or `cancelled`";
            status.map_err(|_| Invalid::field("query:status", known))
        });
        let outcome = self.outcome.map(|text| {
            let outcome = serde_json::from_value::<OutcomeClass>(text.into());
            outcome.map_err(|_| Invalid::field("query:outcome", "must be the outcome of an attempt"))
        });
        let event_type = self.event_type.map(|text| event_type("query:eventType", &text));
        let wanted = Wanted {
            status: status.and_then(|status| findings.take(status)),
            outcome: outcome.and_then(|outcome| findings.take(outcome)),
            event_type: event_type.and_then(|event_type| findings.take(event_type)),
        };
        findings.into_result(wanted)
    }
}

impl SpanQuery {
    pub(crate) fn check(self) -> Result<Span, Invalid> {
        let mut findings = Findings::default();
        let mut time = |pointer: &str, text: Option<String>| {
            let time = text?.parse::<UnixMillis>();
            findings.take(time.map_err(|error| Invalid::field(pointer, error.to_string())))
        };
        let span = Span { since: time("query:since", self.since), until: time("query:until", self.until) };
        findings.into_result(span)
    }
}

impl Wanted {
    /// Those of the index that it lies within.
    pub(super) fn open(&self) -> Option<Open> {
        match self.status? {
            Status::Retrying => Some(Open::Retrying),
            Status::Held => Some(Open::Held),
            Status::Failed => Some(Open::Failed),
            Status::Delivered | Status::Cancelled => None,
        }
    }

    /// Whether what is read is what is wanted, so that no more is read than that.
    pub(super) fn is_exact(&self) -> bool {
        self.outcome.is_none()
            && self.event_type.is_none()
            && (self.status.is_none() || self.open().is_some())
    }

    pub(super) fn includes(&self, delivery: &Delivery) -> bool {
        let latest = delivery.attempts.last().map(|attempt| attempt.outcome);
        self.status.is_none_or(|status| status == delivery.row.status)
            && self.outcome.is_none_or(|outcome| Some(outcome) == latest)
            && self.event_type.as_ref().is_none_or(|wanted| *wanted == delivery.event.event_type)
    }
}

/// The type of a query.
pub(crate) fn event_type(pointer: &str, text: &str) -> Result<EventType, Invalid> {
    text.parse::<EventType>().map_err(|error| Invalid::field(pointer, error.to_string()))
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.accepted_at.sortable(), self.0.digest)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (time, digest) = text.split_once('.').ok_or(NotACursor)?;
        let accepted_at = UnixMillis(time.parse().map_err(|_| NotACursor)?);
        let digest = digest.parse::<EventDigest>().map_err(|_| NotACursor)?;
        let cursor = Self(Place { accepted_at, digest });
        // There is one way to write it.
        if cursor.to_string() == text { Ok(cursor) } else { Err(NotACursor) }
    }
}

/// A text that is no cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotACursor;

#[cfg(test)]
mod tests {
    use super::super::shown::tests::delivery;
    use super::*;

    fn query(status: Option<&str>, outcome: Option<&str>, event_type: Option<&str>) -> DeliveryQuery {
        let [status, outcome, event_type] = [status, outcome, event_type].map(|text| text.map(str::to_owned));
        DeliveryQuery { status, outcome, event_type }
    }

    #[test]
    fn all_that_is_wrong_with_a_query_is_told() {
        let Invalid(errors) = query(Some("pending"), Some("fine"), Some("a b")).check().unwrap_err();
        let pointers: Vec<_> = errors.into_iter().map(|error| error.pointer).collect();
        assert_eq!(pointers, ["query:status", "query:outcome", "query:eventType"]);
        let span = SpanQuery { since: Some("yesterday".to_owned()), until: Some("1".to_owned()) };
        assert_eq!(span.check().unwrap_err().0.len(), 2);
    }

    #[test]
    fn a_query_takes_in_what_fits_all_that_it_says() {
        let failed = delivery(Status::Failed);
        for (wanted, takes_in) in [
            (query(None, None, None), true),
            (query(Some("failed"), Some("serverError"), Some("consent:created")), true),
            (query(Some("held"), None, None), false),
            (query(None, Some("throttled"), None), false),
            (query(None, None, Some("consent:revoked")), false),
        ] {
            assert_eq!(wanted.check().unwrap().includes(&failed), takes_in);
        }
        let of = |status| query(Some(status), None, None).check().unwrap();
        assert_eq!((of("failed").open(), of("failed").is_exact()), (Some(Open::Failed), true));
        assert_eq!((of("cancelled").open(), of("cancelled").is_exact()), (None, false));
    }

    #[test]
    fn a_cursor_is_written_in_one_way() {
        let digest = EventDigest::of("/s", "1");
        let cursor = Cursor(Place { accepted_at: UnixMillis(1_795_339_800_000), digest });
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", ".", "1795339800000", &format!("1.{digest}"), &format!("+795339800000.{digest}")] {
            assert_eq!(wrong.parse::<Cursor>(), Err(NotACursor), "{wrong}");
        }
        assert_eq!(format!("1795339800000#{digest}").parse::<Cursor>(), Err(NotACursor));
    }
}
