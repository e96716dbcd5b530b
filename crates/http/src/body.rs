//! Request bodies in JSON, refused with the field that is wrong.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use carillon_core::invalid::Invalid;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::problem::Problem;

/// The largest JSON body, in bytes.
pub const JSON_BYTES_MAX: usize = 256 * 1024;

/// A body in JSON of this shape.
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let body = Bytes::from_request(request, state).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::BodyTooLarge,
            _ => Problem::Invalid(Invalid::field("", "the body cannot be read")),
        })?;
        read_json(&headers, &body).map(Self)
    }
}

/// Reads a body in JSON of this shape: for operations that need its bytes as well.
pub fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if media_type(headers).as_deref() != Some("application/json") {
        return Err(Problem::UnsupportedMediaType("application/json"));
    }
    within_bounds(body)?;
    Ok(parse(body)?)
}

/// Reads a JSON Merge Patch (RFC 7396), which is an object here. It may come as plain JSON, too.
pub fn read_merge_patch(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if !matches!(media_type(headers).as_deref(), Some("application/merge-patch+json" | "application/json")) {
        return Err(Problem::UnsupportedMediaType("application/merge-patch+json"));
    }
    within_bounds(body)?;
    Ok(parse(body)?)
}

/// Reads what a merge patch made of a resource, as if it had come whole.
pub fn read_patched<T: DeserializeOwned>(patched: &Value) -> Result<T, Problem> {
    Ok(parse(patched.to_string().as_bytes())?)
}

fn within_bounds(body: &[u8]) -> Result<(), Problem> {
    if body.len() > JSON_BYTES_MAX { Err(Problem::BodyTooLarge) } else { Ok(()) }
}

/// The media type of a request's body, in lower case and without parameters.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Invalid> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer: String = error.path().iter().map(pointer_segment).collect();
        let detail = error.inner().to_string();
        // Serde names a member that is missing in its message alone.
        if let Some((name, _)) = detail.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'))
        {
            return Invalid::field(format!("{pointer}/{name}"), "is required");
        }
        // Of a member that nobody knows within an alternative, too.
        if let Some((name, _)) = detail.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'))
        {
            let name = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let known = if pointer.ends_with(&name) { "" } else { &name };
            return Invalid::field(format!("{pointer}{known}"), "is not known here");
        }
        Invalid::field(pointer, detail)
    })?;
    deserializer.end().map_err(|error| Invalid::field("", error.to_string()))?;
    Ok(value)
}

fn pointer_segment(segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        #[serde(default)]
        types: Vec<String>,
    }

    fn pointer(body: &str) -> String {
        parse::<Body>(body.as_bytes()).unwrap_err().0.remove(0).pointer
    }

    #[test]
    fn the_wrong_field_is_named() {
        assert_eq!(pointer("{}"), "/name");
        assert_eq!(pointer(r#"{"name": 1}"#), "/name");
        assert_eq!(pointer(r#"{"name": "a", "types": ["b", 2]}"#), "/types/1");
        assert_eq!(pointer(r#"{"name": "a", "nmae": "b"}"#), "/nmae");
        assert_eq!(pointer("nonsense"), "");
        assert_eq!(pointer(r#"{"name": "a"} more"#), "");
        assert_eq!(parse::<Body>(br#"{"name": "a"}"#).unwrap().name, "a");
    }
}
