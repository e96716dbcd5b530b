//! The document of the API, a page that shows it to people, and a sign of life. All of it is open.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_swagger_ui::Config;

/// The document of the whole API, as it is checked in: a test elsewhere compares it with what the code says.
pub const DOCUMENT: &str = include_str!("../../../infra/openapi.json");

/// The files of the packaged Swagger UI that the page needs.
const FILES: [&str; 5] = [
    "favicon-32x32.png",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// Addresses are relative to this page, since the API may live below a path.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Carillon API</title>
    <link rel="stylesheet" href="docs/swagger-ui.css">
    <link rel="icon" type="image/png" href="docs/favicon-32x32.png">
    <style>body { margin: 0 }</style>
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js" charset="utf-8"></script>
    <script src="docs/swagger-ui-standalone-preset.js" charset="utf-8"></script>
    <script src="docs/swagger-initializer.js" charset="utf-8"></script>
  </body>
</html>
"#;

/// Scripts are the packaged ones alone. Requests go to the API, which may be elsewhere, and to an issuer of tokens.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; connect-src *; base-uri 'none'; frame-ancestors 'none'";

/// The files change with releases alone.
const FILES_KEPT: HeaderValue = HeaderValue::from_static("public, max-age=3600");

static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("v1/openapi.json").default_models_expand_depth(0)));

pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Routes<S> {
    Routes::new()
        .routes(routes!(health))
        .routes(routes!(document))
        .routes(routes!(page))
        .routes(routes!(file))
}

/// A sign of life.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    status: HealthStatus,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum HealthStatus {
    Ok,
}

/// Give a sign of life
///
/// Says that the API answers, and nothing of what it needs to do its work.
#[utoipa::path(
    get,
    path = "/v1/health",
    operation_id = "getHealth",
    tag = "about",
    responses((status = 200, description = "It answers", body = Health)),
    security(()),
)]
async fn health() -> Json<Health> {
    Json(Health { status: HealthStatus::Ok })
}

/// Read this document
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "getOpenApi",
    tag = "about",
    responses((status = 200, description = "The OpenAPI document of this API", body = Object)),
    security(()),
)]
async fn document() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT).into_response()
}

/// Show this document
///
/// A page for people.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "showDocs",
    tag = "about",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
    security(()),
)]
async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response()
}

/// Read a part of the page
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "getDocsFile",
    tag = "about",
    params(("file" = String, Path, description = "Its name", example = "swagger-ui.css")),
    responses(
        (status = 200, description = "The file", content(
            (String = "text/css"),
            (String = "text/javascript"),
            (String = "image/png"),
        )),
        (
            status = 404, description = "There is no such file",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security(()),
)]
async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    if !FILES.contains(&name.as_str()) {
        return Err(Problem::NotFound);
    }
    let found = utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, name, "a file of the documentation cannot be read");
        Problem::Unavailable
    })?;
    let file = found.ok_or(Problem::NotFound)?;
    let content_type = HeaderValue::try_from(file.content_type).map_err(|_| Problem::Unavailable)?;
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, FILES_KEPT)];
    Ok((headers, file.bytes.into_owned()).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    async fn got(path: &str) -> (StatusCode, String, Vec<u8>) {
        let router = router::<()>().merge(crate::problems::router()).router();
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let content_type = answer.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 10_000_000).await.unwrap();
        (status, content_type.unwrap_or_default(), body.to_vec())
    }

    #[tokio::test]
    async fn the_page_has_all_that_it_refers_to() {
        let (status, content_type, page) = got("/docs").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
        let page = String::from_utf8(page).unwrap();
        assert!(!page.contains("//"), "nothing from elsewhere");
        let parts: Vec<_> = page.split("docs/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(parts.len(), FILES.len());
        for part in parts {
            let (status, content_type, body) = got(&format!("/docs/{part}")).await;
            assert_eq!(status, StatusCode::OK, "{part}");
            assert!(!body.is_empty() && !content_type.contains("octet-stream"), "{part}: {content_type}");
        }
        let (_, _, initializer) = got("/docs/swagger-initializer.js").await;
        let initializer = String::from_utf8(initializer).unwrap();
        assert!(initializer.contains(r#""url": "v1/openapi.json""#), "{initializer}");
        for other in ["index.html", "swagger-ui.css.map", "..%2Fsecret"] {
            assert_eq!(got(&format!("/docs/{other}")).await.0, StatusCode::NOT_FOUND, "{other}");
        }
    }

    #[tokio::test]
    async fn every_problem_has_its_page() {
        let (_, _, list) = got("/problems").await;
        let list = String::from_utf8(list).unwrap();
        for kind in Problem::all_kinds() {
            assert!(list.contains(&format!("\"problems/{}\"", kind.name)), "{kind:?}");
            let (status, _, page) = got(&format!("/problems/{}", kind.name)).await;
            let page = String::from_utf8(page).unwrap();
            assert_eq!(status, StatusCode::OK, "{kind:?}");
            assert!(page.contains(&format!("<h1>{}</h1>", kind.title)) && !page.contains('`'), "{kind:?}");
        }
        assert_eq!(got("/problems/none").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn the_document_that_is_served_is_json() {
        let (status, content_type, document) = got("/v1/openapi.json").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "application/json"));
        assert!(
            serde_json::from_slice::<serde_json::Value>(&document).unwrap()["paths"]["/docs"].is_object()
        );
        assert_eq!(got("/v1/health").await.2, br#"{"status":"ok"}"#);
    }
}
