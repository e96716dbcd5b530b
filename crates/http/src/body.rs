//! Request bodies in JSON, refused with the field that is wrong.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use carillon_core::invalid::Invalid;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
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

/// The same where there need not be one: nothing at all, or `null`, is the default.
pub fn optional_json<T: Default + DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() || body.trim_ascii() == b"null" {
        return Ok(T::default());
    }
    read_json(headers, body)
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

/// Reads an object, for `deserialize_with`: serde takes an array of an object's values in its place.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// The same for an object that can be null.
pub fn optional_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Object(value)| value))
}

/// A value that is an object in JSON.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Reads whole numbers, for `deserialize_with`: JSON Schema lets them have a fraction of zero (`5.0`), and clients whose
/// numbers all are floating send them so.
pub fn whole<'de, T: Whole, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Read::deserialize(deserializer).map(T::from_read)
}

/// A whole number from zero on, or several of them.
pub trait Whole {
    /// As it is read.
    type Read: DeserializeOwned;

    /// From what was read.
    fn from_read(read: Self::Read) -> Self;
}

/// A number that is whole, in JSON.
#[derive(Debug)]
pub struct WholeNumber<T>(T);

/// The first whole number that not every reader of JSON can tell from its neighbours (RFC 8259, section 6).
const EXACT_END: f64 = 9_007_199_254_740_992.0;

impl<'de, T: TryFrom<u64>> Deserialize<'de> for WholeNumber<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        let written = match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && (0.0..EXACT_END).contains(&float) => {
                format!("{:.0}", float.abs()).parse().ok()
            }
            _ => number.as_u64(),
        };
        let fits = written.and_then(|written| T::try_from(written).ok());
        fits.map(Self).ok_or_else(|| D::Error::custom("must be a whole number within its bounds"))
    }
}

macro_rules! whole {
    ($($number:ty),*) => {$(
        impl Whole for $number {
            type Read = WholeNumber<Self>;

            fn from_read(read: Self::Read) -> Self {
                read.0
            }
        }
    )*};
}

whole!(u32, u64, usize);

impl<T: Whole> Whole for Option<T> {
    type Read = Option<T::Read>;

    fn from_read(read: Self::Read) -> Self {
        read.map(T::from_read)
    }
}

impl<T: Whole> Whole for Vec<T> {
    type Read = Vec<T::Read>;

    fn from_read(read: Self::Read) -> Self {
        read.into_iter().map(T::from_read).collect()
    }
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
    let Object(value) = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
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

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "whole")]
        one: u32,
        #[serde(default, deserialize_with = "whole")]
        perhaps: Option<u64>,
        #[serde(default, deserialize_with = "whole")]
        many: Vec<u64>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Nested {
        #[serde(deserialize_with = "object")]
        one: Body,
        #[serde(default, deserialize_with = "optional_object")]
        perhaps: Option<Body>,
    }

    #[test]
    fn an_array_is_no_object() {
        let read =
            |body: &str| parse::<Nested>(body.as_bytes()).map_err(|Invalid(mut errors)| errors.remove(0));
        let nested = read(r#"{"one": {"name": "a"}, "perhaps": {"name": "b"}}"#).unwrap();
        assert_eq!((nested.one.name.as_str(), nested.perhaps.is_some()), ("a", true));
        assert_eq!(read(r#"{"one": {"name": "a"}, "perhaps": null}"#).unwrap().perhaps, None);
        for (wrong, pointer) in [
            (r#"[{"name": "a"}]"#, ""),
            (r#"{"one": ["a"]}"#, "/one"),
            (r#"{"one": {"name": "a"}, "perhaps": ["b"]}"#, "/perhaps"),
            (r#"{"one": {"name": "a"}, "perhaps": {}}"#, "/perhaps/name"),
        ] {
            assert_eq!(read(wrong).unwrap_err().pointer, pointer, "{wrong}");
        }
    }

    #[test]
    fn whole_numbers_may_have_a_fraction_of_zero() {
        let read =
            |body: &str| parse::<Numbers>(body.as_bytes()).map_err(|Invalid(mut errors)| errors.remove(0));
        let numbers =
            read(r#"{"one": 5.0, "perhaps": 7, "many": [1e2, -0.0, 18446744073709551615]}"#).unwrap();
        assert_eq!(numbers, Numbers { one: 5, perhaps: Some(7), many: vec![100, 0, u64::MAX] });
        assert_eq!(read(r#"{"one": 5, "perhaps": null}"#).unwrap().perhaps, None);
        for (wrong, pointer) in [
            (r#"{"one": 5.5}"#, "/one"),
            (r#"{"one": -1}"#, "/one"),
            (r#"{"one": 4294967296.0}"#, "/one"),
            (r#"{"one": "5"}"#, "/one"),
            (r#"{"one": 1, "perhaps": 1e30}"#, "/perhaps"),
            (r#"{"one": 1, "many": [1, 9007199254740993.0]}"#, "/many/1"),
        ] {
            assert_eq!(read(wrong).unwrap_err().pointer, pointer, "{wrong}");
        }
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
