//! Deliveries and events over the API: what became of what was published, page by page, and for whom that is to see.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use carillon_local::{ALL_SCOPES, Answer, Carillon, Issuer, event};
use carillon_tests::{PATIENCE, Scene, WORKSPACE, eventually, problem};
use serde_json::{Value, json};

const EVENTS: &str = "/v1/workspaces/acme/events";
const SUBSCRIPTIONS: &str = "/v1/workspaces/acme/subscriptions";
const AUDIENCE: &str = "carillon";

/// How long the slow receiver takes: its delivery is pending until then.
const SLOW: Duration = Duration::from_secs(8);

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in its order")]
async fn deliveries_are_shown_as_they_stand() -> Result<()> {
    let scene = Scene::set("deliveries", &[]).await?;
    let subscribe = async |path: &str, more: Value| {
        let mut said = more;
        said["types"] = json!(["consent:*"]);
        anyhow::Ok(scene.subscribe_with(path, &said).await?.id)
    };
    let refuses = Answer::status(413).json(&json!({ "error": "too much" }));
    for (path, answer) in [
        ("/refuses", refuses),
        ("/is-busy", Answer::status(503)),
        ("/is-slow", Answer::status(204).after(SLOW)),
    ] {
        scene.receiver.answer(path, [answer]);
    }
    let accepts = subscribe("/accepts", json!({})).await?;
    let refuses = subscribe("/refuses", json!({})).await?;
    let is_busy = subscribe("/is-busy", json!({ "retryPolicy": { "waitsSeconds": [3600] } })).await?;
    let is_paused = subscribe("/is-paused", json!({ "paused": true })).await?;
    let is_slow = subscribe("/is-slow", json!({})).await?;
    let elsewhere = json!({ "filter": { "pattern": { "data": { "to": ["others"] } } } });
    let is_left_out = subscribe("/is-left-out", elsewhere).await?;

    let happened = event("e-1", "consent:created", &json!({ "amount": 1 }));
    let published = scene.carillon.publish(WORKSPACE, &happened).await?.expect_status(202)?.json();
    let event_id = published["eventId"].as_str().context("no eventId")?.to_owned();
    scene.receiver.wait_for("/is-slow", 1, PATIENCE).await?;
    let of_event = format!("{EVENTS}/{event_id}/deliveries");
    let others_done = async || {
        let shown = items(&get(&scene, &of_event).await?);
        let done = shown.iter().filter(|delivery| delivery["status"] != "pending").count();
        anyhow::Ok((done >= 4).then_some(shown))
    };
    let shown = eventually("the deliveries of the event", others_done).await?;
    let told: Vec<_> =
        shown.iter().map(|shown| (text(shown, "subscription"), text(shown, "status"))).collect();
    let expected = [
        (&accepts, "delivered"),
        (&refuses, "failed"),
        (&is_busy, "retrying"),
        (&is_paused, "held"),
        (&is_slow, "pending"),
    ];
    assert_eq!(told, expected.map(|(subscription, status)| (subscription.clone(), status.to_owned())));

    // One by one, as `webhook-id` names them, they are the same.
    for delivery in &shown {
        let path =
            format!("{SUBSCRIPTIONS}/{}/deliveries/{}", text(delivery, "subscription"), text(delivery, "id"));
        let read = get(&scene, &path).await?;
        assert_eq!(
            read["event"],
            json!({ "id": event_id, "type": "consent:created", "acceptedAt": published["acceptedAt"] })
        );
        if delivery["status"] != "pending" {
            assert_eq!(read, *delivery);
        }
        let of_another = path.replace(&text(delivery, "subscription"), &is_left_out);
        problem(&scene.carillon.get(&of_another).await?, 404);
    }
    let [delivered, failed, retrying, held, pending] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!(text(delivered, "id"), scene.receiver.received("/accepts")[0].webhook_id());
    assert_eq!(text(pending, "id"), scene.receiver.received("/is-slow")[0].webhook_id());
    assert_eq!((&failed["reason"], &held["heldBy"]), (&json!("refused"), &json!("pause")));
    assert!(retrying["nextAttemptAt"].is_string() && failed.get("nextAttemptAt").is_none());
    assert_eq!((attempts(held), attempts(pending)), (0, 0));
    let attempt = &failed["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["outcome"]), (&json!(413), &json!("unacceptable")));
    assert_eq!(attempt["response"], r#"{"error":"too much"}"#);
    assert_eq!((&attempt["round"], &attempt["number"]), (&json!(1), &json!(1)));

    // By subscription and status, through the index that lags behind.
    for (subscription, status, outcome) in [
        (&refuses, "failed", "unacceptable"),
        (&is_busy, "retrying", "throttled"),
        (&accepts, "delivered", "delivered"),
    ] {
        let path = format!("{SUBSCRIPTIONS}/{subscription}/deliveries");
        for (query, count) in [
            (String::new(), 1),
            (format!("?status={status}"), 1),
            (format!("?status={status}&outcome={outcome}&eventType=consent:created"), 1),
            ("?status=cancelled".to_owned(), 0),
            ("?outcome=dns".to_owned(), 0),
            (format!("?status={status}&eventType=consent:revoked"), 0),
        ] {
            let found = items(&get(&scene, &format!("{path}{query}")).await?);
            assert_eq!(found.len(), count, "{status} {query}");
        }
    }
    for (subscription, failed, retrying, held) in
        [(&accepts, 0, 0, 0), (&refuses, 1, 0, 0), (&is_busy, 0, 1, 0), (&is_paused, 0, 0, 1)]
    {
        let counts = get(&scene, &format!("{SUBSCRIPTIONS}/{subscription}/deliveryCounts")).await?;
        let count = |count| json!({ "count": count, "complete": true });
        let expected = json!({ "failed": count(failed), "retrying": count(retrying), "held": count(held) });
        assert_eq!(counts, expected);
    }

    // What is pending does not stay so.
    let path = format!("{SUBSCRIPTIONS}/{is_slow}/deliveries/{}", text(pending, "id"));
    eventually("the slow receiver's answer", async || {
        let read = get(&scene, &path).await?;
        Ok((read["status"] == "delivered").then_some(()))
    })
    .await?;

    // A workspace may keep what receivers answer to itself.
    let workspace = format!("/v1/workspaces/{WORKSPACE}");
    let quiet = json!({ "settings": { "showResponses": false } });
    let patched = scene.carillon.patch(&workspace, &quiet).await?.expect_status(200)?.json();
    assert_eq!(patched["settings"]["showResponses"], false);
    let read = get(&scene, &format!("{SUBSCRIPTIONS}/{refuses}/deliveries/{}", text(failed, "id"))).await?;
    assert!(attempts(&read) == 1 && read["attempts"][0].get("response").is_none(), "{read}");
    scene.break_off().await
}

#[tokio::test]
async fn pages_have_each_delivery_and_each_event_once() -> Result<()> {
    const COUNT: usize = 60;
    let scene = Scene::set("delivery-pages", &[]).await?;
    let subscription = scene.subscribe("/inbox", &["consent:*"]).await?.id;
    let kind = |number: usize| if number.is_multiple_of(10) { "consent:revoked" } else { "consent:created" };
    let batch: Vec<_> =
        (0..COUNT).map(|number| event(&format!("e-{number}"), kind(number), &json!({}))).collect();
    let published = scene.carillon.publish_batch(WORKSPACE, &batch).await?.expect_status(202)?.json();
    let ids: BTreeSet<_> =
        published["results"].as_array().into_iter().flatten().map(|one| text(one, "eventId")).collect();
    assert_eq!(ids.len(), COUNT);
    scene.all_deliveries(COUNT, "delivered").await?;

    let deliveries = &*format!("{SUBSCRIPTIONS}/{subscription}/deliveries");
    for (path, limit) in [(deliveries, 7), (EVENTS, 7), (deliveries, 60), (EVENTS, 3)] {
        let all = pages(&scene, &format!("{path}?limit={limit}")).await?;
        let told: Vec<_> = all.iter().map(of_event).collect();
        assert_eq!(told.len(), COUNT, "{path} by {limit}");
        assert_eq!(told.iter().map(|(_, id)| id.clone()).collect::<BTreeSet<_>>(), ids, "{path} by {limit}");
        assert!(told.is_sorted_by(|a, b| a.0 >= b.0), "the newest first: {told:?}");
    }
    for (path, filter) in [(deliveries, "eventType"), (EVENTS, "type")] {
        let revoked = pages(&scene, &format!("{path}?limit=4&{filter}=consent:revoked")).await?;
        assert_eq!(revoked.len(), COUNT / 10, "{path}");
    }
    let delivered =
        pages(&scene, &format!("{deliveries}?limit=9&status=delivered&outcome=delivered")).await?;
    assert_eq!(delivered.len(), COUNT);

    // Before and from a moment on: nothing is in both, nothing in neither.
    let (amid, _) = of_event(&delivered[COUNT / 2]);
    for path in [deliveries, EVENTS] {
        let before = pages(&scene, &format!("{path}?limit=50&until={amid}")).await?;
        let since = pages(&scene, &format!("{path}?limit=50&since={amid}")).await?;
        assert_eq!(before.len() + since.len(), COUNT, "{path}");
        assert!(!since.is_empty());
        let none = get(&scene, &format!("{path}?since={amid}&until={amid}")).await?;
        assert!(items(&none).is_empty() && none.get("next").is_none());
    }

    let whole = get(&scene, &format!("{EVENTS}/{}", ids.first().context("an id")?)).await?;
    assert!(whole["event"]["id"].as_str().is_some_and(|id| id.starts_with("e-")), "{whole}");
    for (path, pointer) in [
        (format!("{deliveries}?cursor=1"), "query:cursor"),
        (format!("{EVENTS}?cursor=evt_1"), "query:cursor"),
        (format!("{EVENTS}/{}/deliveries?cursor=1", ids.first().context("an id")?), "query:cursor"),
        (format!("{deliveries}?status=pending"), "query:status"),
        (format!("{deliveries}?outcome=fine"), "query:outcome"),
        (format!("{EVENTS}?since=yesterday"), "query:since"),
        (format!("{EVENTS}?type=a%20b"), "query:type"),
        (format!("{EVENTS}?limit=201"), "query:limit"),
    ] {
        let refused = problem(&scene.carillon.get(&path).await?, 400);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{path}");
    }
    for nothing in ["evt_1", &format!("evt_{}", "0".repeat(32)), "e-1"] {
        problem(&scene.carillon.get(&format!("{EVENTS}/{nothing}")).await?, 404);
    }
    // Other methods than these belong to nobody.
    let refused = scene.carillon.delete(EVENTS).await?;
    problem(&refused, 405);
    assert_eq!(refused.headers["allow"], "GET,HEAD,POST");
    scene.end().await
}

#[tokio::test]
async fn each_sees_what_is_for_it_alone() -> Result<()> {
    let issuer = Issuer::start().await?;
    let scene = Scene::set_behind("delivery-views", &issuer, AUDIENCE).await?;
    let client = |name: &str| {
        let token = issuer.token(&issuer.claims(name, AUDIENCE, &ALL_SCOPES.join(" ")))?;
        anyhow::Ok(Carillon::new(scene.stack.api_url()).with_token(token))
    };
    for (name, role) in [
        ("one", json!({ "role": "subscriber", "subscriber": "tpp-1" })),
        ("two", json!({ "role": "subscriber", "subscriber": "tpp-2" })),
        ("helper", json!({ "role": "support" })),
        ("platform", json!({ "role": "publisher" })),
    ] {
        scene.carillon.grant(WORKSPACE, name, &role).await?;
    }
    scene.carillon.own_workspace("other", "consent").await?;
    scene.carillon.grant("other", "stranger", &json!({ "role": "owner" })).await?;
    let mut subscriptions = Vec::new();
    for subscriber in ["tpp-1", "tpp-2"] {
        let said = json!({ "subscriber": subscriber, "types": ["consent:*"] });
        subscriptions.push(scene.subscribe_with(&format!("/{subscriber}"), &said).await?.id);
    }
    let [of_one, of_two] = &subscriptions[..] else { panic!("{subscriptions:?}") };
    let mut to_one = event("to-one", "consent:created", &json!({}));
    to_one["audience"] = json!("tpp-1, tpp-3");
    let mut published = Vec::new();
    for happened in [&to_one, &event("to-all", "consent:created", &json!({}))] {
        let answer = scene.carillon.publish(WORKSPACE, happened).await?.expect_status(202)?.json();
        published.push(text(&answer, "eventId"));
    }
    let [to_one, to_all] = &published[..] else { panic!("{published:?}") };
    scene.all_deliveries(3, "delivered").await?;

    let seen = async |client: &Carillon, path: &str| {
        let reply = client.get(path).await?;
        anyhow::Ok((reply.status, items(&reply.json()).len()))
    };
    let [one, two, helper] = [client("one")?, client("two")?, client("helper")?];
    for (who, name, events, to_all_deliveries) in
        [(&one, "one", 2, 1), (&two, "two", 1, 1), (&helper, "helper", 2, 2)]
    {
        assert_eq!(seen(who, EVENTS).await?, (200, events), "{name}");
        assert_eq!(
            seen(who, &format!("{EVENTS}/{to_all}/deliveries")).await?,
            (200, to_all_deliveries),
            "{name}"
        );
    }
    for (who, subscription, status) in
        [(&one, of_one, 200), (&one, of_two, 404), (&two, of_one, 404), (&helper, of_two, 200)]
    {
        for rest in ["deliveries", "deliveryCounts"] {
            assert_eq!(
                who.get(&format!("{SUBSCRIPTIONS}/{subscription}/{rest}")).await?.status,
                status,
                "{rest}"
            );
        }
    }
    let delivery = scene.receiver.received("/tpp-1")[0].webhook_id().to_owned();
    let path = format!("{SUBSCRIPTIONS}/{of_one}/deliveries/{delivery}");
    assert_eq!(one.get(&path).await?.status, 200);
    problem(&two.get(&path).await?, 404);
    // The id of another's delivery is none of one's own.
    problem(&two.get(&path.replace(of_one, of_two)).await?, 404);

    for path in [format!("{EVENTS}/{to_one}"), format!("{EVENTS}/{to_one}/deliveries")] {
        problem(&two.get(&path).await?, 404);
        one.get(&path).await?.expect_status(200)?;
    }
    let audience = async |client: &Carillon| {
        let read = client.get(&format!("{EVENTS}/{to_one}")).await?.expect_status(200)?.json();
        anyhow::Ok(read["audience"].clone())
    };
    assert_eq!(
        (audience(&one).await?, audience(&helper).await?),
        (json!(["tpp-1"]), json!(["tpp-1", "tpp-3"]))
    );

    // Another tenant, and who only publishes.
    let (stranger, platform) = (client("stranger")?, client("platform")?);
    for path in [format!("{EVENTS}/{to_all}"), format!("{EVENTS}/{to_all}/deliveries"), path] {
        problem(&stranger.get(&path).await?, 404);
        problem(&stranger.get(&path.replace("/acme/", "/other/")).await?, 404);
        problem(&platform.get(&path).await?, 403);
    }
    problem(&stranger.get(EVENTS).await?, 404);
    assert_eq!(seen(&stranger, &EVENTS.replace("acme", "other")).await?, (200, 0));
    scene.end().await
}

async fn get(scene: &Scene, path: &str) -> Result<Value> {
    Ok(scene.carillon.get(path).await?.expect_status(200)?.json())
}

/// All items of a list, page by page.
async fn pages(scene: &Scene, path: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(scene, &format!("{path}{cursor}")).await?;
        all.extend(items(&page));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// When the event of an item was accepted, and its id; the item may be the event itself.
fn of_event(item: &Value) -> (String, String) {
    let event = if item["subscription"].is_string() { &item["event"] } else { item };
    (text(event, "acceptedAt"), text(event, "id"))
}

fn attempts(delivery: &Value) -> usize {
    delivery["attempts"].as_array().map_or(0, Vec::len)
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}
