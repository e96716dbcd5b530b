//! Where subscriptions are read.

use std::collections::{HashMap, HashSet};

use carillon_aws::DynamoDb;
use carillon_aws::batch_read::batch_read;
use carillon_aws::config::{ConfigTable, read_matching_version};
use carillon_aws::error::AwsError;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::matching::{MatchRow, Range};
use carillon_core::subscription::FilterSource;

/// The versions of workspaces; an error where what was read makes no sense. A workspace that is no more has none.
pub(crate) type Versions = HashMap<WorkspaceId, Result<u64, String>>;

/// What matching reads, all of it consistently.
pub(crate) trait Source {
    /// The versions of several workspaces, in one read.
    async fn versions(&self, workspaces: &HashSet<WorkspaceId>) -> Result<Versions, AwsError>;

    /// The version of one; `None`: it is no more.
    async fn version(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError>;

    /// The rows of a pattern for a range of subscriptions.
    async fn rows(
        &self,
        workspace: &WorkspaceId,
        pattern: &str,
        range: Range,
    ) -> Result<Vec<MatchRow>, AwsError>;

    /// The filters of those of these subscriptions that are there and have one.
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

    async fn version(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError> {
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
        let stored = self.config.subscriptions_by_id(workspace, subscriptions.iter().copied()).await?;
        let filter = |(id, stored): (_, carillon_aws::config::StoredSubscription)| {
            Some((id, stored.subscription.details.filter?))
        };
        Ok(stored.into_iter().filter_map(filter).collect())
    }
}
