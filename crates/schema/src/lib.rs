//! JSON Schemas of bounded cost: written by strangers, compiled and evaluated in a time and a memory that are known before.
//!
//! The dialect is draft-07. What bounds the cost:
//! - A schema has at most [`SCHEMA_BYTES_MAX`] and [`SCHEMA_DEPTH_MAX`]. It refers to its own parts alone (`#` and
//!   `#/...`), never in a circle: nothing is fetched, and no evaluation is deeper than the schema.
//! - Its references are resolved before it is compiled, within [`EXPANDED_BYTES_MAX`] and [`EXPANDED_DEPTH_MAX`], so parts
//!   that refer to parts twice over cannot grow without end. An identifier (`$id`) is allowed at the root and means
//!   nothing.
//! - Regular expressions are those of an engine of linear time: no look-around, no back-references; and small.
//! - Before a value is looked at, what looking at it would cost at most is computed from the schema's and the value's
//!   shapes. More than [`COST_MAX`] is not begun.
//!
//! Of the formats, those in [`FORMATS`] are asserted; any other, and `contentEncoding` and `contentMediaType`, say
//! something to readers alone. Keywords that came with later drafts are refused rather than passed over in silence.

mod cost;
mod expand;
mod wording;

use std::fmt;

use carillon_core::invalid::{FINDINGS_MAX, FieldError, Findings, Invalid};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

pub use crate::cost::COST_MAX;
use crate::cost::{Shape, Work};
use crate::expand::Expanded;
pub use crate::expand::{
    EXPANDED_BYTES_MAX, EXPANDED_DEPTH_MAX, FORMATS, PATTERN_STATES_MAX, PATTERNS_MAX, SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX,
};

/// The largest compiled regular expression, in bytes: what [`PATTERN_STATES_MAX`] leaves room for, and no more.
const PATTERN_BYTES_MAX: usize = 512 * 1024;

/// The most memory that an engine keeps of what it has learnt about one regular expression, in bytes.
const PATTERN_CACHE_BYTES_MAX: usize = 512 * 1024;

/// How many regular expressions of a schema are tried when its wrong ones are looked for: compiling takes time.
const PATTERNS_TRIED_MAX: usize = 4 * PATTERNS_MAX;

/// What a compiled schema takes in memory for each byte of the schema with its references resolved, in bytes, about.
const BYTES_PER_BYTE: usize = 64;

/// The most work, in the unit of [`COST_MAX`], after which all faults of a value are still looked for: each takes memory.
const COST_OF_ALL_FAULTS_MAX: u64 = 100_000;

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    work: Work,
    memory: usize,
}

/// Why a text is no schema here, with pointers into the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct SchemaError(#[from] pub Invalid);

/// Checking the value by the schema could take more than [`COST_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is too large to be checked by this schema")]
pub struct TooCostly;

impl Schema {
    /// Checks and compiles a schema.
    pub fn compile(source: &Value) -> Result<Self, SchemaError> {
        expand::check_size(source)?;
        expand::check_draft(source)?;
        check_syntax(source)?;
        let Expanded { schema, bytes, patterns, work } = expand::expand(source)?;
        match build(&schema) {
            Ok(validator) => {
                let memory =
                    bytes * BYTES_PER_BYTE + patterns * (PATTERN_BYTES_MAX + PATTERN_CACHE_BYTES_MAX);
                Ok(Self { validator, work, memory })
            }
            Err(error) => Err(wrong_patterns(source, &error)),
        }
    }

    /// What is wrong with a value: pointers into it, each with a short sentence; at most [`FINDINGS_MAX`], none if it is
    /// valid. The sentences quote the schema, never the value.
    #[must_use]
    pub fn check(&self, value: &Value) -> Vec<FieldError> {
        let shape = Shape::of(value, &self.work);
        if self.work.cost(&shape) > COST_MAX {
            return whole(TooCostly.to_string());
        }
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let faults: Vec<_> = if self.work.cost_of_faults(&shape) <= COST_OF_ALL_FAULTS_MAX {
            let errors = self.validator.iter_errors(value);
            errors.flat_map(|error| wording::faults(&error)).take(FINDINGS_MAX).collect()
        } else if self.work.branches() {
            Vec::new()
        } else {
            let first = self.validator.validate(value).err();
            first.iter().flat_map(wording::faults).take(FINDINGS_MAX).collect()
        };
        if faults.is_empty() {
            return whole("does not conform to the schema, and is too large for its faults to be told");
        }
        faults
    }

    /// Whether a value is valid; an error if that could cost too much to find out.
    pub fn try_match(&self, value: &Value) -> Result<bool, TooCostly> {
        if self.work.cost(&Shape::of(value, &self.work)) > COST_MAX {
            return Err(TooCostly);
        }
        Ok(self.validator.is_valid(value))
    }

    /// Whether a value is valid, and not too large for that to be known.
    #[must_use]
    pub fn is_match(&self, value: &Value) -> bool {
        self.try_match(value) == Ok(true)
    }

    /// What it takes in memory, in bytes: of its regular expressions the most that they can take once they were used, of
    /// the rest a guess on the large side.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl SchemaError {
    /// The faults with pointers into a document that has the schema at `pointer`.
    #[must_use]
    pub fn at(self, pointer: &str) -> Invalid {
        Invalid(prefixed(pointer, self.0.0))
    }
}

impl From<SchemaError> for Invalid {
    fn from(error: SchemaError) -> Self {
        error.0
    }
}

/// The tree of validators within has nothing to say that the schema would not say better.
impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

/// Faults with pointers into a document in which what they were found in stands at `pointer`.
#[must_use]
pub fn prefixed(pointer: &str, faults: Vec<FieldError>) -> Vec<FieldError> {
    let prefixed = |fault: FieldError| FieldError { pointer: format!("{pointer}{}", fault.pointer), ..fault };
    faults.into_iter().map(prefixed).collect()
}

/// A fault of a value as a whole.
fn whole(detail: impl Into<String>) -> Vec<FieldError> {
    vec![FieldError { pointer: String::new(), detail: detail.into() }]
}

/// By the schema of schemas.
fn check_syntax(source: &Value) -> Result<(), Invalid> {
    let mut findings = Findings::default();
    jsonschema::draft7::meta::validator()
        .iter_errors(source)
        .flat_map(|error| wording::faults(&error))
        .for_each(|fault| findings.add(fault.pointer, fault.detail));
    findings.into_result(())
}

fn build(expanded: &Value) -> Result<Validator, ValidationError<'static>> {
    let patterns =
        PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_CACHE_BYTES_MAX);
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .offline()
        .build(expanded)
}

/// A schema that has passed every check before fails at the regular expressions that the engine does not take. The
/// error tells where in the expanded schema; here they are found in the source: the first ones, since the source can have
/// many in places that do not count.
fn wrong_patterns(source: &Value, error: &ValidationError<'_>) -> SchemaError {
    let mut findings = Findings::default();
    let is_wrong = |(_, pattern): &(String, String)| build(&json!({ "pattern": pattern })).is_err();
    let tried = expand::patterns(source).into_iter().take(PATTERNS_TRIED_MAX);
    for (pointer, _) in tried.filter(is_wrong).take(FINDINGS_MAX) {
        findings.add(
            pointer,
            "must be a regular expression without look-around and back-references, and not large",
        );
    }
    match findings.into_result(()) {
        Err(invalid) => SchemaError(invalid),
        Ok(()) => {
            SchemaError(Invalid::field("", format!("cannot be compiled: {}", wording::sentence(error))))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A hundred times what the slowest of these takes without optimisation; what nothing bounded would take hours.
    const BOUND: Duration = Duration::from_secs(10);

    fn compiled(source: &Value) -> Schema {
        Schema::compile(source).unwrap()
    }

    fn refused(source: &Value) -> Vec<(String, String)> {
        match Schema::compile(source) {
            Ok(_) => panic!("{source} is no schema"),
            Err(SchemaError(Invalid(faults))) => {
                faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
            }
        }
    }

    fn refused_at(source: &Value) -> Vec<String> {
        refused(source).into_iter().map(|(pointer, _)| pointer).collect()
    }

    fn faults(schema: &Value, value: &Value) -> Vec<(String, String)> {
        let schema = compiled(schema);
        let faults = schema.check(value);
        assert_eq!(schema.is_match(value), faults.is_empty());
        faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    fn fault(pointer: &str, detail: &str) -> (String, String) {
        (pointer.to_owned(), detail.to_owned())
    }

    /// Values of about this size as JSON, of several shapes.
    fn values(bytes: usize) -> Vec<Value> {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let text: String = (0..bytes).map(|_| if random() % 2 == 0 { 'a' } else { 'b' }).collect();
        let numbers: Vec<_> = (0..bytes / 2).map(|_| random() % 10).collect();
        let nested: Vec<_> = (0..bytes / 8).map(|n| json!([[n % 10]])).collect();
        let members: serde_json::Map<_, _> =
            (0..bytes / 11).map(|n| (format!("{n:06}"), json!(n % 10))).collect();
        let brackets: Vec<_> = (0..bytes / 40).map(|_| nest(random())).collect();
        let long_names =
            (0..10).fold(json!(vec![1; bytes / 8]), |inner, _| json!({ "x".repeat(bytes / 16): inner }));
        vec![json!(text), json!(numbers), json!(nested), json!(members), json!(brackets), long_names]
    }

    /// Arrays of arrays without a scalar, by the bits of a number: equal ones are rare, and all have the same hash.
    fn nest(bits: u64) -> Value {
        (0..16).fold(
            json!([]),
            |inner, bit| if bits >> bit & 1 == 0 { json!([inner]) } else { json!([[], inner]) },
        )
    }

    #[test]
    fn faults_have_pointers_and_sentences() {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": "https://schemas.example/order",
            "type": "object",
            "required": ["id", "a/b"],
            "properties": {
                "id": {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"},
                "a/b": true,
                "state": {"enum": ["open", "closed"]},
                "at": {"type": "string", "format": "date-time"},
                "lines": {"type": "array", "maxItems": 2, "uniqueItems": true, "items": {"$ref": "#/definitions/line"}},
                "code": {"format": "zip", "contentEncoding": "base64"},
                "party": {"anyOf": [{"type": "string"}, {"required": ["name"]}]}
            },
            "additionalProperties": false,
            "definitions": {"line": {"type": ["integer", "null"], "minimum": 1, "multipleOf": 0.5}}
        });
        let valid = json!({
            "id": "x", "a/b": 1, "code": "?", "lines": [1, null], "state": "open", "at": "2026-11-20T13:04:07Z"
        });
        assert_eq!(faults(&schema, &valid), []);
        assert_eq!(faults(&schema, &json!(1)), [fault("", "must be an object")]);
        assert_eq!(
            faults(
                &schema,
                &json!({
                    "id": "", "state": "ajar", "at": "noon", "lines": [0, 0, "1"], "more~": 1, "party": {}
                })
            ),
            [
                fault("/a~1b", "is required"),
                fault("/at", "must have the format `date-time`"),
                fault("/id", "must have at least 1 character"),
                fault("/id", "must match `^[a-z]+$`"),
                fault("/lines", "must have at most 2 items"),
                fault("/lines", "must not have two equal items"),
                fault("/lines/0", "must be at least 1"),
                fault("/lines/1", "must be at least 1"),
                fault("/lines/2", "must be null or an integer"),
                fault(
                    "/party",
                    "must be as one of 2 alternatives says: must be a string; or `/name` is required"
                ),
                fault("/state", "must be one of \"open\", \"closed\""),
                fault("/more~0", "is not expected here"),
            ]
        );
    }

    #[test]
    fn what_is_no_schema_here() {
        let deep = (0..SCHEMA_DEPTH_MAX).fold(json!({}), |inner, _| json!({ "not": inner }));
        let long = json!({"title": "x".repeat(SCHEMA_BYTES_MAX)});
        let mut doubling = json!({"$ref": "#/definitions/0", "definitions": {"20": {"type": "string"}}});
        for n in 0..20 {
            let next = format!("#/definitions/{}", n + 1);
            doubling["definitions"][n.to_string()] = json!({"allOf": [{"$ref": next}, {"$ref": next}]});
        }
        let mut chain = json!({"$ref": "#/definitions/0", "definitions": {}});
        for n in 0..100 {
            chain["definitions"][n.to_string()] = json!({"$ref": format!("#/definitions/{}", (n + 1) % 100)});
        }
        let many: Vec<_> = (0..=PATTERNS_MAX).map(|n| json!({"pattern": format!("^{n}")})).collect();
        for (source, pointers) in [
            (json!(7), vec![""]),
            (deep, vec![""]),
            (long, vec![""]),
            (json!({"required": "id", "type": "strnig"}), vec!["/required", "/type"]),
            (json!({"properties": {"a": {"minLength": -1}}}), vec!["/properties/a/minLength"]),
            (json!({"items": {"title": 7}}), vec!["/items/title"]),
            (json!({"$schema": "https://json-schema.org/draft/2020-12/schema"}), vec!["/$schema"]),
            (json!({"$schema": 7}), vec!["/$schema"]),
            (json!({"not": {"$schema": "http://json-schema.org/draft-07/schema#"}}), vec!["/not/$schema"]),
            (json!({"not": {"$id": "https://schemas.example/a"}}), vec!["/not/$id"]),
            (json!({"prefixItems": [true]}), vec!["/prefixItems"]),
            (json!({"$ref": "http://169.254.169.254/latest/meta-data"}), vec!["/$ref"]),
            (json!({"not": {"$ref": "file:///etc/passwd"}}), vec!["/not/$ref"]),
            (json!({"items": [{"$ref": "other.json#/a"}]}), vec!["/items/0/$ref"]),
            (json!({"$ref": "http://json-schema.org/draft-07/schema#"}), vec!["/$ref"]),
            (json!({"not": {"$ref": "#name"}}), vec!["/not/$ref"]),
            (json!({"not": {"$ref": "#/definitions/none"}}), vec!["/not/$ref"]),
            (json!({"title": "x", "not": {"$ref": "#/title"}}), vec!["/not/$ref"]),
            (json!({"not": {"$ref": "#"}}), vec!["/not/$ref"]),
            (
                json!({"$ref": "#/definitions/a", "definitions": {
                    "a": {"items": {"$ref": "#/definitions/b"}},
                    "b": {"anyOf": [{"$ref": "#/definitions/a"}, {"type": "string"}]}
                }}),
                vec!["/definitions/b/anyOf/0/$ref"],
            ),
            (doubling, vec![""]),
            (chain, vec!["/definitions/63"]),
            (json!({"pattern": "("}), vec!["/pattern"]),
            (json!({"properties": {"a": {"pattern": "(?=a)b"}}}), vec!["/properties/a/pattern"]),
            (json!({"patternProperties": {r"(a)\1": true}}), vec![r"/patternProperties/(a)\1"]),
            (json!({"pattern": "((a{100}){100}){100}"}), vec!["/pattern"]),
            (json!({"patternProperties": {"a{9000}": {}}}), vec!["/patternProperties/a{9000}"]),
            (json!({"allOf": many}), vec!["/allOf/64/pattern"]),
        ] {
            assert_eq!(refused_at(&source), pointers, "{source}");
        }
    }

    #[test]
    fn wrong_regular_expressions_are_looked_for_within_bounds() {
        let wrong: Vec<_> = (0..PATTERNS_MAX).map(|n| json!({ "pattern": "(?=a)b", "title": n })).collect();
        assert_eq!(refused(&json!({ "allOf": wrong })).len(), FINDINGS_MAX);
        // Behind more of them than are tried, all in a place that means nothing.
        let right: Vec<_> = (0..PATTERNS_TRIED_MAX).map(|_| json!({"pattern": "a"})).collect();
        let behind = json!({"default": right, "pattern": "(?=a)b"});
        assert_eq!(refused_at(&behind), [""]);
    }

    #[test]
    fn names_that_look_like_keywords_are_names() {
        let schema = json!({
            "properties": {
                "$ref": {"const": {"$ref": "http://elsewhere.example"}},
                "$id": {"type": "integer"},
                "pattern": {"$ref": "#/properties/a%7E0%20b/items"},
                "a~ b": {"items": {"type": "boolean"}},
                "prefixItems": {"not": {"enum": [{"$id": 1}]}}
            },
            "default": {"$ref": "nowhere"}
        });
        assert_eq!(
            faults(&schema, &json!({"$ref": {"$ref": "http://elsewhere.example"}, "pattern": true})),
            []
        );
        assert_eq!(
            faults(&schema, &json!({"$ref": 1, "$id": "x", "pattern": "(", "prefixItems": {"$id": 1}})),
            [
                fault("/$id", "must be an integer"),
                fault("/$ref", "must be {\"$ref\":\"http://elsewhere.example\"}"),
                fault("/pattern", "must be a boolean"),
                fault("/prefixItems", "must not be as `not` says"),
            ]
        );
    }

    /// The crate underneath resolves references by itself: expanded or not, a schema says the same.
    #[test]
    fn expansion_keeps_the_meaning() {
        let schema = json!({
            "definitions": {
                "name": {"type": "string", "minLength": 2},
                "pair": {"items": [{"$ref": "#/definitions/name"}, {"type": "integer"}], "additionalItems": false}
            },
            "type": "object",
            "properties": {"a": {"$ref": "#/definitions/pair", "type": "boolean"}, "b": {"contains": {"const": 1}}},
            "patternProperties": {"^x": {"$ref": "#/definitions/name"}},
            "additionalProperties": {"oneOf": [{"type": "null"}, {"$ref": "#/properties/a"}]},
            "propertyNames": {"maxLength": 3},
            "dependencies": {"a": ["b"], "xa": {"required": ["xb"]}},
            "if": {"required": ["b"]},
            "then": {"maxProperties": 3},
            "else": {"minProperties": 1}
        });
        let reference = jsonschema::draft7::new(&schema).unwrap();
        let compiled = compiled(&schema);
        let members = [
            ("a", json!(["ab", 1])),
            ("a", json!(["a", 1])),
            ("a", json!(["ab", 1, 2])),
            ("a", json!(true)),
            ("b", json!([1])),
            ("b", json!([])),
            ("xa", json!("ab")),
            ("xb", json!(7)),
            ("c", json!(null)),
            ("d", json!([1])),
            ("long", json!(null)),
        ];
        let mut valid = 0;
        for chosen in 0..1 << members.len() {
            let members = members.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1);
            let value: serde_json::Map<_, _> =
                members.map(|(_, (name, value))| ((*name).to_owned(), value.clone())).collect();
            let value = Value::Object(value);
            let expected: Vec<_> = reference.iter_errors(&value).collect();
            assert_eq!(compiled.check(&value).is_empty(), expected.is_empty(), "{value}");
            valid += usize::from(expected.is_empty());
        }
        assert!(valid > 5, "{valid} valid values are too few to tell");
    }

    #[test]
    fn hostile_schemas_are_refused_or_evaluated_in_bounded_time() {
        let alternatives: Vec<_> =
            (0..300).map(|n| json!({"items": {"type": "null", "title": n.to_string()}})).collect();
        let nested = (0..8).fold(json!({"type": "null"}), |inner, _| json!({"anyOf": [inner, {"not": {}}]}));
        let every_level = (0..6).fold(
            json!({"type": "null"}),
            |inner, _| json!({"items": inner, "additionalProperties": inner, "uniqueItems": true}),
        );
        let patterns: Vec<_> =
            (0..20).map(|n| json!({"pattern": format!("(a|b)*a(a|b){{{}}}c", 50 + n)})).collect();
        let long_enum: Vec<_> = (0..1500).collect();
        let hostile = [
            json!({"pattern": "(a|b)*a(a|b){900}c"}),
            json!({"allOf": patterns}),
            json!({"patternProperties": {"(0|1)*0(0|1|2){50}x": false}, "additionalProperties": {"type": "null"}}),
            json!({"propertyNames": {"pattern": "(0|1)*0(0|1|2){200}x"}}),
            json!({"anyOf": alternatives}),
            json!({"oneOf": alternatives}),
            json!({"not": {"anyOf": alternatives}}),
            json!({"items": nested}),
            json!({"items": {"not": {"not": {"enum": long_enum}}}}),
            every_level,
            json!({"uniqueItems": true, "items": {"uniqueItems": true}}),
            json!({"items": {"enum": long_enum}, "additionalProperties": {"enum": long_enum}}),
            json!({"items": {"multipleOf": 1e-300, "type": "null"}}),
            json!({"additionalProperties": false, "type": "string", "format": "email", "maxLength": 1}),
            json!({"type": "object", "additionalProperties": every_level_names(12)}),
        ];
        for bytes in [1 << 18, 1 << 15, 1 << 12] {
            let values = values(bytes);
            for (number, source) in hostile.iter().enumerate() {
                let schema = compiled(source);
                for (shape, value) in values.iter().enumerate() {
                    let started = Instant::now();
                    let faults = schema.check(value);
                    let elapsed = started.elapsed();
                    assert!(
                        elapsed < BOUND,
                        "schema {number}: {elapsed:?} for {bytes} bytes of shape {shape}"
                    );
                    assert!(faults.len() <= FINDINGS_MAX);
                    assert!(faults.iter().all(|fault| fault.pointer.len() + fault.detail.len() < 1000));
                }
            }
        }
    }

    fn every_level_names(depth: usize) -> Value {
        (0..depth).fold(
            json!({"type": "null"}),
            |inner, _| json!({"additionalProperties": inner, "items": {"type": "null"}}),
        )
    }

    #[test]
    fn what_could_cost_too_much_is_not_begun() {
        let schema = compiled(&json!({"items": {"enum": (0..2000).collect::<Vec<_>>()}}));
        let value = json!(vec![1; 100_000]);
        assert_eq!(
            schema.check(&value),
            [FieldError { pointer: String::new(), detail: TooCostly.to_string() }]
        );
        assert_eq!(schema.try_match(&value), Err(TooCostly));
        assert!(!schema.is_match(&value));
    }

    #[test]
    fn a_schema_can_be_shared_and_shown() {
        fn shared<T: Send + Sync + fmt::Debug>(_: &T) {}
        shared(&compiled(&json!(true)));
        let error = Schema::compile(&json!({"type": 1})).unwrap_err();
        assert_eq!(error.at("/schema").0[0].pointer, "/schema/type");
    }
}
