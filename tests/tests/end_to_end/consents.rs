//! Consents that nobody decides, or uses, in time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_aws::now;
use carillon_catalogue::builtin_type;
use carillon_core::time::UnixMillis;
use carillon_core::workspace::WorkspaceKind;
use carillon_local::event;
use carillon_tests::{SUBSCRIBER, Scene, eventually};
use serde_json::{Value, json};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_mins(1);

/// So long after the begin of the scenario the deadlines are due: what happened lies in the past, by as much as a consent
/// has time less this.
const LEFT: Duration = Duration::from_secs(6);

/// What happened to a consent so long ago: the catalogue's sample with another id and time.
fn happened(consent: &str, kind: &str, ago: Duration) -> Result<Value> {
    let definition =
        builtin_type(WorkspaceKind::Consent, &kind.parse()?).context("no type of the catalogue")?;
    let mut data = definition.sample.clone();
    data["consentId"] = json!(consent);
    let mut event = event(&format!("{consent}-{kind}"), kind, &data);
    event["time"] = json!(now().minus(ago).to_string());
    event["audience"] = json!(SUBSCRIBER);
    Ok(event)
}

#[tokio::test]
async fn a_consent_expires() -> Result<()> {
    let scene = Scene::set("consents", &[]).await?;
    scene.subscribe("/expired", &["consent:expired"]).await?;
    let (hour, more) = (MINUTE * 60 - LEFT, MINUTE * 70 - LEFT);
    let began = now();
    for (consent, kind, ago) in [
        ("undecided", "after:consent:create", hour),
        ("unconsumed", "after:consent:create", MINUTE * 80),
        ("unconsumed", "consent:approved", more),
        ("unconsumed-rejected", "consent:rejected", more),
        // What is told in the wrong order ends the same way.
        ("rejected", "consent:rejected", Duration::ZERO),
        ("rejected", "after:consent:create", hour),
        ("consumed", "after:consent:create", hour),
        ("consumed", "consent:approved", more),
        ("consumed", "consent:consumed", Duration::ZERO),
        ("revoked-undecided", "after:consent:create", hour),
        ("revoked-undecided", "consent:revoke", Duration::ZERO),
        ("revoked-approved", "consent:approved", more),
        ("revoked-approved", "consent:revoke", Duration::ZERO),
        ("expired-already", "after:consent:create", hour),
        ("expired-already", "consent:expired", Duration::ZERO),
    ] {
        scene.publish(&happened(consent, kind, ago)?).await?;
    }
    let clock = scene.ring_clock();
    let expected = ["expired-already", "unconsumed", "unconsumed-rejected", "undecided"];
    let expired = eventually("the consents to expire", || async {
        let expired = expired(&scene).await?;
        Ok((expired.len() == expected.len()).then_some(expired))
    })
    .await?;
    // The clock rings on, and nothing more comes of it.
    sleep(Duration::from_secs(2)).await;
    drop(clock);
    let names: Vec<_> = expired.keys().map(String::as_str).collect();
    assert_eq!(names, expected);
    let times = &expired["undecided"];
    let [(told, accepted_at)] = &times[..] else { panic!("it expired {} times", times.len()) };
    assert!(*accepted_at >= began + LEFT, "before its time");
    let data = &told["data"];
    assert_eq!(
        (&data["status"], &data["previousStatus"]),
        (&json!("REJECTED"), &json!("AWAITING_AUTHORISATION"))
    );
    assert_eq!(data["rejection"], json!({ "by": "ASPSP", "reason": "CONSENT_EXPIRED" }));
    assert_eq!(
        (&data["expiredAt"], &told["causationid"]),
        (&told["time"], &json!("undecided-after:consent:create"))
    );

    let received = scene.received("/expired", expected.len()).await?;
    assert!(received.iter().all(|request| request.json()["type"] == "consent:expired"));
    scene.end().await
}

/// The events that say so, and when they were accepted, by consent.
async fn expired(scene: &Scene) -> Result<BTreeMap<String, Vec<(Value, UnixMillis)>>> {
    let mut expired: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for row in scene.rows("EventsTable").await?.iter().filter(|row| row["type"]["S"] == "consent:expired") {
        let event: Value = serde_json::from_str(row["event"]["S"].as_str().unwrap_or_default())?;
        let consent = event["data"]["consentId"].as_str().unwrap_or_default().to_owned();
        let at = UnixMillis(row["accepted_at"]["N"].as_str().unwrap_or_default().parse()?);
        expired.entry(consent).or_default().push((event, at));
    }
    Ok(expired)
}
