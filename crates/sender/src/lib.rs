//! The one sender: every outbound request is made here, and none of them can reach inside.
//!
//! An address is checked where the URL states it and in the resolver, whose answer is the one that is connected to, so
//! a name cannot stand for one address when it is checked and for another when it is used. Redirects are not followed,
//! proxies not used, cookies not kept, bodies not decompressed. Whatever a receiver does, a request ends within its time,
//! and takes no more memory than its bounds say.

mod clients;
mod failure;
mod identity;
mod resolver;
mod reuse;
mod validity;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::outcome::{Failure, Reply, retry_after};
use carillon_core::time::UnixMillis;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use crate::clients::Clients;
use crate::failure::failure;
pub use crate::identity::{CHAIN_MAX, ClientIdentity, NoIdentity};
use crate::resolver::GuardedResolver;
pub use crate::resolver::{Looking, Lookup, SystemLookup, Unresolved};

/// How long making a connection may take: look-up, TCP and TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the look-up of a name may take when an endpoint is written.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of an answer's body is read, in bytes. A body that was read leaves its connection fit for the next request.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// How long the body of an answer to a post is read. Its status has told how the post ended: a receiver that drips its
/// words holds nothing up.
pub const RESPONSE_TIME_MAX: Duration = Duration::from_secs(2);

/// The media type of a Security Event Token (RFC 8417, section 2.3), whose receivers refuse as RFC 8935 says.
const SECURITY_EVENT_TOKEN: &str = "application/secevent+jwt";

/// Makes outbound requests. Built once, since it holds the connections.
#[derive(Clone, Debug)]
pub struct Sender {
    clients: Arc<Clients>,
    resolver: GuardedResolver,
    rules: EndpointRules,
}

/// What is sent. It may hold secrets, so it has no `Debug`.
#[derive(Clone)]
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
    /// What is shown to a receiver that demands a client certificate.
    pub identity: Option<&'a ClientIdentity>,
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

/// What is posted. It may hold secrets, so it has no `Debug`.
#[derive(Clone)]
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
    /// What is shown to a receiver that demands a client certificate.
    pub identity: Option<&'a ClientIdentity>,
}

impl Sender {
    /// For a deployment with these rules.
    #[must_use]
    pub fn new(rules: &EndpointRules) -> Self {
        Self::with_lookup(rules, SystemLookup)
    }

    /// The same with another way to find the addresses of names: what it finds is guarded just so.
    #[must_use]
    pub fn with_lookup(rules: &EndpointRules, lookup: impl Lookup + 'static) -> Self {
        let resolver = GuardedResolver::new(lookup, rules.reach.clone());
        let clients = Arc::new(Clients::new(resolver.clone(), rules));
        Self { clients, resolver, rules: rules.clone() }
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
        let body_time = request.timeout;
        self.exchange(request, body_time).await
    }

    /// Posts, and tells how that ended. `now` is what dates in `Retry-After` are compared with.
    pub async fn post(&self, post: Post<'_>, now: UnixMillis) -> Reply {
        let Post { endpoint, headers, body, timeout, check_certificates, identity } = post;
        let is_token =
            headers.get(CONTENT_TYPE).is_some_and(|content_type| content_type == SECURITY_EVENT_TOKEN);
        let method = Method::POST;
        let request = Request { method, endpoint, headers, body, timeout, check_certificates, identity };
        match self.exchange(request, RESPONSE_TIME_MAX).await {
            Err(failure) => failure.into(),
            Ok(Answer { status, headers, body }) => {
                let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after = asked.and_then(|value| retry_after(value, now));
                let reply = if is_token { Reply::to_token } else { Reply::to_event };
                reply(status, retry_after, &body)
            }
        }
    }

    /// A request and its answer, of whose body what comes in this time is read.
    async fn exchange(&self, request: Request<'_>, body_time: Duration) -> Result<Answer, Failure> {
        let Request { method, endpoint, headers, body, timeout, check_certificates, identity } = request;
        let until = Instant::now() + timeout;
        if endpoint.address().is_some_and(|address| self.resolver.admit(address).is_err()) {
            return Err(Failure::Blocked);
        }
        let host = endpoint.url().authority();
        let client = self.clients.of(host, check_certificates, identity).map_err(|error| failure(&error))?;
        let mut request = reqwest::Request::new(method, endpoint.url().clone());
        *request.headers_mut() = headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let sent = timeout_at(until, reuse::send(&client, request)).await.map_err(|_| Failure::TimedOut)?;
        let mut answer = sent.map_err(|error| failure(&error))?;
        let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
        let body = read(answer, until.min(Instant::now() + body_time)).await;
        Ok(Answer { status, headers, body })
    }
}

/// Reads the body as far as its bounds. The status has said what counts most, so a body that breaks off is no failure.
async fn read(mut answer: reqwest::Response, until: Instant) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Ok(Some(chunk))) = timeout_at(until, answer.chunk()).await {
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
    use carillon_core::outcome::Outcome;
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
        let sender = Sender::new(&rules);
        let endpoint = Endpoint::stored(url).unwrap();
        let headers = HeaderMap::new();
        let post = Post {
            endpoint: &endpoint,
            headers,
            body: Bytes::from_static(b"{}"),
            timeout: Duration::from_millis(500),
            check_certificates: true,
            identity: None,
        };
        sender.post(post, UnixMillis(0)).await.outcome
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
            identity: None,
        };
        let answer = Sender::new(&rules).request(request).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (401, &b"short"[..]), "as far as it came");
        assert_eq!(answer.headers["x-why"], "because");
        let long = reqwest::Response::from(http::Response::new(vec![7; RESPONSE_BYTES_MAX + 1]));
        assert_eq!(read(long, Instant::now() + RESPONSE_TIME_MAX).await.len(), RESPONSE_BYTES_MAX);
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
