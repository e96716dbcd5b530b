//! The small versions of `cargo xtask prove deadlines` and `prove revisions`, and what the API says of rules.

use std::time::Duration;

use anyhow::{Result, ensure};
use carillon_local::{Fault, Rates};
use carillon_tests::deadlines::Deadlines;
use carillon_tests::revisions::Revisions;
use carillon_tests::{Scene, WORKSPACE, problem};
use serde_json::{Value, json};

const SEED: u64 = 1;

#[tokio::test]
async fn a_deadline_fires_once_or_never_under_faults() -> Result<()> {
    let deadlines = Deadlines {
        seed: SEED,
        subjects: 24,
        rates: Rates::rough(),
        deaths_apart: Duration::from_secs(6),
        timeout: "5",
    };
    let seen = deadlines.undergo("deadlines").await?;
    // What was thrown is enough to show something.
    ensure!(seen.fired > 0 && seen.settled > 0 && seen.killed > 0, "{seen}");
    Ok(())
}

#[tokio::test]
async fn revisions_have_no_gap_under_faults() -> Result<()> {
    let revisions = Revisions {
        seed: SEED,
        events: 80,
        publishers: 4,
        rates: Rates::rough().with(Fault::Conflicted, 0.05),
        deaths_apart: Duration::from_secs(4),
    };
    let seen = revisions.undergo("revisions").await?;
    let count = |fault| seen.tally.faults.get(&fault).copied().unwrap_or_default();
    ensure!(count(Fault::Conflicted) > 0 && seen.again > 0, "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_workspace_has_rules_of_its_own() -> Result<()> {
    let scene = Scene::set("rules", &[]).await?;
    let path = format!("/v1/workspaces/{WORKSPACE}/rules");
    let before = scene.carillon.get(&path).await?.expect_status(200)?;
    assert_eq!(before.headers["etag"], "\"0\"");
    let names = |rules: &Value| -> Vec<String> {
        let names = rules["deadlines"].as_array().into_iter().flatten();
        names.map(|rule| rule["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&before.json()["builtin"]), ["undecided", "unconsumed"]);
    assert_eq!(names(&before.json()), [""; 0]);

    let late = |changes: &Value| {
        let mut rule = json!({
            "name": "unrevoked", "after": ["consent:created"], "unless": ["consent:revoked"], "within": "PT1M",
            "emits": "consent:payment:rejected",
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            rule[name] = value.clone();
        }
        json!({ "deadlines": [rule] })
    };
    let written = scene.carillon.put(&path, &late(&json!({}))).await?.expect_status(200)?;
    assert_eq!(
        (written.headers["etag"].as_bytes(), names(&written.json())),
        (&b"\"1\""[..], vec!["unrevoked".to_owned()])
    );
    let same = scene.carillon.put(&path, &late(&json!({}))).await?.expect_status(200)?;
    assert_eq!(same.headers["etag"], "\"1\"");

    for (changes, pointer) in [
        (json!({ "name": "undecided" }), "/deadlines/0/name"),
        (json!({ "within": "P1D" }), "/deadlines/0/within"),
        (json!({ "after": ["consent:lost"] }), "/deadlines/0/after/0"),
        (json!({ "unless": ["consent:created"] }), "/deadlines/0/unless/0"),
        (json!({ "emits": "consent:created" }), ""),
        (json!({ "more": 1 }), "/deadlines/0/more"),
    ] {
        let refused = problem(&scene.carillon.put(&path, &late(&changes)).await?, 400);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let kept = scene.carillon.get(&path).await?.expect_status(200)?;
    assert_eq!(kept.json(), written.json(), "what was refused has changed nothing");

    // What a rule names stays, as long as there is the rule.
    let named = format!("/v1/workspaces/{WORKSPACE}/event-types/consent:revoked");
    let in_use = problem(&scene.carillon.delete(&named).await?, 409);
    assert_eq!(in_use["type"], "/problems/event-type-in-use");
    scene.carillon.put(&path, &json!({})).await?.expect_status(200)?;
    scene.carillon.delete(&named).await?.expect_status(204)?;
    scene.end().await
}
