//! One plain HTTP request at a time, for talking with what runs on this machine.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{HeaderMap, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer here takes: a request that waits longer has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// A request whose body is at hand.
pub type Request = http::Request<Vec<u8>>;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Fails, with the body told, unless the status is the expected one.
    pub fn expect_status(self, status: u16) -> Result<Self> {
        if self.status != status {
            bail!("answered {} where {status} was due: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        Ok(self)
    }
}

/// Sends a request over a connection of its own, so that nothing is left behind when a runtime ends.
pub async fn send(request: Request) -> Result<Reply> {
    let target = request.uri().clone();
    let told = format!("{} {target}", request.method());
    timeout(ANSWER_TIMEOUT, exchange(request, &target))
        .await
        .with_context(|| format!("{told}: no answer within {ANSWER_TIMEOUT:?}"))?
        .with_context(|| told)
}

async fn exchange(request: Request, target: &Uri) -> Result<Reply> {
    let authority = target.authority().context("the URL names no host")?.as_str();
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);

    let (mut parts, body) = request.into_parts();
    parts.headers.entry(http::header::HOST).or_insert(authority.parse()?);
    parts.uri = target.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let response = sender.send_request(http::Request::from_parts(parts, Full::<Bytes>::from(body))).await?;
    let (parts, body) = response.into_parts();
    let reply = Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
    };
    connection.abort();
    Ok(reply)
}
