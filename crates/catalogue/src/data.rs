//! Whether an event's data is as its type says.

use carillon_core::event::is_json;
use carillon_core::invalid::Invalid;
use carillon_schema::{Schema, SchemaError, prefixed};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::definition::EventTypeDefinition;

/// What the data of a type's events must be: compiled once, for many events.
#[derive(Debug)]
pub struct DataRule(Option<Schema>);

impl DataRule {
    /// The rule of a type; one that does not check its events allows whatever they bring, or do not.
    pub fn of(definition: &EventTypeDefinition) -> Result<Self, SchemaError> {
        let schema = definition.validate.then(|| Schema::compile(&definition.schema));
        schema.transpose().map(Self)
    }

    /// Checks an event, given as its JSON text in structured mode, such as that of
    /// [`Event::json`](carillon_core::event::Event::json). Pointers are into the event, those of wrong data under `/data`.
    pub fn check_event(&self, json: &str) -> Result<(), Invalid> {
        let Self(Some(schema)) = self else { return Ok(()) };
        let event: Members<'_> = serde_json::from_str(json)
            .map_err(|error| Invalid::field("", format!("must be a CloudEvent as a JSON object: {error}")))?;
        if event.datacontenttype.as_deref().is_some_and(|content_type| !is_json(content_type)) {
            return Err(Invalid::field(
                "/datacontenttype",
                "must be `application/json`: this type's data is checked by its schema",
            ));
        }
        match event {
            Members { data: Some(data), .. } => check_json(schema, data.get()),
            Members { data_base64: Some(_), .. } => Err(Invalid::field(
                "/data_base64",
                "must not be given: this type's data is checked by its schema, so it must be JSON in `data`",
            )),
            _ => Err(Invalid::field("/data", "is required: this type's data is checked by its schema")),
        }
    }

    /// Checks data by itself. Pointers are under `/data`.
    pub fn check_data(&self, data: &Value) -> Result<(), Invalid> {
        self.0.as_ref().map_or(Ok(()), |schema| check_value(schema, data))
    }
}

/// What of an event its data can be told from.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(default)]
    datacontenttype: Option<String>,
    #[serde(default, borrow, deserialize_with = "null_included")]
    data: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data_base64: Option<&'a RawValue>,
}

/// Data can be `null`, which is not the same as none.
fn null_included<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn check_json(schema: &Schema, json: &str) -> Result<(), Invalid> {
    // It is JSON, but may have a number that no double holds, or be deeper than is read.
    let data = serde_json::from_str(json).map_err(|error| {
        Invalid::field("/data", format!("cannot be checked by this type's schema: {error}"))
    })?;
    check_value(schema, &data)
}

fn check_value(schema: &Schema, data: &Value) -> Result<(), Invalid> {
    let faults = prefixed("/data", schema.check(data));
    if faults.is_empty() { Ok(()) } else { Err(Invalid(faults)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definition::TypeSource;

    fn rule(validate: bool) -> DataRule {
        let definition = EventTypeDefinition {
            name: "t".parse().unwrap(),
            version: 1,
            description: "x".to_owned(),
            schema: json!({"properties": {"n": {"type": "number"}}}),
            sample: json!({}),
            validate,
            source: TypeSource::Workspace,
        };
        DataRule::of(&definition).unwrap()
    }

    fn pointers(members: &str) -> Vec<String> {
        let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{members}}}"#);
        assert_eq!(rule(false).check_event(&json), Ok(()));
        let checked = rule(true).check_event(&json);
        checked.err().map_or_else(Vec::new, |invalid| invalid.0.into_iter().map(|e| e.pointer).collect())
    }

    #[test]
    fn data_is_checked_where_it_is() {
        assert_eq!(pointers(r#","data":{"n":1}"#), Vec::<String>::new());
        assert_eq!(pointers(r#","data":null"#), Vec::<String>::new());
        assert_eq!(
            pointers(r#","datacontenttype":"application/vnd.a+json; v=1","data":7"#),
            Vec::<String>::new()
        );
        assert_eq!(pointers(r#","data":{"n":"1"}"#), ["/data/n"]);
        assert_eq!(pointers(r#","data":{"n":1e400}"#), ["/data"]);
        assert_eq!(pointers(&format!(r#","data":{}{}"#, "[".repeat(200), "]".repeat(200))), ["/data"]);
        assert_eq!(pointers(""), ["/data"]);
        assert_eq!(pointers(r#","data_base64":"AA==""#), ["/data_base64"]);
        assert_eq!(pointers(r#","datacontenttype":"text/plain","data":"n""#), ["/datacontenttype"]);
    }

    #[test]
    fn data_can_be_checked_by_itself() {
        assert_eq!(rule(true).check_data(&json!({"n": true})).unwrap_err().0[0].pointer, "/data/n");
        assert_eq!(rule(false).check_data(&json!({"n": true})), Ok(()));
    }
}
