//! Carillon's tables, queues and keys on AWS: what the functions share of DynamoDB, SQS and KMS.
//!
//! Each table and its keys are known to one module alone. Every write states its condition and tells "already so" from
//! failure; every entry of a batch answer is looked at.

pub mod accepting;
pub mod batch_read;
pub mod config;
pub mod deliveries;
pub mod environment;
pub mod error;
pub mod events;
pub mod inboxes;
pub mod metrics;
pub mod queue;
pub mod redelivery;
pub mod schedule;
pub mod signing;
pub mod vault;
mod wire;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::timeout::TimeoutConfig;
use carillon_core::time::UnixMillis;
use wire::SdkTransport;

pub use aws_sdk_kms::Client as Kms;
pub use wire::{DynamoDb, Sqs};

/// How many partitions share what is walked by time: schedule, sweep and hours of events.
pub const SHARDS: u8 = 16;

/// How long one try of a call may take: a connection that died while the function was frozen gives no answer at all.
const TRY_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a call may take with all its tries.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The clock, read here and nowhere else.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
pub fn now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// What every client is built from: the region, the role's credentials and, on a local stack, the endpoint, as the
/// environment of a Lambda function gives them.
pub async fn sdk_config() -> aws_config::SdkConfig {
    let timeouts =
        TimeoutConfig::builder().operation_attempt_timeout(TRY_TIMEOUT).operation_timeout(CALL_TIMEOUT);
    let defaults = aws_config::defaults(aws_config::BehaviorVersion::latest());
    defaults.timeout_config(timeouts.build()).http_client(SdkTransport).load().await
}
