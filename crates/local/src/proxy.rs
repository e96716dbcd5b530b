//! Stands between the functions and the local AWS: stops a chosen request at a chosen moment, or injects [`Faults`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{HeaderName, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{Reply, send};
use crate::faults::Faults;
use crate::process::{kill, process_behind};
use crate::stack::{Stack, root_authorization};

/// The services that functions reach through the proxy, as the SDK's environment variables name them.
const ROUTED_SERVICES: [&str; 3] =
    ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL_SQS"];

/// Headers that belong to one connection and not to the message.
const HOP_BY_HOP: [HeaderName; 2] = [http::header::CONNECTION, http::header::TRANSFER_ENCODING];

/// A proxy to the local AWS, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    plans: Arc<Plans>,
    server: JoinHandle<()>,
}

/// What is to be done to requests.
#[derive(Debug, Default)]
struct Plans {
    traps: Mutex<Vec<Set>>,
    faults: Mutex<Option<Arc<Faults>>>,
}

/// When a request is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the local AWS sees it.
    Before,
    /// After the local AWS has carried it out, and before the function hears of it.
    After,
}

impl Proxy {
    /// Starts one to the local AWS at this endpoint.
    pub async fn start(endpoint: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let plans = Arc::default();
        let server = tokio::spawn(serve(listener, endpoint.to_owned(), Arc::clone(&plans)));
        Ok(Self { address, plans, server })
    }

    /// Where it serves.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets one of the stack's functions reach tables and queues through this proxy only.
    pub async fn stand_before(&self, stack: &Stack, function: &str) -> Result<()> {
        let url = self.url();
        let variables = ROUTED_SERVICES.map(|name| (name, url.as_str()));
        stack.set_environment(function, &variables).await
    }

    /// Stops the next request of an action that begins so (`SendMessage`, for example) whose body holds this text.
    #[must_use]
    pub fn trap(&self, moment: Moment, action: &str, holding: &str) -> Trap {
        let (spring, caught) = oneshot::channel();
        let set = Set { moment, action: format!(".{action}"), holding: holding.to_owned(), spring };
        lock(&self.plans.traps).push(set);
        Trap { caught }
    }

    /// Injects these faults from now on, and no others.
    pub fn inject(&self, faults: Faults) -> Arc<Faults> {
        let faults = Arc::new(faults);
        *lock(&self.plans.faults) = Some(Arc::clone(&faults));
        faults
    }

    /// Injects nothing any more.
    pub fn calm(&self) {
        *lock(&self.plans.faults) = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A trap that waits for its request.
#[derive(Debug)]
pub struct Trap {
    caught: oneshot::Receiver<Held>,
}

impl Trap {
    /// Waits until the request came. Fails when that takes too long.
    pub async fn sprung(self, within: Duration) -> Result<Held> {
        timeout(within, self.caught)
            .await
            .with_context(|| format!("no such request within {within:?}"))?
            .context("the proxy ended")
    }
}

/// A request that is being held. It goes on when this is dropped.
#[derive(Debug)]
pub struct Held {
    /// Its body.
    pub body: Bytes,
    peer: SocketAddr,
    /// Dropped to let the request go on, or told to lose it.
    lose: oneshot::Sender<()>,
}

impl Held {
    /// Kills the function that sent it, and loses what was held: the request, or the answer.
    pub fn kill_sender(self) -> Result<()> {
        let process = process_behind(self.peer).context("no process is behind the request")?;
        kill(process)?;
        let _ = self.lose.send(());
        Ok(())
    }

    /// Loses what was held, the request or the answer: the function sees its connection end.
    pub fn lose(self) {
        let _ = self.lose.send(());
    }
}

#[derive(Debug)]
struct Set {
    moment: Moment,
    action: String,
    holding: String,
    spring: oneshot::Sender<Held>,
}

async fn serve(listener: TcpListener, upstream: String, plans: Arc<Plans>) {
    let upstream = Arc::<str>::from(upstream);
    while let Ok((stream, peer)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, peer, Arc::clone(&upstream), Arc::clone(&plans)));
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, upstream: Arc<str>, plans: Arc<Plans>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| pass_on(request, peer, Arc::clone(&upstream), Arc::clone(&plans)));
    // An error is a function that went away, or a request that was meant to be lost.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn pass_on(
    request: http::Request<Incoming>,
    peer: SocketAddr,
    upstream: Arc<str>,
    plans: Arc<Plans>,
) -> Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let passage = Passage { upstream: &upstream, peer, parts, body: body.collect().await?.to_bytes() };
    let set = take_trap(&plans.traps, passage.target(), &passage.body);
    let (before, after) = match set {
        Some(set) if set.moment == Moment::Before => (Some(set), None),
        set => (None, set),
    };

    hold(before, &passage).await?;
    let faults = lock(&plans.faults).clone();
    let reply = match faults {
        Some(faults) => faults.pass(&passage).await?,
        None => passage.forward().await?,
    };
    hold(after, &passage).await?;
    Ok(response(reply))
}

/// A request on its way through the proxy.
pub(crate) struct Passage<'a> {
    upstream: &'a str,
    peer: SocketAddr,
    parts: http::request::Parts,
    body: Bytes,
}

impl Passage<'_> {
    /// Service and action, `AmazonSQS.SendMessage` for example.
    pub(crate) fn target(&self) -> &str {
        let target = self.parts.headers.get("x-amz-target");
        target.and_then(|target| target.to_str().ok()).unwrap_or_default()
    }

    /// Its body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Has the local AWS carry it out, as it came.
    pub(crate) async fn forward(&self) -> Result<Reply> {
        send(self.request(self.body.to_vec())?).await
    }

    /// Has the local AWS carry out another one in its place. Nobody has signed that, so it goes as the account's root.
    pub(crate) async fn forward_instead(&self, service: &str, input: &serde_json::Value) -> Result<Reply> {
        let mut request = self.request(serde_json::to_vec(input)?)?;
        let headers = request.headers_mut();
        headers.remove(http::header::CONTENT_LENGTH);
        headers.remove("x-amz-security-token");
        headers.insert(http::header::AUTHORIZATION, root_authorization(service).try_into()?);
        send(request).await
    }

    /// Ends the process that sent it.
    pub(crate) fn kill_sender(&self) -> Result<()> {
        kill(process_behind(self.peer).context("no process is behind the request")?)
    }

    fn request(&self, body: Vec<u8>) -> Result<http::Request<Vec<u8>>> {
        let mut parts = self.parts.clone();
        // The Host header stays as it was signed.
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("{}{path}", self.upstream).parse()?;
        for name in HOP_BY_HOP {
            parts.headers.remove(name);
        }
        Ok(http::Request::from_parts(parts, body))
    }
}

fn take_trap(traps: &Mutex<Vec<Set>>, target: &str, body: &[u8]) -> Option<Set> {
    let body = String::from_utf8_lossy(body);
    let mut traps = lock(traps);
    let position =
        traps.iter().position(|set| target.contains(&set.action) && body.contains(&set.holding))?;
    Some(traps.remove(position))
}

async fn hold(set: Option<Set>, passage: &Passage<'_>) -> Result<()> {
    let Some(set) = set else { return Ok(()) };
    let (lose, told) = oneshot::channel();
    // A trap that nobody waits for any more holds nothing.
    let _ = set.spring.send(Held { body: passage.body.clone(), peer: passage.peer, lose });
    if told.await.is_ok() {
        bail!("lost, as told");
    }
    Ok(())
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap_or_default();
    *response.headers_mut() = reply.headers;
    for name in HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    response
}

/// A test that failed while it held the lock has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::{Answer, Receiver};

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Scene {
        upstream: Receiver,
        proxy: Proxy,
    }

    impl Scene {
        async fn set() -> Self {
            let upstream = Receiver::start().await.unwrap();
            upstream.answer("/", [Answer::status(202).header("x-seen", "yes")]);
            let proxy = Proxy::start(&upstream.url("")).await.unwrap();
            Self { upstream, proxy }
        }

        fn call(&self, action: &str, body: &str) -> JoinHandle<Result<Reply>> {
            let request = http::Request::post(format!("http://{}/", self.proxy.address))
                .header("x-amz-target", format!("AmazonSQS.{action}"))
                .body(body.as_bytes().to_vec())
                .unwrap();
            tokio::spawn(send(request))
        }
    }

    #[tokio::test]
    async fn passes_everything_on_unchanged() {
        let scene = Scene::set().await;
        let reply = scene.call("SendMessage", "{}").await.unwrap().unwrap();
        assert_eq!((reply.status, reply.headers["x-seen"].as_bytes()), (202, b"yes".as_slice()));
        let received = scene.upstream.received("/");
        assert_eq!(received[0].header("x-amz-target"), "AmazonSQS.SendMessage");
        assert_eq!(received[0].header("host"), scene.proxy.address.to_string());
        assert_eq!(received[0].body, "{}");
    }

    #[tokio::test]
    async fn holds_only_what_it_is_to_hold() {
        let scene = Scene::set().await;
        let trap = scene.proxy.trap(Moment::Before, "SendMessage", "second");
        assert!(scene.call("SendMessageBatch", "first").await.unwrap().is_ok());
        assert!(scene.call("ReceiveMessage", "second").await.unwrap().is_ok());
        let call = scene.call("SendMessageBatch", "second");
        let held = trap.sprung(PATIENCE).await.unwrap();
        assert_eq!(scene.upstream.received("/").len(), 2, "the third is not there yet");
        assert_eq!(process_behind(held.peer), Some(std::process::id()));
        drop(held);
        assert_eq!(call.await.unwrap().unwrap().status, 202);
        assert!(scene.call("SendMessageBatch", "second").await.unwrap().is_ok(), "a trap springs once");
    }

    #[tokio::test]
    async fn loses_a_request_or_its_answer() {
        let scene = Scene::set().await;
        for (moment, reached) in [(Moment::Before, 0), (Moment::After, 1)] {
            let trap = scene.proxy.trap(moment, "SendMessage", "");
            let call = scene.call("SendMessage", "{}");
            trap.sprung(PATIENCE).await.unwrap().lose();
            assert!(call.await.unwrap().is_err());
            assert_eq!(scene.upstream.received("/").len(), reached);
        }
    }
}
