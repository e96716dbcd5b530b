//! What axum refuses by itself, told as a problem: its extractors answer in a line of plain text.

use axum::body::to_bytes;
use axum::response::Response;
use carillon_core::invalid::Invalid;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::problem::Problem;

/// The longest line of axum's that is read, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The problem behind a refusal that none of the handlers has written; `None` for every other answer. Takes the
/// answer's body.
pub(crate) async fn rejection(response: &mut Response) -> Option<Problem> {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let media_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    if !refused || media_type.is_some_and(|media_type| !media_type.starts_with("text/plain")) {
        return None;
    }
    let body = to_bytes(std::mem::take(response.body_mut()), TEXT_BYTES_MAX).await.unwrap_or_default();
    Some(match status {
        StatusCode::NOT_FOUND => Problem::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Problem::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Problem::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::UnsupportedMediaType("application/json"),
        status if status.is_client_error() => Problem::Invalid(unread(&String::from_utf8_lossy(&body))),
        _ => Problem::Unavailable,
    })
}

/// The field that axum's text names, if it names one.
fn unread(text: &str) -> Invalid {
    let field = if let Some(rest) = text.strip_prefix("Failed to deserialize query string: ") {
        in_query(rest)
    } else {
        text.strip_prefix("Invalid URL: ").and_then(in_path)
    };
    field.unwrap_or_else(|| Invalid::field("", "the request cannot be read"))
}

/// As in "missing field `limit`", "limit: invalid digit found in string".
fn in_query(text: &str) -> Option<Invalid> {
    if let Some((_, rest)) = text.split_once("missing field `") {
        let (name, _) = rest.split_once('`')?;
        return Some(Invalid::field(format!("query:{name}"), "is required"));
    }
    let (name, detail) = text.split_once(": ")?;
    Some(Invalid::field(format!("query:{name}"), detail))
}

/// As in "Cannot parse `item` with value `a` to a `u8`", "Invalid UTF-8 in `item`".
fn in_path(text: &str) -> Option<Invalid> {
    let (before, rest) = text.split_once('`')?;
    let (name, after) = rest.split_once('`')?;
    let named = after.starts_with(" with value") || before.starts_with("Invalid UTF-8");
    let pointer = if named { format!("path:{name}") } else { "path".to_owned() };
    Some(Invalid::field(pointer, "cannot be read"))
}
