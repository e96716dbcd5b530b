//! What is wrong with a value, in sentences.

use carillon_core::invalid::FieldError;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

/// The longest quotation from a schema, in characters.
const QUOTED_CHARS_MAX: usize = 100;

/// The longest pointer, in bytes: a value's names can be as long as the value. What lies deeper is told of what it lies in.
const POINTER_BYTES_MAX: usize = 512;

/// How many of the alternatives that a value fails at are explained.
const ALTERNATIVES_TOLD_MAX: usize = 3;

/// The faults that an error tells of: each member that is missing, or one too many, has a pointer of its own. Of
/// alternatives, the one that fails only further in is taken to be the one that was meant.
pub(crate) fn faults(error: &ValidationError<'_>) -> Vec<FieldError> {
    let pointer = error.instance_path().as_str();
    match error.kind() {
        Kind::Required { property: Value::String(name) } => {
            vec![fault(&member(pointer, name), "is required")]
        }
        Kind::AdditionalProperties { unexpected } => {
            let unexpected = unexpected.iter().take(carillon_core::invalid::FINDINGS_MAX);
            unexpected.map(|name| fault(&member(pointer, name), "is not expected here")).collect()
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match meant(pointer, context) {
            Some(errors) => errors.iter().flat_map(faults).collect(),
            None => vec![fault(pointer, sentence(error))],
        },
        _ => vec![fault(pointer, sentence(error))],
    }
}

/// What is wrong, without where.
pub(crate) fn sentence(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::AdditionalItems { limit } => format!("must have at most {}", counted(*limit as u64, "item")),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => {
            "has members that are not expected".to_owned()
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => alternatives(error, context),
        Kind::OneOfMultipleValid { .. } => {
            "must be as one of several alternatives says, and not as two".to_owned()
        }
        Kind::Constant { expected_value } => format!("must be {}", quoted(expected_value)),
        Kind::Contains => "must contain an item that is as `contains` says".to_owned(),
        Kind::Enum { options } => format!("must be one of {}", options_of(options)),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {}", quoted(limit)),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {}", quoted(limit)),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::Format { format } => format!("must have the format `{}`", shortened(format)),
        Kind::MaxItems { limit } => format!("must have at most {}", counted(*limit, "item")),
        Kind::Maximum { limit } => format!("must be at most {}", quoted(limit)),
        Kind::MaxLength { limit } => format!("must have at most {}", counted(*limit, "character")),
        Kind::MaxProperties { limit } => format!("must have at most {}", counted(*limit, "member")),
        Kind::MinItems { limit } => format!("must have at least {}", counted(*limit, "item")),
        Kind::Minimum { limit } => format!("must be at least {}", quoted(limit)),
        Kind::MinLength { limit } => format!("must have at least {}", counted(*limit, "character")),
        Kind::MinProperties { limit } => format!("must have at least {}", counted(*limit, "member")),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::Not { .. } => "must not be as `not` says".to_owned(),
        Kind::Pattern { pattern } => format!("must match `{}`", shortened(pattern)),
        Kind::PropertyNames { error } => format!("has a member whose name is wrong: it {}", sentence(error)),
        Kind::Required { property } => format!("must have the member {}", quoted(property)),
        Kind::Type { kind: TypeKind::Single(kind) } => format!("must be {}", with_article(kind.as_str())),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<_> = kinds.iter().map(|kind| with_article(kind.as_str())).collect();
            format!("must be {}", kinds.join(" or "))
        }
        Kind::UnevaluatedItems { .. } => "has items that are not expected".to_owned(),
        Kind::UniqueItems => "must not have two equal items".to_owned(),
        Kind::RegexEngineFailure { .. } | Kind::BacktrackLimitExceeded { .. } => {
            "cannot be matched with a regular expression of the schema".to_owned()
        }
        Kind::ContentEncoding { .. }
        | Kind::ContentMediaType { .. }
        | Kind::FromUtf8 { .. }
        | Kind::Custom { .. }
        | Kind::Referencing(_) => "does not conform to the schema".to_owned(),
    }
}

fn fault(pointer: &str, detail: impl Into<String>) -> FieldError {
    if pointer.len() <= POINTER_BYTES_MAX {
        return FieldError { pointer: pointer.to_owned(), detail: detail.into() };
    }
    let ends = pointer.match_indices('/').map(|(at, _)| at).take_while(|at| *at <= POINTER_BYTES_MAX);
    let outer = &pointer[..ends.last().unwrap_or(0)];
    FieldError { pointer: outer.to_owned(), detail: format!("something within {}", detail.into()) }
}

/// The errors of the one alternative that fails nowhere at `pointer` itself.
fn meant<'e>(
    pointer: &str,
    context: &'e [Vec<ValidationError<'static>>],
) -> Option<&'e [ValidationError<'static>]> {
    let further_in = |errors: &&Vec<ValidationError<'_>>| {
        !errors.is_empty() && errors.iter().all(|error| error.instance_path().as_str() != pointer)
    };
    let mut candidates = context.iter().filter(further_in);
    let first = candidates.next()?;
    candidates.next().is_none().then_some(first)
}

/// The first fault at each of the first alternatives.
fn alternatives(error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>]) -> String {
    let here = error.instance_path().as_str();
    let told = context.iter().filter_map(|errors| errors.first()).take(ALTERNATIVES_TOLD_MAX).map(|first| {
        let fault = faults(first).into_iter().next();
        let (pointer, detail) = fault.map_or_else(Default::default, |fault| (fault.pointer, fault.detail));
        match pointer.strip_prefix(here) {
            Some("") | None => shortened(&detail),
            Some(within) => shortened(&format!("`{within}` {detail}")),
        }
    });
    let mut told: Vec<_> = told.collect();
    told.dedup();
    let more = if context.len() > ALTERNATIVES_TOLD_MAX { " or another alternative fails" } else { "" };
    format!(
        "must be as one of {} says: {}{more}",
        counted(context.len() as u64, "alternative"),
        told.join("; or ")
    )
}

fn member(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn options_of(options: &Value) -> String {
    let Some(options) = options.as_array() else { return quoted(options) };
    shortened(&options.iter().map(quoted).collect::<Vec<_>>().join(", "))
}

fn quoted(value: &Value) -> String {
    shortened(&value.to_string())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn with_article(noun: &str) -> String {
    match noun {
        "null" => noun.to_owned(),
        _ if noun.starts_with(['a', 'i', 'o']) => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}
