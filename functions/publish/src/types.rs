//! The event types of workspaces: those of their kind's catalogue, and their own.

use std::sync::Arc;

use carillon_aws::config::{ConfigTable, StoredType};
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_catalogue::{DataRule, EventTypeDefinition, builtin_rule};
use carillon_core::id::WorkspaceId;
use carillon_core::pattern::EventType;

use crate::recent::Recent;
use crate::workspace::OpenWorkspace;

/// How many types are kept. A type's rule takes as much memory as its schema asks for, up to some megabytes.
const TYPES_MAX: usize = 256;

/// The types of workspaces' own that were seen, with their rules. The catalogue keeps its own.
pub(crate) struct Types {
    own: Recent<(WorkspaceId, EventType), OwnType>,
}

/// What the data of events of a type must be.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Builtin(&'static DataRule),
    Own(Arc<DataRule>),
}

/// A type of a workspace's own, as it was defined and as it is used.
#[derive(Clone)]
struct OwnType {
    stored: Arc<StoredType>,
    rule: Arc<DataRule>,
}

impl Types {
    pub(crate) fn new() -> Self {
        Self { own: Recent::new(TYPES_MAX) }
    }

    /// The rule of the type of this name, if the workspace has it. One that it does not have is looked for each time, so
    /// that it can be used as soon as it is defined.
    pub(crate) async fn rule(
        &self,
        config: &ConfigTable,
        workspace: &OpenWorkspace,
        name: &EventType,
    ) -> Result<Option<Rule>, AwsError> {
        if let Some(rule) = builtin_rule(workspace.kind, name) {
            return Ok(Some(Rule::Builtin(rule)));
        }
        let key = (workspace.tenant.workspace.clone(), name.clone());
        // Its age counts from before the read: what changes while that is under way is not in it.
        let read_at = now();
        if let Some(own) = self.own.fresh(&key, read_at) {
            return Ok(Some(Rule::Own(own.rule)));
        }
        let Some(stored) = config.event_type(&workspace.tenant.workspace, name).await? else {
            return Ok(None);
        };
        let own = OwnType::new(stored, self.own.stale(&key))?;
        self.own.put(key, own.clone(), read_at);
        Ok(Some(Rule::Own(own.rule)))
    }
}

impl OwnType {
    /// Compiles only what has changed since `before`. Definitions are checked before they are stored, so that one that
    /// makes no sense is a fault of ours.
    fn new(stored: StoredType, before: Option<Self>) -> Result<Self, AwsError> {
        if let Some(before) = before.filter(|before| *before.stored == stored) {
            return Ok(before);
        }
        let definition: EventTypeDefinition =
            serde_json::from_str(&stored.definition).map_err(|error| unusable(&error))?;
        let rule = DataRule::of(&definition).map_err(|error| unusable(&error))?;
        Ok(Self { stored: Arc::new(stored), rule: Arc::new(rule) })
    }
}

impl std::ops::Deref for Rule {
    type Target = DataRule;

    fn deref(&self) -> &DataRule {
        match self {
            Self::Builtin(rule) => rule,
            Self::Own(rule) => rule,
        }
    }
}

fn unusable(error: &dyn std::error::Error) -> AwsError {
    AwsError::Item { table: "config", detail: format!("an event type's definition: {error}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(schema: &serde_json::Value, validate: bool) -> StoredType {
        let definition = json!({
            "name": "order.placed",
            "version": 1,
            "description": "An order was placed.",
            "schema": schema,
            "sample": {},
            "validate": validate,
            "source": "workspace",
        });
        let name = "order.placed".parse().unwrap();
        StoredType { name, version: 1, definition: definition.to_string() }
    }

    #[test]
    fn a_type_is_compiled_once_for_each_definition() {
        let object = json!({"type": "object"});
        let one = OwnType::new(stored(&object, true), None).unwrap();
        let same = OwnType::new(stored(&object, true), Some(one.clone())).unwrap();
        assert!(Arc::ptr_eq(&one.rule, &same.rule));
        // Deleted and defined anew, it has the same version.
        let other = OwnType::new(stored(&object, false), Some(one.clone())).unwrap();
        assert_eq!(other.rule.check_data(&json!(7)), Ok(()));
        assert!(one.rule.check_data(&json!(7)).is_err());
    }

    #[test]
    fn a_definition_that_makes_no_sense_is_a_fault_of_ours() {
        let no_json = StoredType { definition: String::new(), ..stored(&json!(true), true) };
        for stored in [no_json, stored(&json!({"type": "text"}), true)] {
            assert!(matches!(OwnType::new(stored, None), Err(AwsError::Item { .. })));
        }
    }
}
