//! Items as DynamoDB's JSON, straight from what they are made of.
//!
//! What serde calls a string is an `S`, a number an `N`, bytes are a `B`, and so on: the same as with `serde_dynamo`, which
//! makes the items that the SDK writes. Here no map of strings comes to be in between.

use std::fmt::Display;

use data_encoding::BASE64;
use serde::ser::{self, Error as _};
use serde::{Serialize, Serializer};

/// What cannot become an item is refused as what cannot become JSON.
type Error = serde_json::Error;

/// Writes an item: the attributes of a struct or a map.
pub(super) fn write(out: &mut Vec<u8>, item: &impl Serialize) -> Result<(), Error> {
    item.serialize(Value { out, place: Place::Item })
}

/// Writes the values of an item's attributes as a list, and their names as another one.
pub(super) fn write_apart(
    values: &mut Vec<u8>,
    names: &mut Vec<&'static str>,
    item: &impl Serialize,
) -> Result<(), Error> {
    item.serialize(Value { out: values, place: Place::Values(names) })
}

/// Writes one value.
struct Value<'a> {
    out: &'a mut Vec<u8>,
    place: Place<'a>,
}

/// Where a value stands.
enum Place<'a> {
    /// It is the item itself, whose attributes stand under no type.
    Item,
    /// The same, but the attributes' names go to a place of their own.
    Values(&'a mut Vec<&'static str>),
    /// In an item.
    Within,
}

/// Writes the parts of a value, and its end.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
    end: &'static [u8],
    /// Where names go that do not stand before their values.
    names: Option<&'a mut Vec<&'static str>>,
}

impl<'a> Value<'a> {
    fn typed(self, begin: &str, text: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
        self.within()?;
        self.out.extend_from_slice(begin.as_bytes());
        text(self.out)?;
        self.out.push(b'}');
        Ok(())
    }

    fn integer(self, number: &impl Serialize) -> Result<(), Error> {
        self.typed("{\"N\":\"", |out| {
            serde_json::to_writer(&mut *out, number)?;
            out.push(b'"');
            Ok(())
        })
    }

    /// Digits need no escapes.
    fn number(self, number: &impl Display) -> Result<(), Error> {
        self.typed("{\"N\":", |out| write_all(out, format_args!("\"{number}\"")))
    }

    fn list(self, begin: &str, end: &'static [u8]) -> Result<Parts<'a>, Error> {
        self.within()?;
        self.out.extend_from_slice(begin.as_bytes());
        Ok(Parts { out: self.out, is_first: true, end, names: None })
    }

    fn map(self) -> Parts<'a> {
        let (begin, end, names): (&[u8], &'static [u8], _) = match self.place {
            Place::Item => (b"{", b"}", None),
            Place::Values(names) => (b"[", b"]", Some(names)),
            Place::Within => (b"{\"M\":{", b"}}", None),
        };
        self.out.extend_from_slice(begin);
        Parts { out: self.out, is_first: true, end, names }
    }

    fn within(&self) -> Result<(), Error> {
        match self.place {
            Place::Within => Ok(()),
            Place::Item | Place::Values(_) => Err(Error::custom("an item has attributes")),
        }
    }

    /// A value that stands under the name of its variant.
    fn variant(self, name: &str, begin: &str, end: &'static [u8]) -> Result<Parts<'a>, Error> {
        let mut parts = self.list("{\"M\":{", end)?;
        parts.name(name)?;
        parts.out.extend_from_slice(begin.as_bytes());
        parts.is_first = true;
        Ok(parts)
    }
}

impl Parts<'_> {
    fn next(&mut self) {
        if !self.is_first {
            self.out.push(b',');
        }
        self.is_first = false;
    }

    fn name(&mut self, name: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if self.names.is_some() {
            return Err(Error::custom("only the names of fields can go elsewhere"));
        }
        self.next();
        let begin = self.out.len();
        serde_json::to_writer(&mut *self.out, name)?;
        if self.out.get(begin) != Some(&b'"') {
            return Err(Error::custom("an attribute is named by a string"));
        }
        self.out.push(b':');
        Ok(())
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        value.serialize(Value { out: self.out, place: Place::Within })
    }

    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.next();
        self.value(value)
    }

    fn close(self) {
        self.out.extend_from_slice(self.end);
    }
}

fn write_all(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> Result<(), Error> {
    use std::io::Write as _;
    out.write_fmt(text).map_err(Error::io)
}

macro_rules! numbers {
    ($write:ident, $($method:ident: $type:ty),*) => {
        $(fn $method(self, number: $type) -> Result<(), Error> {
            self.$write(&number)
        })*
    };
}

impl<'a> Serializer for Value<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    numbers! {
        integer, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    }
    numbers! { number, serialize_f32: f32, serialize_f64: f64 }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.typed("{\"BOOL\":", |out| write_all(out, format_args!("{value}")))
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.typed("{\"S\":", |out| serde_json::to_writer(out, value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.typed("{\"B\":\"", |out| {
            let begin = out.len();
            out.resize(begin + BASE64.encode_len(value.len()), 0);
            BASE64.encode_mut(value, &mut out[begin..]);
            out.push(b'"');
            Ok(())
        })
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.typed("{\"NULL\":true", |_| Ok(()))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let mut parts = self.variant(variant, "", b"}}")?;
        parts.value(value)?;
        parts.close();
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        self.list("{\"L\":[", b"]}")
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        self.variant(variant, "{\"L\":[", b"]}}}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(self.map())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        Ok(self.map())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        self.variant(variant, "{\"M\":{", b"}}}}")
    }
}

impl ser::SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeTuple for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeTupleVariant for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.name(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStruct for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        if let Some(names) = &mut self.names {
            names.push(name);
            return self.element(value);
        }
        self.name(name)?;
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStructVariant for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.name(name)?;
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Kind {
        Unit,
        Newtype(u8),
        Tuple(u8, &'static str),
        Struct { a: Option<u8> },
    }

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct Newtype(&'static str);

    #[derive(Serialize)]
    struct Everything {
        text: &'static str,
        sign: char,
        numbers: (i8, i16, i32, i64, u8, u16, u32, u64, f32, f64),
        truth: bool,
        some: Option<u8>,
        none: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u8>,
        unit: Unit,
        newtype: Newtype,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        kinds: Vec<Kind>,
        map: BTreeMap<&'static str, Vec<&'static str>>,
        empty: [u8; 0],
    }

    #[test]
    fn an_item_is_what_serde_dynamo_makes_of_it() {
        let everything = Everything {
            text: "a \"quoted\" \n \u{1f600} line",
            sign: '"',
            numbers: (-1, -300, i32::MIN, i64::MIN, 255, 65535, u32::MAX, u64::MAX, 1.5, -0.25),
            truth: true,
            some: Some(1),
            none: None,
            absent: None,
            unit: Unit,
            newtype: Newtype("n"),
            bytes: vec![0, 1, 254, 255],
            kinds: vec![Kind::Unit, Kind::Newtype(1), Kind::Tuple(2, "b"), Kind::Struct { a: Some(3) }],
            map: BTreeMap::from([("a \"key\"", vec!["x", "y"]), ("b", vec![])]),
            empty: [],
        };
        let mut out = Vec::new();
        write(&mut out, &everything).unwrap();
        let ours: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let theirs: serde_dynamo::Item = serde_dynamo::to_item(&everything).unwrap();
        assert_eq!(ours, serde_json::to_value(theirs).unwrap());

        let (mut values, mut names) = (Vec::new(), Vec::new());
        write_apart(&mut values, &mut names, &everything).unwrap();
        let values: Vec<serde_json::Value> = serde_json::from_slice(&values).unwrap();
        let together: serde_json::Map<_, _> = names.into_iter().map(str::to_owned).zip(values).collect();
        assert_eq!(serde_json::Value::Object(together), ours);
    }

    #[test]
    fn only_what_has_attributes_is_an_item() {
        assert!(write(&mut Vec::new(), &"text").is_err());
        assert!(write(&mut Vec::new(), &[1]).is_err());
        assert!(write(&mut Vec::new(), &Kind::Newtype(1)).is_err());
        assert!(write(&mut Vec::new(), &BTreeMap::from([(1, 1)])).is_err());
    }
}
