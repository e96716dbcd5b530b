//! A batch of messages, each of them a task that asks for work on a job.

use std::time::Duration;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use carillon_aws::now;
use carillon_core::job::JobTask;
use carillon_core::time::UnixMillis;

use crate::ground::Ground;
use crate::work::work;

/// What of the function's time is kept to finish a step and answer: this, or a third of it if it is short.
const FINISHING_TIME: Duration = Duration::from_secs(15);

/// Works on a batch; the answer names the messages that must come again. `deadline`: when Lambda ends the function, in
/// Unix milliseconds.
pub(crate) async fn handle(ground: &impl Ground, event: SqsEvent, deadline: u64) -> SqsBatchResponse {
    let deadline = UnixMillis(deadline);
    let until = deadline.minus(FINISHING_TIME.min(deadline.since(now()) / 3));
    let mut response = SqsBatchResponse::default();
    for message in event.records {
        let id = message.message_id.unwrap_or_default();
        if let Err(error) = on(ground, message.body.as_deref().unwrap_or_default(), until).await {
            // It comes again until the redrive policy sets it aside.
            tracing::error!(message_id = id, %error, "a task failed and comes again");
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            response.batch_item_failures.push(failure);
        }
    }
    response
}

async fn on(ground: &impl Ground, body: &str, until: UnixMillis) -> Result<(), lambda_runtime::Error> {
    let task = JobTask::from_json(body)?;
    work(ground, &task, until).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::testing::Fake;

    #[tokio::test]
    async fn a_message_that_is_no_task_fails_alone() {
        let fake = Fake::with_subscriptions(250);
        let good = fake.task().to_json().unwrap();
        let record = |id: &str, body: &str| serde_json::json!({"messageId": id, "body": body});
        let records = [record("a", "nonsense"), record("b", &good), record("c", "{\"v\":2}")];
        let event = serde_json::from_value(serde_json::json!({"Records": records})).unwrap();
        let response = handle(&fake, event, (now() + Duration::from_mins(1)).0).await;
        let failed: Vec<_> =
            response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
        assert_eq!(failed, ["a", "c"]);
        assert!(fake.is_completed());
    }
}
