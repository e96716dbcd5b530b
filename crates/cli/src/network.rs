//! The one place where HTTP clients are made, and what every exchange has in common.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use url::{Host, Url};

use crate::failure::{Failure, Refusal, usage};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a whole exchange may take: longer than the longest that the API takes, a test event's 20 s.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(40);

/// An HTTP client. It follows no redirects, which would carry secrets elsewhere.
#[expect(
    clippy::disallowed_methods,
    reason = "the user's own requests: there is no inside to keep them from"
)]
pub(crate) fn client() -> Result<Client, Failure> {
    let client = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(EXCHANGE_TIMEOUT)
        .redirect(Policy::none())
        .build();
    client.map_err(|error| usage(format!("no HTTP client can be made: {error}")))
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// How long to wait, if the answer says (RFC 9110, section 10.2.3; as seconds alone, which is what the API and its
    /// gateway say).
    pub(crate) retry_after: Option<Duration>,
    /// What names the request in the log of whoever runs Carillon.
    pub(crate) request_id: Option<String>,
    /// The body, to its end.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer, unless it is a refusal.
    pub(crate) fn accepted(self) -> Result<Self, Failure> {
        let Self { status, request_id, body, .. } = self;
        if (200..300).contains(&status) {
            return Ok(Self { status, retry_after: None, request_id, body });
        }
        Err(Failure::Refused(Refusal { status, body, request_id }))
    }
}

/// Sends a request to somebody, and reads the answer.
pub(crate) async fn exchange(request: RequestBuilder, what: &str) -> Result<Answer, Failure> {
    let unreachable = |error: reqwest::Error| Failure::unreachable(what, &error.without_url());
    let response = request.send().await.map_err(unreachable)?;
    let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let request_id = header("x-request-id");
    let status = response.status().as_u16();
    let body = response.bytes().await.map_err(unreachable)?;
    Ok(Answer { status, retry_after, request_id, body })
}

/// A URL that secrets may be sent to: HTTPS, or on this machine.
pub(crate) fn secure_url(text: &str, what: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| usage(format!("{what} `{text}` {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => return Err(wrong("names no host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err(wrong("must begin with https://: secrets are sent there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_nowhere_in_clear() {
        for good in
            ["https://api.example.com", "http://localhost:4566/x", "http://127.0.0.1:1", "http://[::1]:1"]
        {
            assert!(secure_url(good, "the URL").is_ok(), "{good}");
        }
        for wrong in
            ["http://api.example.com", "ftp://localhost", "api.example.com", "/v1", "http://10.0.0.1"]
        {
            let failure = secure_url(wrong, "the URL").unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{wrong}");
        }
    }
}
