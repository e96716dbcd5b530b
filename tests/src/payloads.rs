//! What AWS hands to functions, built from what is really stored and sent.

use std::fs;

use anyhow::Result;
use carillon_local::{Stack, root};
use serde_json::{Value, json};

/// A record of the events table's stream: this row, inserted.
#[must_use]
pub fn stream_record(position: usize, row: &Value) -> Value {
    json!({
        "eventID": format!("{position:032x}"),
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:000000000000:table/events/stream/2026-01-01T00:00:00.000",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_767_225_600,
            "Keys": { "pk": row["pk"] },
            "SequenceNumber": format!("{:021}", position + 1),
            "SizeBytes": row.to_string().len(),
            "StreamViewType": "NEW_IMAGE",
            "NewImage": row,
        },
    })
}

/// A message of the delivery queue: this entry of a `SendMessageBatch`, received.
#[must_use]
pub fn queue_record(stack: &Stack, entry: &Value) -> Value {
    message_record(stack.output("DeliveryQueueArn"), entry["Id"].as_str().unwrap_or_default(), entry)
}

/// A message of the queue with this ARN: this entry, received as the one that has this number.
#[must_use]
pub fn message_record(queue_arn: &str, number: &str, entry: &Value) -> Value {
    json!({
        "messageId": format!("00000000-0000-4000-8000-{number:0>12}"),
        "receiptHandle": "of-no-message",
        "body": entry["MessageBody"],
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1767225600000",
            "SenderId": "AIDAEXAMPLE",
            "ApproximateFirstReceiveTimestamp": "1767225600001",
            "MessageGroupId": entry["MessageGroupId"],
        },
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": "us-east-1",
    })
}

/// The sample invocations of `events/`: the function, the file's name, and what it is invoked with; those of the HTTP
/// API with this token.
pub fn samples(token: &str) -> Result<Vec<(String, String, Value)>> {
    let mut samples = Vec::new();
    for entry in fs::read_dir(root().join("events"))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".json").filter(|name| !name.ends_with(".cloudevents")) else {
            continue;
        };
        let function = name.split('-').next().unwrap_or_default().to_owned();
        let mut payload: Value = serde_json::from_slice(&fs::read(root().join("events").join(&file))?)?;
        if let Some(authorization) = payload.pointer_mut("/headers/authorization") {
            *authorization = json!(format!("Bearer {token}"));
        }
        samples.push((function, file, payload));
    }
    samples.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(samples)
}
