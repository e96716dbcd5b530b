//! The one sender: every outbound request is made here, and none of them can reach inside.
//!
//! An address is checked where the URL states it and in the resolver, whose answer is the one that is connected to, so
//! a name cannot stand for one address when it is checked and for another when it is used. Redirects are not followed,
//! proxies not used, cookies not kept.

mod failure;
mod resolver;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::outcome::{Failure, Outcome, retry_after};
use carillon_core::time::UnixMillis;
use http::Method;
use http::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;

use crate::failure::failure;
use crate::resolver::GuardedResolver;
pub use crate::resolver::{Looking, Lookup, SystemLookup, Unresolved};

/// How long making a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the look-up of a name may take when an endpoint is written.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of an answer's body is read, in bytes. A body that was read leaves its connection fit for the next request.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// How long an idle connection is kept. Longer, and most would be closed by the other side while the function is frozen.
const IDLE_KEPT: Duration = Duration::from_secs(50);

const USER_AGENT: &str = concat!("Carillon/", env!("CARGO_PKG_VERSION"));

/// Makes outbound requests. Built once, since it holds the connections.
#[derive(Clone, Debug)]
pub struct Sender {
    client: reqwest::Client,
    /// Takes whatever certificate a receiver shows. Only deployments for tests have it, those that allow plain HTTP too.
    unchecked: Option<reqwest::Client>,
    resolver: GuardedResolver,
    rules: EndpointRules,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// How.
    pub method: Method,
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// With what headers.
    pub headers: HeaderMap,
    /// Empty for none.
    pub body: Bytes,
    /// How long the whole request may take, the answer's body included.
    pub timeout: Duration,
    /// Whether the receiver's certificate must be valid and its own. A deployment that demands HTTPS checks it whatever
    /// is said here.
    pub check_certificates: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status, redirects included.
    pub status: u16,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The first [`RESPONSE_BYTES_MAX`] bytes of the body, fewer if it broke off.
    pub body: Bytes,
}

/// What is posted.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// With what headers.
    pub headers: HeaderMap,
    /// The very bytes that were signed.
    pub body: Bytes,
    /// How long the whole request may take, the answer's body included.
    pub timeout: Duration,
    /// Whether the receiver's certificate must be valid and its own. A deployment that demands HTTPS checks it whatever
    /// is said here.
    pub check_certificates: bool,
}

/// The sender cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built")]
pub struct NotBuilt(#[from] reqwest::Error);

impl Sender {
    /// For a deployment with these rules.
    pub fn new(rules: &EndpointRules) -> Result<Self, NotBuilt> {
        Self::with_lookup(rules, SystemLookup)
    }

    /// The same with another way to find the addresses of names: what it finds is guarded just so.
    pub fn with_lookup(rules: &EndpointRules, lookup: impl Lookup + 'static) -> Result<Self, NotBuilt> {
        let resolver = GuardedResolver::new(lookup, rules.reach.clone());
        let client = guarded(&resolver, rules).build()?;
        let unchecked = rules
            .allow_insecure
            .then(|| guarded(&resolver, rules).tls_danger_accept_invalid_certs(true).build());
        Ok(Self { client, unchecked: unchecked.transpose()?, resolver, rules: rules.clone() })
    }

    /// The deployment's rules, for endpoints that are found on the way.
    #[must_use]
    pub fn rules(&self) -> &EndpointRules {
        &self.rules
    }

    /// Looks up where an endpoint leads at this moment, for at most [`LOOKUP_TIMEOUT`]: the check when it is written.
    /// It leads elsewhere whenever its owner likes, so each request checks anew.
    pub async fn resolves(&self, endpoint: &Endpoint) -> Result<(), Unresolved> {
        if let Some(address) = endpoint.address() {
            return self.resolver.admit(address);
        }
        let name = endpoint.url().host_str().unwrap_or_default();
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, self.resolver.addresses(name)).await;
        found.unwrap_or_else(|elapsed| Err(Unresolved::NoAddress(Some(elapsed.into())))).map(drop)
    }

    /// Sends a request, and tells what came back.
    pub async fn request(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let Request { method, endpoint, headers, body, timeout, check_certificates } = request;
        if endpoint.address().is_some_and(|address| self.resolver.admit(address).is_err()) {
            return Err(Failure::Blocked);
        }
        let client = self.unchecked.as_ref().filter(|_| !check_certificates).unwrap_or(&self.client);
        let request = client.request(method, endpoint.url().clone()).headers(headers).timeout(timeout);
        let request = if body.is_empty() { request } else { request.body(body) };
        let mut answer = request.send().await.map_err(|error| failure(&error))?;
        let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
        Ok(Answer { status, headers, body: read(answer).await })
    }

    /// Posts, and tells how that ended. `now` is what dates in `Retry-After` are compared with.
    pub async fn post(&self, post: Post<'_>, now: UnixMillis) -> Outcome {
        let Post { endpoint, headers, body, timeout, check_certificates } = post;
        let method = Method::POST;
        match self.request(Request { method, endpoint, headers, body, timeout, check_certificates }).await {
            Err(failure) => Outcome::Unanswered(failure),
            Ok(answer) => {
                let asked = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after = asked.and_then(|value| retry_after(value, now));
                Outcome::Answered { status: answer.status, retry_after }
            }
        }
    }
}

/// What all requests have in common.
#[expect(clippy::disallowed_methods, reason = "the one place where an HTTP client is built")]
fn guarded(resolver: &GuardedResolver, rules: &EndpointRules) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_KEPT)
        .https_only(!rules.allow_insecure)
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(resolver.clone())
}

/// Reads the body as far as its bound. The status has said what counts most, so a body that breaks off is no failure.
async fn read(mut answer: reqwest::Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        let left = RESPONSE_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if body.len() == RESPONSE_BYTES_MAX {
            break;
        }
    }
    body.freeze()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with these bytes; `None` closes it without a word.
    async fn receiver(answer: Option<&'static [u8]>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                if let Some(answer) = answer {
                    let _ = stream.write_all(answer).await;
                    // Held open: an answer that promises more than it brings must run into the time-out.
                    tokio::spawn(
                        async move { while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {} },
                    );
                }
            }
        });
        url
    }

    async fn outcome(url: &str, opened: &str, allow_insecure: bool) -> Outcome {
        let rules = EndpointRules { reach: opened.parse().unwrap(), allow_insecure };
        let sender = Sender::new(&rules).unwrap();
        let endpoint = Endpoint::stored(url).unwrap();
        let headers = HeaderMap::new();
        let post = Post {
            endpoint: &endpoint,
            headers,
            body: Bytes::from_static(b"{}"),
            timeout: Duration::from_millis(500),
            check_certificates: true,
        };
        sender.post(post, UnixMillis(0)).await
    }

    async fn answered(answer: &'static [u8]) -> Outcome {
        outcome(&receiver(Some(answer)).await, "127.0.0.0/8", true).await
    }

    fn status(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Answered { status, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[tokio::test]
    async fn answers_are_told_as_they_are() {
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").await, status(204, None));
        assert_eq!(
            answered(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").await,
            status(429, Some(7))
        );
        assert_eq!(
            answered(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
                .await,
            status(302, None),
            "a redirect is not followed"
        );
        assert_eq!(
            answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal").await,
            status(200, None),
            "a body that never ends does not undo the status"
        );
    }

    #[tokio::test]
    async fn failures_have_their_class() {
        let unanswered = Outcome::Unanswered;
        assert_eq!(answered(b"").await, unanswered(Failure::TimedOut));
        assert_eq!(answered(b"SMTP ready\r\n\r\n").await, unanswered(Failure::Broken));
        let silent = receiver(None).await;
        assert_eq!(outcome(&silent, "127.0.0.0/8", true).await, unanswered(Failure::Broken));
        let tls = silent.replace("http:", "https:");
        assert_eq!(outcome(&tls, "127.0.0.0/8", true).await, unanswered(Failure::Unreachable));
        let plain = receiver(Some(b"HTTP/1.1 200 OK\r\n\r\n")).await.replace("http:", "https:");
        assert_eq!(outcome(&plain, "127.0.0.0/8", false).await, unanswered(Failure::Tls));
        assert_eq!(
            outcome("http://127.0.0.1:1/", "127.0.0.0/8", true).await,
            unanswered(Failure::Unreachable)
        );
        assert_eq!(outcome("https://name.invalid/", "", false).await, unanswered(Failure::Dns));
    }

    #[tokio::test]
    async fn an_answer_is_told_whole_up_to_its_bound() {
        let url =
            receiver(Some(b"HTTP/1.1 401 No\r\nX-Why: because\r\nContent-Length: 70000\r\n\r\nshort")).await;
        let endpoint = Endpoint::stored(&url).unwrap();
        let rules = EndpointRules { reach: "127.0.0.0/8".parse().unwrap(), allow_insecure: true };
        let request = Request {
            method: Method::OPTIONS,
            endpoint: &endpoint,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_millis(500),
            check_certificates: true,
        };
        let answer = Sender::new(&rules).unwrap().request(request).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (401, &b"short"[..]), "as far as it came");
        assert_eq!(answer.headers["x-why"], "because");
        let long = reqwest::Response::from(http::Response::new(vec![7; RESPONSE_BYTES_MAX + 1]));
        assert_eq!(read(long).await.len(), RESPONSE_BYTES_MAX);
    }

    #[tokio::test]
    async fn nothing_inside_is_reached() {
        let inside = receiver(Some(b"HTTP/1.1 200 OK\r\n\r\n")).await;
        let by_name = inside.replace("127.0.0.1", "localhost");
        for url in [&inside, &by_name] {
            assert_eq!(outcome(url, "", true).await, Outcome::Unanswered(Failure::Blocked), "{url}");
        }
        let insecure = outcome(&inside, "127.0.0.0/8", false).await;
        assert_eq!(insecure, Outcome::Unanswered(Failure::Blocked), "plain HTTP where only HTTPS is allowed");
    }
}
