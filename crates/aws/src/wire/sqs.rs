//! SQS's hot call.

use std::ops::Deref;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use futures::FutureExt as _;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{Failed, Operation, Service, Wire};
use crate::error::AwsError;

pub(super) static SERVICE: Service = Service {
    signing_name: "sqs",
    id: "SQS",
    content_type: HeaderValue::from_static("application/x-amz-json-1.0"),
    endpoint,
};

static SEND_MESSAGE_BATCH: Operation =
    Operation { name: "sqs SendMessageBatch", target: "AmazonSQS.SendMessageBatch" };

/// SQS: the SDK's client, which this stands for, with the hot call beside it.
#[derive(Clone, Debug)]
pub struct Sqs {
    client: Client,
    wire: Wire,
}

/// An entry of a batch: `SendMessageBatchRequestEntry`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry<'a> {
    pub(crate) id: String,
    pub(crate) message_body: &'a str,
    pub(crate) message_group_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay_seconds: Option<u16>,
}

/// How each entry of a batch went.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SentBatch {
    #[serde(default)]
    pub(crate) successful: Vec<SentEntry>,
    #[serde(default)]
    pub(crate) failed: Vec<UnsentEntry>,
}

/// An entry that SQS has.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SentEntry {
    pub(crate) id: String,
}

/// One that it has not.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UnsentEntry {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

impl Sqs {
    /// With this configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config), wire: Wire::new(&SERVICE, config) }
    }

    /// Sends messages, ten at most.
    pub(crate) async fn send_batch(&self, queue: &str, entries: &[Entry<'_>]) -> Result<SentBatch, AwsError> {
        let failed = |error: Failed| error.of(&SEND_MESSAGE_BATCH);
        let body = serde_json::to_vec(&SendMessageBatch { queue_url: queue, entries });
        let body = body.map_err(|error| failed(Failed::Senseless(error)))?;
        let answer = self.wire.call(&SEND_MESSAGE_BATCH, body).await.map_err(failed)?;
        serde_json::from_slice(&answer).map_err(|error| failed(Failed::Senseless(error)))
    }
}

/// All other calls go the SDK's way.
impl Deref for Sqs {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

fn endpoint(config: &SdkConfig) -> Option<String> {
    let params = Params::builder()
        .set_region(config.region().map(ToString::to_string))
        .use_dual_stack(config.use_dual_stack().unwrap_or_default())
        .use_fips(config.use_fips().unwrap_or_default())
        .build()
        .ok()?;
    // It is worked out by a table: there is nothing to wait for.
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
    Some(endpoint.url().to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessageBatch<'a> {
    queue_url: &'a str,
    entries: &'a [Entry<'a>],
}
