//! What stands in paths and cursors, described once for every operation that has it.

use carillon_aws::deliveries::Place;
use carillon_core::id::{ClientId, EventDigest, EventId, InboxId, JobId, SubscriptionId};
use carillon_core::pattern::TYPE_BYTES_MAX;
use carillon_core::time::UnixMillis;
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use crate::deliveries::Cursor;

/// Describes a parameter of an operation at this path, if it is one of those that have a form: a name in the path itself,
/// or where a page of the list begins that is there.
pub(crate) fn describe(path: &str, parameter: &mut Parameter) {
    never_null(parameter);
    let name = match (&parameter.parameter_in, parameter.name.as_str()) {
        (ParameterIn::Path, name) => name,
        (ParameterIn::Query, "cursor") => listed(path),
        _ => return,
    };
    let Some(Form { chars_max, pattern, example }) = form(name) else { return };
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(chars_max))
        .pattern(Some(pattern))
        .examples([Value::from(example)]);
    parameter.schema = Some(RefOr::T(Schema::Object(schema.build())));
}

/// An optional parameter can be absent, but there is no way to write null.
fn never_null(parameter: &mut Parameter) {
    if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
        && let SchemaType::Array(types) = &mut schema.schema_type
    {
        types.retain(|one| *one != Type::Null);
        if let [only] = &types[..] {
            schema.schema_type = SchemaType::Type(only.clone());
        }
    }
}

/// By what the items of a list are named.
fn listed(path: &str) -> &str {
    match path.rsplit('/').next().unwrap_or_default() {
        "workspaces" => "workspace",
        "clients" => "client",
        "event-types" => "type",
        "subscriptions" => "subscription",
        "jobs" => "job",
        "deliveries" if path.contains("/events/") => "subscription",
        "deliveries" | "events" => "place",
        "audit" => "change",
        other => other,
    }
}

struct Form {
    chars_max: usize,
    pattern: &'static str,
    example: String,
}

/// The patterns say what the types of [`carillon_core::id`] take. Ids of 16 bytes have 26 characters, and the last one
/// has two bits that are nothing.
fn form(name: &str) -> Option<Form> {
    let then = UnixMillis(1_795_339_800_000);
    let digest = EventDigest::of("https://consents.aurora-bank.example/open-finance", "0f3b8f6e-consumed");
    Some(match name {
        "workspace" => {
            Form { chars_max: 63, pattern: "^[a-z0-9][a-z0-9_-]*$", example: "acme-consents".to_owned() }
        }
        "client" => Form {
            chars_max: ClientId::CHARS_MAX,
            pattern: "^[A-Za-z0-9._:~@|+=-]+$",
            example: "2v9k1ofb7tq0c4m8s6h3n5d1e7".to_owned(),
        },
        "type" => Form {
            chars_max: TYPE_BYTES_MAX,
            pattern: "^[A-Za-z0-9_~+@-]+([.:][A-Za-z0-9_~+@-]+){0,11}$",
            example: "invoice.sent".to_owned(),
        },
        "subscription" => Form {
            chars_max: 30,
            pattern: "^sub_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$",
            example: SubscriptionId::new(then, [7; 10]).to_string(),
        },
        "inbox" => Form {
            chars_max: 32,
            pattern: "^inbox_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$",
            example: InboxId::new(then, [7; 10]).to_string(),
        },
        "event" => Form {
            chars_max: 36,
            pattern: "^evt_[0-9a-hjkmnp-tv-z]{32}$",
            example: EventId::from(digest).to_string(),
        },
        "delivery" => {
            Form { chars_max: 36, pattern: "^dlv_[0-9a-hjkmnp-tv-z]{32}$", example: format!("dlv_{digest}") }
        }
        "place" => Form {
            chars_max: 46,
            pattern: r"^[0-9]{13}\.[0-9a-hjkmnp-tv-z]{32}$",
            example: Cursor(Place { accepted_at: then, digest }).to_string(),
        },
        "change" => Form {
            chars_max: 22,
            pattern: r"^[0-9]{13}\.[0-9a-f]{8}$",
            example: format!("{}.0b9f3c1e", then.sortable()),
        },
        "job" => Form {
            chars_max: 30,
            pattern: "^job_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$",
            example: JobId::new(then, [7; 10]).to_string(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use carillon_aws::config::AuditCursor;
    use carillon_core::id::DeliveryId;
    use carillon_core::pattern::SEGMENTS_MAX;

    use super::*;

    #[test]
    fn every_cursor_has_a_form() {
        let document = serde_json::to_value(crate::document()).unwrap();
        let mut count = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            let parameters = item["get"]["parameters"].as_array().into_iter().flatten();
            for parameter in parameters.filter(|parameter| parameter["name"] == "cursor") {
                assert!(parameter["schema"]["pattern"].is_string(), "{path}");
                count += 1;
            }
        }
        assert_eq!(count, 9);
    }

    #[test]
    fn ids_have_the_form_that_is_described() {
        for name in ["subscription", "inbox", "job", "event", "delivery", "place", "change"] {
            let Form { chars_max, example, .. } = form(name).unwrap();
            assert_eq!(example.len(), chars_max, "{example}");
        }
        assert!(form("event").is_some_and(|form| form.example.parse::<EventId>().is_ok()));
        assert!(form("delivery").is_some_and(|form| form.example.parse::<DeliveryId>().is_ok()));
        assert!(form("change").is_some_and(|form| form.example.parse::<AuditCursor>().is_ok()));
        assert!(form("place").is_some_and(|form| form.example.parse::<Cursor>().is_ok()));
        for last in "0123456789abcdefghjkmnpqrstvwxyz".chars() {
            let id = format!("job_{}{last}", "a".repeat(25));
            assert_eq!(id.parse::<JobId>().is_ok(), "048cgmrw".contains(last), "{id}");
        }
        assert!(form("type").unwrap().pattern.contains(&format!("{{0,{}}}", SEGMENTS_MAX - 1)));
        assert!(form("name").is_none());
    }
}
