//! Subscriptions: who wants to hear of what, and where.

use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, EndpointRules};
use crate::id::{SubscriptionId, WorkspaceId};
use crate::invalid::{Findings, Invalid};
use crate::matching::MatchRow;
use crate::pattern::{PATTERNS_MAX, PatternError, TypePattern};
use crate::time::UnixMillis;

/// An endpoint and the event types that are posted to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The tenant that it belongs to.
    pub workspace: WorkspaceId,
    /// Where deliveries go.
    pub endpoint: Endpoint,
    /// The event types that it asks for, each pattern once.
    pub types: Vec<TypePattern>,
    /// Whether it gets anything.
    pub status: SubscriptionStatus,
    /// When it was made: earlier events are none of its concern.
    pub created_at: UnixMillis,
}

/// Whether a subscription gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubscriptionStatus {
    /// It does.
    Active,
}

/// A subscription as its creator describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSubscription {
    endpoint: String,
    types: Vec<String>,
}

impl NewSubscription {
    /// Checks every field.
    pub fn check(
        self,
        id: SubscriptionId,
        workspace: WorkspaceId,
        rules: &EndpointRules,
        created_at: UnixMillis,
    ) -> Result<Subscription, Invalid> {
        let mut findings = Findings::default();
        let endpoint =
            rules.check(&self.endpoint).map_err(|error| Invalid::field("/endpoint", error.to_string()));
        let endpoint = findings.take(endpoint);
        let types = check_types(&self.types, &mut findings);
        findings.into_result(())?;
        let endpoint = endpoint.ok_or_else(|| Invalid::field("/endpoint", "is required"))?;
        Ok(Subscription { id, workspace, endpoint, types, status: SubscriptionStatus::Active, created_at })
    }
}

impl Subscription {
    /// What fan-out knows of it.
    #[must_use]
    pub fn match_row(&self) -> MatchRow {
        MatchRow { subscription: self.id, created_at: self.created_at }
    }
}

fn check_types(texts: &[String], findings: &mut Findings) -> Vec<TypePattern> {
    if !(1..=PATTERNS_MAX).contains(&texts.len()) {
        findings.add("/types", format!("must have 1 to {PATTERNS_MAX} patterns"));
        return Vec::new();
    }
    let mut types = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let pointer = format!("/types/{index}");
        match text.parse() {
            Ok(pattern) if types.contains(&pattern) => findings.add(pointer, "stands twice"),
            Ok(pattern) => types.push(pattern),
            Err(error) => findings.add(pointer, PatternError::to_string(&error)),
        }
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint: &str, types: &[&str]) -> Result<Subscription, Invalid> {
        let new = NewSubscription {
            endpoint: endpoint.to_owned(),
            types: types.iter().map(|text| (*text).to_owned()).collect(),
        };
        let id = "sub_00000000000000000000000000".parse().unwrap();
        new.check(id, "acme".parse().unwrap(), &EndpointRules::default(), UnixMillis(0))
    }

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let Invalid(errors) = check("ftp://example.com", &["consent:*", "a b", "consent:*"]).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/endpoint", "/types/1", "/types/2"]);
    }

    #[test]
    fn the_number_of_patterns_is_bounded() {
        let many: Vec<_> = (0..=PATTERNS_MAX).map(|n| format!("type.{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(check("https://example.com/hook", &many).is_err());
        assert!(check("https://example.com/hook", &[]).is_err());
        assert_eq!(check("https://example.com/hook", &many[1..]).unwrap().types.len(), PATTERNS_MAX);
    }
}
