//! One request, from its URL to its answer.
//!
//! Strangers may send anything here, so an answer says nothing that came in: no browser finds a page in it, and nobody can
//! have it serve content.

use carillon_aws::error::AwsError;
use carillon_aws::inboxes::{InboxTable, Request as Received};
use carillon_aws::now;
use carillon_core::inbox::{BODY_BYTES_MAX, HEAD_BYTES_MAX, InboxToken};
use carillon_core::subscription::Rate;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use lambda_http::{Body, Request, RequestExt as _};

/// How the route of the HTTP API names the last segment of an inbox's URL.
const TOKEN: &str = "token";

/// What the gateway adds to each request: not the sender's.
const OF_THE_GATEWAY: [&str; 4] =
    ["x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"];

/// What a page could do that a browser made of an answer all the same: nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Answers a request. What goes wrong on our side is a 503, which senders try again.
pub(crate) async fn receive(table: &InboxTable, request: &Request) -> Response<Body> {
    let answered = answer(table, request).await;
    let response = answered.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be kept");
        say(StatusCode::SERVICE_UNAVAILABLE, "Not possible at the moment.\n")
    });
    // Neither path nor headers: the one has the token, the others may have secrets.
    tracing::info!(method = %request.method(), status = response.status().as_u16(), "request");
    response
}

async fn answer(table: &InboxTable, request: &Request) -> Result<Response<Body>, AwsError> {
    let not_found = || say(StatusCode::NOT_FOUND, "There is no such inbox.\n");
    let parameters = request.path_parameters_ref();
    let token = parameters.and_then(|parameters| parameters.first(TOKEN)?.parse::<InboxToken>().ok());
    let Some(token) = token else { return Ok(not_found()) };
    let received = received(request);
    if is_too_large(&received) {
        return Ok(say(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large.\n"));
    }
    let Some(counted) = table.count(token, now()).await? else { return Ok(not_found()) };
    table.keep(token, &counted, received).await?;
    if let Some(consent) = consent(request) {
        return Ok(consent);
    }
    tokio::time::sleep(counted.answer.delay()).await;
    Ok(told(counted.answer.status()))
}

/// What is kept of a request.
fn received(request: &Request) -> Received {
    let headers = request.headers().iter().filter(|(name, _)| !OF_THE_GATEWAY.contains(&name.as_str()));
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    Received {
        method: request.method().to_string(),
        path: format!("{}{query}", request.raw_http_path()),
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: request.body().to_vec(),
    }
}

fn is_too_large(Received { method, path, headers, body }: &Received) -> bool {
    let of_headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    body.len() > BODY_BYTES_MAX || method.len() + path.len() + of_headers > HEAD_BYTES_MAX
}

/// The answer to a question whether the inbox wants to be called (CloudEvents HTTP webhook 1.0, section 4): it does, by
/// everybody and as often as they ask for, since that is what it was made for.
fn consent(request: &Request) -> Option<Response<Body>> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(REQUEST_ORIGIN) {
        return None;
    }
    let mut response = told(StatusCode::OK.as_u16());
    response.headers_mut().insert(ALLOWED_ORIGIN, HeaderValue::from_static("*"));
    if let Some(rate) = asked_rate(request.headers()) {
        response.headers_mut().insert(ALLOWED_RATE, rate);
    }
    Some(response)
}

/// The rate as a number and not as it was written, since nothing that came in is to go out.
fn asked_rate(headers: &HeaderMap) -> Option<HeaderValue> {
    let rate: u32 = headers.get(REQUEST_RATE)?.to_str().ok()?.trim().parse().ok()?;
    Some(u32::from(Rate::try_from(rate).ok()?).into())
}

/// The answer that an inbox was told to give.
fn told(status: u16) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or_default();
    let has_no_body = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    say(status, if has_no_body.contains(&status) { "" } else { "Received.\n" })
}

fn say(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().extend([
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CONTENT_SECURITY_POLICY, SANDBOX),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, headers: &[(&'static str, &'static str)], body: usize) -> Request {
        let mut request = Request::new(Body::from("x".repeat(body)));
        *request.method_mut() = method;
        *request.uri_mut() = "https://carillon.example.com/in/token?a=%20b".parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request.with_raw_http_path("/in/token")
    }

    #[test]
    fn a_request_is_kept_as_it_was_sent() {
        let headers =
            [("webhook-id", "dlv_1"), ("x-forwarded-for", "203.0.113.7"), ("ce-id", "1"), ("ce-id", "2")];
        let kept = received(&request(Method::PUT, &headers, 3));
        assert_eq!((kept.method.as_str(), kept.path.as_str()), ("PUT", "/in/token?a=%20b"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(kept.headers, [pair("webhook-id", "dlv_1"), pair("ce-id", "1"), pair("ce-id", "2")]);
        assert_eq!(kept.body, b"xxx");
    }

    #[test]
    fn requests_are_bounded() {
        let is_too_large = |request| is_too_large(&received(&request));
        assert!(!is_too_large(request(Method::POST, &[], BODY_BYTES_MAX)));
        assert!(is_too_large(request(Method::POST, &[], BODY_BYTES_MAX + 1)));
        let mut long = request(Method::POST, &[], 0);
        long.headers_mut().insert("a", "x".repeat(HEAD_BYTES_MAX).parse().unwrap());
        assert!(is_too_large(long));
    }

    #[test]
    fn only_a_handshake_is_consented_to_and_nothing_of_it_comes_back() {
        let asked = |method, headers: &[_]| consent(&request(method, headers, 0));
        let origin = ("webhook-request-origin", "evil\">.example");
        let given = asked(Method::OPTIONS, &[origin, ("webhook-request-rate", " 120 ")]).unwrap();
        assert_eq!(given.status(), StatusCode::OK);
        assert_eq!(given.headers()[ALLOWED_ORIGIN], "*");
        assert_eq!(given.headers()[ALLOWED_RATE], "120");
        for rate in ["0", "-1", "many", "1e3", "99999999999"] {
            let given = asked(Method::OPTIONS, &[origin, ("webhook-request-rate", rate)]).unwrap();
            assert!(!given.headers().contains_key(ALLOWED_RATE), "{rate}");
        }
        assert!(asked(Method::POST, &[origin]).is_none());
        assert!(asked(Method::OPTIONS, &[("origin", "https://example.com")]).is_none());
    }

    #[test]
    fn no_answer_is_a_page() {
        for response in [told(200), told(404), told(599), say(StatusCode::NOT_FOUND, "x")] {
            assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], SANDBOX);
        }
        for status in [204, 205, 304] {
            assert!(told(status).body().is_empty(), "{status}");
        }
        assert_eq!(
            (told(503).status(), told(200).body().is_empty()),
            (StatusCode::SERVICE_UNAVAILABLE, false)
        );
    }
}
