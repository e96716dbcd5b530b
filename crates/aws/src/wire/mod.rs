//! The calls that every delivery makes, without the SDK's orchestrator: that takes half of what a delivery costs, for
//! the sake of choices that are never made here.
//!
//! [`DynamoDb`] and [`Sqs`] are the SDK's clients, with the hot calls beside them. These keep what matters of the SDK:
//! its configuration, credentials (of whatever provider, refreshed before they expire) and endpoints; time-outs; three
//! tries with pauses between them; the correction of a clock that is wrong. Requests are those of AWS's JSON protocol,
//! signed by [`sign`], over HTTP/1.1 by [`transport`].

mod attributes;
mod dynamodb;
mod inserts;
mod item;
mod place;
mod retry;
mod sdk;
mod sign;
mod sqs;
mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use aws_config::SdkConfig;
use bytes::Bytes;
use carillon_core::time::UnixMillis;
use http::header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use self::place::Place;
use self::retry::{Budget, Cause};
use self::sign::{Identities, Signed};
use self::transport::Transport;
use crate::error::AwsError;
use crate::{CALL_TIMEOUT, TRY_TIMEOUT, now};

pub use self::dynamodb::DynamoDb;
pub(crate) use self::dynamodb::Put;
pub(crate) use self::sdk::SdkTransport;
pub(crate) use self::sqs::Entry;
pub use self::sqs::Sqs;

const X_AMZ_TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const AUTHORIZATION: HeaderName = http::header::AUTHORIZATION;

/// How long making a connection may take: as long as the SDK gives it, so that a try has time for its answer.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// Where Lambda tells to which trace a run belongs.
const TRACE_VARIABLE: &str = "_X_AMZN_TRACE_ID";

/// A service as its protocol has it.
#[derive(Debug)]
struct Service {
    /// What signatures are made for.
    signing_name: &'static str,
    /// What configuration calls it.
    id: &'static str,
    content_type: HeaderValue,
    /// Where its endpoint is when none is configured.
    endpoint: fn(&SdkConfig) -> Option<String>,
}

/// An operation of a service.
#[derive(Debug)]
struct Operation {
    /// For errors and logs: service and operation.
    name: &'static str,
    /// As the protocol names it.
    target: &'static str,
}

/// Calls to one service.
#[derive(Clone)]
struct Wire(Arc<Inner>);

struct Inner {
    service: &'static Service,
    config: SdkConfig,
    identities: Identities,
    reached: OnceCell<Reached>,
    /// How far the service's clock is ahead of ours, in seconds, if that once was too much.
    skew: AtomicI64,
    budget: Budget,
}

/// Where calls go. Found at the first one, since a function that makes none should not wait for it.
struct Reached {
    place: Place,
    transport: &'static Transport,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("there was no answer in time")]
    TimedOut,
    #[error("the request could not be sent or its answer not be read")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Refused(Refusal),
    #[error("there are no credentials")]
    NoCredentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("there is no endpoint: {0}")]
    NoEndpoint(&'static str),
    #[error("the answer makes no sense")]
    Senseless(#[source] serde_json::Error),
}

/// An answer other than success.
#[derive(thiserror::Error)]
#[error("{name} ({status}): {message}")]
struct Refusal {
    status: u16,
    /// The error's name, as the service's documentation has it.
    name: String,
    message: String,
    /// It may hold an item, so it is in no `Debug`.
    body: Bytes,
    /// Whether the clock was wrong and is put right now.
    skewed: bool,
}

impl Wire {
    fn new(service: &'static Service, config: &SdkConfig) -> Self {
        Self(Arc::new(Inner {
            service,
            config: config.clone(),
            identities: Identities::new(config.credentials_provider()),
            reached: OnceCell::new(),
            skew: AtomicI64::new(0),
            budget: Budget::default(),
        }))
    }

    /// Makes a call, with all its tries; what came back is JSON.
    async fn call(&self, operation: &Operation, body: Vec<u8>) -> Result<Bytes, Failed> {
        let body = Bytes::from(body);
        timeout(CALL_TIMEOUT, self.tries(operation, &body)).await.unwrap_or(Err(Failed::TimedOut))
    }

    /// Makes a call that is tried once, since something else follows if it fails.
    async fn call_once(&self, operation: &Operation, body: Vec<u8>) -> Result<Bytes, Failed> {
        timeout(TRY_TIMEOUT, self.once(operation, body.into())).await.unwrap_or(Err(Failed::TimedOut))
    }

    async fn tries(&self, operation: &Operation, body: &Bytes) -> Result<Bytes, Failed> {
        let Inner { budget, .. } = &*self.0;
        let mut tried = 0;
        loop {
            tried += 1;
            let answer = timeout(TRY_TIMEOUT, self.once(operation, body.clone())).await;
            let failed = match answer.unwrap_or(Err(Failed::TimedOut)) {
                Ok(answer) => {
                    budget.succeeded(tried);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let Some(pause) = failed.cause().and_then(|cause| budget.pause(cause, tried)) else {
                return Err(failed);
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self, operation: &Operation, body: Bytes) -> Result<Bytes, Failed> {
        let reached = self.reached().await?;
        let sent_at = now();
        let request = self.request(&reached.place, operation, body, sent_at).await?;
        let (head, body) = reached.transport.send(request).await?;
        if head.status.is_success() {
            return Ok(body);
        }
        let mut refusal = Refusal::new(head.status.as_u16(), &head.headers, body);
        refusal.skewed = refusal.may_be_skewed() && self.learn_skew(&head.headers, sent_at);
        Err(Failed::Refused(refusal))
    }

    async fn reached(&self) -> Result<&Reached, Failed> {
        let Inner { reached, service, config, .. } = &*self.0;
        reached
            .get_or_try_init(async || {
                let place = Place::of(service, config)?;
                let transport = Transport::to(place.is_secure())?;
                Ok(Reached { place, transport })
            })
            .await
    }

    async fn request(
        &self,
        place: &Place,
        operation: &Operation,
        body: Bytes,
        at: UnixMillis,
    ) -> Result<Request<transport::Body>, Failed> {
        let Inner { service, identities, skew, .. } = &*self.0;
        let identity = identities.current(at).await?;
        let at = at.as_secs().saturating_add_signed(skew.load(Relaxed));
        let Signed { date, authorization } = identity.sign(place, service, operation.target, &body, at);
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, service.content_type.clone());
        headers.insert(X_AMZ_TARGET, HeaderValue::from_static(operation.target));
        headers.insert(X_AMZ_DATE, date);
        if let Some(token) = &identity.token {
            headers.insert(X_AMZ_SECURITY_TOKEN, token.clone());
        }
        headers.insert(AUTHORIZATION, authorization);
        headers.extend(trace().map(|trace| (X_AMZN_TRACE_ID, trace)));
        let mut request = Request::new(transport::Body::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = place.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Puts the clock right by an answer's date if it is far off what the request was signed with.
    fn learn_skew(&self, headers: &HeaderMap, sent_at: UnixMillis) -> bool {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let Some(date) = date.map(|date| date.timestamp().as_second()) else { return false };
        let ours = i64::try_from(sent_at.as_secs()).unwrap_or(i64::MAX);
        let (skew, signed_with) = (date - ours, self.0.skew.load(Relaxed));
        let is_far = (skew - signed_with).unsigned_abs() >= retry::SKEW_MIN.as_secs();
        if is_far {
            self.0.skew.store(skew, Relaxed);
        }
        is_far
    }
}

/// The trace that the run belongs to, so that what it calls and sends does too.
#[expect(clippy::disallowed_methods, reason = "Lambda tells the trace of each run there and nowhere else")]
fn trace() -> Option<HeaderValue> {
    HeaderValue::try_from(std::env::var(TRACE_VARIABLE).ok()?).ok()
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Wire").field(&self.0.service.id).finish()
    }
}

impl Failed {
    /// Why the call may succeed if it is made once more; `None`: it would not.
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::TimedOut => Some(Cause::TimedOut),
            Self::Broken(_) => Some(Cause::Passing),
            Self::Refused(refusal) if refusal.skewed => Some(Cause::Skewed),
            Self::Refused(refusal) => retry::cause(refusal.status, &refusal.name),
            Self::NoCredentials(_) | Self::NoEndpoint(_) | Self::Senseless(_) => None,
        }
    }

    fn of(self, operation: &Operation) -> AwsError {
        AwsError::call(operation.name)(self)
    }
}

impl Refusal {
    fn new(status: u16, headers: &HeaderMap, body: Bytes) -> Self {
        #[derive(Default, Deserialize)]
        struct Told {
            #[serde(rename = "__type")]
            name: Option<String>,
            message: Option<String>,
            #[serde(rename = "Message")]
            other_message: Option<String>,
        }
        let told: Told = serde_json::from_slice(&body).unwrap_or_default();
        let header = || headers.get("x-amzn-errortype")?.to_str().ok().map(str::to_owned);
        let name = told.name.or_else(header).unwrap_or_default();
        // A name space may come before it, and a URL behind it.
        let name = name.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default();
        let message = told.message.or(told.other_message).unwrap_or_default();
        Self { status, name: name.to_owned(), message, body, skewed: false }
    }

    fn may_be_skewed(&self) -> bool {
        retry::SKEW_NAMES.contains(&self.name.as_str())
    }
}

impl std::fmt::Debug for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, name, message, .. } = self;
        f.debug_struct("Refusal")
            .field("status", status)
            .field("name", name)
            .field("message", message)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
