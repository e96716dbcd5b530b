//! What receivers verify by public keys: Security Event Tokens, and signatures `v1a`; and the keys themselves.

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Answer, Carillon, Received, event};
use carillon_tests::{SUBSCRIBER, Scene, WORKSPACE, eventually, problem};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

/// How long receivers may keep the public keys.
const HOUR: &str = "public, max-age=3600";

#[tokio::test]
async fn tokens_verify_by_the_public_keys_and_are_the_same_on_every_attempt() -> Result<()> {
    let scene = Scene::set("tokens", &[("RetryScale", "0.002")]).await?;
    let before = public_keys(&scene, WORKSPACE).await?;
    assert_eq!(before, (json!({ "keys": [] }), "public, max-age=60".to_owned()));
    for (path, algorithm) in [("/rs", "RS256"), ("/es", "ES256")] {
        let token = json!({ "audience": format!("urn:tpp:{algorithm}"), "algorithm": algorithm });
        let said = json!({ "types": ["consent:*"], "format": "securityEventToken", "token": token });
        scene.subscribe_with(path, &said).await?;
    }
    let (keys, kept) = public_keys(&scene, WORKSPACE).await?;
    assert_eq!((keys["keys"].as_array().map(Vec::len), kept.as_str()), (Some(3), HOUR));
    scene.receiver.answer("/rs", [Answer::status(500), Answer::status(202)]);
    scene.receiver.answer("/es", [Answer::status(500), Answer::status(202)]);

    let mut happened = event("e-1", "consent:created", &json!({ "status": "AUTHORISED" }));
    happened["time"] = json!("2026-11-22T09:29:59.999Z");
    happened["subject"] = json!("urn:consent:1");
    scene.publish(&happened).await?;
    let mut first_keys = Vec::new();
    for (path, algorithm) in [("/rs", Algorithm::RS256), ("/es", Algorithm::ES256)] {
        let received = scene.received(path, 2).await?;
        assert_eq!(received[0].body, received[1].body, "the token is made once");
        let (kid, claims) = verified(&received[1], &keys, algorithm)?;
        first_keys.push(kid);
        let issuer = claims["iss"].as_str().context("it names its issuer")?;
        assert!(issuer.ends_with(&format!("/v1/workspaces/{WORKSPACE}")), "{issuer}");
        assert_eq!(claims["aud"], format!("urn:tpp:{algorithm:?}"));
        assert_eq!(claims["jti"], received[1].webhook_id());
        assert_eq!(claims["toe"], 1_795_339_799);
        assert_eq!(claims["sub_id"], json!({ "format": "opaque", "id": "urn:consent:1" }));
        assert_eq!(
            claims["events"][format!("{issuer}/event-types/consent:created")],
            json!({ "id": "e-1", "source": "urn:example:bank", "data": { "status": "AUTHORISED" } })
        );
        assert!(["exp", "sub"].iter().all(|claim| claims[claim].is_null()), "{claims}");
    }

    // The next keys are to be read at once, and sign nothing yet.
    let keys_path = format!("/v1/workspaces/{WORKSPACE}/keys");
    let rotate = format!("{keys_path}/rotate");
    let rotated = scene.carillon.post(&rotate, "application/json", &json!({ "algorithm": "RS256" })).await?;
    let listed = rotated.expect_status(200)?.json();
    assert_eq!(listed, scene.carillon.get(&keys_path).await?.expect_status(200)?.json());
    let statuses = |algorithm: &str| -> Vec<Value> {
        let items = listed["items"].as_array().into_iter().flatten();
        items.filter(|key| key["algorithm"] == algorithm).map(|key| key["status"].clone()).collect()
    };
    assert_eq!(
        (statuses("RS256"), statuses("ES256")),
        (vec!["current".into(), "next".into()], vec!["current".into()])
    );
    let again = scene.carillon.post(&rotate, "application/json", &json!({})).await?;
    assert_eq!(problem(&again, 409)["type"], "/problems/too-early-to-rotate");
    let (keys, _) = public_keys(&scene, WORKSPACE).await?;
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(4));
    scene.publish(&event("e-2", "consent:created", &json!({}))).await?;
    for ((path, algorithm), first) in
        [("/rs", Algorithm::RS256), ("/es", Algorithm::ES256)].into_iter().zip(first_keys)
    {
        let received = scene.received(path, 3).await?;
        assert_eq!(verified(&received[2], &keys, algorithm)?.0, first);
    }
    scene.all_deliveries(4, "delivered").await?;
    scene.end().await
}

#[tokio::test]
async fn asymmetric_signatures_verify_by_the_listed_key() -> Result<()> {
    let scene = Scene::set("asymmetric", &[]).await?;
    let said = json!({ "types": ["consent:*"], "signatures": ["v1", "v1a"] });
    scene.subscribe_with("/both", &said).await?;
    let alone = json!({
        "endpoint": scene.receiver.url("/alone"),
        "subscriber": SUBSCRIBER,
        "types": ["consent:*"],
        "signatures": ["v1a"],
    });
    scene.carillon.subscribe_with(WORKSPACE, &alone).await?;
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;

    let listed =
        scene.carillon.get(&format!("/v1/workspaces/{WORKSPACE}/keys")).await?.expect_status(200)?.json();
    let items = listed["items"].as_array().context("there are keys")?;
    let key = items.iter().find(|key| key["algorithm"] == "EdDSA").context("there is one for v1a")?;
    assert!(key["webhookKey"].as_str().is_some_and(|text| text.starts_with("whpk_")), "{key}");
    let x = key["publicKey"]["x"].as_str().context("it is shown")?;
    let key = DecodingKey::from_ed_components(x)?;
    // Of the two schemes, the official library knows the first.
    let both = scene.received("/both", 1).await?.swap_remove(0);
    let alone = scene.receiver.wait_for("/alone", 1, carillon_tests::PATIENCE).await?.swap_remove(0);
    for (request, count) in [(both, 2), (alone, 1)] {
        let signatures: Vec<_> = request.header("webhook-signature").split(' ').collect();
        assert_eq!(signatures.len(), count, "{signatures:?}");
        let signature = signatures[count - 1].strip_prefix("v1a,").context("the last one is asymmetric")?;
        let base64_url = signature.trim_end_matches('=').replace('+', "-").replace('/', "_");
        let head = format!("{}.{}.", request.webhook_id(), request.header("webhook-timestamp"));
        let signed = [head.as_bytes(), &request.body].concat();
        assert!(jsonwebtoken::crypto::verify(&base64_url, &signed, &key, Algorithm::EdDSA)?);
    }
    scene.all_deliveries(2, "delivered").await?;
    scene.end().await
}

#[tokio::test]
async fn what_asks_for_keys_is_checked_and_what_made_them_takes_them_along() -> Result<()> {
    let scene = Scene::set("keys", &[]).await?;
    let token = json!({ "audience": "urn:tpp" });
    for (said, pointer) in [
        (json!({ "format": "resource" }), "/format"),
        (json!({ "format": "securityEventToken" }), "/token"),
        (json!({ "token": token }), "/token"),
        (json!({ "format": "securityEventToken", "token": { "audience": "" } }), "/token/audience"),
        (json!({ "signatures": [] }), "/signatures"),
    ] {
        let mut body = said.clone();
        body["endpoint"] = json!(scene.receiver.url("/inbox"));
        body["subscriber"] = json!(SUBSCRIBER);
        body["types"] = json!(["consent:*"]);
        let path = format!("/v1/workspaces/{WORKSPACE}/subscriptions");
        let refused = problem(&scene.carillon.post(&path, "application/json", &body).await?, 400);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    assert_eq!(public_keys(&scene, WORKSPACE).await?.0, json!({ "keys": [] }), "nothing was made of it");

    scene.carillon.own_workspace("directory", "directory").await?;
    let subscribe = |said: Value| {
        let mut body = said;
        body["endpoint"] = json!(scene.receiver.url("/inbox"));
        body["subscriber"] = json!(SUBSCRIBER);
        body["types"] = json!(["*"]);
        let carillon = &scene.carillon;
        async move { carillon.subscribe_with("directory", &body).await }
    };
    // However many ask for the first keys at once, they are made once.
    let v1a = json!({ "signatures": ["v1a"] });
    let tokens = json!({ "format": "securityEventToken", "token": token });
    let resource = json!({ "format": "resource" });
    let (one, other, plain) = futures::join!(subscribe(v1a), subscribe(tokens), subscribe(resource));
    for made in [one, other, plain] {
        made?;
    }
    let (keys, _) = public_keys(&scene, "directory").await?;
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(3), "{keys}");

    let anybody = Carillon::new(scene.stack.api_url());
    problem(&anybody.get("/v1/workspaces/nobodys/jwks.json").await?, 404);
    problem(&anybody.get("/v1/workspaces/directory/keys").await?, 401);
    let items = async || {
        let rows = scene.rows("ConfigTable").await?;
        anyhow::Ok(
            rows.iter().filter(|row| row["pk"]["S"] == "WS#directory" && row["sk"]["S"] == "keys").count(),
        )
    };
    assert_eq!(items().await?, 1);
    let sealed = scene.rows("ConfigTable").await?.iter().map(ToString::to_string).collect::<String>();
    assert!(!sealed.contains("PRIVATE KEY"));
    scene.carillon.delete("/v1/workspaces/directory?cascade=true").await?.expect_status(202)?;
    eventually("the workspace to be gone with its keys", || async {
        let gone = anybody.get("/v1/workspaces/directory/jwks.json").await?.status == 404;
        Ok((gone && items().await? == 0).then_some(()))
    })
    .await?;
    scene.end().await
}

/// The public keys of a workspace, as anybody reads them, and how long they may be kept.
async fn public_keys(scene: &Scene, workspace: &str) -> Result<(Value, String)> {
    let anybody = Carillon::new(scene.stack.api_url());
    let reply = anybody.get(&format!("/v1/workspaces/{workspace}/jwks.json")).await?.expect_status(200)?;
    let header =
        |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("content-type"), "application/jwk-set+json");
    let (kept, keys) = (header("cache-control").to_owned(), reply.json());
    for member in ["d", "p", "q", "k"] {
        let keys = keys["keys"].as_array().into_iter().flatten();
        assert!(keys.into_iter().all(|key| key[member].is_null()), "{member} is private");
    }
    Ok((keys, kept))
}

/// The key's id and the claims of a token that was delivered, verified by one of these keys.
fn verified(request: &Received, keys: &Value, algorithm: Algorithm) -> Result<(String, Value)> {
    assert_eq!(request.header("content-type"), "application/secevent+jwt");
    assert_eq!(request.header("accept"), "application/json");
    let token = std::str::from_utf8(&request.body)?;
    let header = decode_header(token)?;
    ensure!(header.typ.as_deref() == Some("secevent+jwt") && header.alg == algorithm, "{header:?}");
    let kid = header.kid.context("it names its key")?;
    let keys: JwkSet = serde_json::from_value(keys.clone())?;
    let key = keys.find(&kid).context("its key is public")?;
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["iss", "aud"]);
    validation.validate_exp = false;
    validation.set_audience(&[format!("urn:tpp:{algorithm:?}")]);
    let claims = decode::<Value>(token, &DecodingKey::from_jwk(key)?, &validation)?.claims;
    Ok((kid, claims))
}
