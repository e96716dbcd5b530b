//! Events as the OpenAPI document describes them (CloudEvents JSON format 1.0).

use std::borrow::Cow;

use carillon_core::event::{ATTRIBUTE_BYTES_MAX, BATCH_EVENTS_MAX};
use carillon_core::pattern::TYPE_BYTES_MAX;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Text without control characters.
const TEXT: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]+$";

const TYPE: &str = r"^[^\s*\u0000-\u001f\u007f-\u009f]+$";

const URI_REFERENCE: &str = r#"^[^\s"<>\\^`{|}\u0000-\u001f\u007f-\u009f]+$"#;

const MEDIA_TYPE: &str = "^[A-Za-z0-9!#$&^_.+%'*`|~-]+/[A-Za-z0-9!#$&^_.+%'*`|~-]+(;[ -~]*)?$";

const AUDIENCE: &str = "^[ ,]*[A-Za-z0-9._:~-]{1,64}([ ,]+[A-Za-z0-9._:~-]{1,64})*[ ,]*$";

/// With nothing in the bits that are left over (RFC 4648, section 3.5).
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

const NAME: &str = "^([a-z0-9]+|data_base64)$";

/// An event in structured mode.
pub(crate) struct CloudEvent;

/// A batch of events.
pub(crate) struct CloudEventBatch;

impl PartialSchema for CloudEvent {
    fn schema() -> RefOr<Schema> {
        let event = ObjectBuilder::new()
            .description(Some(
                "A CloudEvent 1.0. `source` and `id` are its identity in the workspace. Further members are extension \
                 attributes; a member that is null is taken for absent.",
            ))
            .property("specversion", text("").enum_values(Some(["1.0"])))
            .property("id", text("Tells it from the source's other events.").pattern(Some(TEXT)))
            .property("source", text("What it comes from.").pattern(Some(URI_REFERENCE)))
            .property("type", text("One of the workspace's event types.").max_length(Some(TYPE_BYTES_MAX)).pattern(Some(TYPE)))
            .property("subject", optional("What it is about, at the source.").pattern(Some(TEXT)))
            .property("time", optional("When it happened.").format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
            .property("datacontenttype", optional("The media type of its data.").pattern(Some(MEDIA_TYPE)))
            .property("dataschema", optional("What its data conforms to.").format(Some(SchemaFormat::Custom("uri".to_owned()))))
            .property(
                "audience",
                optional(
                    "The subscribers that it is for, between commas or spaces; without it, it is for all of them. Some \
                     workspaces require it. It is not delivered.",
                )
                .pattern(Some(AUDIENCE)),
            )
            .property(
                "data",
                ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(
                    "What happened, as the event type has it. Delivered as it stands here.",
                )),
            )
            .property(
                "data_base64",
                ObjectBuilder::new()
                    .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
                    .description(Some("In the place of `data`, data that is not JSON."))
                    .pattern(Some(BASE64)),
            )
            .required("specversion")
            .required("id")
            .required("source")
            .required("type")
            .property_names(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(NAME))))
            .additional_properties(Some(extension()));
        Schema::from(event).into()
    }
}

impl ToSchema for CloudEvent {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("CloudEvent")
    }
}

impl PartialSchema for CloudEventBatch {
    fn schema() -> RefOr<Schema> {
        let events = ArrayBuilder::new().items(Ref::from_schema_name(CloudEvent::name()));
        let events = events.max_items(Some(BATCH_EVENTS_MAX));
        Schema::from(events).into()
    }
}

impl ToSchema for CloudEventBatch {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("CloudEventBatch")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((CloudEvent::name().into_owned(), CloudEvent::schema()));
    }
}

fn text(description: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let text = text.max_length(Some(ATTRIBUTE_BYTES_MAX));
    if description.is_empty() { text } else { text.description(Some(description)) }
}

fn optional(description: &str) -> ObjectBuilder {
    text(description).schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
}

fn extension() -> RefOr<Schema> {
    let types = [Type::String, Type::Boolean, Type::Integer, Type::Null];
    let extension = ObjectBuilder::new()
        .schema_type(SchemaType::Array(types.to_vec()))
        .description(Some("An extension attribute."))
        .max_length(Some(ATTRIBUTE_BYTES_MAX))
        .minimum(Some(i32::MIN))
        .maximum(Some(i32::MAX));
    Schema::from(extension).into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_schema_takes_the_samples_and_refuses_what_is_none() {
        // With these words the dialect of OpenAPI says the same as the one that is compiled here.
        let schema = serde_json::to_value(CloudEvent::schema()).unwrap();
        let schema = carillon_schema::Schema::compile(&schema).unwrap();
        let sample: Value =
            serde_json::from_str(include_str!("../../../events/consent-approved.cloudevents.json")).unwrap();
        assert_eq!(schema.check(&sample), []);
        let mut with = sample.as_object().unwrap().clone();
        for (name, value) in [
            ("id", json!(null)),
            ("specversion", json!("0.3")),
            ("type", json!("a*")),
            ("source", json!("a b")),
            ("audience", json!("tpp/1")),
            ("datacontenttype", json!("json")),
            ("data_base64", json!("eB==")),
            ("Extension", json!("x")),
            ("extension", json!({})),
            ("extension", json!(1_u64 << 40)),
        ] {
            with.insert(name.to_owned(), value);
            assert_ne!(schema.check(&Value::Object(with.clone())), [], "{name}");
            with = sample.as_object().unwrap().clone();
        }
        for (name, value) in [
            ("subject", json!(null)),
            ("audience", json!("tpp-1, urn:b~2")),
            ("datacontenttype", json!("text/plain; charset=utf-8")),
            ("data_base64", json!("eA==")),
            ("extension", json!(7)),
        ] {
            with.insert(name.to_owned(), value);
            assert_eq!(schema.check(&Value::Object(with.clone())), [], "{name}");
        }
    }
}
