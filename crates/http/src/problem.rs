//! Refusals: a closed set of problems, told as RFC 9457 says.

use axum::response::{IntoResponse, Response};
use carillon_aws::error::AwsError;
use carillon_core::event::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, Rejected};
use carillon_core::invalid::{FieldError, Invalid};
use http::StatusCode;
use serde::Serialize;

/// Why a request is refused. Each has its type, title and status; a new one cannot be added without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Fields that are wrong.
    Invalid(Invalid),
    /// What the path names is not there, or not for this caller.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed,
    /// A workspace of this id exists.
    WorkspaceExists,
    /// The workspace has subscriptions, so it cannot be deleted.
    WorkspaceInUse,
    /// Another event of the same `source` and `id` was accepted before.
    EventConflict,
    /// An event larger than [`EVENT_BYTES_MAX`].
    EventTooLarge,
    /// A batch of more than [`BATCH_EVENTS_MAX`] events or [`BATCH_BYTES_MAX`] bytes.
    BatchTooLarge,
    /// A body larger than the operation takes.
    BodyTooLarge,
    /// A body of another media type than the operation takes.
    UnsupportedMediaType(&'static str),
    /// A fault of ours. Nothing is known to have changed; trying again may help.
    Unavailable,
}

/// A problem as its JSON document (RFC 9457, section 3).
#[derive(Clone, Debug, Serialize)]
pub struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// The HTTP status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind().2
    }

    /// As JSON; `instance` names the occurrence.
    #[must_use]
    pub fn document<'a>(&'a self, instance: Option<&'a str>) -> Document<'a> {
        let (name, title, status) = self.kind();
        let errors: &[FieldError] = if let Self::Invalid(invalid) = self { &invalid.0 } else { &[] };
        Document {
            r#type: format!("/problems/{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail(),
            instance,
            errors,
        }
    }

    fn kind(&self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::Invalid(_) => ("invalid", "The request has wrong fields", StatusCode::BAD_REQUEST),
            Self::NotFound => ("not-found", "There is no such thing here", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "The path has other methods", StatusCode::METHOD_NOT_ALLOWED)
            }
            Self::WorkspaceExists => {
                ("workspace-exists", "A workspace of this id exists", StatusCode::CONFLICT)
            }
            Self::WorkspaceInUse => {
                ("workspace-in-use", "The workspace has subscriptions", StatusCode::CONFLICT)
            }
            Self::EventConflict => {
                ("event-conflict", "Another event has this identity", StatusCode::CONFLICT)
            }
            Self::EventTooLarge => {
                ("event-too-large", "The event is too large", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::BatchTooLarge => {
                ("batch-too-large", "The batch is too large", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::BodyTooLarge => ("body-too-large", "The body is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType(_) => (
                "unsupported-media-type",
                "The body is of the wrong type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::Unavailable => {
                ("unavailable", "The service cannot do this at the moment", StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Invalid(Invalid(errors)) => match &errors[..] {
                [only] => Some(format!("{} {}", only.pointer, only.detail).trim_start().to_owned()),
                several => Some(format!("{} fields are wrong.", several.len())),
            },
            Self::WorkspaceInUse => Some("Delete its subscriptions first.".to_owned()),
            Self::EventConflict => Some(
                "An event with the same source and id, but other content, was accepted before.".to_owned(),
            ),
            Self::EventTooLarge => Some(format!("An event has at most {EVENT_BYTES_MAX} bytes as JSON.")),
            Self::BatchTooLarge => {
                Some(format!("A batch has at most {BATCH_EVENTS_MAX} events and {BATCH_BYTES_MAX} bytes."))
            }
            Self::UnsupportedMediaType(expected) => Some(format!("Send {expected}.")),
            Self::NotFound
            | Self::MethodNotAllowed
            | Self::WorkspaceExists
            | Self::BodyTooLarge
            | Self::Unavailable => None,
        }
    }
}

/// The body is written by [`crate::server`], which knows the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Invalid(invalid) => Self::Invalid(invalid),
            Rejected::TooLarge { .. } => Self::EventTooLarge,
        }
    }
}

/// What went wrong is for the log alone.
impl From<AwsError> for Problem {
    fn from(error: AwsError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Unavailable
    }
}
