//! A router as a Lambda function behind the HTTP API.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};
use lambda_http::request::RequestContext;
use lambda_http::{Context, RequestExt as _};
use tracing::field::Empty;
use tracing::{Instrument as _, error_span, info};

use crate::problem::Problem;
use crate::rejection::rejection;

/// Names a request in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The field of a request's log lines that names the client, once it is known.
pub(crate) const CLIENT: &str = "client";

/// Serves the router's routes until Lambda ends the function.
pub async fn serve(router: Router) -> Result<(), lambda_http::Error> {
    lambda_http::run(complete(router)).await
}

/// The router with what every answer has: problems for refusals, for unknown paths and methods too, and the request's
/// id, which stands in every log line of the request as well.
pub fn complete(router: Router) -> Router {
    router
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        // The HTTP API bounds bodies, and each operation has its own, smaller bound.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(finish))
}

async fn finish(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    // At the highest level, so that it is there whichever lines are written.
    let span = error_span!("request", request = id, { CLIENT } = Empty);
    let mut response = answer(request, next).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response =
        if is_cut_short(&request) { Problem::NotFound.into_response() } else { next.run(request).await };
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => Some(problem),
        None => rejection(&mut response).await,
    };
    if let Some(problem) = problem {
        tell(&problem, &uri_path(&path), &mut response);
    }
    info!(%method, path, status = response.status().as_u16(), "request");
    response
}

/// Whether the path that was asked for went on behind what is its end here: the HTTP API decodes paths, an encoded `?` or
/// `#` in them as well, which then is taken for the end. Nothing has such a name.
fn is_cut_short(request: &Request) -> bool {
    request.raw_http_path().contains(['?', '#'])
}

/// Makes the answer tell the problem. Its other headers stay: `Allow`, for one, is axum's.
fn tell(problem: &Problem, path: &str, response: &mut Response) {
    let document = serde_json::to_vec(&problem.document(Some(path))).unwrap_or_default();
    *response.status_mut() = problem.status();
    *response.body_mut() = Body::from(document);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(challenge) = problem.challenge().and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
}

/// A path as it stands in a URI (RFC 3986, section 3.3). Clients and gateways let characters pass that have no place there.
fn uri_path(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut written = String::with_capacity(path.len());
    for (place, &byte) in bytes.iter().enumerate() {
        let encoded = || matches!(bytes.get(place + 1..place + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) || byte == b'%' && encoded()
        {
            written.push(char::from(byte));
        } else {
            _ = write!(written, "%{byte:02X}");
        }
    }
    written
}

/// The gateway's id of the request, or Lambda's own where no gateway stands before the function.
fn request_id(request: &Request) -> String {
    let extensions = request.extensions();
    let by_gateway = match extensions.get() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        _ => None,
    };
    let by_lambda = || extensions.get::<Context>().map(|context| context.request_id.clone());
    by_gateway.filter(|id| !id.is_empty()).or_else(by_lambda).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::extract::{Path, Query};
    use axum::routing::{get, post};
    use http::header::ALLOW;
    use http::{Method, StatusCode};
    use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequestContext;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;
    use crate::body::JsonBody;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        #[expect(dead_code, reason = "read by nobody")]
        limit: u8,
    }

    fn router() -> Router {
        let router = Router::new()
            .route("/items", get(async |_: Query<Page>| "items"))
            .route("/items/{item}", get(async |_: Path<u8>| "item"))
            .route("/bodies", post(async |_: JsonBody<Page>| "body"))
            .route("/closed", get(async || Problem::NoToken));
        complete(router)
    }

    async fn asked(method: Method, path: &str) -> (Response, Value) {
        let mut context = ApiGatewayV2httpRequestContext::default();
        context.request_id = Some("a-request".to_owned());
        let mut request = Request::builder().method(method).uri(path).body(Body::from("{}")).unwrap();
        request.extensions_mut().insert(RequestContext::ApiGatewayV2(context));
        let mut response = router().oneshot(request).await.unwrap();
        let body = to_bytes(std::mem::take(response.body_mut()), 10_000).await.unwrap();
        (response, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn every_refusal_is_a_problem() {
        for (method, path, status, name, pointer) in [
            (Method::GET, "/items?limit=many", 400, "invalid", json!("query:limit")),
            (Method::GET, "/items", 400, "invalid", json!("query:limit")),
            (Method::GET, "/items?limit=1&colour=red", 400, "invalid", json!("query:colour")),
            (Method::GET, "/items/many", 400, "invalid", json!("path")),
            (Method::GET, "/items/%ff", 400, "invalid", json!("path:item")),
            (Method::POST, "/bodies", 415, "unsupported-media-type", Value::Null),
            (Method::GET, "/closed", 401, "unauthorized", Value::Null),
            (Method::GET, "/elsewhere", 404, "not-found", Value::Null),
            (Method::PUT, "/bodies", 405, "method-not-allowed", Value::Null),
            (Method::from_bytes(b"BREW").unwrap(), "/bodies", 405, "method-not-allowed", Value::Null),
        ] {
            let (response, body) = asked(method, path).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{path}");
            assert_eq!(body["type"], format!("/problems/{name}"), "{path}");
            assert_eq!(body["errors"][0]["pointer"], pointer, "{path}");
            assert_eq!(body["instance"], path.split('?').next().unwrap(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_path_that_is_cut_short_leads_nowhere() {
        for (path, raw, status) in [
            ("/items?limit=1", "/items", 200),
            ("/items?limit=1", "/items?limit=1", 404),
            ("/bodies", "/bodies#", 404),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap().with_raw_http_path(raw);
            let response = router().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{raw}");
        }
    }

    #[test]
    fn paths_are_written_as_uris_have_them() {
        for (path, written) in [
            ("/v1/a-b_c.d~e:f@g=h", "/v1/a-b_c.d~e:f@g=h"),
            ("/%c3%BC/%25/%5B", "/%c3%BC/%25/%5B"),
            ("/%/%4/%zz/%\u{fc}", "/%25/%254/%25zz/%25%C3%BC"),
            ("/[a]|^`<\"> \\{}", "/%5Ba%5D%7C%5E%60%3C%22%3E%20%5C%7B%7D"),
        ] {
            assert_eq!(uri_path(path), written);
        }
    }

    #[tokio::test]
    async fn answers_have_the_headers_that_they_must() {
        let (allowed, _) = asked(Method::DELETE, "/bodies").await;
        assert_eq!(allowed.headers()[ALLOW], "POST");
        let (closed, _) = asked(Method::GET, "/closed").await;
        assert_eq!(closed.headers()[WWW_AUTHENTICATE], "Bearer realm=\"carillon\"");
        for path in ["/items?limit=1", "/items?limit=many", "/elsewhere"] {
            let (response, _) = asked(Method::GET, path).await;
            assert_eq!(response.headers()[REQUEST_ID], "a-request", "{path}");
        }
        let (good, _) = asked(Method::GET, "/items?limit=1").await;
        assert_eq!(good.status(), StatusCode::OK);
    }
}
