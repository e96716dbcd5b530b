//! Requests over HTTP/1.1, on connections that are kept: one pool of them for every service, and for the SDK's own calls.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, response};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::{CONNECT_TIMEOUT, Failed};

/// How long an idle connection is kept. AWS closes its own earlier.
const IDLE_KEPT: Duration = Duration::from_secs(90);

/// Made when the first call needs them: to read what the platform trusts takes milliseconds.
static SECURE: OnceLock<Transport> = OnceLock::new();
static PLAIN: OnceLock<Transport> = OnceLock::new();

/// What is sent.
pub(super) type Body = Full<Bytes>;

/// A client with its connections.
pub(super) struct Transport(Client<HttpsConnector<HttpConnector>, Body>);

impl Transport {
    /// For places that are reached by HTTPS, whose certificates must be such as the platform trusts, or for those that are
    /// reached by plain HTTP: a local stack.
    pub(super) fn to(is_secure: bool) -> Result<&'static Self, Failed> {
        let kept = if is_secure { &SECURE } else { &PLAIN };
        if let Some(transport) = kept.get() {
            return Ok(transport);
        }
        let made = Self::new(is_secure)?;
        Ok(kept.get_or_init(|| made))
    }

    fn new(is_secure: bool) -> Result<Self, Failed> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        if is_secure {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failed::Broken(Box::new(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = if is_secure { connector.https_only() } else { connector.https_or_http() };
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_idle_timeout(IDLE_KEPT);
        Ok(Self(client.build(connector.enable_http1().wrap_connector(tcp))))
    }

    /// Sends a request, and reads the answer to its end.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<(response::Parts, Bytes), Failed> {
        let answer = self.0.request(request).await.map_err(|error| Failed::Broken(Box::new(error)))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| Failed::Broken(Box::new(error)))?;
        Ok((head, body.to_bytes()))
    }
}
