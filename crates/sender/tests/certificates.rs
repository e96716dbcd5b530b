//! Certificates that nobody vouches for: refused, but where a deployment for tests lets a workspace take them.
//!
//! The key beside this file is a test's. It opens nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::outcome::{Failure, Outcome};
use carillon_core::time::UnixMillis;
use carillon_sender::{Post, Request, Sender};
use http::{HeaderMap, Method};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Issued by itself, for another name than the receiver's.
const CERTIFICATE: &[u8] = include_bytes!("tls/test_certificate.pem");
const KEY: &[u8] = include_bytes!("tls/test_key.pem");

/// Answers every request over TLS.
fn receiver() -> Endpoint {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream =
                StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap());
            // A sender that refuses the certificate ends the connection here.
            if stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            }
        }
    });
    Endpoint::stored(&url).unwrap()
}

async fn outcomes(endpoint: &Endpoint, allow_insecure: bool, check_certificates: bool) -> [Outcome; 2] {
    let rules = EndpointRules { reach: "127.0.0.0/8".parse().unwrap(), allow_insecure };
    let sender = Sender::new(&rules);
    let (headers, body, timeout) = (HeaderMap::new(), Bytes::from_static(b"{}"), Duration::from_secs(10));
    let post = Post {
        endpoint,
        headers: headers.clone(),
        body: body.clone(),
        timeout,
        check_certificates,
        identity: None,
    };
    let posted = sender.post(post, UnixMillis(0)).await.outcome;
    let request = Request {
        method: Method::POST,
        endpoint,
        headers,
        body,
        timeout,
        check_certificates,
        identity: None,
    };
    let requested = match sender.request(request).await {
        Ok(answer) => Outcome::Answered { status: answer.status, retry_after: None },
        Err(failure) => Outcome::Unanswered(failure),
    };
    [posted, requested]
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_unless_that_is_allowed() {
    let endpoint = receiver();
    let refused = [Outcome::Unanswered(Failure::Tls); 2];
    let answered = [Outcome::Answered { status: 204, retry_after: None }; 2];
    assert_eq!(outcomes(&endpoint, true, true).await, refused);
    assert_eq!(outcomes(&endpoint, true, false).await, answered);
    assert_eq!(
        outcomes(&endpoint, false, false).await,
        refused,
        "a deployment that demands HTTPS always checks"
    );
}
