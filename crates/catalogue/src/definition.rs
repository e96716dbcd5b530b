//! What an event type is, and what a workspace may define as one.

use carillon_core::invalid::{Findings, Invalid};
use carillon_core::pattern::EventType;
use carillon_schema::{Schema, prefixed};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 1000;

/// The largest definition, in bytes as JSON.
pub const DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// What the names of Carillon's own events begin with: no workspace can define such a type.
pub const RESERVED_PREFIX: &str = carillon_core::operational::PREFIX;

/// An event type with what its data looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeDefinition {
    /// Its name: what events have as their `type`.
    pub name: EventType,
    /// Grows by one with each new definition of the same name.
    pub version: u32,
    /// What has happened when there is such an event, for people.
    pub description: String,
    /// What the data of its events looks like: a JSON Schema of draft-07.
    pub schema: Value,
    /// The data of such an event, valid by the schema.
    pub sample: Value,
    /// Whether the data of published events is checked by the schema.
    pub validate: bool,
    /// Who has defined it.
    pub source: TypeSource,
}

/// Who has defined an event type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TypeSource {
    /// The catalogue of the workspace's kind.
    Builtin,
    /// The workspace itself.
    Workspace,
}

/// An event type as a workspace describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewEventType {
    description: String,
    schema: Value,
    sample: Value,
    #[serde(default = "validates")]
    validate: bool,
}

impl NewEventType {
    /// Checks every field. A schema that its own sample is not valid by is refused.
    pub fn check(self, name: EventType, version: u32) -> Result<EventTypeDefinition, Invalid> {
        let mut findings = Findings::default();
        if name.as_str().starts_with(RESERVED_PREFIX) {
            findings.add(
                "",
                format!("is of a type that begins with `{RESERVED_PREFIX}`, as those of Carillon do"),
            );
        }
        let length = self.description.trim().chars().count();
        if !(1..=DESCRIPTION_CHARS_MAX).contains(&length) {
            findings.add("/description", format!("must have 1 to {DESCRIPTION_CHARS_MAX} characters"));
        }
        match Schema::compile(&self.schema) {
            Ok(schema) => {
                for fault in prefixed("/sample", schema.check(&self.sample)) {
                    findings.add(fault.pointer, fault.detail);
                }
            }
            Err(error) => _ = findings.take::<()>(Err(error.at("/schema"))),
        }
        let definition = EventTypeDefinition {
            name,
            version,
            description: self.description,
            schema: self.schema,
            sample: self.sample,
            validate: self.validate,
            source: TypeSource::Workspace,
        };
        if serde_json::to_vec(&definition).map_or(usize::MAX, |json| json.len()) > DEFINITION_BYTES_MAX {
            findings.add("", format!("must have at most {DEFINITION_BYTES_MAX} bytes as JSON"));
        }
        findings.into_result(definition)
    }
}

fn validates() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<EventTypeDefinition, Invalid> {
        let new: NewEventType = serde_json::from_value(body).unwrap();
        new.check("invoice.paid".parse().unwrap(), 3)
    }

    fn pointers(body: Value) -> Vec<String> {
        check(body).unwrap_err().0.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_definition_comes_back_as_it_was_stored() {
        let body = json!({"description": "Paid.", "schema": {"type": "object"}, "sample": {"amount": 7}});
        let definition = check(body).unwrap();
        assert!(definition.validate);
        let json = serde_json::to_value(&definition).unwrap();
        assert_eq!(
            json,
            json!({
                "name": "invoice.paid", "version": 3, "description": "Paid.", "schema": {"type": "object"},
                "sample": {"amount": 7}, "validate": true, "source": "workspace"
            })
        );
        assert_eq!(serde_json::from_value::<EventTypeDefinition>(json).unwrap(), definition);
    }

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let body =
            json!({"description": " ", "schema": {"type": "array", "$ref": "http://a.example"}, "sample": 1});
        assert_eq!(pointers(body), ["/description", "/schema/$ref"]);
        let long = "x".repeat(DESCRIPTION_CHARS_MAX + 1);
        assert_eq!(pointers(json!({"description": long, "schema": {}, "sample": 1})), ["/description"]);
    }

    #[test]
    fn a_schema_that_rejects_its_own_sample_is_refused() {
        let schema = json!({"required": ["id"], "properties": {"amount": {"type": "integer"}}});
        let body =
            json!({"description": "x", "schema": schema, "sample": {"amount": "7"}, "validate": false});
        assert_eq!(pointers(body), ["/sample/id", "/sample/amount"]);
    }

    #[test]
    fn definitions_have_a_bound_and_names_that_are_theirs() {
        let body = json!({"description": "x", "schema": {}, "sample": "x".repeat(DEFINITION_BYTES_MAX)});
        assert_eq!(pointers(body), [""]);
        let new: NewEventType =
            serde_json::from_value(json!({"description": "x", "schema": true, "sample": 1})).unwrap();
        assert!(new.check("carillon.subscription.disabled".parse().unwrap(), 1).is_err());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let body = json!({"description": "x", "schema": true, "sample": 1, "deadline": {}});
        assert!(serde_json::from_value::<NewEventType>(body).is_err());
    }
}
