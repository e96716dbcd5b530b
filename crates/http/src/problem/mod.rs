//! Refusals: a closed set of problems, told as RFC 9457 says.

mod kind;
mod schema;

use axum::response::{IntoResponse, Response};
use carillon_aws::error::AwsError;
use carillon_core::access::Scope;
use carillon_core::event::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, Rejected};
use carillon_core::invalid::{FieldError, Invalid};
use http::StatusCode;
use serde::Serialize;

pub use self::kind::ProblemKind;
pub use self::schema::FieldErrorSchema;

/// Names who asks for a token (RFC 9110, section 11.5).
const REALM: &str = "carillon";

/// Why a request is refused. Each has its kind; a new one cannot be added without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Fields that are wrong.
    Invalid(Invalid),
    /// No token.
    NoToken,
    /// A token that is not valid. Why is for the log alone.
    InvalidToken,
    /// A valid token that lacks these scopes.
    InsufficientScope(Vec<Scope>),
    /// The client's role in the workspace is not one of those that may do this.
    Forbidden,
    /// What the path names is not there, or not for this caller.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed,
    /// A workspace of this id exists.
    WorkspaceExists,
    /// The workspace has subscriptions, so it cannot be deleted.
    WorkspaceInUse,
    /// The workspace is being deleted.
    WorkspaceDeleting,
    /// The subscriber has another subscription of this title.
    TitleTaken,
    /// The owner of the subscription's endpoint has not said yet that it wants to be called.
    NotConfirmed,
    /// The name and version of an event type are another definition's.
    EventTypeConflict,
    /// The event type is named by a rule of the workspace.
    EventTypeInUse,
    /// The delivery stands so, and was not forced.
    DeliveryNotFailed(&'static str),
    /// The delivery's subscription was deleted.
    DeliveryCancelled,
    /// The subscription is disabled, or not confirmed.
    SubscriptionNotActive,
    /// The job has ended, or is not one that can end before it is done.
    JobNotCancellable,
    /// The subscription has as many secrets that still sign as it may have.
    TooManySecrets,
    /// The workspace has as many inboxes as it may have, or the subscriber its share of them.
    TooManyInboxes,
    /// The workspace's next key does not sign yet, or it has as many keys as it may have.
    TooEarlyToRotate,
    /// `If-Match` names another state than the present one.
    PreconditionFailed,
    /// Another request came with this `Idempotency-Key` before.
    IdempotencyConflict,
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
    /// Every kind there is, for the documentation.
    #[must_use]
    pub fn all_kinds() -> &'static [ProblemKind] {
        kind::ALL
    }

    /// What it has in common with others of its type.
    #[must_use]
    pub fn kind(&self) -> &'static ProblemKind {
        match self {
            Self::Invalid(_) => kind::INVALID,
            Self::NoToken | Self::InvalidToken => kind::UNAUTHORIZED,
            Self::InsufficientScope(_) => kind::INSUFFICIENT_SCOPE,
            Self::Forbidden => kind::FORBIDDEN,
            Self::NotFound => kind::NOT_FOUND,
            Self::MethodNotAllowed => kind::METHOD_NOT_ALLOWED,
            Self::WorkspaceExists => kind::WORKSPACE_EXISTS,
            Self::WorkspaceInUse => kind::WORKSPACE_IN_USE,
            Self::WorkspaceDeleting => kind::WORKSPACE_DELETING,
            Self::TitleTaken => kind::TITLE_TAKEN,
            Self::NotConfirmed => kind::NOT_CONFIRMED,
            Self::EventTypeConflict => kind::EVENT_TYPE_CONFLICT,
            Self::EventTypeInUse => kind::EVENT_TYPE_IN_USE,
            Self::DeliveryNotFailed(_) => kind::DELIVERY_NOT_FAILED,
            Self::DeliveryCancelled => kind::DELIVERY_CANCELLED,
            Self::SubscriptionNotActive => kind::SUBSCRIPTION_NOT_ACTIVE,
            Self::JobNotCancellable => kind::JOB_NOT_CANCELLABLE,
            Self::TooManySecrets => kind::TOO_MANY_SECRETS,
            Self::TooManyInboxes => kind::TOO_MANY_INBOXES,
            Self::TooEarlyToRotate => kind::TOO_EARLY_TO_ROTATE,
            Self::PreconditionFailed => kind::PRECONDITION_FAILED,
            Self::IdempotencyConflict => kind::IDEMPOTENCY_CONFLICT,
            Self::EventConflict => kind::EVENT_CONFLICT,
            Self::EventTooLarge => kind::EVENT_TOO_LARGE,
            Self::BatchTooLarge => kind::BATCH_TOO_LARGE,
            Self::BodyTooLarge => kind::BODY_TOO_LARGE,
            Self::UnsupportedMediaType(_) => kind::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable => kind::UNAVAILABLE,
        }
    }

    /// The HTTP status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind().status
    }

    /// As JSON; `instance` names the occurrence.
    #[must_use]
    pub fn document<'a>(&'a self, instance: Option<&'a str>) -> Document<'a> {
        let ProblemKind { name, title, status, .. } = self.kind();
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

    /// The value of `WWW-Authenticate` (RFC 6750, section 3), if the answer has that header. It does not tell which check
    /// a token has failed.
    pub(crate) fn challenge(&self) -> Option<String> {
        let bearer = format!("Bearer realm=\"{REALM}\"");
        match self {
            Self::NoToken => Some(bearer),
            Self::InvalidToken => Some(format!("{bearer}, error=\"invalid_token\"")),
            Self::InsufficientScope(scopes) => {
                Some(format!("{bearer}, error=\"insufficient_scope\", scope=\"{}\"", between_spaces(scopes)))
            }
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Invalid(Invalid(errors)) => match &errors[..] {
                [only] => Some(format!("{} {}", only.pointer, only.detail).trim_start().to_owned()),
                several => Some(format!("{} fields are wrong.", several.len())),
            },
            Self::NoToken => Some("Send an access token in the header Authorization: Bearer.".to_owned()),
            Self::InvalidToken => Some("The access token is not valid, or not any more.".to_owned()),
            Self::InsufficientScope(scopes) => {
                Some(format!("The operation needs a token with {}.", between_spaces(scopes)))
            }
            Self::WorkspaceInUse => Some("Delete its subscriptions first.".to_owned()),
            Self::EventConflict => Some(
                "An event with the same source and id, but other content, was accepted before.".to_owned(),
            ),
            Self::EventTooLarge => Some(format!("An event has at most {EVENT_BYTES_MAX} bytes as JSON.")),
            Self::BatchTooLarge => {
                Some(format!("A batch has at most {BATCH_EVENTS_MAX} events and {BATCH_BYTES_MAX} bytes."))
            }
            Self::DeliveryNotFailed(status) => Some(format!("It is {status}.")),
            Self::UnsupportedMediaType(expected) => Some(format!("Send {expected}.")),
            Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::WorkspaceExists
            | Self::WorkspaceDeleting
            | Self::TitleTaken
            | Self::NotConfirmed
            | Self::EventTypeConflict
            | Self::EventTypeInUse
            | Self::DeliveryCancelled
            | Self::SubscriptionNotActive
            | Self::JobNotCancellable
            | Self::TooManySecrets
            | Self::TooManyInboxes
            | Self::TooEarlyToRotate
            | Self::PreconditionFailed
            | Self::IdempotencyConflict
            | Self::BodyTooLarge
            | Self::Unavailable => None,
        }
    }
}

fn between_spaces(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_are_told_apart_by_their_names() {
        let names: BTreeSet<_> = Problem::all_kinds().iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), Problem::all_kinds().len());
        for kind in Problem::all_kinds() {
            assert!(kind.status.is_client_error() || kind.status.is_server_error(), "{kind:?}");
            assert!(kind.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{kind:?}");
            assert!(kind.explanation.ends_with('.') && !kind.explanation.contains("  "), "{kind:?}");
        }
    }

    #[test]
    fn a_problem_as_its_document() {
        let problem = Problem::Invalid(Invalid::field("/endpoint", "must begin with https://"));
        assert_eq!(
            serde_json::to_value(problem.document(Some("/v1/workspaces"))).unwrap(),
            serde_json::json!({
                "type": "/problems/invalid",
                "title": "The request has wrong fields",
                "status": 400,
                "detail": "/endpoint must begin with https://",
                "instance": "/v1/workspaces",
                "errors": [{"pointer": "/endpoint", "detail": "must begin with https://"}],
            })
        );
    }

    #[test]
    fn challenges_say_no_more_than_they_must() {
        let challenge = |problem: Problem| problem.challenge().unwrap_or_default();
        assert_eq!(challenge(Problem::NoToken), r#"Bearer realm="carillon""#);
        assert_eq!(challenge(Problem::InvalidToken), r#"Bearer realm="carillon", error="invalid_token""#);
        assert_eq!(
            challenge(Problem::InsufficientScope(vec![Scope::Publish, Scope::Read])),
            r#"Bearer realm="carillon", error="insufficient_scope", scope="carillon/publish carillon/read""#
        );
        assert_eq!(challenge(Problem::NotFound), "");
    }
}
