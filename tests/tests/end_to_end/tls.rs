//! Receivers whose certificate nobody vouches for.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use carillon_local::event;
use carillon_tests::{SUBSCRIBER, Scene, WORKSPACE, eventually};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A test's, issued by itself. The key opens nothing.
const CERTIFICATE: &[u8] = include_bytes!("../../../crates/sender/tests/tls/test_certificate.pem");
const KEY: &[u8] = include_bytes!("../../../crates/sender/tests/tls/test_key.pem");

/// The URL of a receiver that answers every request over TLS with 204.
pub(crate) fn receiver() -> Result<String> {
    let answer = |_: &str| "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned();
    Ok(format!("{}/hook", serve((CERTIFICATE, KEY), answer)?))
}

/// The URL of a server with this certificate and key, which answers what it has read of a request.
pub(crate) fn serve(
    (certificate, key): (&[u8], &[u8]),
    answer: impl Fn(&str) -> String + Send + 'static,
) -> Result<String> {
    let certificate = CertificateDer::from_pem_slice(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("https://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), Ok(tls)) = (stream, ServerConnection::new(Arc::clone(&config))) else { return };
            let mut stream = StreamOwned::new(tls, stream);
            let mut request = [0; 4096];
            // A sender that refuses the certificate ends the connection here.
            if let Ok(count @ 1..) = stream.read(&mut request) {
                _ = stream.write_all(answer(&String::from_utf8_lossy(&request[..count])).as_bytes());
                _ = stream.flush();
            }
        }
    });
    Ok(url)
}

/// How each attempt of the only delivery ended.
async fn outcomes(scene: &Scene) -> Result<Vec<String>> {
    let rows = scene.deliveries().await?;
    let attempts = rows.first().and_then(|row| row["attempts"]["L"].as_array());
    let outcome = |attempt: &Value| attempt["M"]["outcome"]["S"].as_str().unwrap_or_default().to_owned();
    Ok(attempts.into_iter().flatten().map(outcome).collect())
}

#[tokio::test]
async fn a_workspace_in_developer_mode_takes_any_certificate() -> Result<()> {
    let scene = Scene::set("certificates", &[("RetryScale", "0.001")]).await?;
    let endpoint = receiver()?;
    let body = json!({ "endpoint": endpoint, "subscriber": SUBSCRIBER, "types": ["consent:*"] });
    scene.carillon.subscribe_with(WORKSPACE, &body).await?;
    let _clock = scene.ring_clock();
    scene.publish(&event("e-1", "consent:created", &json!({}))).await?;
    eventually("an attempt that refuses the certificate", || async {
        let outcomes = outcomes(&scene).await?;
        Ok((!outcomes.is_empty()).then_some(()))
    })
    .await?;
    let settings = json!({ "settings": { "developerMode": true } });
    scene.carillon.patch(&format!("/v1/workspaces/{WORKSPACE}"), &settings).await?.expect_status(200)?;
    scene.all_deliveries(1, "delivered").await?;
    let outcomes = outcomes(&scene).await?;
    let (last, before) = outcomes.split_last().context("no attempts")?;
    assert!(before.iter().all(|outcome| outcome == "tls") && !before.is_empty(), "{outcomes:?}");
    assert_ne!(last, "tls");
    scene.end().await
}
