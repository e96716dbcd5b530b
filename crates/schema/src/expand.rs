//! From a schema as it was written to one without references: only keywords of draft-07 that assert something are left,
//! within bounds.

use serde_json::{Map, Value};

use carillon_core::invalid::{FINDINGS_MAX, Findings, Invalid};

use crate::cost::{Work, pattern_states};

/// The largest schema, in bytes as JSON.
pub const SCHEMA_BYTES_MAX: usize = 16 * 1024;

/// The deepest schema, in arrays and objects within each other.
pub const SCHEMA_DEPTH_MAX: usize = 20;

/// The largest schema with its references resolved, in bytes as JSON, approximately.
pub const EXPANDED_BYTES_MAX: usize = 64 * 1024;

/// The deepest schema with its references resolved, in schemas within each other; a reference is one of them.
pub const EXPANDED_DEPTH_MAX: usize = 64;

/// The most regular expressions of a schema with its references resolved.
pub const PATTERNS_MAX: usize = 64;

/// The largest that these can be together, in states of their automata, approximately: `a{100}` has a hundred.
pub const PATTERN_STATES_MAX: u64 = 8_000;

/// The formats that are asserted. The check of each takes one pass over a text.
pub const FORMATS: [&str; 10] = [
    "date",
    "date-time",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "time",
    "uri",
    "uri-reference",
];

/// Keywords that hold a schema for the value itself.
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];

/// Keywords that hold schemas for the value itself, in an array.
const COMBINING: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords that hold a schema for members, their names or items.
const BELOW: [&str; 4] = ["additionalItems", "additionalProperties", "contains", "propertyNames"];

/// Keywords that assert something of the value by themselves.
const ASSERTIONS: [&str; 18] = [
    "type",
    "const",
    "enum",
    "required",
    "pattern",
    "format",
    "uniqueItems",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "maxItems",
    "minItems",
    "maxProperties",
    "minProperties",
];

/// Keywords of later drafts, by which a schema would seem to say what it does not.
const LATER: [&str; 13] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "dependentRequired",
    "dependentSchemas",
    "maxContains",
    "minContains",
    "prefixItems",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Refuses what is too large or too deep to be looked at.
pub(crate) fn check_size(source: &Value) -> Result<(), Invalid> {
    let mut findings = Findings::default();
    if depth_exceeds(source, SCHEMA_DEPTH_MAX) {
        findings.add("", format!("must not be more than {SCHEMA_DEPTH_MAX} arrays and objects deep"));
    } else if json_bytes(source) > SCHEMA_BYTES_MAX {
        findings.add("", format!("must have at most {SCHEMA_BYTES_MAX} bytes as JSON"));
    }
    findings.into_result(())
}

/// Refuses a schema that says that it is of another draft.
pub(crate) fn check_draft(source: &Value) -> Result<(), Invalid> {
    let draft_07 = |uri: &str| {
        let uri = uri.strip_suffix('#').unwrap_or(uri);
        matches!(uri, "http://json-schema.org/draft-07/schema" | "https://json-schema.org/draft-07/schema")
    };
    match source.get("$schema") {
        Some(uri) if !uri.as_str().is_some_and(draft_07) => Err(Invalid::field(
            "/$schema",
            "must be `http://json-schema.org/draft-07/schema#`, the one draft taken",
        )),
        _ => Ok(()),
    }
}

/// A schema without references.
pub(crate) struct Expanded {
    pub(crate) schema: Value,
    /// Its size, about.
    pub(crate) bytes: usize,
    /// How many regular expressions it has.
    pub(crate) patterns: usize,
    /// The work that it does.
    pub(crate) work: Work,
}

/// Resolves the references of a schema that has passed the checks of size, draft and syntax.
pub(crate) fn expand(source: &Value) -> Result<Expanded, Invalid> {
    let mut expansion = Expansion {
        root: source,
        within: Vec::new(),
        bytes: 0,
        patterns: 0,
        states: 0,
        work: Work::default(),
        findings: Vec::new(),
    };
    let expanded = expansion.schema(source, &Place::default());
    let mut findings = Findings::default();
    expansion.findings.drain(..).for_each(|(pointer, detail)| findings.add(pointer, detail));
    if expanded.is_err() {
        let detail = format!(
            "must have at most {EXPANDED_BYTES_MAX} bytes with every `$ref` replaced by what it refers to"
        );
        findings.add("", detail);
    }
    let Expansion { bytes, patterns, work, .. } = expansion;
    findings.into_result(Expanded { schema: expanded.unwrap_or_default(), bytes, patterns, work })
}

/// Every regular expression that stands in a document, with its place, be it where schemas look for it or not.
pub(crate) fn patterns(source: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect_patterns(source, "", &mut found);
    found
}

/// With its references resolved, the schema is larger than [`EXPANDED_BYTES_MAX`]: the expansion has stopped.
struct TooLarge;

struct Expansion<'a> {
    root: &'a Value,
    /// The schemas that are being expanded, each within the one before.
    within: Vec<&'a Value>,
    bytes: usize,
    patterns: usize,
    states: u64,
    work: Work,
    /// Pointer and detail. A part that is referred to twice is wrong once.
    findings: Vec<(String, String)>,
}

/// Where something stands in the source, and where it is applied.
#[derive(Clone, Default)]
struct Place {
    /// Into the source.
    pointer: String,
    /// How many levels below the root the values are that it is applied to.
    level: usize,
}

impl<'a> Expansion<'a> {
    fn schema(&mut self, schema: &'a Value, place: &Place) -> Result<Value, TooLarge> {
        self.count(2)?;
        self.work.keyword(place.level, 0);
        let Value::Object(members) = schema else { return Ok(schema.clone()) };
        if self.within.len() >= EXPANDED_DEPTH_MAX {
            let detail =
                format!("must not be more than {EXPANDED_DEPTH_MAX} schemas deep, references included");
            return Ok(self.refused(place, detail));
        }
        self.within.push(schema);
        let expanded = self.members(members, place);
        self.within.pop();
        expanded
    }

    fn members(&mut self, members: &'a Map<String, Value>, place: &Place) -> Result<Value, TooLarge> {
        // An identifier below the root would move what references refer to.
        for keyword in ["$id", "$schema"] {
            if members.contains_key(keyword) && !place.pointer.is_empty() {
                self.refused(&place.in_same_value(keyword), "may stand at the root alone");
            }
        }
        // Whatever stands beside a reference means nothing in this draft.
        if let Some(Value::String(reference)) = members.get("$ref") {
            return self.reference(reference, place);
        }
        let mut expanded = Map::new();
        for (keyword, value) in members {
            if let Some(value) = self.keyword(keyword, value, place)? {
                expanded.insert(keyword.clone(), value);
            }
        }
        Ok(Value::Object(expanded))
    }

    fn reference(&mut self, reference: &str, place: &Place) -> Result<Value, TooLarge> {
        let root = self.root;
        let here = place.in_same_value("$ref");
        let Some(pointer) = reference.strip_prefix('#').and_then(percent_decoded) else {
            return Ok(self.refused(&here, "must begin with `#`: nothing outside of the schema is fetched"));
        };
        match root.pointer(&pointer) {
            Some(target) if self.within.iter().any(|outer| std::ptr::eq(*outer, target)) => {
                Ok(self.refused(&here, "must not refer to what it stands in: a schema is no part of itself"))
            }
            Some(target @ (Value::Object(_) | Value::Bool(_))) => {
                self.schema(target, &Place { pointer, level: place.level })
            }
            _ => Ok(self.refused(&here, "must be `#` and a JSON Pointer to a schema within this one")),
        }
    }

    /// What of a keyword remains in the expanded schema.
    fn keyword(&mut self, keyword: &str, value: &'a Value, place: &Place) -> Result<Option<Value>, TooLarge> {
        let here = place.in_same_value(keyword);
        let below = Place { level: place.level + 1, ..here.clone() };
        self.count(keyword.len() + 4)?;
        match (keyword, value) {
            _ if LATER.contains(&keyword) => {
                self.refused(&here, "is a keyword of a later draft; this one is draft-07");
                Ok(None)
            }
            _ if ASSERTIONS.contains(&keyword) => self.assertion(keyword, value, &here),
            _ if IN_PLACE.contains(&keyword) => {
                let expanded = self.schema(value, &here)?;
                if keyword == "not" {
                    // Each fault keeps a copy of the schema that it tells of.
                    self.work.comparison(place.level, json_bytes(&expanded));
                }
                Ok(Some(expanded))
            }
            _ if BELOW.contains(&keyword) => self.schema(value, &below).map(Some),
            (_, Value::Array(schemas)) if COMBINING.contains(&keyword) => {
                if keyword != "allOf" {
                    self.work.branch();
                }
                self.schemas(schemas, &here).map(Some)
            }
            ("items", Value::Array(schemas)) => self.schemas(schemas, &below).map(Some),
            ("items", _) => self.schema(value, &below).map(Some),
            ("dependencies", Value::Object(schemas)) => self.named_schemas(schemas, place, &here).map(Some),
            ("properties", Value::Object(schemas)) => self.named_schemas(schemas, place, &below).map(Some),
            ("patternProperties", Value::Object(schemas)) => {
                for pattern in schemas.keys() {
                    self.pattern(pattern, &below.in_same_value(pattern));
                    // `additionalProperties` looks at the names once more.
                    self.work.pattern(below.level, pattern_states(pattern));
                }
                self.named_schemas(schemas, place, &below).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn assertion(&mut self, keyword: &str, value: &Value, place: &Place) -> Result<Option<Value>, TooLarge> {
        let bytes = json_bytes(value);
        self.count(bytes)?;
        match (keyword, value) {
            ("const" | "enum", _) => self.work.comparison(place.level, bytes),
            ("required", Value::Array(names)) => self.work.keyword(place.level, names.len()),
            ("pattern", Value::String(pattern)) => self.pattern(pattern, place),
            ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => return Ok(None),
            ("format" | "minLength" | "maxLength", _) => self.work.pattern(place.level, 1),
            ("uniqueItems", Value::Bool(true)) => self.work.unique_items(place.level),
            _ => self.work.keyword(place.level, 0),
        }
        Ok(Some(value.clone()))
    }

    fn schemas(&mut self, schemas: &'a [Value], place: &Place) -> Result<Value, TooLarge> {
        let each = schemas.iter().enumerate();
        each.map(|(index, schema)| self.schema(schema, &place.in_same_value(&index.to_string()))).collect()
    }

    /// Schemas by the names of members, in an object at `object`, to be applied at `place`.
    fn named_schemas(
        &mut self,
        schemas: &'a Map<String, Value>,
        object: &Place,
        place: &Place,
    ) -> Result<Value, TooLarge> {
        self.work.keyword(object.level, schemas.len());
        let mut expanded = Map::new();
        for (name, schema) in schemas {
            self.count(name.len() + 4)?;
            let value = match schema {
                // The names that a dependency demands.
                Value::Array(names) => {
                    self.count(json_bytes(schema))?;
                    self.work.keyword(object.level, names.len());
                    schema.clone()
                }
                schema => self.schema(schema, &place.in_same_value(name))?,
            };
            expanded.insert(name.clone(), value);
        }
        Ok(Value::Object(expanded))
    }

    fn pattern(&mut self, pattern: &str, place: &Place) {
        let states = pattern_states(pattern);
        self.work.pattern(place.level, states);
        self.states = self.states.saturating_add(states);
        self.patterns += 1;
        if self.states > PATTERN_STATES_MAX {
            self.refused(
                place,
                "is too large a regular expression, by itself or with the others: repeat less",
            );
        } else if self.patterns > PATTERNS_MAX {
            self.refused(
                place,
                format!("is one too many: a schema has at most {PATTERNS_MAX} regular expressions"),
            );
        }
    }

    /// Notes what is wrong; stands for the schema that it is wrong with.
    fn refused(&mut self, place: &Place, detail: impl Into<String>) -> Value {
        let finding = (place.pointer.clone(), detail.into());
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
        Value::Bool(false)
    }

    fn count(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.bytes += bytes;
        if self.bytes > EXPANDED_BYTES_MAX { Err(TooLarge) } else { Ok(()) }
    }
}

impl Place {
    /// A part of what stands here, applied to the same values.
    fn in_same_value(&self, name: &str) -> Self {
        Self { pointer: format!("{}/{}", self.pointer, escaped(name)), level: self.level }
    }
}

fn collect_patterns(value: &Value, pointer: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_patterns(item, &format!("{pointer}/{index}"), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let pointer = format!("{pointer}/{}", escaped(name));
                match (name.as_str(), member) {
                    ("pattern", Value::String(pattern)) => found.push((pointer.clone(), pattern.clone())),
                    ("patternProperties", Value::Object(patterns)) => found.extend(
                        patterns.keys().map(|key| (format!("{pointer}/{}", escaped(key)), key.clone())),
                    ),
                    _ => {}
                }
                collect_patterns(member, &pointer, found);
            }
        }
        _ => {}
    }
}

fn depth_exceeds(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| depth_exceeds(item, depth - 1)),
        Value::Object(members) => {
            depth == 0 || members.values().any(|member| depth_exceeds(member, depth - 1))
        }
        _ => false,
    }
}

/// The size of a value as JSON without white space.
fn json_bytes(value: &Value) -> usize {
    struct Counter(usize);

    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(0);
    // Neither a value nor the counter can fail.
    serde_json::to_writer(&mut counter, value).map_or(usize::MAX, |()| counter.0)
}

/// A name as a part of a JSON Pointer (RFC 6901, section 3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The text of a URI's fragment (RFC 3986, section 2.1).
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits)
                .ok()
                .filter(|text| text.bytes().all(|d| d.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
