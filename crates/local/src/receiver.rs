//! A subscriber's HTTP server that remembers what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use standardwebhooks::Webhook;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A receiver on a free port of this machine, until it is dropped.
///
/// Each path is a receiver of its own: with its own secret, its own script and its own memory.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    changes: watch::Receiver<usize>,
    server: JoinHandle<()>,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was read to its end.
    pub at: Instant,
    /// The sender's end of the connection, by which its process can be found.
    pub peer: SocketAddr,
    /// The path that it was sent to.
    pub path: String,
    /// Its method.
    pub method: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// What the official library says of its signature.
    pub verdict: Verdict,
    /// The status that it is answered with, unless it gets no answer.
    pub answer: Option<u16>,
}

impl Received {
    /// A header's value; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The delivery's id, the same on every attempt.
    #[must_use]
    pub fn webhook_id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What the official Standard Webhooks library says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The path has no secret to verify with.
    NotAsked,
    /// The signature is right.
    Verified,
    /// It is not, and this is why.
    Refused(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => formatter.write_str("signature not checked"),
            Self::Verified => formatter.write_str("signature verified"),
            Self::Refused(reason) => write!(formatter, "SIGNATURE REFUSED: {reason}"),
        }
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    after: Duration,
    reply: Option<(StatusCode, Vec<(&'static str, String)>)>,
    body: Bytes,
    hangs: bool,
}

impl Answer {
    /// With this status, at once.
    ///
    /// # Panics
    ///
    /// When there is no such status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let Ok(status) = StatusCode::from_u16(status) else { panic!("there is no status {status}") };
        Self { after: Duration::ZERO, reply: Some((status, Vec::new())), body: Bytes::new(), hangs: false }
    }

    /// By ending the connection without a word.
    #[must_use]
    pub fn close() -> Self {
        Self { after: Duration::ZERO, reply: None, body: Bytes::new(), hangs: false }
    }

    /// Never, while the connection stays open.
    #[must_use]
    pub fn hang() -> Self {
        Self { after: Duration::ZERO, reply: None, body: Bytes::new(), hangs: true }
    }

    /// The same, but only after a while.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// The same, with a body in JSON.
    #[must_use]
    pub fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = Bytes::from(body.to_string());
        self.header("content-type", "application/json")
    }

    /// The same, with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Some((_, headers)) = &mut self.reply {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

impl Receiver {
    /// Starts one. It answers 204 until told otherwise.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (announce, changes) = watch::channel(0);
        let state = Arc::new(State { paths: Mutex::default(), log: Mutex::default(), announce });
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, state, changes, server })
    }

    /// The URL of one of its paths, which starts with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Verifies what comes to this path from now on with this secret (`whsec_...`).
    pub fn trust(&self, path: &str, secret: &str) {
        lock(&self.state.paths).entry(path.to_owned()).or_default().secret = Some(secret.to_owned());
    }

    /// Answers the next requests to this path so, in this order, and all that follow like the last.
    pub fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.state.paths).entry(path.to_owned()).or_default().answers = answers.into_iter().collect();
    }

    /// Everything that came to this path so far.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<Received> {
        lock(&self.state.log).iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Everything that came to any path, from the given position on.
    #[must_use]
    pub fn received_since(&self, position: usize) -> Vec<Received> {
        lock(&self.state.log).iter().skip(position).cloned().collect()
    }

    /// Waits until more than this many requests came in all.
    pub async fn more_than(&self, count: usize) {
        // The sender lives as long as this receiver, so waiting cannot fail.
        let _ = self.changes.clone().wait_for(|seen| *seen > count).await;
    }

    /// Waits until so many requests came to this path, and gives them. Fails when that takes too long.
    pub async fn wait_for(&self, path: &str, count: usize, within: Duration) -> Result<Vec<Received>> {
        self.wait_until(path, within, |received| received.len() >= count)
            .await
            .map_err(|error| error.context(format!("waiting for {count} requests")))
    }

    /// Waits until what came to this path fulfils a condition, and gives it. Fails when that takes too long.
    pub async fn wait_until(
        &self,
        path: &str,
        within: Duration,
        fulfilled: impl Fn(&[Received]) -> bool,
    ) -> Result<Vec<Received>> {
        let mut changes = self.changes.clone();
        let waited = timeout(within, changes.wait_for(|_| fulfilled(&self.received(path)))).await;
        let received = self.received(path);
        if waited.is_err() {
            bail!("{path} received {} requests within {within:?}", received.len());
        }
        Ok(received)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
struct State {
    paths: Mutex<BTreeMap<String, PathState>>,
    log: Mutex<Vec<Received>>,
    announce: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct PathState {
    secret: Option<String>,
    answers: VecDeque<Answer>,
}

impl State {
    /// Remembers a request and says how to answer it.
    fn take(&self, peer: SocketAddr, parts: &http::request::Parts, body: Bytes) -> Answer {
        let path = parts.uri.path().to_owned();
        let mut paths = lock(&self.paths);
        let known = paths.entry(path.clone()).or_default();
        let verdict = known.secret.as_deref().map_or(Verdict::NotAsked, |secret| {
            let verified = Webhook::new(secret).and_then(|webhook| webhook.verify(&body, &parts.headers));
            verified.map_or_else(|error| Verdict::Refused(error.to_string()), |()| Verdict::Verified)
        });
        let answer =
            if known.answers.len() > 1 { known.answers.pop_front() } else { known.answers.front().cloned() };
        let answer = answer.unwrap_or_else(|| Answer::status(204));
        drop(paths);

        let mut log = lock(&self.log);
        log.push(Received {
            at: Instant::now(),
            peer,
            path,
            method: parts.method.to_string(),
            headers: parts.headers.clone(),
            body,
            verdict,
            answer: answer.reply.as_ref().map(|(status, _)| status.as_u16()),
        });
        self.announce.send_replace(log.len());
        answer
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, peer)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, peer, Arc::clone(&state)));
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: http::Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let answer = state.take(peer, &parts, body);
            drop(state);
            reply(answer).await
        }
    });
    // An error is a sender that went away, or an answer that was meant to be none.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn reply(answer: Answer) -> Result<Response<Full<Bytes>>> {
    sleep(answer.after).await;
    if answer.hangs {
        std::future::pending::<()>().await;
    }
    let Some((status, headers)) = answer.reply else { bail!("closed, as scripted") };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    Ok(response)
}

/// A test that failed while it held the lock has failed already; what it left is still worth reading.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::send;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A request with the signature of this body.
    fn request(url: &str, signed: &str, body: &str) -> http::Request<Vec<u8>> {
        #[expect(clippy::disallowed_methods, reason = "the receiver compares with the real time")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let signature = Webhook::new(SECRET)
            .and_then(|webhook| webhook.sign("dlv_1", i64::try_from(now).unwrap(), signed.as_bytes()))
            .unwrap();
        http::Request::post(url)
            .header("webhook-id", "dlv_1")
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body.as_bytes().to_vec())
            .unwrap()
    }

    #[tokio::test]
    async fn verifies_what_it_can() {
        let receiver = Receiver::start().await.unwrap();
        receiver.trust("/inbox", SECRET);
        for (path, body) in [("/inbox", "{}"), ("/inbox", "{ }"), ("/other", "{}")] {
            let reply = send(request(&receiver.url(path), "{}", body)).await.unwrap();
            assert_eq!(reply.status, 204);
        }
        let received = receiver.wait_for("/inbox", 2, PATIENCE).await.unwrap();
        assert_eq!(received[0].verdict, Verdict::Verified);
        assert!(matches!(received[1].verdict, Verdict::Refused(_)));
        assert_eq!(receiver.received("/other")[0].verdict, Verdict::NotAsked);
    }

    #[tokio::test]
    async fn answers_as_told() {
        let receiver = Receiver::start().await.unwrap();
        let url = receiver.url("/inbox");
        receiver.answer(
            "/inbox",
            [Answer::status(429).header("retry-after", "7"), Answer::close(), Answer::status(200)],
        );
        let busy = send(request(&url, "{}", "{}")).await.unwrap();
        assert_eq!((busy.status, busy.headers["retry-after"].as_bytes()), (429, b"7".as_slice()));
        assert!(send(request(&url, "{}", "{}")).await.is_err());
        for _ in 0..2 {
            assert_eq!(send(request(&url, "{}", "{}")).await.unwrap().status, 200);
        }

        receiver.answer("/inbox", [Answer::hang()]);
        let hanging = tokio::spawn(send(request(&url, "{}", "{}")));
        receiver.wait_for("/inbox", 5, PATIENCE).await.unwrap();
        assert!(!hanging.is_finished());
        hanging.abort();
    }

    #[tokio::test]
    async fn waits_no_longer_than_told() {
        let receiver = Receiver::start().await.unwrap();
        let error = receiver.wait_for("/inbox", 1, Duration::from_millis(20)).await.unwrap_err();
        assert!(format!("{error:#}").contains("/inbox received 0 requests"), "{error:#}");
    }
}
