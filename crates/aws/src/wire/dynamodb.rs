//! DynamoDB's hot calls.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures::FutureExt as _;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::attributes::{Attributes, Values, read};
use super::inserts::{self, Inserts};
use super::{Failed, Operation, Service, Wire, item};
use crate::batch_read::{Item, Key};
use crate::error::AwsError;

pub(super) static SERVICE: Service = Service {
    signing_name: "dynamodb",
    id: "DynamoDB",
    content_type: HeaderValue::from_static("application/x-amz-json-1.0"),
    endpoint,
};

static PUT_ITEM: Operation = Operation { name: "dynamodb PutItem", target: "DynamoDB_20120810.PutItem" };
static UPDATE_ITEM: Operation =
    Operation { name: "dynamodb UpdateItem", target: "DynamoDB_20120810.UpdateItem" };
static BATCH_GET_ITEM: Operation =
    Operation { name: "dynamodb BatchGetItem", target: "DynamoDB_20120810.BatchGetItem" };

/// What the service calls a condition that did not hold.
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// The condition of an item that is put only if none has its key.
const IS_NEW: &str = "attribute_not_exists(pk)";

/// What [`DynamoDb::put`] and [`DynamoDb::update`] want of an item that stood in their way: all of it.
const ALL_OLD: &str = "ALL_OLD";

/// Most puts are smaller.
const PUT_BYTES: usize = 2304;

/// DynamoDB: the SDK's client, which this stands for, with the hot calls beside it.
#[derive(Clone, Debug)]
pub struct DynamoDb {
    client: Client,
    wire: Wire,
    inserts: Arc<Inserts>,
}

/// An item to put if its condition holds.
pub(crate) struct Put<'a, T> {
    pub(crate) table: &'a str,
    pub(crate) item: &'a T,
    pub(crate) condition: Option<&'a str>,
    /// What the condition calls by name.
    pub(crate) values: &'a [(&'a str, u64)],
}

impl DynamoDb {
    /// With this configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config), wire: Wire::new(&SERVICE, config), inserts: Arc::default() }
    }

    /// Puts an item. If its condition does not hold: the item that is there, as the inner error.
    pub(crate) async fn put<T: Serialize>(&self, put: Put<'_, T>) -> Result<Result<(), Item>, AwsError> {
        let body = put_body(&put).map_err(|error| Failed::Senseless(error).of(&PUT_ITEM))?;
        Ok(self.conditional(&PUT_ITEM, body).await?.map(drop))
    }

    /// Puts an item if none has its key, in one call with others that come at the same time. If one has: that, as the
    /// inner error. It costs what a put of its own does, and that once more if it was refused among others.
    pub(crate) async fn insert<T: Serialize>(
        &self,
        table: &str,
        item: &T,
    ) -> Result<Result<(), Item>, AwsError> {
        let statement = inserts::statement(table, item);
        let statement = statement.map_err(|error| Failed::Senseless(error).of(&PUT_ITEM))?;
        let (is_inserted, _turn) = self.inserts.insert(&self.wire, statement).await;
        if is_inserted {
            return Ok(Ok(()));
        }
        self.put(Put { table, item, condition: Some(IS_NEW), values: &[] }).await
    }

    /// Makes an update that the SDK's builder describes; what it returns. If its condition does not hold: the item that is
    /// there, as the inner error, if the update asks for it.
    pub(crate) async fn update(
        &self,
        update: UpdateItemFluentBuilder,
    ) -> Result<Result<Item, Item>, AwsError> {
        let update = update.as_input();
        let input = UpdateItem {
            table_name: update.get_table_name().as_deref(),
            key: update.get_key().as_ref().map(Attributes),
            update_expression: update.get_update_expression().as_deref(),
            condition_expression: update.get_condition_expression().as_deref(),
            expression_attribute_names: update.get_expression_attribute_names().as_ref(),
            expression_attribute_values: update.get_expression_attribute_values().as_ref().map(Attributes),
            return_values: update.get_return_values().as_ref().map(ReturnValue::as_str),
            return_values_on_condition_check_failure: update
                .get_return_values_on_condition_check_failure()
                .as_ref()
                .map(ReturnValuesOnConditionCheckFailure::as_str),
        };
        self.conditional(&UPDATE_ITEM, body(&input).map_err(|error| error.of(&UPDATE_ITEM))?).await
    }

    /// Reads the items of keys, consistently: those that were found, by table, and the keys that were left out.
    pub(crate) async fn batch_get(&self, keys: &[Key]) -> Result<(Vec<(String, Item)>, Vec<Key>), AwsError> {
        let mut input = BatchGetItem { request_items: HashMap::new() };
        for key in keys {
            let asked = input.request_items.entry(&key.table);
            asked
                .or_default()
                .keys
                .push(KeyJson { pk: Text { s: &key.pk }, sk: key.sk.as_deref().map(|s| Text { s }) });
        }
        let failed = |error: Failed| error.of(&BATCH_GET_ITEM);
        let body = body(&input).map_err(failed)?;
        let answer = self.wire.call(&BATCH_GET_ITEM, body).await.map_err(failed)?;
        let answer: FoundItems = read(&answer).map_err(failed)?;
        let found = answer.responses.unwrap_or_default().into_iter();
        let found =
            found.flat_map(|(table, items)| items.into_iter().map(move |item| (table.clone(), item.into())));
        let unprocessed = answer.unprocessed_keys.unwrap_or_default().into_iter();
        let unprocessed = unprocessed.flat_map(|(table, asked)| {
            asked.keys.into_iter().map(move |LeftKey { pk, sk }| Key {
                table: table.clone(),
                pk: pk.s,
                sk: sk.map(|sk| sk.s),
            })
        });
        Ok((found.collect(), unprocessed.collect()))
    }

    async fn conditional(
        &self,
        operation: &Operation,
        body: Vec<u8>,
    ) -> Result<Result<Item, Item>, AwsError> {
        let failed = |error: Failed| error.of(operation);
        match self.wire.call(operation, body).await {
            Ok(answer) => {
                let answer: Updated = read(&answer).map_err(failed)?;
                Ok(Ok(answer.attributes.map(Item::from).unwrap_or_default()))
            }
            Err(Failed::Refused(refusal)) if refusal.name == CONDITION_FAILED => {
                let kept: Kept = read(&refusal.body).map_err(failed)?;
                Ok(Err(kept.item.map(Item::from).unwrap_or_default()))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// All other calls go the SDK's way.
impl Deref for DynamoDb {
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

/// The item first, and what else there is of a put.
fn put_body<T: Serialize>(put: &Put<'_, T>) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = Vec::with_capacity(PUT_BYTES);
    body.extend_from_slice(b"{\"Item\":");
    item::write(&mut body, put.item)?;
    // The members of the rest come behind, so that its own begin becomes the comma between.
    let comma = body.len();
    let rest = PutItem {
        table_name: put.table,
        condition_expression: put.condition,
        expression_attribute_values: (!put.values.is_empty()).then_some(Values(put.values)),
        return_values_on_condition_check_failure: put.condition.is_some().then_some(ALL_OLD),
    };
    serde_json::to_writer(&mut body, &rest)?;
    body[comma] = b',';
    Ok(body)
}

fn body(input: &impl Serialize) -> Result<Vec<u8>, Failed> {
    serde_json::to_vec(input).map_err(Failed::Senseless)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PutItem<'a> {
    table_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition_expression: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression_attribute_values: Option<Values<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_values_on_condition_check_failure: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateItem<'a> {
    table_name: Option<&'a str>,
    key: Option<Attributes<'a>>,
    update_expression: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition_expression: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression_attribute_names: Option<&'a HashMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression_attribute_values: Option<Attributes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_values: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_values_on_condition_check_failure: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetItem<'a> {
    request_items: HashMap<&'a str, Asked<'a>>,
}

/// What is asked of a table.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Asked<'a> {
    keys: Vec<KeyJson<&'a str>>,
    consistent_read: bool,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self { keys: Vec::new(), consistent_read: true }
    }
}

/// A key, all of whose attributes are strings.
#[derive(Serialize, Deserialize)]
struct KeyJson<T> {
    pk: Text<T>,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    sk: Option<Text<T>>,
}

type LeftKey = KeyJson<String>;

#[derive(Serialize, Deserialize)]
struct Text<T> {
    #[serde(rename = "S")]
    s: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FoundItems {
    responses: Option<HashMap<String, Vec<serde_dynamo::Item>>>,
    unprocessed_keys: Option<HashMap<String, LeftOut>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LeftOut {
    keys: Vec<LeftKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Updated {
    attributes: Option<serde_dynamo::Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    item: Option<serde_dynamo::Item>,
}
