//! The exchange of an attempt with the receiver, and with the subscriber's token service before it.

use carillon_aws::now;
use carillon_core::id::SubscriptionId;
use carillon_core::outcome::{Failure, Reply};
use carillon_core::time::UnixMillis;
use carillon_sender::{Post, Sender};
use http::StatusCode;
use http::header::AUTHORIZATION;

use crate::ATTEMPT_TIME_MIN;
use crate::authorization::{Proof, TokenRequest};
use crate::request::Prepared;
use crate::targets::Target;
use crate::tokens::{NoToken, Token, Tokens, fetch};

/// Who takes part, and until when.
pub struct Exchange<'a> {
    /// Who asks.
    pub sender: &'a Sender,
    /// With which tokens, where there are any.
    pub tokens: &'a Tokens,
    /// Whose receiver is asked.
    pub subscription: SubscriptionId,
    /// Where, and how.
    pub target: &'a Target,
    /// When it must have ended.
    pub until: UnixMillis,
}

impl Exchange<'_> {
    /// Posts, and tells how that ended. Where the receiver refuses a token (401), another one is fetched and the request
    /// made again, once and within the attempt's time: tokens are revoked without notice.
    pub async fn outcome(&self, prepared: Prepared) -> Reply {
        if !self.target.permits(&self.target.endpoint) {
            return Failure::Blocked.into();
        }
        let Proof::Token(request) = &self.target.proof else {
            return self.post(prepared, None).await;
        };
        let mut is_first = true;
        loop {
            let reply = self.post_with_token(prepared.clone(), request).await;
            let has_time = self.until.since(now()) >= ATTEMPT_TIME_MIN;
            if !(is_first && is_refused(&reply) && has_time) {
                return reply;
            }
            is_first = false;
        }
    }

    async fn post_with_token(&self, prepared: Prepared, request: &TokenRequest) -> Reply {
        let token = match self.token(request).await {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(subscription = %self.subscription, %error, "there is no token");
                return Failure::Token.into();
            }
        };
        let reply = self.post(prepared, Some(&token)).await;
        if is_refused(&reply) {
            self.tokens.forget(self.holder(), &token);
        }
        reply
    }

    async fn token(&self, request: &TokenRequest) -> Result<Token, NoToken> {
        if !self.target.permits(&request.endpoint) {
            return Err(NoToken::Insecure);
        }
        self.tokens
            .token(
                self.holder(),
                self.until,
                fetch(self.sender, request, self.until, self.target.check_certificates()),
            )
            .await
    }

    async fn post(&self, prepared: Prepared, token: Option<&Token>) -> Reply {
        let Prepared { mut headers, body } = prepared;
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.header.clone());
        }
        let now = now();
        let timeout = self.until.since(now);
        if timeout.is_zero() {
            return Failure::TimedOut.into();
        }
        let Target { endpoint, identity, .. } = self.target;
        let (check_certificates, identity) = (self.target.check_certificates(), identity.as_ref());
        self.sender.post(Post { endpoint, headers, body, timeout, check_certificates, identity }, now).await
    }

    fn holder(&self) -> (SubscriptionId, u64) {
        (self.subscription, self.target.revision)
    }
}

fn is_refused(reply: &Reply) -> bool {
    reply.outcome.status() == Some(StatusCode::UNAUTHORIZED.as_u16())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use carillon_core::endpoint::{Endpoint, EndpointRules};
    use carillon_core::outcome::Outcome;
    use carillon_core::subscription::{
        Authorization, ClientAuthentication, ClientCredentials, RequestFormat,
    };
    use http::header::HeaderMap;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::targets::tests::{target, with};

    const ACCEPTED: &str = "204 No Content\r\n\r\n";
    const REFUSED: &str = "401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

    /// A receiver on `/hook` and a token service on `/token` in one, with the requests that came.
    #[derive(Clone)]
    struct Service {
        url: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Service {
        /// `answer` is given the request, and how many came to its path before.
        async fn new(answer: impl Fn(&str, usize) -> String + Send + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let service = Self { url, requests: Arc::default() };
            let requests = Arc::clone(&service.requests);
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let request = read(&mut stream).await;
                    let before = {
                        let mut requests = requests.lock().unwrap();
                        requests.push(request.clone());
                        requests.iter().filter(|known| path(known) == path(&request)).count() - 1
                    };
                    let answer = answer(&request, before);
                    let (status, rest) = answer.split_once("\r\n").unwrap();
                    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{rest}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
            service
        }

        fn paths(&self) -> Vec<String> {
            self.requests.lock().unwrap().iter().map(|request| path(request).to_owned()).collect()
        }

        fn target(&self) -> Target {
            with(&format!("{}/hook", self.url), |parts| {
                parts.authorization = credentials(&format!("{}/token", self.url));
            })
        }
    }

    fn credentials(token_url: &str) -> Authorization {
        Authorization::OAuth2(ClientCredentials {
            token_url: Endpoint::stored(token_url).unwrap(),
            client_id: "client".to_owned(),
            scope: None,
            audience: None,
            client_authentication: ClientAuthentication::Header,
            request_format: RequestFormat::Form,
        })
    }

    /// A request with its body, as text.
    async fn read(stream: &mut TcpStream) -> String {
        let mut request = String::new();
        loop {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            request.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return request;
            }
        }
    }

    fn path(request: &str) -> &str {
        request.split(' ').nth(1).unwrap()
    }

    fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
        request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn token(number: usize) -> String {
        let body = format!(r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":3600}}"#);
        format!("200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    struct Caller {
        sender: Sender,
        tokens: Tokens,
    }

    impl Caller {
        fn new(reach: &str) -> Self {
            let rules = EndpointRules { reach: reach.parse().unwrap(), allow_insecure: true };
            Self { sender: Sender::new(&rules), tokens: Tokens::default() }
        }

        async fn outcome(&self, target: &Target, time: Duration) -> Outcome {
            let subscription = "sub_00000000000000000000000000".parse().unwrap();
            let Self { sender, tokens } = self;
            let exchange = Exchange { sender, tokens, subscription, target, until: now() + time };
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", "dlv_1".parse().unwrap());
            exchange.outcome(Prepared { headers, body: "{}".into() }).await.outcome
        }
    }

    async fn outcome(target: &Target) -> Outcome {
        Caller::new("127.0.0.0/8").outcome(target, Duration::from_secs(10)).await
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_and_shown() {
        let answer = |request: &str, before| match path(request) {
            "/token" => token(before),
            _ => ACCEPTED.to_owned(),
        };
        let service = Service::new(answer).await;
        let (target, caller) = (service.target(), Caller::new("127.0.0.0/8"));
        for _ in 0..2 {
            assert_eq!(caller.outcome(&target, Duration::from_secs(10)).await, answered(204));
        }
        assert_eq!(service.paths(), ["/token", "/hook", "/hook"]);
        let requests = service.requests.lock().unwrap();
        assert!(requests[0].starts_with("POST ") && requests[0].ends_with("grant_type=client_credentials"));
        assert!(header(&requests[0], "authorization").unwrap().starts_with("Basic "));
        assert_eq!(header(&requests[0], "webhook-id"), None);
        assert_eq!(header(&requests[1], "authorization"), Some("Bearer token-0"));
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_within_the_attempt() {
        let answer = |request: &str, before| match (path(request), header(request, "authorization")) {
            ("/token", _) => token(before),
            (_, Some("Bearer token-1")) => ACCEPTED.to_owned(),
            _ => REFUSED.to_owned(),
        };
        let service = Service::new(answer).await;
        assert_eq!(outcome(&service.target()).await, answered(204));
        assert_eq!(service.paths(), ["/token", "/hook", "/token", "/hook"]);
        let requests = service.requests.lock().unwrap();
        let same = |request: &str| request.replace("token-1", "token-0");
        assert_eq!(same(&requests[1]), same(&requests[3]), "the same request but for its token");
    }

    #[tokio::test]
    async fn a_receiver_that_takes_no_token_is_asked_twice_in_an_attempt() {
        let answer = |request: &str, before| match path(request) {
            "/token" => token(before),
            _ => REFUSED.to_owned(),
        };
        let service = Service::new(answer).await;
        let (target, caller) = (service.target(), Caller::new("127.0.0.0/8"));
        assert_eq!(caller.outcome(&target, Duration::from_secs(10)).await, answered(401));
        assert_eq!(service.paths(), ["/token", "/hook", "/token", "/hook"]);
        assert_eq!(caller.outcome(&target, Duration::from_secs(10)).await, answered(401));
        assert_eq!(
            service.paths()[4..],
            ["/token", "/hook", "/token", "/hook"],
            "the second token is forgotten too"
        );
    }

    #[tokio::test]
    async fn only_tokens_are_replaced() {
        let service = Service::new(|_, _| REFUSED.to_owned()).await;
        let target = with(&format!("{}/hook", service.url), |parts| {
            parts.authorization = Authorization::Bearer;
        });
        assert_eq!(outcome(&target).await, answered(401));
        assert_eq!(service.paths(), ["/hook"]);
    }

    #[tokio::test]
    async fn without_a_token_the_receiver_is_not_asked() {
        let too_long =
            format!("200 OK\r\nContent-Length: 70000\r\n\r\n{{\"access_token\":\"{}", "a".repeat(70_000));
        for answer in [
            REFUSED.to_owned(),
            "500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "302 Found\r\nLocation: /hook\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            too_long,
        ] {
            let service = Service::new(move |_, _| answer.clone()).await;
            assert_eq!(outcome(&service.target()).await, Outcome::Unanswered(Failure::Token));
            assert_eq!(service.paths(), ["/token"]);
        }
    }

    #[tokio::test]
    async fn a_token_service_that_hangs_takes_no_more_than_the_attempts_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let target = with("http://127.0.0.1:1/hook", |parts| parts.authorization = credentials(&url));
        let started = now();
        let caller = Caller::new("127.0.0.0/8");
        let outcome = caller.outcome(&target, Duration::from_millis(300)).await;
        assert_eq!(outcome, Outcome::Unanswered(Failure::Token));
        assert!(now().since(started) < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn the_token_service_is_guarded_as_receivers_are() {
        let service = Service::new(|_, _| token(0)).await;
        let caller = Caller::new("");
        let outcome = caller.outcome(&service.target(), Duration::from_secs(10)).await;
        assert_eq!(outcome, Outcome::Unanswered(Failure::Token));
        assert_eq!(service.paths(), [""; 0], "it is inside");
    }

    #[tokio::test]
    async fn a_workspace_that_demands_https_gets_nothing_else() {
        let service = Service::new(|_, _| token(0)).await;
        let strict = |endpoint: &str, authorization| {
            with(endpoint, |parts| {
                parts.https_required = true;
                parts.authorization = authorization;
            })
        };
        let target = strict(&format!("{}/hook", service.url), Authorization::None);
        assert_eq!(outcome(&target).await, Outcome::Unanswered(Failure::Blocked));
        let target = strict("https://127.0.0.1:1/hook", credentials(&format!("{}/token", service.url)));
        assert_eq!(outcome(&target).await, Outcome::Unanswered(Failure::Token));
        assert_eq!(service.paths(), [""; 0]);
    }

    #[tokio::test]
    async fn what_has_no_time_left_is_not_sent() {
        let service = Service::new(|_, _| ACCEPTED.to_owned()).await;
        let target = target(&format!("{}/hook", service.url));
        let outcome = Caller::new("127.0.0.0/8").outcome(&target, Duration::ZERO).await;
        assert_eq!(outcome, Outcome::Unanswered(Failure::TimedOut));
        assert_eq!(service.paths(), [""; 0]);
    }
}
