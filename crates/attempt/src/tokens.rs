//! Tokens of subscribers' own services (OAuth 2.0 client credentials), each asked for once and kept while it holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_aws::now;
use carillon_core::id::SubscriptionId;
use carillon_core::outcome::Failure;
use carillon_core::time::UnixMillis;
use carillon_sender::{Request, Sender};
use http::Method;
use http::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use crate::authorization::{TokenRequest, bearer};

/// How long before its end a token is no longer used: time for the request that carries it, and for clocks that differ.
const MARGIN: Duration = Duration::from_mins(1);

/// How long a token is kept at most, whatever its service says: it may have been revoked.
const KEPT_MAX: Duration = Duration::from_hours(1);

/// How long a token is kept whose service does not say for how long it holds.
const KEPT_DEFAULT: Duration = Duration::from_mins(5);

/// Whose token: another revision of a subscription may have another secret.
pub(crate) type Holder = (SubscriptionId, u64);

/// The tokens that hold.
#[derive(Default)]
pub struct Tokens {
    slots: Mutex<HashMap<Holder, Arc<Slot>>>,
    /// How many were got, of all holders: a token's number is its own, whatever became of its holder's slot.
    got: AtomicU64,
}

/// A token, as it is shown to the receiver. It has no `Debug`.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    number: u64,
    until: UnixMillis,
}

/// A token as its service gave it, and for how long it is to be kept.
pub(crate) struct Fresh {
    header: HeaderValue,
    kept: Duration,
}

/// Why there is no token: the subscriber's side to mend. The texts hold nothing of what was sent or answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoToken {
    #[error("the token service could not be asked: {0:?}")]
    Unanswered(Failure),
    #[error("the workspace demands HTTPS of the token service")]
    Insecure,
    #[error("the token service answered with status {0}")]
    Status(u16),
    #[error("the token service's answer is no token of JSON with a type, or is too long")]
    Malformed,
    #[error("the token service gave a token that is no bearer token")]
    NotBearer,
    #[error("the token service gave a token that cannot stand in a header")]
    NotAHeader,
    #[error("another delivery asked the token service meanwhile, and got no token")]
    Meanwhile,
    #[error("there was no time left to ask the token service")]
    Late,
}

/// What is known of one holder.
#[derive(Default)]
struct Slot {
    /// Held by the one who asks for a token, awaited by the others.
    asking: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    token: Option<Token>,
    /// How many fetches failed.
    failed: u64,
}

impl Tokens {
    /// The token that is kept, or the one that `fetch` gets. One fetches at a time; those who waited for it take what it
    /// got, even if that is no token, so that a service in trouble is asked once.
    pub(crate) async fn token(
        &self,
        holder: Holder,
        until: UnixMillis,
        fetch: impl Future<Output = Result<Fresh, NoToken>>,
    ) -> Result<Token, NoToken> {
        let slot = self.slot(holder);
        let got = self.got.load(Ordering::Relaxed);
        let failed = {
            let known = slot.known();
            if let Some(token) = known.holds(now()) {
                return Ok(token);
            }
            known.failed
        };
        let time_left = until.since(now());
        let _asking = tokio::time::timeout(time_left, slot.asking.lock()).await.map_err(|_| NoToken::Late)?;
        {
            let known = slot.known();
            if let Some(token) = known.token.as_ref().filter(|token| token.number > got) {
                return Ok(token.clone());
            }
            if known.failed > failed {
                return Err(NoToken::Meanwhile);
            }
        }
        let fetched = fetch.await;
        let mut known = slot.known();
        let Fresh { header, kept } = fetched.inspect_err(|_| known.failed += 1)?;
        let number = self.got.fetch_add(1, Ordering::Relaxed) + 1;
        let token = Token { header, number, until: now() + kept };
        known.token = Some(token.clone());
        Ok(token)
    }

    /// Forgets a token that a receiver refused, unless there is a newer one.
    pub(crate) fn forget(&self, holder: Holder, refused: &Token) {
        let slot = self.slot(holder);
        let mut known = slot.known();
        known.token = known.token.take().filter(|token| token.number != refused.number);
    }

    /// The slot of a holder. Those of which nothing is known any more, and nobody asks, are dropped.
    fn slot(&self, holder: Holder) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.known().holds(now).is_some());
        Arc::clone(slots.entry(holder).or_default())
    }
}

impl Slot {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn holds(&self, now: UnixMillis) -> Option<Token> {
        self.token.clone().filter(|token| now < token.until)
    }
}

/// Asks a token service, guarded as deliveries are.
pub(crate) async fn fetch(
    sender: &Sender,
    request: &TokenRequest,
    until: UnixMillis,
    check_certificates: bool,
) -> Result<Fresh, NoToken> {
    let timeout = until.since(now());
    if timeout.is_zero() {
        return Err(NoToken::Late);
    }
    let request = Request {
        method: Method::POST,
        endpoint: &request.endpoint,
        headers: request.headers.clone(),
        body: request.body.clone(),
        timeout,
        check_certificates,
        // The receiver's, not the token service's: the client's secret is what it asks for.
        identity: None,
    };
    let answer = sender.request(request).await.map_err(NoToken::Unanswered)?;
    if !(200..=299).contains(&answer.status) {
        return Err(NoToken::Status(answer.status));
    }
    read(&answer.body)
}

/// Reads a service's answer (RFC 6749, section 5.1).
fn read(body: &[u8]) -> Result<Fresh, NoToken> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
        token_type: String,
        expires_in: Option<Value>,
    }

    // The error would quote the answer.
    let answer: Answer = serde_json::from_slice(body).map_err(|_| NoToken::Malformed)?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(NoToken::NotBearer);
    }
    let header = bearer(&answer.access_token).map_err(|_| NoToken::NotAHeader)?;
    Ok(Fresh { header, kept: kept(answer.expires_in.as_ref()) })
}

/// How long a token is kept that holds for `expires_in` seconds. Some services write that number as a text.
fn kept(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse::<u32>().ok().map(f64::from),
        _ => None,
    };
    let Some(seconds) = seconds else { return KEPT_DEFAULT };
    let holds = seconds.clamp(0.0, (KEPT_MAX + MARGIN).as_secs_f64());
    Duration::from_secs_f64(holds).saturating_sub(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(revision: u64) -> Holder {
        ("sub_00000000000000000000000000".parse().unwrap(), revision)
    }

    fn soon() -> UnixMillis {
        now() + Duration::from_secs(10)
    }

    fn fresh(token: &str, kept: u64) -> Fresh {
        Fresh { header: bearer(token).unwrap(), kept: Duration::from_secs(kept) }
    }

    fn never() -> impl Future<Output = Result<Fresh, NoToken>> {
        std::future::poll_fn(|_| panic!("a token is kept, none must be asked for"))
    }

    fn shown(token: &Result<Token, NoToken>) -> &str {
        token.as_ref().map_or("none", |token| token.header.to_str().unwrap())
    }

    #[tokio::test]
    async fn a_token_is_kept_for_its_subscription_and_revision() {
        let tokens = Tokens::default();
        let first = tokens.token(holder(1), soon(), async { Ok(fresh("a", 60)) }).await;
        assert_eq!(shown(&first), "Bearer a");
        assert_eq!(shown(&tokens.token(holder(1), soon(), never()).await), "Bearer a");
        let changed = tokens.token(holder(2), soon(), async { Ok(fresh("b", 60)) }).await;
        assert_eq!(shown(&changed), "Bearer b");
        assert_eq!(shown(&tokens.token(holder(1), soon(), never()).await), "Bearer a");
    }

    #[tokio::test]
    async fn a_token_is_not_kept_beyond_its_time() {
        let tokens = Tokens::default();
        for token in ["a", "b"] {
            let got = tokens.token(holder(1), soon(), async { Ok(fresh(token, 0)) }).await;
            assert_eq!(shown(&got), format!("Bearer {token}"));
        }
        tokens.slot(holder(2));
        assert_eq!(tokens.slots.lock().unwrap().len(), 1, "what does not hold takes no room");
    }

    #[tokio::test]
    async fn a_refused_token_is_forgotten_and_a_newer_one_is_not() {
        let tokens = Tokens::default();
        let old = tokens.token(holder(1), soon(), async { Ok(fresh("a", 60)) }).await.ok().unwrap();
        tokens.forget(holder(1), &old);
        assert_eq!(shown(&tokens.token(holder(1), soon(), async { Ok(fresh("b", 60)) }).await), "Bearer b");
        tokens.forget(holder(1), &old);
        assert_eq!(shown(&tokens.token(holder(1), soon(), never()).await), "Bearer b");
    }

    /// Ten ask at once, and the first fetch ends only when all others wait for it.
    async fn ten(answer: impl Fn() -> Result<Fresh, NoToken>) -> (Vec<Result<Token, NoToken>>, u64) {
        let (tokens, fetches) = (Tokens::default(), AtomicU64::new(0));
        let (tokens, fetches, answer) = (&tokens, &fetches, &answer);
        let all = (0..10).map(|_| {
            tokens.token(holder(1), soon(), async move {
                fetches.fetch_add(1, Ordering::Relaxed);
                let waiting = || Arc::strong_count(&tokens.slots.lock().unwrap()[&holder(1)]) - 2;
                while waiting() < 9 && fetches.load(Ordering::Relaxed) == 1 {
                    tokio::task::yield_now().await;
                }
                answer()
            })
        });
        let all = futures::future::join_all(all).await;
        (all, fetches.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn one_asks_and_the_others_wait_for_it() {
        let (all, fetches) = ten(|| Ok(fresh("a", 60))).await;
        assert!(all.iter().all(|token| shown(token) == "Bearer a"));
        assert_eq!(fetches, 1);
        let (all, fetches) = ten(|| Ok(fresh("short", 0))).await;
        assert!(all.iter().all(|token| shown(token) == "Bearer short"));
        assert_eq!(fetches, 1, "those who waited take it, however short it holds");
    }

    #[tokio::test]
    async fn a_service_in_trouble_is_asked_once_for_all_that_wait() {
        let (all, fetches) = ten(|| Err(NoToken::Status(500))).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(fetches, 1);
    }

    #[tokio::test]
    async fn a_failed_fetch_is_followed_by_another_one() {
        let tokens = Tokens::default();
        let none = tokens.token(holder(1), soon(), async { Err(NoToken::Malformed) }).await;
        assert!(matches!(none, Err(NoToken::Malformed)));
        assert_eq!(shown(&tokens.token(holder(1), soon(), async { Ok(fresh("a", 60)) }).await), "Bearer a");
    }

    #[tokio::test]
    async fn waiting_ends_with_the_attempt() {
        let tokens = Tokens::default();
        let slot = tokens.slot(holder(1));
        let _asking = slot.asking.lock().await;
        assert!(matches!(tokens.token(holder(1), now(), never()).await, Err(NoToken::Late)));
    }

    #[test]
    fn how_long_a_token_is_kept() {
        for (expires_in, seconds) in [
            ("3600", 3540),
            ("7200", 3600),
            ("1e300", 3600),
            ("61.5", 1),
            ("60", 0),
            ("-5", 0),
            ("\"1800\"", 1740),
            ("\"soon\"", 300),
            ("null", 300),
        ] {
            let value: Value = serde_json::from_str(expires_in).unwrap();
            assert_eq!(kept(Some(&value)).as_secs(), seconds, "{expires_in}");
        }
        assert_eq!(kept(None), KEPT_DEFAULT);
    }

    #[test]
    fn answers_are_checked() {
        let read = |body: &str| read(body.as_bytes());
        let token = read(r#"{"access_token":"a","token_type":"BEARER","scope":"x"}"#).ok().unwrap();
        assert_eq!((token.header.to_str().unwrap(), token.kept), ("Bearer a", KEPT_DEFAULT));
        assert!(token.header.is_sensitive());
        for body in
            ["", "{}", "a=b", r#"{"access_token":"a"}"#, r#"{"access_token":1,"token_type":"bearer"}"#]
        {
            assert!(matches!(read(body), Err(NoToken::Malformed)), "{body}");
        }
        assert!(matches!(read(r#"{"access_token":"a","token_type":"mac"}"#), Err(NoToken::NotBearer)));
        for token in ["", "a b", "a\\r\\nx: y", "é"] {
            let body = format!(r#"{{"access_token":"{token}","token_type":"bearer"}}"#);
            assert!(matches!(read(&body), Err(NoToken::NotAHeader)), "{body}");
        }
    }
}
