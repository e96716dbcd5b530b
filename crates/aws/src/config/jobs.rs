//! Jobs, and how far they are.

use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use carillon_core::id::{JobId, NotAnId, SubscriberId, WorkspaceId};
use carillon_core::job::{Cursor, Job, JobKind, JobStatus};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{ConfigTable, Keys, PUT, Page, QUERY, TABLE, partition, read, unreadable};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;
use crate::vault::random_bytes;

/// How long a job can be asked for after it last went on.
const KEPT: Duration = Duration::from_hours(30 * 24);

const PREFIX: &str = "JOB#";

/// How many pages a list that wants few of many reads at most, before it answers with what it has.
const PAGES_MAX: usize = 20;

impl ConfigTable {
    /// A job by its id. It outlives its workspace.
    pub async fn job(&self, workspace: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError> {
        self.get(self.job_key(workspace, job)).await?.map(job_of).transpose()
    }

    /// A workspace's jobs that are wanted, the newest first. A page may have fewer than `limit` though there is a next one.
    pub async fn jobs(
        &self,
        workspace: &WorkspaceId,
        limit: usize,
        mut after: Option<JobId>,
        now: UnixMillis,
        wanted: impl Fn(&Job) -> bool,
    ) -> Result<Page<Job>, AwsError> {
        let mut items = Vec::new();
        for _ in 0..PAGES_MAX {
            let (page, next) = self.jobs_before(workspace, limit, after).await?;
            for item in page {
                let item: JobItem = read(item)?;
                // Past its time to live it is gone, though DynamoDB deletes it days later.
                if item.expires_at <= now.as_secs() {
                    continue;
                }
                let job = item.job()?;
                if wanted(&job) {
                    items.push(job);
                }
                if items.len() == limit {
                    let next = items.last().map(|last: &Job| last.id.to_string());
                    return Ok(Page { items, next });
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(Page { items, next: after.map(|after| after.to_string()) })
    }

    /// Writes a job in the place of the one of the revision before, or as a new one with revision 1. `false`: somebody else
    /// has changed it.
    pub async fn put_job(&self, job: &Job) -> Result<bool, AwsError> {
        let mut writer = [0; 8];
        writer.copy_from_slice(&random_bytes(8)?);
        let writer = u64::from_ne_bytes(writer);
        let item = JobItem::of(job, &self.job_key(&job.workspace, job.id), writer);
        let item = serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?;
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = match job.revision {
            0 | 1 => request.condition_expression("attribute_not_exists(revision)"),
            revision => request
                .condition_expression("revision = :was")
                .expression_attribute_values(":was", AttributeValue::N((revision - 1).to_string())),
        };
        match request.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error)) => match error.into_err() {
                // If the answer was lost, the SDK has tried again, and what stands in the way is this very write.
                PutItemError::ConditionalCheckFailedException(kept) => {
                    let kept = kept.item.and_then(|item| read::<JobItem>(item).ok());
                    Ok(kept.is_some_and(|kept| kept.writer == writer))
                }
                other => Err(AwsError::call(PUT)(other)),
            },
            Err(error) => Err(AwsError::call(PUT)(error)),
        }
    }

    /// A page of a workspace's jobs, the newest first, and the last id of it if there are more.
    async fn jobs_before(
        &self,
        workspace: &WorkspaceId,
        limit: usize,
        after: Option<JobId>,
    ) -> Result<(Vec<Item>, Option<JobId>), AwsError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", AttributeValue::S(partition(workspace)))
            .expression_attribute_values(":prefix", AttributeValue::S(PREFIX.to_owned()))
            .set_exclusive_start_key(after.map(|after| self.job_key(workspace, after).attributes()));
        let answer = query.send().await.map_err(AwsError::call(QUERY))?;
        let next = answer.last_evaluated_key.and_then(|key| key.get("sk")?.as_s().ok().cloned());
        let next = next.map(|sk| sk.strip_prefix(PREFIX).unwrap_or_default().parse());
        let next = next.transpose().map_err(|error: NotAnId| unreadable(error.to_string()))?;
        Ok((answer.items.unwrap_or_default(), next))
    }

    fn job_key(&self, workspace: &WorkspaceId, job: JobId) -> Key {
        self.key(partition(workspace), format!("{PREFIX}{job}"))
    }
}

#[derive(Serialize, Deserialize)]
struct JobItem {
    #[serde(flatten)]
    keys: Keys,
    id: JobId,
    workspace: WorkspaceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscriber: Option<SubscriberId>,
    kind: JobKind,
    state: JobStatus,
    done: u64,
    #[serde(default)]
    looked: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
    #[serde(default)]
    revision: u64,
    /// Of the write that left the item as it is.
    #[serde(default)]
    writer: u64,
    created_at: UnixMillis,
    updated_at: UnixMillis,
    expires_at: u64,
}

impl JobItem {
    fn of(job: &Job, key: &Key, writer: u64) -> Self {
        Self {
            keys: Keys::of(key),
            id: job.id,
            workspace: job.workspace.clone(),
            subscriber: job.subscriber.clone(),
            kind: job.kind.clone(),
            state: job.status,
            done: job.done,
            looked: job.looked,
            cursor: job.cursor,
            revision: job.revision,
            writer,
            created_at: job.created_at,
            updated_at: job.updated_at,
            expires_at: (job.updated_at + KEPT).as_secs(),
        }
    }

    fn job(self) -> Result<Job, AwsError> {
        self.keys.readable()?;
        Ok(Job {
            id: self.id,
            workspace: self.workspace,
            subscriber: self.subscriber,
            kind: self.kind,
            status: self.state,
            done: self.done,
            looked: self.looked,
            cursor: self.cursor,
            revision: self.revision,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

fn job_of(item: Item) -> Result<Job, AwsError> {
    read::<JobItem>(item)?.job()
}
