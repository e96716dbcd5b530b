//! Where subscriptions are read.

use std::collections::{HashMap, HashSet};

use carillon_aws::DynamoDb;
use carillon_aws::batch_read::{Item, batch_read};
use carillon_aws::config::{ConfigTable, MatchingVersion, read_matching_version, read_subscription};
use carillon_aws::error::AwsError;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::matching::{MatchRow, Range};
use carillon_core::subscription::FilterSource;

/// The versions of workspaces; an error where what was read makes no sense. A workspace that is no more has none.
pub(crate) type Versions = HashMap<WorkspaceId, Result<MatchingVersion, String>>;

/// What matching reads, all of it consistently.
pub(crate) trait Source {
    /// The versions of several workspaces, in one read.
    async fn versions(&self, workspaces: &HashSet<WorkspaceId>) -> Result<Versions, AwsError>;

    /// The version of one; `None`: it is no more.
    async fn version(&self, workspace: &WorkspaceId) -> Result<Option<MatchingVersion>, AwsError>;

    /// The rows of a pattern for a range of subscriptions.
    async fn rows(
        &self,
        workspace: &WorkspaceId,
        pattern: &str,
        range: Range,
    ) -> Result<Vec<MatchRow>, AwsError>;

    /// The filters of those of these subscriptions that are there, can be read, and have one.
    async fn filters(
        &self,
        workspace: &WorkspaceId,
        subscriptions: &[SubscriptionId],
    ) -> Result<HashMap<SubscriptionId, FilterSource>, AwsError>;
}

/// The config table.
pub(crate) struct Table {
    dynamodb: DynamoDb,
    config: ConfigTable,
}

impl Table {
    pub(crate) fn new(dynamodb: DynamoDb, config: ConfigTable) -> Self {
        Self { dynamodb, config }
    }
}

impl Source for Table {
    async fn versions(&self, workspaces: &HashSet<WorkspaceId>) -> Result<Versions, AwsError> {
        let keys = workspaces.iter().map(|workspace| self.config.matching_key(workspace));
        let mut read = batch_read(&self.dynamodb, keys).await?;
        let versions = workspaces.iter().filter_map(|workspace| {
            let item = read.remove(&self.config.matching_key(workspace))?;
            Some((workspace.clone(), read_matching_version(item).map_err(|error| error.to_string())))
        });
        Ok(versions.collect())
    }

    async fn version(&self, workspace: &WorkspaceId) -> Result<Option<MatchingVersion>, AwsError> {
        self.config.matching_version(workspace).await
    }

    async fn rows(
        &self,
        workspace: &WorkspaceId,
        pattern: &str,
        range: Range,
    ) -> Result<Vec<MatchRow>, AwsError> {
        self.config.match_rows(workspace, pattern, range).await
    }

    async fn filters(
        &self,
        workspace: &WorkspaceId,
        subscriptions: &[SubscriptionId],
    ) -> Result<HashMap<SubscriptionId, FilterSource>, AwsError> {
        let keys = subscriptions.iter().map(|id| self.config.subscription_key(workspace, *id));
        let items = batch_read(&self.dynamodb, keys).await?;
        Ok(items.into_values().filter_map(read_filter).collect())
    }
}

/// A subscription that cannot be read must not keep events from the others.
fn read_filter(item: Item) -> Option<(SubscriptionId, FilterSource)> {
    let key = format!("{:?}", item.get("sk"));
    match read_subscription(item) {
        Ok(stored) => Some((stored.subscription.id, stored.subscription.details.filter?)),
        Err(error) => {
            tracing::error!(%error, key, "a subscription cannot be read, its filter lets nothing through");
            None
        }
    }
}
