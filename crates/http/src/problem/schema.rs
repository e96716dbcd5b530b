//! Problems as the OpenAPI document describes them.

use std::borrow::Cow;

use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Problem;

/// Why a request is refused (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes Document, which borrows what it says")]
struct ProblemSchema {
    /// Which kind of problem this is: a page that explains it.
    #[schema(format = "uri-reference", example = "/problems/invalid")]
    r#type: String,
    /// The kind in a few words.
    #[schema(example = "The request has wrong fields")]
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 400)]
    status: u16,
    /// What happened in this case.
    detail: Option<String>,
    /// The path of the request.
    #[schema(format = "uri-reference")]
    instance: Option<String>,
    /// Each wrong field, up to 20.
    #[schema(max_items = 20)]
    errors: Option<Vec<FieldErrorSchema>>,
}

/// One wrong field.
#[derive(ToSchema)]
#[schema(as = FieldError)]
#[expect(dead_code, reason = "describes FieldError of the core, which knows no OpenAPI")]
pub struct FieldErrorSchema {
    /// Where: a JSON Pointer into the body, or `query:`, `path:` or `header:` and a name.
    #[schema(example = "/endpoint")]
    pointer: String,
    /// What is wrong with it, and what would be right.
    #[schema(example = "must begin with https://")]
    detail: String,
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        ProblemSchema::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ProblemSchema::schemas(schemas);
    }
}
