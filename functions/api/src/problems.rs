//! Refusals in the documentation: what every operation may answer, and a page for each kind of problem.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use carillon_http::problem::{Problem, ProblemKind};
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::header::CONTENT_SECURITY_POLICY;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::{Components, ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr};
use utoipa::{IntoResponses, PartialSchema};

use crate::parameters;

/// The media type of problems (RFC 9457, section 3).
const MEDIA_TYPE: &str = "application/problem+json";

const INVALID: Answer = ("400", "Invalid", "Fields, parameters or headers are wrong");
const UNAUTHORIZED: Answer = ("401", "Unauthorized", "There is no token, or not a valid one");
const FORBIDDEN: Answer =
    ("403", "Forbidden", "The token lacks a scope, or the client's role does not include the operation");
const NOT_FOUND: Answer = ("404", "NotFound", "There is no such thing, or not within the client's grants");
const TOO_LARGE: Answer = ("413", "TooLarge", "The body is too large");
const UNSUPPORTED: Answer =
    ("415", "UnsupportedMediaType", "The body is not of the media type that is needed");
const UNAVAILABLE: Answer =
    ("503", "Unavailable", "The operation failed at this moment. Nothing is known to have changed");

/// Status, name in the document, description.
type Answer = (&'static str, &'static str, &'static str);

/// The pages.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Routes<S> {
    Routes::new().routes(routes!(list)).routes(routes!(explain))
}

/// What any operation that needs a token may answer.
pub(crate) struct Common;

impl IntoResponses for Common {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        [INVALID, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, UNAVAILABLE].map(reference).into()
    }
}

/// Adds to a document what holds for every operation, so that none can forget it: its request's id in each answer, and
/// what is answered to parameters and bodies that cannot be read. Once more does no harm.
pub(crate) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_with(Components::new);
    for answer in [INVALID, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_LARGE, UNSUPPORTED, UNAVAILABLE] {
        components.responses.insert(answer.1.to_owned(), RefOr::T(described(answer)));
    }
    components.schemas.values_mut().for_each(close_alternatives);
    for (path, item) in &mut document.paths.paths {
        let methods = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.options,
            &mut item.patch,
        ];
        methods.into_iter().flatten().for_each(|operation| complete_operation(path, operation));
    }
}

fn complete_operation(path: &str, operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    for parameter in parameters.iter_mut() {
        if let RefOr::T(parameter) = parameter {
            parameters::describe(path, parameter);
        }
    }
    let mut further = Vec::new();
    if !parameters.is_empty() {
        further.push(INVALID);
    }
    if operation.request_body.is_some() {
        further.extend([INVALID, TOO_LARGE, UNSUPPORTED]);
    }
    let responses = &mut operation.responses.responses;
    for (status, answer) in further.into_iter().map(reference) {
        responses.entry(status).or_insert(answer);
    }
    for response in responses.values_mut() {
        if let RefOr::T(response) = response {
            identify(response);
        }
    }
}

/// Of a schema of several alternatives each takes its own members and no others: the derive does not say so of them.
fn close_alternatives(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::OneOf(alternatives)) = schema else { return };
    for alternative in &mut alternatives.items {
        if let RefOr::T(Schema::Object(object)) = alternative {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

fn reference(answer: Answer) -> (String, RefOr<Described>) {
    (answer.0.to_owned(), RefOr::Ref(Ref::from_response_name(answer.1)))
}

fn described((status, _, description): Answer) -> Described {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let mut response = ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build();
    identify(&mut response);
    if matches!(status, "401" | "403") {
        let header = HeaderBuilder::new().schema(Some(<String as PartialSchema>::schema())).description(
            Some("What token is needed (RFC 6750, section 3). Absent where the token would do."),
        );
        response.headers.insert("www-authenticate".to_owned(), RefOr::T(header.build()));
    }
    response
}

fn identify(response: &mut Described) {
    let header = HeaderBuilder::new()
        .schema(Some(<String as PartialSchema>::schema()))
        .description(Some("Names the request, here and in the log of whoever runs Carillon."));
    response.headers.insert("x-request-id".to_owned(), RefOr::T(header.build()));
}

/// List the problems
///
/// A page for people: every kind of problem that an answer can tell of.
#[utoipa::path(
    get,
    path = "/problems",
    operation_id = "listProblems",
    tag = "about",
    responses((status = 200, description = "The list", body = String, content_type = "text/html")),
    security(()),
)]
async fn list() -> Response {
    let mut items = String::new();
    for ProblemKind { name, title, status, .. } in Problem::all_kinds() {
        let (title, status) = (escaped(title), status.as_u16());
        // Relative to this page, since the API may live below a path.
        _ = write!(items, "<li><a href=\"problems/{name}\">{title}</a> ({status})</li>");
    }
    page("Problems", &format!("<ul>{items}</ul>"))
}

/// Explain a problem
///
/// A page for people: what has happened when an answer has this `type`, and what to do.
#[utoipa::path(
    get,
    path = "/problems/{name}",
    operation_id = "explainProblem",
    tag = "about",
    params(("name" = String, Path, description = "The last segment of the `type`", example = "not-found")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (
            status = 404, description = "There is no such problem",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security(()),
)]
async fn explain(Path(name): Path<String>) -> Result<Response, Problem> {
    let kind = Problem::all_kinds().iter().find(|kind| kind.name == name).ok_or(Problem::NotFound)?;
    let text = format!(
        "<p>Answered with status {}.</p><p>{}</p><p><a href=\"../problems\">All problems</a></p>",
        kind.status.as_u16(),
        with_code(kind.explanation),
    );
    Ok(page(kind.title, &text))
}

fn page(title: &str, content: &str) -> Response {
    let title = escaped(title);
    let html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - Carillon</title>\
         <style>body {{ font: 1.1rem/1.5 sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem }}</style>\
         </head><body><h1>{title}</h1>{content}</body></html>"
    );
    ([(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")], Html(html)).into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// With what stands between backticks as code.
fn with_code(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for (place, part) in escaped(text).split('`').enumerate() {
        _ = if place % 2 == 1 { write!(html, "<code>{part}</code>") } else { write!(html, "{part}") };
    }
    html
}
