//! Each function may do its work and nothing else, shown with the very credentials that its process runs with.

use anyhow::{Context as _, Result, ensure};
use carillon_local::{environment, event};
use carillon_tests::{PATIENCE, Scene};
use serde_json::json;

#[tokio::test]
async fn each_function_is_denied_what_is_not_its_work() -> Result<()> {
    let scene = Scene::set("permissions", &[]).await?;
    scene.subscribe("/inbox", &["consent:*"]).await?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    scene.receiver.wait_for("/inbox", 1, PATIENCE).await?;
    scene.stack.invoke("clock", &json!({})).await?;
    scene.stack.invoke("redrive", &json!({ "Records": [] })).await?;
    // Nobody's URL, but its function runs then.
    let nobodys = format!("/in/{}", "0".repeat(26));
    assert_eq!(scene.carillon.get(&nobodys).await?.status, 404);

    let output = |name| scene.stack.output(name);
    let key = r#"{"pk":{"S":"x"},"sk":{"S":"x"}}"#;
    let event_key = r#"{"pk":{"S":"x"}}"#;

    // The credentials are good, so that a refusal is one of the action.
    for (function, role) in [
        ("api", output("ApiRoleName")),
        ("publish", output("PublishRoleName")),
        ("fanout", output("FanoutRoleName")),
        ("deliver", output("DeliverRoleName")),
        ("clock", output("ClockRoleName")),
        ("redrive", output("RedriveRoleName")),
        ("inbox", output("InboxRoleName")),
    ] {
        let identity = as_function(&scene, function, &["sts", "get-caller-identity"])?;
        assert!(identity.contains(role), "{function} is not {role}: {identity}");
    }
    as_function(
        &scene,
        "publish",
        &["dynamodb", "get-item", "--table-name", output("ConfigTable"), "--key", key],
    )?;

    denied(&scene, "api", &["dynamodb", "scan", "--table-name", output("DeliveriesTable")])?;
    denied(
        &scene,
        "api",
        &["sqs", "send-message", "--queue-url", output("ExpansionQueueUrl"), "--message-body", "x"],
    )?;
    denied(
        &scene,
        "publish",
        &["dynamodb", "get-item", "--table-name", output("EventsTable"), "--key", event_key],
    )?;
    denied(
        &scene,
        "publish",
        &["dynamodb", "delete-item", "--table-name", output("ConfigTable"), "--key", key],
    )?;
    denied(
        &scene,
        "fanout",
        &["dynamodb", "delete-item", "--table-name", output("EventsTable"), "--key", event_key],
    )?;
    denied(
        &scene,
        "fanout",
        &["dynamodb", "get-item", "--table-name", output("DeliveriesTable"), "--key", key],
    )?;
    denied(
        &scene,
        "deliver",
        // It may put into the audit: conditions on keys are AWS's alone.
        &["dynamodb", "delete-item", "--table-name", output("ConfigTable"), "--key", key],
    )?;
    denied(&scene, "deliver", &["sqs", "purge-queue", "--queue-url", output("DeadLetterQueueUrl")])?;
    denied(&scene, "redrive", &["dynamodb", "scan", "--table-name", output("EventsTable")])?;
    for table in ["InboxesTable", "ConfigTable"] {
        denied(&scene, "inbox", &["dynamodb", "get-item", "--table-name", output(table), "--key", key])?;
    }
    denied(&scene, "inbox", &["dynamodb", "put-item", "--table-name", output("ConfigTable"), "--item", key])?;
    denied(
        &scene,
        "deliver",
        &["dynamodb", "put-item", "--table-name", output("InboxesTable"), "--item", key],
    )?;
    denied(
        &scene,
        "redrive",
        &["dynamodb", "put-item", "--table-name", output("DeliveriesTable"), "--item", key],
    )?;
    denied(&scene, "clock", &["dynamodb", "put-item", "--table-name", output("ConfigTable"), "--item", key])?;
    denied(
        &scene,
        "clock",
        &["kms", "generate-data-key", "--key-id", output("DataKeyArn"), "--key-spec", "AES_256"],
    )?;
    scene.end().await
}

fn denied(scene: &Scene, function: &str, action: &[&str]) -> Result<()> {
    let outcome = as_function(scene, function, action);
    let refusal = outcome.err().with_context(|| format!("{function} may {action:?}"))?;
    ensure!(refusal.to_string().contains("AccessDenied"), "{function}, {action:?}: {refusal}");
    Ok(())
}

fn as_function(scene: &Scene, function: &str, action: &[&str]) -> Result<String> {
    let process =
        *scene.stack.processes(function).first().with_context(|| format!("{function} does not run"))?;
    let environment = environment(process);
    let credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
        .map(|name| (name, environment.get(name).map_or("", String::as_str)));
    scene.aws.cli_as(&credentials, action)
}
