//! Items and values as DynamoDB's JSON has them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue as SdkValue;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_dynamo::AttributeValue;

use super::Failed;

/// Numbers, by the names that an expression has for them.
pub(super) struct Values<'a>(pub(super) &'a [(&'a str, u64)]);

/// Attributes as the SDK has them.
pub(super) struct Attributes<'a>(pub(super) &'a HashMap<String, SdkValue>);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_map(self.0.iter().map(|(name, value)| (name, AttributeValue::N(value.to_string()))))
    }
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, AttributeValue::from(value.clone()))))
    }
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(answer).map_err(Failed::Senseless)
}
