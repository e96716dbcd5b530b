//! The audit: an entry for each change, written with the change itself.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use carillon_core::audit::{Action, AuditEntry, By};
use carillon_core::id::WorkspaceId;
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, Page, QUERY, TABLE, Written, read};
use crate::batch_read::Item;
use crate::error::AwsError;
use crate::vault::random_bytes;

/// How long an entry is kept.
const KEPT: Duration = Duration::from_hours(365 * 24);

/// What every change changes, and nobody needs to be told of.
const NEVER_TOLD: [&str; 5] = ["pk", "sk", "v", "revision", "updated_at"];

/// Of these it is told which.
const SETTINGS: &str = "settings";

/// Members that the API does not call as the table does, in camel case.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("state", "status"),
    ("retry_steps", "retryPolicy"),
    ("signing", "signingSecrets"),
    ("authorization_secret", "authorization"),
    ("client_key", "clientCertificate"),
    ("timeout", "timeoutSeconds"),
];

/// A part of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditSpan {
    /// Changes made then or later.
    pub since: UnixMillis,
    /// Changes made before; all if absent.
    pub until: Option<UnixMillis>,
}

/// Where a page of the audit ends: `{time}.{random}`, the entry's sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCursor(String);

/// A text that is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of the audit")]
pub struct NotACursor;

impl FromStr for AuditCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let is_hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fits = text.split_once('.').is_some_and(|(time, random)| {
            time.len() == 13
                && time.bytes().all(|byte| byte.is_ascii_digit())
                && random.len() == 8
                && random.bytes().all(is_hexadecimal)
        });
        if fits { Ok(Self(text.to_owned())) } else { Err(NotACursor) }
    }
}

impl ConfigTable {
    /// A workspace's changes, the latest first, a page at a time.
    pub async fn audit(
        &self,
        workspace: &WorkspaceId,
        span: AuditSpan,
        limit: i32,
        after: Option<AuditCursor>,
    ) -> Result<Page<AuditEntry>, AwsError> {
        let after = after.map(|AuditCursor(after)| after);
        // The colon comes behind all digits.
        let until = span.until.map_or_else(|| ":".to_owned(), UnixMillis::sortable);
        let (low, high) =
            (span.since.sortable(), after.clone().map_or(until.clone(), |after| after.min(until)));
        if low > high {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk AND sk BETWEEN :low AND :high")
            .expression_attribute_values(":pk", AttributeValue::S(partition_of_audit(workspace)))
            .expression_attribute_values(":low", AttributeValue::S(low))
            .expression_attribute_values(":high", AttributeValue::S(high))
            .scan_index_forward(false)
            .limit(limit);
        let answer = query.send().await.map_err(AwsError::call(QUERY))?;
        let next = answer.last_evaluated_key.and_then(|key| key.get("sk")?.as_s().ok().cloned());
        let items = answer.items.unwrap_or_default().into_iter().map(read::<AuditItem>);
        let items = items.collect::<Result<Vec<_>, _>>()?.into_iter();
        // The page before ended with it.
        let items = items.filter(|item| Some(&item.keys.sk) != after.as_ref()).map(AuditItem::entry);
        Ok(Page { items: items.collect::<Result<_, _>>()?, next })
    }

    /// The write of an entry, as part of a change's transaction.
    pub(super) fn audited(
        &self,
        workspace: &WorkspaceId,
        entry: AuditEntry,
    ) -> Result<(TransactWriteItem, Written), AwsError> {
        // Two changes of one moment are two entries.
        let random = random_bytes(4)?.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let key = self.key(partition_of_audit(workspace), format!("{}.{random}", entry.at.sortable()));
        let item = AuditItem {
            keys: Keys::of(&key),
            at: entry.at,
            by: entry.by,
            action: entry.action,
            target: entry.target,
            changes: entry.changes,
            expires_at: (entry.at + KEPT).as_secs(),
        };
        Ok((self.put(&item)?, Written::Stale))
    }
}

/// The members that differ between two items of one kind.
pub(super) fn changes(old: &impl Serialize, new: &impl Serialize) -> Result<Vec<String>, AwsError> {
    let item = |item| serde_dynamo::to_item::<_, Item>(item).map_err(AwsError::item(TABLE));
    let mut found = BTreeSet::new();
    differences(&item(old)?, &serde_dynamo::to_item(new).map_err(AwsError::item(TABLE))?, "", &mut found);
    Ok(found.into_iter().collect())
}

fn differences(old: &Item, new: &Item, within: &str, found: &mut BTreeSet<String>) {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names.into_iter().filter(|name| !NEVER_TOLD.contains(&name.as_str())) {
        match (old.get(name), new.get(name)) {
            (old, new) if old == new => {}
            (Some(AttributeValue::M(old)), Some(AttributeValue::M(new))) if name == SETTINGS => {
                differences(old, new, &format!("{name}."), found);
            }
            _ => _ = found.insert(format!("{within}{}", shown(name))),
        }
    }
}

/// A member's name as the API has it.
fn shown(stored: &str) -> String {
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == stored);
    other.map_or_else(|| camel_case(stored), |(_, shown)| (*shown).to_owned())
}

fn camel_case(snake_case: &str) -> String {
    let mut words = snake_case.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        text.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        text.extend(chars);
    }
    text
}

fn partition_of_audit(workspace: &WorkspaceId) -> String {
    format!("AUDIT#{workspace}")
}

#[derive(Serialize, Deserialize)]
struct AuditItem {
    #[serde(flatten)]
    keys: Keys,
    at: UnixMillis,
    by: By,
    action: Action,
    target: String,
    changes: Vec<String>,
    expires_at: u64,
}

impl AuditItem {
    fn entry(self) -> Result<AuditEntry, AwsError> {
        self.keys.readable()?;
        let Self { at, by, action, target, changes, .. } = self;
        Ok(AuditEntry { at, by, action, target, changes })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_named_as_the_api_has_them_and_never_quoted() {
        let old = json!({
            "pk": "a", "revision": 1, "updated_at": 1, "state": "active", "types": ["a"], "rate_per_minute": 7,
            "settings": {"httpsRequired": true, "audience": "open"}, "signing": ["secret"], "title": "t",
        });
        let new = json!({
            "pk": "a", "revision": 2, "updated_at": 2, "state": "paused", "types": ["a"],
            "settings": {"httpsRequired": false, "audience": "open"}, "signing": ["other secret"], "title": "t",
        });
        let names = ["ratePerMinute", "settings.httpsRequired", "signingSecrets", "status"];
        assert_eq!(changes(&old, &new).unwrap(), names);
        assert!(changes(&old, &old).unwrap().is_empty());
    }
}
