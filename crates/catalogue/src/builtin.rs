//! The catalogues of the kinds of workspaces, from the files in `events/catalogues`.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use carillon_core::pattern::EventType;
use carillon_core::workspace::WorkspaceKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::data::DataRule;
use crate::definition::{EventTypeDefinition, TypeSource};
use crate::rules::Rules;

/// The event types that a kind of workspace brings, in the order of its file.
#[must_use]
pub fn builtin(kind: WorkspaceKind) -> &'static [EventTypeDefinition] {
    catalogue(kind).map_or(&[], |catalogue| &catalogue.types)
}

/// One of them by its name.
#[must_use]
pub fn builtin_type(kind: WorkspaceKind, name: &EventType) -> Option<&'static EventTypeDefinition> {
    builtin(kind).iter().find(|definition| definition.name == *name)
}

/// What the catalogue of a kind of workspaces says of its types among one another.
#[must_use]
pub fn builtin_rules(kind: WorkspaceKind) -> &'static Rules {
    static NONE: Rules = Rules { revisions: false, deadlines: Vec::new(), cascades: Vec::new() };
    catalogue(kind).map_or(&NONE, |catalogue| &catalogue.among)
}

/// The types of the events that Carillon itself tells, in workspaces of every kind. They can be subscribed to, and not
/// published.
#[must_use]
pub fn operational() -> &'static [EventTypeDefinition] {
    &OPERATIONAL.types
}

/// What the data of such a type's events must be. Compiled at the first call, and kept.
#[must_use]
pub fn builtin_rule(kind: WorkspaceKind, name: &EventType) -> Option<&'static DataRule> {
    let catalogue = catalogue(kind)?;
    let at = catalogue.types.iter().position(|definition| definition.name == *name)?;
    let compile = || {
        DataRule::of(&catalogue.types[at])
            .unwrap_or_else(|error| unreachable!("a test compiles every schema of the catalogues: {error}"))
    };
    Some(catalogue.rules[at].get_or_init(compile))
}

/// A catalogue, and the rules of its types as far as they were needed.
struct Catalogue {
    among: Rules,
    types: Vec<EventTypeDefinition>,
    rules: Vec<OnceLock<DataRule>>,
}

/// A catalogue as its file has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CatalogueFile {
    /// Whether its events have revisions, and what they bring about.
    #[serde(default)]
    rules: Rules,
    /// Schemas that those of several types refer to. Each type's schema gets those that it needs.
    definitions: Map<String, Value>,
    event_types: Vec<TypeEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TypeEntry {
    name: EventType,
    version: u32,
    description: String,
    schema: Map<String, Value>,
    sample: Value,
}

static CONSENT: LazyLock<Catalogue> =
    LazyLock::new(|| read(include_str!("../../../events/catalogues/consent.json")));
static IDENTITY: LazyLock<Catalogue> =
    LazyLock::new(|| read(include_str!("../../../events/catalogues/identity.json")));
static DIRECTORY: LazyLock<Catalogue> =
    LazyLock::new(|| read(include_str!("../../../events/catalogues/directory.json")));
static OPERATIONAL: LazyLock<Catalogue> =
    LazyLock::new(|| read(include_str!("../../../events/catalogues/operational.json")));

fn catalogue(kind: WorkspaceKind) -> Option<&'static Catalogue> {
    match kind {
        WorkspaceKind::Consent => Some(&CONSENT),
        WorkspaceKind::Identity => Some(&IDENTITY),
        WorkspaceKind::Directory => Some(&DIRECTORY),
        WorkspaceKind::Custom => None,
    }
}

fn read(file: &str) -> Catalogue {
    let file: CatalogueFile = serde_json::from_str(file)
        .unwrap_or_else(|error| unreachable!("a test reads every file of the catalogues: {error}"));
    let CatalogueFile { rules: among, definitions, event_types } = file;
    let types: Vec<_> = event_types.into_iter().map(|entry| entry.definition(&definitions)).collect();
    let rules = types.iter().map(|_| OnceLock::new()).collect();
    Catalogue { among, types, rules }
}

impl TypeEntry {
    fn definition(self, shared: &Map<String, Value>) -> EventTypeDefinition {
        let mut needed = BTreeMap::new();
        self.schema.values().for_each(|part| collect(part, shared, &mut needed));
        let mut schema = self.schema;
        schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        if !needed.is_empty() {
            schema.insert("definitions".to_owned(), json!(needed));
        }
        EventTypeDefinition {
            name: self.name,
            version: self.version,
            description: self.description,
            schema: Value::Object(schema),
            sample: self.sample,
            validate: true,
            source: TypeSource::Builtin,
        }
    }
}

/// Collects the shared schemas that a part of a schema refers to, and those that they refer to.
fn collect<'a>(part: &Value, shared: &'a Map<String, Value>, needed: &mut BTreeMap<String, &'a Value>) {
    match part {
        Value::Array(parts) => parts.iter().for_each(|part| collect(part, shared, needed)),
        Value::Object(members) => {
            let name =
                members.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/definitions/"));
            if let Some((name, schema)) = name.and_then(|name| Some((name, shared.get(name)?)))
                && needed.insert(name.to_owned(), schema).is_none()
            {
                collect(schema, shared, needed);
            }
            members.values().for_each(|part| collect(part, shared, needed));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use carillon_core::delivery::FailReason;
    use carillon_core::id::DeliveryId;
    use carillon_core::invalid::Invalid;
    use carillon_core::operational::{About, News, Troubled};
    use carillon_core::outcome::OutcomeClass;
    use carillon_core::subscription::DisabledBy;
    use carillon_core::time::UnixMillis;

    use crate::definition::{DEFINITION_BYTES_MAX, DESCRIPTION_CHARS_MAX, RESERVED_PREFIX};

    const KINDS: [WorkspaceKind; 4] =
        [WorkspaceKind::Consent, WorkspaceKind::Identity, WorkspaceKind::Directory, WorkspaceKind::Custom];

    fn names(kind: WorkspaceKind) -> Vec<&'static str> {
        builtin(kind).iter().map(|definition| definition.name.as_str()).collect()
    }

    #[test]
    fn every_schema_compiles_and_takes_its_sample() {
        for kind in KINDS {
            for definition in builtin(kind) {
                let rule = builtin_rule(kind, &definition.name).unwrap();
                assert_eq!(rule.check_data(&definition.sample), Ok(()), "{}", definition.name);
                assert!(rule.check_data(&json!({})).is_err(), "{} takes anything", definition.name);
            }
        }
    }

    #[test]
    fn every_definition_is_as_one_of_a_workspace_must_be() {
        for definition in KINDS.into_iter().flat_map(builtin) {
            assert!((1..=DESCRIPTION_CHARS_MAX).contains(&definition.description.chars().count()));
            assert!(serde_json::to_vec(definition).unwrap().len() <= DEFINITION_BYTES_MAX);
            assert!(definition.version >= 1 && !definition.name.as_str().starts_with(RESERVED_PREFIX));
            assert_eq!(definition.source, TypeSource::Builtin);
        }
    }

    #[test]
    fn what_carillon_tells_is_as_it_is_told() {
        let subscription = "sub_00000000000000000000000000".parse().unwrap();
        let (workspace, subscriber) = ("acme".parse().unwrap(), "tpp-1".parse().unwrap());
        let about = About {
            api: "https://hooks.example.com",
            workspace: &workspace,
            subscriber: &subscriber,
            subscription,
        };
        let troubled = Troubled {
            delivery: DeliveryId::of(&"acme/00000000000000000000000000000000".parse().unwrap(), subscription),
            event: r#"{"id":"1","source":"/s","specversion":"1.0","type":"t"}"#,
            round: 1,
            attempts: 3,
            outcome: Some(OutcomeClass::ServerError),
            status: Some(500),
        };
        let news = [
            News::Failing(troubled),
            News::Exhausted(troubled, FailReason::Exhausted),
            News::Exhausted(Troubled { outcome: None, status: None, ..troubled }, FailReason::Refused),
            News::Disabled { by: DisabledBy::Gone, revision: 1 },
            News::Disabled { by: DisabledBy::Failing, revision: 1 },
            News::Recovered { failing_since: UnixMillis(0) },
        ];
        let mut told = BTreeSet::new();
        for news in news {
            let event = news.event(about, UnixMillis(0)).unwrap();
            let at = OPERATIONAL.types.iter().position(|known| known.name == *event.event_type()).unwrap();
            let rule = DataRule::of(&OPERATIONAL.types[at]).unwrap();
            assert_eq!(rule.check_event(event.json()), Ok(()), "{}", event.event_type());
            assert_eq!(rule.check_data(&OPERATIONAL.types[at].sample), Ok(()), "{}", event.event_type());
            told.insert(at);
        }
        assert_eq!(told.len(), operational().len());
        assert!(operational().iter().all(|known| known.name.as_str().starts_with(RESERVED_PREFIX)));
    }

    #[test]
    fn names_are_unique() {
        let all: Vec<_> = KINDS.into_iter().flat_map(names).collect();
        let unique: BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
    }

    #[test]
    fn each_kind_has_its_own_types() {
        assert_eq!(
            names(WorkspaceKind::Consent),
            [
                "before:consent:create",
                "after:consent:create",
                "consent:approved",
                "consent:rejected",
                "consent:expired",
                "consent:revoke",
                "consent:consumed",
            ]
        );
        assert_eq!(
            names(WorkspaceKind::Identity),
            [
                "entityCreated",
                "entityUpdated",
                "entityDeleted",
                "client.registered",
                "token.issued",
                "token.revoked",
                "service.discovered",
            ]
        );
        assert_eq!(names(WorkspaceKind::Directory).len(), 45);
        assert!(builtin(WorkspaceKind::Custom).is_empty());
        let with_revisions: Vec<_> =
            KINDS.into_iter().filter(|kind| builtin_rules(*kind).revisions).collect();
        assert_eq!(with_revisions, [WorkspaceKind::Directory]);
        let consent = "consent:approved".parse().unwrap();
        assert!(builtin_type(WorkspaceKind::Consent, &consent).is_some());
        assert!(builtin_type(WorkspaceKind::Identity, &consent).is_none());
        assert!(builtin_rule(WorkspaceKind::Custom, &consent).is_none());
    }

    #[test]
    fn every_rule_makes_sense() {
        for kind in KINDS {
            let checked = builtin_rules(kind).check(&Rules::default(), |name| builtin_type(kind, name));
            assert_eq!(checked, Ok(()), "{kind:?}");
        }
        assert_eq!(builtin_rules(WorkspaceKind::Consent).deadlines.len(), 2);
        assert_eq!(builtin_rules(WorkspaceKind::Directory).cascades.len(), 2);
    }

    #[test]
    fn every_notification_of_the_directory_says_three_fields_of_four() {
        for definition in builtin(WorkspaceKind::Directory) {
            let fields: Vec<_> = definition.sample.as_object().unwrap().keys().collect();
            assert_eq!(fields, ["apiResource", "resourcePayload", "updateTimestamp"]);
            let rule = builtin_rule(WorkspaceKind::Directory, &definition.name).unwrap();
            for field in fields {
                let mut sample = definition.sample.clone();
                sample.as_object_mut().unwrap().remove(field);
                assert!(rule.check_data(&sample).is_err(), "{} without {field}", definition.name);
            }
        }
    }

    #[test]
    fn an_update_of_an_account_names_what_changed() {
        let updated = "entityUpdated".parse().unwrap();
        let rule = builtin_rule(WorkspaceKind::Identity, &updated).unwrap();
        let mut sample = builtin_type(WorkspaceKind::Identity, &updated).unwrap().sample.clone();
        sample["attributes"] = json!([]);
        let Invalid(errors) = rule.check_data(&sample).unwrap_err();
        assert_eq!(errors[0].pointer, "/data/attributes");
    }

    #[test]
    fn the_sample_events_are_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events");
        let mut checked = 0;
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.to_string_lossy().ends_with(".cloudevents.json") {
                let json = std::fs::read_to_string(&file).unwrap();
                let event: Value = serde_json::from_str(&json).unwrap();
                let name = event["type"].as_str().unwrap().parse().unwrap();
                let rule = builtin_rule(WorkspaceKind::Consent, &name).unwrap();
                assert_eq!(rule.check_event(&json), Ok(()), "{}", file.display());
                let definition = builtin_type(WorkspaceKind::Consent, &name).unwrap();
                assert_eq!(definition.sample, event["data"], "{}", file.display());
                checked += 1;
            }
        }
        assert_eq!(checked, 6);
    }

    #[test]
    fn schemas_carry_what_they_refer_to_and_no_more() {
        for definition in KINDS.into_iter().flat_map(builtin) {
            let text = definition.schema.to_string();
            for name in definition.schema["definitions"].as_object().unwrap().keys() {
                assert!(text.contains(&format!("\"#/definitions/{name}\"")), "{}: {name}", definition.name);
            }
        }
    }
}
