//! The one sender: every outbound request is made here, and none of them can reach inside.
//!
//! An address is checked where the URL states it and in the resolver, whose answer is the one that is connected to, so
//! a name cannot stand for one address when it is checked and for another when it is used. Redirects are not followed,
//! proxies not used, cookies not kept.

mod resolver;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use carillon_core::address::Reach;
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::outcome::{Failure, Outcome, retry_after};
use carillon_core::time::UnixMillis;
use http::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;

use crate::resolver::{GuardedResolver, NotResolved};

/// How long making a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an answer's body is read, in bytes. Its content does not matter, but a body that was read leaves its
/// connection fit for the next request.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// How long an idle connection is kept. Longer, and most would be closed by the other side while the function is frozen.
const IDLE_KEPT: Duration = Duration::from_secs(50);

const USER_AGENT: &str = concat!("Carillon/", env!("CARGO_PKG_VERSION"));

/// Makes outbound requests. Built once, since it holds the connections.
#[derive(Clone, Debug)]
pub struct Sender {
    client: reqwest::Client,
    reach: Reach,
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
}

/// The sender cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built")]
pub struct NotBuilt(#[from] reqwest::Error);

impl Sender {
    /// For a deployment with these rules.
    #[expect(clippy::disallowed_methods, reason = "the one place where an HTTP client is built")]
    pub fn new(rules: &EndpointRules) -> Result<Self, NotBuilt> {
        let client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_KEPT)
            .https_only(!rules.allow_insecure)
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(GuardedResolver::new(rules.reach.clone()))
            .build()?;
        Ok(Self { client, reach: rules.reach.clone() })
    }

    /// Posts, and tells how that ended. `now` is what dates in `Retry-After` are compared with.
    pub async fn post(&self, post: Post<'_>, now: UnixMillis) -> Outcome {
        if post.endpoint.address().is_some_and(|address| !self.reach.permits(address)) {
            return Outcome::Unanswered(Failure::Blocked);
        }
        let request = self.client.post(post.endpoint.url().clone()).headers(post.headers).body(post.body);
        match request.timeout(post.timeout).send().await {
            Err(error) => Outcome::Unanswered(failure(&error)),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after = asked.and_then(|value| retry_after(value, now));
                drain(answer).await;
                Outcome::Answered { status, retry_after }
            }
        }
    }
}

/// Reads the body as far as that is worth it. The status has said all that counts, so a failure here is none.
async fn drain(mut answer: reqwest::Response) {
    let mut left = RESPONSE_BYTES_MAX;
    while let Ok(Some(chunk)) = answer.chunk().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            return;
        }
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    if let Some(not_resolved) = cause::<NotResolved>(error) {
        return match not_resolved {
            NotResolved::Inside(_) => Failure::Blocked,
            NotResolved::NoAddress(_) => Failure::Dns,
        };
    }
    if error.is_timeout() {
        Failure::TimedOut
    } else if cause::<rustls::Error>(error).is_some() {
        Failure::Tls
    } else if error.is_builder() {
        // Plain HTTP where the deployment forbids it.
        Failure::Blocked
    } else if error.is_connect() {
        Failure::Unreachable
    } else {
        Failure::Broken
    }
}

/// The first error of this type among the causes, those that hide in an [`std::io::Error`] included.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| cause::<T>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
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
