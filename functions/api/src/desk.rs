//! What every handler needs, built once; and how lists are asked for and answered.

use carillon_aws::config::{ConfigTable, Page, StoredWorkspace};
use carillon_aws::environment::{SettingError, setting};
use carillon_aws::error::AwsError;
use carillon_aws::vault::{Vault, random_bytes};
use carillon_aws::{DynamoDb, Kms, sdk_config};
use carillon_core::endpoint::EndpointRules;
use carillon_core::invalid::Invalid;
use carillon_http::problem::Problem;
use serde::{Deserialize, Serialize};

/// How many items a page has unless the caller says, and at most.
const PAGE_DEFAULT: i32 = 50;
const PAGE_MAX: i32 = 200;

/// The tables, the vault and the deployment's rules.
pub(crate) struct Desk {
    pub(crate) config: ConfigTable,
    pub(crate) vault: Vault,
    pub(crate) rules: EndpointRules,
}

impl Desk {
    pub(crate) async fn from_environment() -> Result<Self, SettingError> {
        let sdk = sdk_config().await;
        Ok(Self {
            config: ConfigTable::new(DynamoDb::new(&sdk), setting("CONFIG_TABLE")?),
            vault: Vault::new(Kms::new(&sdk), setting("DATA_KEY_ARN")?),
            rules: EndpointRules {
                reach: setting("ALLOWED_PRIVATE_CIDRS")?,
                allow_insecure: setting("ALLOW_INSECURE")?,
            },
        })
    }

    /// The workspace of a path.
    pub(crate) async fn workspace(&self, path: &str) -> Result<StoredWorkspace, Problem> {
        let workspace = path.parse().map_err(|_| Problem::NotFound)?;
        self.config.workspace(&workspace).await?.ok_or(Problem::NotFound)
    }
}

/// What makes an id unlike all others of the same moment.
pub(crate) fn id_bytes() -> Result<[u8; 10], AwsError> {
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random_bytes(10)?);
    Ok(bytes)
}

/// The query of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct List<T> {
    items: Vec<T>,
    /// What `cursor` must be to get the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl ListQuery {
    pub(crate) fn limit(&self) -> Result<i32, Invalid> {
        let Some(text) = &self.limit else { return Ok(PAGE_DEFAULT) };
        let limit = text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
        limit.ok_or_else(|| Invalid::field("query:limit", format!("must be a number from 1 to {PAGE_MAX}")))
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
