//! What every handler needs, built once; and how lists are asked for and answered.

use std::fmt;
use std::time::Duration;

use carillon_attempt::{Targets, Tokens};
use carillon_aws::config::{ConfigTable, Page, StoredWorkspace};
use carillon_aws::deliveries::DeliveryTable;
use carillon_aws::environment::{SettingError, retention, setting};
use carillon_aws::error::AwsError;
use carillon_aws::events::EventTable;
use carillon_aws::inboxes::InboxTable;
use carillon_aws::queue::Queue;
use carillon_aws::vault::{Vault, random_bytes};
use carillon_aws::{DynamoDb, Kms, Sqs, sdk_config};
use carillon_core::audit::By;
use carillon_core::endpoint::EndpointRules;
use carillon_core::invalid::Invalid;
use carillon_core::workspace::WorkspaceStatus;
use carillon_http::access::Caller;
use carillon_http::problem::Problem;
use carillon_sender::Sender;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How many items a page has unless the caller says, and at most.
const PAGE_DEFAULT: i32 = 50;
const PAGE_MAX: i32 = 200;

/// How large a page grows, in bytes of JSON, about: what a function answers has at most 6 MB, in which quotes count twice.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The tables, the vault, the job queue, the sender and the deployment's rules. It holds secrets, so it has no `Debug`.
pub struct Desk {
    pub(crate) dynamodb: DynamoDb,
    pub(crate) config: ConfigTable,
    pub(crate) events: EventTable,
    /// Absent where the deployment has no inboxes.
    pub(crate) inboxes: Option<InboxTable>,
    pub(crate) deliveries: DeliveryTable,
    pub(crate) vault: Vault,
    pub(crate) jobs: Queue,
    pub(crate) delivery: Queue,
    pub(crate) sender: Sender,
    /// What test events need: subscriptions with their secrets opened, and tokens for their receivers.
    pub(crate) targets: Targets,
    pub(crate) tokens: Tokens,
    pub(crate) rules: EndpointRules,
    /// What URLs of this API begin with, without a slash at the end.
    pub(crate) public_url: String,
    /// How long events are kept.
    pub(crate) retention: Duration,
}

impl Desk {
    /// From the settings of the environment.
    pub async fn from_environment() -> Result<Self, SettingError> {
        let sdk = sdk_config().await;
        let dynamodb = DynamoDb::new(&sdk);
        let rules = EndpointRules {
            reach: setting("ALLOWED_PRIVATE_CIDRS")?,
            allow_insecure: setting("ALLOW_INSECURE")?,
        };
        let public_url: String = setting("PUBLIC_URL")?;
        let inboxes: String = setting("INBOXES_TABLE")?;
        Ok(Self {
            inboxes: (!inboxes.is_empty()).then(|| InboxTable::new(dynamodb.clone(), inboxes)),
            config: ConfigTable::new(dynamodb.clone(), setting("CONFIG_TABLE")?),
            events: EventTable::new(dynamodb.clone(), setting("EVENTS_TABLE")?),
            deliveries: DeliveryTable::new(dynamodb.clone(), setting("DELIVERIES_TABLE")?),
            dynamodb,
            vault: Vault::new(Kms::new(&sdk), setting("DATA_KEY_ARN")?),
            jobs: Queue::new(Sqs::new(&sdk), setting("JOB_QUEUE_URL")?),
            delivery: Queue::new(Sqs::new(&sdk), setting("DELIVERY_QUEUE_URL")?),
            sender: Sender::new(&rules),
            targets: Targets::new(&public_url),
            tokens: Tokens::default(),
            rules,
            public_url: public_url.trim_end_matches('/').to_owned(),
            retention: retention()?,
        })
    }

    /// The config table, where the grants are.
    #[must_use]
    pub fn config(&self) -> &ConfigTable {
        &self.config
    }

    /// The one sender.
    #[must_use]
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The workspace of a path.
    pub(crate) async fn workspace(&self, path: &str) -> Result<StoredWorkspace, Problem> {
        let workspace = path.parse().map_err(|_| Problem::NotFound)?;
        self.config.workspace(&workspace).await?.ok_or(Problem::NotFound)
    }

    /// The same for changes, which end when it is being deleted.
    pub(crate) async fn open_workspace(&self, path: &str) -> Result<StoredWorkspace, Problem> {
        let stored = self.workspace(path).await?;
        match stored.workspace.status {
            WorkspaceStatus::Active => Ok(stored),
            WorkspaceStatus::Deleting => Err(Problem::WorkspaceDeleting),
        }
    }
}

/// Whom the audit names for a caller's changes.
pub(crate) fn by(caller: &Caller) -> By {
    By::Client(caller.client.clone())
}

/// What makes an id unlike all others of the same moment.
pub(crate) fn id_bytes() -> Result<[u8; 10], AwsError> {
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random_bytes(10)?);
    Ok(bytes)
}

/// The query of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// How many items the page has at most.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// Where the page begins: `next` of the page before. The first page has none.
    #[param(max_length = 512)]
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// In the list's order.
    pub(crate) items: Vec<T>,
    /// What `cursor` must be to get the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub(crate) next: Option<String>,
}

/// A page that is not full yet.
#[derive(Debug)]
pub(crate) struct Draft<T> {
    items: Vec<T>,
    limit: usize,
    bytes: usize,
}

impl ListQuery {
    pub(crate) fn limit(&self) -> Result<i32, Invalid> {
        let Some(text) = &self.limit else { return Ok(PAGE_DEFAULT) };
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| is_number && (1..=PAGE_MAX).contains(limit));
        limit.ok_or_else(|| Invalid::field("query:limit", format!("must be a number from 1 to {PAGE_MAX}")))
    }

    /// The same, to count with.
    pub(crate) fn count(&self) -> Result<usize, Invalid> {
        Ok(usize::try_from(self.limit()?).unwrap_or(1))
    }

    /// The id behind which the page begins.
    pub(crate) fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Invalid> {
        let cursor = self.cursor.as_deref().map(str::parse).transpose();
        cursor.map_err(|_| Invalid::field("query:cursor", "must be the `next` of the page before"))
    }
}

impl<T> List<T> {
    pub(crate) fn of<U>(page: Page<U>, shown: impl Fn(U) -> T) -> Self {
        Self { items: page.items.into_iter().map(shown).collect(), next: page.next }
    }
}

impl<T: Serialize> Draft<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit, bytes: 0 }
    }

    /// Whether no more items are to be added: there are as many as were asked for, or they are large.
    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= self.limit || self.bytes >= PAGE_BYTES_MAX
    }

    pub(crate) fn add(&mut self, item: T) {
        self.bytes += serde_json::to_vec(&item).map_or(0, |json| json.len());
        self.items.push(item);
    }

    /// The page, and where the next one begins, if there is one.
    pub(crate) fn finish(self, next: Option<impl fmt::Display>) -> List<T> {
        List { items: self.items, next: next.map(|next| next.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::id::WorkspaceId;

    use super::*;

    #[test]
    fn a_page_is_full_by_number_or_by_size() {
        let mut draft = Draft::new(2);
        draft.add("one".to_owned());
        assert!(!draft.is_full());
        draft.add("two".to_owned());
        assert!(draft.is_full());
        let page = draft.finish(Some("two"));
        assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("two")));
        let mut draft = Draft::new(2);
        draft.add("x".repeat(PAGE_BYTES_MAX));
        assert!(draft.is_full());
    }

    #[test]
    fn a_query_is_read_within_its_bounds() {
        let asked = |limit: Option<&str>, cursor: Option<&str>| {
            let query = ListQuery { limit: limit.map(str::to_owned), cursor: cursor.map(str::to_owned) };
            let after = query.after::<WorkspaceId>().map(|after| after.map(|id| id.to_string()));
            (query.limit().ok(), after.ok())
        };
        assert_eq!(asked(None, None), (Some(50), Some(None)));
        assert_eq!(asked(Some("1"), Some("acme")), (Some(1), Some(Some("acme".to_owned()))));
        assert_eq!(asked(Some("200"), Some("")), (Some(200), None));
        for wrong in ["0", "201", "-1", "+1", "many", "", "1.0", "99999999999"] {
            assert_eq!(asked(Some(wrong), Some("A B")), (None, None), "{wrong}");
        }
    }
}
