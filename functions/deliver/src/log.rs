//! The line that each attempt leaves in the log.
//!
//! It has the other lines' level, fields and request, and the same setting leaves it out. It does not go through `tracing`,
//! which would take a twentieth of a delivery's processor time for it: this one line is written for every delivery, with
//! those of others that ended at the same time.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use carillon_core::id::{DeliveryId, EventDigest, SubscriptionId, WorkspaceId};
use carillon_core::outcome::OutcomeClass;
use carillon_core::pattern::EventType;
use serde::Serialize;

use crate::attempt::Lane;

/// Most lines fit into it.
const LINE_BYTES: usize = 640;

/// An attempt, as a line tells of it: ids and what happened, no bodies and no secrets.
#[derive(Serialize)]
#[serde(tag = "message", rename = "attempt")]
pub(crate) struct Attempt<'a> {
    pub(crate) workspace: &'a WorkspaceId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) delivery: DeliveryId,
    pub(crate) event: EventDigest,
    pub(crate) r#type: &'a EventType,
    pub(crate) round: u32,
    #[serde(rename = "attempt")]
    pub(crate) number: u32,
    pub(crate) outcome: OutcomeClass,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    pub(crate) duration_ms: u64,
    /// How old the event was when it began.
    pub(crate) age_ms: u64,
    pub(crate) lane: Lane,
    /// The id of the trace that the event belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<&'a str>,
    /// When the next one is due (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_at: Option<String>,
}

/// Which invocation of the function lines belong to, as the runtime names it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Span {
    pub(crate) request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) xray_trace_id: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    fields: &'a Attempt<'a>,
    span: &'a Span,
}

/// The lines of attempts whose tasks end just now, so that one write does for all of them.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Vec<u8>>);

impl Lines {
    /// Adds the line of an attempt.
    pub(crate) fn add(&self, attempt: &Attempt<'_>, span: &Span) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = lines.len();
        if let Err(error) = append(&mut lines, attempt, span) {
            lines.truncate(begin);
            tracing::warn!(%error, delivery = %attempt.delivery, "an attempt has no line");
        }
    }

    /// Writes them.
    pub(crate) fn write(&self) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = io::stdout().lock().write_all(&lines) {
            tracing::warn!(%error, "the lines of attempts could not be written");
        }
    }
}

fn append(lines: &mut Vec<u8>, attempt: &Attempt<'_>, span: &Span) -> Result<(), serde_json::Error> {
    lines.reserve(LINE_BYTES);
    serde_json::to_writer(&mut *lines, &Line { level: "INFO", fields: attempt, span })?;
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use carillon_core::id::EventKey;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_one_line_of_json() {
        let event: EventKey = "acme/00000000000000000000000000000000".parse().unwrap();
        let subscription: SubscriptionId = "sub_00000000000000000000000000".parse().unwrap();
        let delivery = DeliveryId::of(&event, subscription);
        let attempt = Attempt {
            workspace: &event.workspace,
            subscription,
            delivery,
            event: event.digest,
            r#type: &"consent:revoked".parse().unwrap(),
            round: 1,
            number: 3,
            outcome: OutcomeClass::TimedOut,
            status: None,
            duration_ms: 15_000,
            age_ms: 301_000,
            lane: Lane::Slow,
            trace: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            next_at: Some("2026-11-22T09:30:00.000Z".to_owned()),
        };
        let span = Span { request_id: "8f50".to_owned(), xray_trace_id: None };
        let mut lines = Vec::new();
        append(&mut lines, &attempt, &span).unwrap();
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(text.find('\n'), Some(text.len() - 1), "it is one line");
        assert!(text.len() <= LINE_BYTES, "{}", text.len());
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({
                "level": "INFO",
                "fields": {
                    "message": "attempt",
                    "workspace": "acme",
                    "subscription": subscription,
                    "delivery": delivery,
                    "event": "00000000000000000000000000000000",
                    "type": "consent:revoked",
                    "round": 1,
                    "attempt": 3,
                    "outcome": "timedOut",
                    "duration_ms": 15_000,
                    "age_ms": 301_000,
                    "lane": "Slow",
                    "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
                    "next_at": "2026-11-22T09:30:00.000Z",
                },
                "span": {"requestId": "8f50"},
            })
        );
    }
}
