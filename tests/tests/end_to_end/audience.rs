//! Events that are for some subscribers alone.

use anyhow::Result;
use carillon_local::event;
use carillon_tests::{Scene, WORKSPACE, problem};
use serde_json::json;

#[tokio::test]
async fn an_event_reaches_the_subscribers_that_it_names_and_no_others() -> Result<()> {
    let scene = Scene::set("audience", &[]).await?;
    for subscriber in ["tpp-1", "tpp-2", "tpp-3"] {
        let path = format!("/{subscriber}");
        scene.subscribe_with(&path, &json!({ "subscriber": subscriber, "types": ["consent:*"] })).await?;
    }
    let mut addressed = event("e-1", "consent:created", &json!({}));
    addressed["audience"] = json!("tpp-1 tpp-3");
    scene.publish(&addressed).await?;
    for path in ["/tpp-1", "/tpp-3"] {
        let received = scene.received(path, 1).await?;
        assert!(!String::from_utf8_lossy(&received[0].body).contains("tpp-"), "nobody learns of the others");
        assert_eq!(received[0].header("ce-audience"), "");
    }
    scene.quiet().await?;
    assert!(scene.receiver.received("/tpp-2").is_empty());

    // The audience is part of what was submitted.
    let mut wider = addressed.clone();
    wider["audience"] = json!("tpp-2");
    problem(&scene.carillon.publish(WORKSPACE, &wider).await?, 409);

    // Where one is demanded, an event without one is for nobody.
    let path = format!("/v1/workspaces/{WORKSPACE}");
    let required = json!({ "settings": { "audience": "required" } });
    scene.carillon.patch(&path, &required).await?.expect_status(200)?;
    carillon_tests::eventually("the setting to hold", || async {
        let open = event("e-2", "consent:created", &json!({ "at": "a time" }));
        let reply = scene.carillon.publish(WORKSPACE, &open).await?;
        Ok((reply.status == 400).then_some(reply))
    })
    .await
    .map(|reply| assert_eq!(problem(&reply, 400)["errors"][0]["pointer"], "/audience"))?;
    let mut misnamed = event("e-3", "consent:created", &json!({}));
    misnamed["audience"] = json!("tpp/1");
    assert_eq!(
        problem(&scene.carillon.publish(WORKSPACE, &misnamed).await?, 400)["errors"][0]["pointer"],
        "/audience"
    );
    scene.break_off().await
}
