//! Changes on a condition: not over another's (`If-Match`), not twice (`Idempotency-Key`), not more than is said (JSON
//! Merge Patch).

use axum::extract::FromRequestParts;
use carillon_core::invalid::Invalid;
use carillon_http::problem::Problem;
use http::header::IF_MATCH;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{RefOr, Required};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key and the longest list of tags, in characters.
const KEY_CHARS_MAX: usize = 255;
const TAGS_CHARS_MAX: usize = 1024;

/// A list of entity tags, or `*` (RFC 9110, section 13.1.1), within ASCII.
const TAGS_PATTERN: &str = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#;

/// The entity tag of a revision.
pub(crate) fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// Which states of a resource the caller knows, and wants to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// Any state: nothing was said.
    Unsaid,
    /// Any state, but there must be one.
    Present,
    /// Those with these tags, each in its quotes. Weak ones are left out: they never match.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Whether the caller wants to change a resource that has this revision.
    pub(crate) fn allows(&self, revision: u64) -> bool {
        match self {
            Self::Unsaid | Self::Present => true,
            Self::Tags(tags) => tags.iter().any(|tag| etag(revision) == *tag),
        }
    }

    /// Whether the caller wants to make what is not there.
    pub(crate) fn allows_none(&self) -> bool {
        *self == Self::Unsaid
    }

    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut tags = Vec::new();
        let mut values = headers.get_all(IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Some(Self::Unsaid);
        }
        for value in values {
            let text = value.to_str().ok().filter(|text| text.len() <= TAGS_CHARS_MAX)?;
            if text == "*" {
                return Some(Self::Present);
            }
            read_tags(text, &mut tags)?;
        }
        Some(Self::Tags(tags))
    }
}

/// Adds the strong ones of a list of tags; `None` if it is no such list.
fn read_tags(text: &str, tags: &mut Vec<String>) -> Option<()> {
    let mut rest = text;
    loop {
        let (strong, tag) = match rest.strip_prefix("W/") {
            Some(tag) => (false, tag),
            None => (true, rest),
        };
        let (inside, after) = tag.strip_prefix('"')?.split_once('"')?;
        if !inside.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        if strong {
            tags.push(format!("\"{inside}\""));
        }
        let blank = [' ', '\t'];
        match after {
            "" => return Some(()),
            _ => rest = after.trim_start_matches(blank).strip_prefix(',')?.trim_start_matches(blank),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers).ok_or_else(|| {
            Invalid::field("header:if-match", "must be the `ETag` of an answer, several of them, or `*`")
                .into()
        })
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = text().max_length(Some(TAGS_CHARS_MAX)).pattern(Some(TAGS_PATTERN));
        vec![header(
            "If-Match",
            "The `ETag` that was read before: the request is refused with 412 if somebody has made a change since. \
             Without it, the last change wins.",
            schema,
            "\"3\"",
        )]
    }
}

/// What a caller calls a creation by, so that it can be asked for again without being done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut keys = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let (first, more) = (keys.next(), keys.next());
        let Some(key) = first else { return Ok(Self(None)) };
        let key = key.to_str().ok().filter(|key| more.is_none() && is_key(key));
        let key = key.ok_or_else(|| {
            let detail =
                format!("must be given once, and have 1 to {KEY_CHARS_MAX} printable characters of ASCII");
            Invalid::field("header:idempotency-key", detail)
        })?;
        Ok(Self(Some(key.to_owned())))
    }
}

fn is_key(text: &str) -> bool {
    (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema =
            text().min_length(Some(1)).max_length(Some(KEY_CHARS_MAX)).pattern(Some("^[!-~]([ -~]*[!-~])?$"));
        vec![header(
            "Idempotency-Key",
            "A name that the caller gives to this creation, such as a UUID. A repetition of the request within 24 hours \
             makes nothing new: it is answered with what the first one made, as that is now and without secrets. With \
             another body it is refused with 422.",
            schema,
            "6f1d8c1e-3d0f-4a6b-8f52-5d7f2c9f9a10",
        )]
    }
}

/// The value with the changes of a JSON Merge Patch (RFC 7396, section 2).
pub(crate) fn merge(value: Value, patch: Map<String, Value>) -> Value {
    let mut members = match value {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, change) in patch {
        match change {
            Value::Null => {
                members.remove(&name);
            }
            Value::Object(patch) => {
                let before = members.remove(&name).unwrap_or_default();
                members.insert(name, merge(before, patch));
            }
            whole => {
                members.insert(name, whole);
            }
        }
    }
    Value::Object(members)
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn header(name: &str, description: &str, schema: ObjectBuilder, example: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(RefOr::T(Schema::Object(schema.build()))))
        .example(Some(example.into()))
        .build()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;

    fn parts(name: &str, values: &[&str]) -> Parts {
        let request = values.iter().fold(Request::builder(), |request, value| request.header(name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn tags_are_read_and_compared_strongly() {
        let read = async |values: &[&str]| {
            IfMatch::from_request_parts(&mut parts("if-match", values), &()).await.ok()
        };
        let tags = |tags: &[&str]| Some(IfMatch::Tags(tags.iter().map(|&tag| tag.to_owned()).collect()));
        assert_eq!(read(&[]).await, Some(IfMatch::Unsaid));
        assert_eq!(read(&["*"]).await, Some(IfMatch::Present));
        assert_eq!(read(&["\"3\""]).await, tags(&["\"3\""]));
        assert_eq!(read(&["\"3\" ,W/\"4\",\t\"a,b\""]).await, tags(&["\"3\"", "\"a,b\""]));
        assert_eq!(read(&["\"3\"", "\"4\""]).await, tags(&["\"3\"", "\"4\""]));
        for wrong in ["", "3", "\"3", "\"3\",", "*,\"3\"", "\"3\" \"4\"", "w/\"3\"", "\"a b\""] {
            assert_eq!(read(&[wrong]).await, None, "{wrong}");
        }
    }

    #[test]
    fn a_change_is_allowed_in_the_state_that_is_known() {
        let tags = IfMatch::Tags(vec!["\"3\"".to_owned(), "\"9\"".to_owned()]);
        assert!(tags.allows(3) && tags.allows(9) && !tags.allows(33) && !tags.allows_none());
        assert!(IfMatch::Present.allows(1) && !IfMatch::Present.allows_none());
        assert!(IfMatch::Unsaid.allows(1) && IfMatch::Unsaid.allows_none());
        assert!(!IfMatch::Tags(Vec::new()).allows(1));
    }

    #[tokio::test]
    async fn a_key_is_given_once_and_printable() {
        let read = async |values: &[&str]| {
            IdempotencyKey::from_request_parts(&mut parts("idempotency-key", values), &()).await.ok()
        };
        assert_eq!(read(&[]).await, Some(IdempotencyKey(None)));
        assert_eq!(read(&["a key"]).await, Some(IdempotencyKey(Some("a key".to_owned()))));
        assert_eq!(read(&["a", "a"]).await, None);
        for wrong in ["", "k\u{e9}y", "a\tb", &"x".repeat(KEY_CHARS_MAX + 1)] {
            assert_eq!(read(&[wrong]).await, None, "{wrong}");
        }
        assert!(read(&[&"x".repeat(KEY_CHARS_MAX)]).await.is_some());
    }

    /// RFC 7396, appendix A: those whose patch is an object. Others replace all there is; no operation takes them.
    #[test]
    fn patches_do_what_the_rfc_says() {
        for (value, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let Value::Object(members) = patch.clone() else { panic!("{patch} is no object") };
            assert_eq!(merge(value.clone(), members), result, "{value} with {patch}");
        }
    }
}
