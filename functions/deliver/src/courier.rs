//! What every attempt needs, built once.

use std::time::Duration;

use carillon_attempt::{Targets, Tokens};
use carillon_aws::config::ConfigTable;
use carillon_aws::deliveries::DeliveryTable;
use carillon_aws::environment::{SettingError, retention, setting};
use carillon_aws::events::EventTable;
use carillon_aws::metrics::Metrics;
use carillon_aws::queue::Queue;
use carillon_aws::schedule::ScheduleTable;
use carillon_aws::vault::Vault;
use carillon_aws::{DynamoDb, Kms, Sqs, sdk_config};
use carillon_core::endpoint::{EndpointRules, request_origin};
use carillon_core::retry::{Pace, PaceError, RetryPolicy};
use carillon_sender::Sender;
use http::header::HeaderValue;

use crate::holders::Holders;

/// Tables, queues, the sender and the settings of the deployment.
pub(crate) struct Courier {
    pub(crate) dynamodb: DynamoDb,
    pub(crate) config: ConfigTable,
    pub(crate) events: EventTable,
    pub(crate) deliveries: DeliveryTable,
    pub(crate) schedule: ScheduleTable,
    pub(crate) holders: Holders,
    /// Whose turn it is to hold a delivery that has a row. What is held is in no hurry, and takes one call at a time.
    pub(crate) holding: tokio::sync::Mutex<()>,
    pub(crate) queues: Queues,
    pub(crate) vault: Vault,
    pub(crate) sender: Sender,
    pub(crate) metrics: Metrics,
    /// Where the API is.
    pub(crate) public_url: String,
    /// In whose name deliveries come.
    pub(crate) origin: HeaderValue,
    pub(crate) targets: Targets,
    pub(crate) tokens: Tokens,
    pub(crate) retention: Duration,
    /// Of subscriptions that have none of their own.
    pub(crate) policy: RetryPolicy,
    pub(crate) pace: Pace,
}

/// The two lanes, and where what failed for good goes.
pub(crate) struct Queues {
    pub(crate) delivery: Queue,
    pub(crate) slow: Queue,
    pub(crate) dead_letter: Queue,
    /// What the ARN of the slow queue ends in.
    pub(crate) slow_name: String,
}

/// The function cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Pace(#[from] PaceError),
    #[error("PUBLIC_URL must be a URL with a host")]
    PublicUrl,
}

impl Courier {
    pub(crate) async fn from_environment() -> Result<Self, StartError> {
        let rules = EndpointRules {
            reach: setting("ALLOWED_PRIVATE_CIDRS")?,
            allow_insecure: setting("ALLOW_INSECURE")?,
        };
        let public_url: String = setting("PUBLIC_URL")?;
        let origin = request_origin(&public_url).and_then(|host| HeaderValue::try_from(host).ok());
        let queue_delay_max = Duration::from_secs(setting("QUEUE_DELAY_SECONDS")?);
        let sdk = sdk_config().await;
        let (dynamodb, sqs) = (DynamoDb::new(&sdk), Sqs::new(&sdk));
        let slow_url: String = setting("SLOW_QUEUE_URL")?;
        Ok(Self {
            config: ConfigTable::new(dynamodb.clone(), setting("CONFIG_TABLE")?),
            events: EventTable::new(dynamodb.clone(), setting("EVENTS_TABLE")?),
            deliveries: DeliveryTable::new(dynamodb.clone(), setting("DELIVERIES_TABLE")?),
            schedule: ScheduleTable::new(dynamodb.clone(), setting("SCHEDULE_TABLE")?),
            queues: Queues {
                delivery: Queue::new(sqs.clone(), setting("DELIVERY_QUEUE_URL")?),
                dead_letter: Queue::new(sqs.clone(), setting("DEAD_LETTER_QUEUE_URL")?),
                slow_name: slow_url.rsplit('/').next().unwrap_or_default().to_owned(),
                slow: Queue::new(sqs, slow_url),
            },
            holders: Holders::default(),
            holding: tokio::sync::Mutex::default(),
            vault: Vault::new(Kms::new(&sdk), setting("DATA_KEY_ARN")?),
            sender: Sender::new(&rules),
            metrics: Metrics::from_environment()?,
            targets: Targets::new(&public_url),
            public_url,
            origin: origin.ok_or(StartError::PublicUrl)?,
            tokens: Tokens::default(),
            retention: retention()?,
            policy: RetryPolicy::default(),
            pace: Pace::new(setting("RETRY_SCALE")?, queue_delay_max)?,
            dynamodb,
        })
    }
}
