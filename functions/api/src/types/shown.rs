//! Event types as the API shows and takes them.

use carillon_catalogue::{EventTypeDefinition, TypeSource};
use carillon_core::invalid::Invalid;
use carillon_core::pattern::EventType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

/// Which event types to list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SourceQuery {
    /// Those of the catalogue, or those of the workspace's own; all if absent.
    #[param(value_type = Option<SourceShown>)]
    source: Option<String>,
}

/// Which event types a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Builtin,
    Own,
}

impl SourceQuery {
    pub(super) fn wanted(&self) -> Result<Wanted, Invalid> {
        match self.source.as_deref() {
            None => Ok(Wanted::All),
            Some("builtin") => Ok(Wanted::Builtin),
            Some("workspace") => Ok(Wanted::Own),
            Some(_) => Err(Invalid::field("query:source", "must be `builtin` or `workspace`")),
        }
    }
}

/// An event type of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ListedEventType)]
pub(super) struct ListedType {
    /// What `type` of its events says.
    #[schema(value_type = String, example = "invoice.sent")]
    name: EventType,
    /// Which of its definitions this is: each one that follows has the next number.
    #[schema(minimum = 1)]
    version: u32,
    /// What has happened when there is an event of it.
    #[schema(example = "An invoice was sent to its customer.")]
    description: String,
    /// Whether events are refused whose data the schema rejects.
    validate: bool,
    /// Where it comes from.
    #[schema(value_type = SourceShown)]
    source: TypeSource,
}

/// An event type.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventType)]
pub(super) struct Shown {
    #[serde(flatten)]
    listed: ListedType,
    /// A JSON Schema (draft-07) of its events' data.
    schema: Value,
    /// The data of an event of it.
    sample: Value,
}

/// A definition of an event type.
#[derive(ToSchema)]
#[schema(as = EventTypeInput, rename_all = "camelCase")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes NewEventType of the catalogue, which knows no OpenAPI")]
pub(super) struct InputShown {
    /// What has happened when there is an event of it.
    #[schema(min_length = 1, max_length = 1000, pattern = r"\S")]
    description: String,
    /// A JSON Schema (draft-07) of its events' data, without references to elsewhere.
    #[schema(schema_with = json_schema)]
    schema: Value,
    /// The data of an event of it, which the schema must accept.
    sample: Value,
    /// Whether events are refused whose data the schema rejects.
    #[schema(required = false, default = true)]
    validate: bool,
}

/// Where an event type comes from: the catalogue of the workspace's kind, or the workspace itself.
#[derive(ToSchema)]
#[schema(as = EventTypeSource, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes TypeSource of the catalogue, which knows no OpenAPI")]
enum SourceShown {
    /// The catalogue of the workspace's kind.
    Builtin,
    /// The workspace itself.
    Workspace,
}

fn json_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Boolean]))
        .description(Some("A JSON Schema (draft-07) of its events' data, without references to elsewhere."))
        .build()
}

impl From<EventTypeDefinition> for ListedType {
    fn from(definition: EventTypeDefinition) -> Self {
        let EventTypeDefinition { name, version, description, validate, source, .. } = definition;
        Self { name, version, description, validate, source }
    }
}

impl From<EventTypeDefinition> for Shown {
    fn from(mut definition: EventTypeDefinition) -> Self {
        let (schema, sample) = (definition.schema.take(), definition.sample.take());
        Self { listed: definition.into(), schema, sample }
    }
}
