//! A router as a Lambda function behind the HTTP API.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use carillon_core::invalid::Invalid;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use lambda_http::request::RequestContext;

use crate::problem::Problem;

/// Names a request in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves the router's routes until Lambda ends the function; answers unknown paths and methods with a problem.
pub async fn serve(router: Router) -> Result<(), lambda_http::Error> {
    let router = router
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        // The HTTP API bounds bodies, and each operation has its own, smaller bound.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(finish));
    lambda_http::run(router).await
}

/// Writes problems out, and the request's id into every answer.
async fn finish(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    // What axum itself could not read of a path or a query it answers in plain text.
    let unread = || Problem::Invalid(Invalid::field("", "the path or the query cannot be read"));
    if let Some(problem) = problem.or_else(|| (response.status() == StatusCode::BAD_REQUEST).then(unread)) {
        let document = serde_json::to_vec(&problem.document(Some(&path))).unwrap_or_default();
        let problem_json = HeaderValue::from_static("application/problem+json");
        response = (response.status(), [(CONTENT_TYPE, problem_json)], document).into_response();
    }
    tracing::info!(request = id, %method, path, status = response.status().as_u16(), "request");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn request_id(request: &Request) -> String {
    match request.extensions().get() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone().unwrap_or_default(),
        _ => String::new(),
    }
}
