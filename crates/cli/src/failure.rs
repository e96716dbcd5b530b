//! Why a command failed, and with which exit code.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use serde::Deserialize;

/// How much is shown of an answer that is not the API's, in characters.
const EXCERPT_CHARS_MAX: usize = 300;

/// A command that could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API, or the token service, answered, and refused.
    #[error("{0}")]
    Refused(Refusal),
    /// What was asked for was done, and ended badly: a job that was cancelled, a test that failed.
    #[error("{0}")]
    EndedBadly(String),
    /// The command line, a file or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nobody answered.
    #[error("{what} cannot be reached: {why}")]
    Unreachable {
        /// Who.
        what: String,
        /// What the network said.
        why: String,
    },
    /// What there is to show cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code, which scripts rely on: 1 refused or ended badly, 2 usage, 3 not reachable.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::EndedBadly(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
        }
    }

    /// Whether whoever reads the output has read enough, as `head` does.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether asking again later may help: nobody answered, or what answered was overcharged or broken.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => refusal.status == 429 || refusal.status >= 500,
            _ => false,
        }
    }

    /// Nobody answered, with all that the causes say.
    pub(crate) fn unreachable(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        // The outermost says no more than that a request failed, and for which URL; the innermost says why.
        let why = causes.last().unwrap_or(error).to_string();
        Self::Unreachable { what: what.to_owned(), why }
    }
}

/// A wrong command line, file or configuration.
pub(crate) fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

/// An answer that is a refusal: a problem (RFC 9457), the gateway's `{"message": ...}`, or whatever else came.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body as it came.
    pub(crate) body: Bytes,
    /// What names the request in the log of whoever runs Carillon.
    pub(crate) request_id: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.described())
    }
}

/// RFC 9457, section 3.1, with the extension member `errors`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    errors: Option<Vec<FieldError>>,
    /// API Gateway's own.
    message: Option<String>,
    /// RFC 6749, section 5.2.
    error: Option<String>,
    error_description: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldError {
    pointer: String,
    detail: String,
}

impl Refusal {
    fn described(&self) -> String {
        let Self { status, body, request_id } = self;
        let problem = serde_json::from_slice::<Problem>(body).unwrap_or_default();
        let title = problem.title.or(problem.message).or(problem.error);
        let mut text = title.map_or_else(|| self.excerpt(), |title| format!("{title} ({status})"));
        let errors = problem.errors.unwrap_or_default();
        // Where fields are told, the detail says no more than they do.
        if let Some(detail) = problem.detail.or(problem.error_description).filter(|_| errors.is_empty()) {
            let _ = write!(text, ": {detail}");
        }
        let width = errors.iter().map(|error| error.pointer.chars().count()).max().unwrap_or(0);
        for FieldError { pointer, detail } in &errors {
            let _ = write!(text, "\n  {pointer:width$}  {detail}");
        }
        if let Some(id) = request_id {
            let _ = write!(text, "\n  request {id}");
        }
        text
    }

    fn excerpt(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let body = body.trim();
        if body.is_empty() {
            return format!("answered with {}", self.status);
        }
        let shown = body.chars().take(EXCERPT_CHARS_MAX).collect::<String>();
        format!("answered with {}: {shown}", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &'static str) -> Refusal {
        Refusal { status, body: Bytes::from_static(body.as_bytes()), request_id: None }
    }

    #[test]
    fn a_problem_is_shown_with_its_fields() {
        let body = r#"{"type": "/problems/invalid", "title": "The request has wrong fields", "status": 400, "errors": [
            {"pointer": "/endpoint", "detail": "must begin with https://"},
            {"pointer": "/types/0", "detail": "is no pattern"}]}"#;
        let mut shown = refusal(400, body);
        shown.request_id = Some("abc".to_owned());
        assert_eq!(
            shown.to_string(),
            "The request has wrong fields (400)\n  /endpoint  must begin with https://\n  /types/0   is no pattern\n  \
             request abc"
        );
        let conflict = refusal(409, r#"{"title": "Conflict", "detail": "It is under way.", "errors": null}"#);
        assert_eq!(conflict.to_string(), "Conflict (409): It is under way.");
    }

    #[test]
    fn other_refusals_are_shown_too() {
        let gateway = refusal(429, r#"{"message": "Too Many Requests"}"#);
        assert_eq!(gateway.to_string(), "Too Many Requests (429)");
        let token = refusal(400, r#"{"error": "invalid_client", "error_description": "No such client."}"#);
        assert_eq!(token.to_string(), "invalid_client (400): No such client.");
        assert_eq!(refusal(502, "<html>oops</html>").to_string(), "answered with 502: <html>oops</html>");
        assert_eq!(refusal(404, " ").to_string(), "answered with 404");
        let long = Refusal { status: 500, body: Bytes::from("é".repeat(1_000)), request_id: None };
        assert_eq!(long.to_string().chars().count(), "answered with 500: ".len() + EXCERPT_CHARS_MAX);
    }

    #[test]
    fn exit_codes() {
        let unreachable = Failure::Unreachable { what: "The API".to_owned(), why: "refused".to_owned() };
        assert_eq!(Failure::Refused(refusal(503, "")).exit_code(), 1);
        assert_eq!(Failure::EndedBadly(String::new()).exit_code(), 1);
        assert_eq!(usage("").exit_code(), 2);
        assert_eq!(unreachable.exit_code(), 3);
        assert!(unreachable.may_pass() && Failure::Refused(refusal(503, "")).may_pass());
        assert!(!Failure::Refused(refusal(404, "")).may_pass());
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_closed_pipe());
    }
}
