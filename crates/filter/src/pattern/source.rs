//! Reads a pattern as it is written, and finds all that is wrong with it.

use carillon_core::invalid::{Findings, Invalid};
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::condition::{Bound, Condition, Range, Values};
use super::number::Number;
use super::texts::{Comparison, Part};
use super::wildcard::Wildcard;

/// The most wildcards of a pattern. Each is compared with a text in one pass over it.
pub const WILDCARDS_MAX: usize = 5;

/// The field that stands for alternatives.
const OR: &str = "$or";

/// What no field within an `$or` may be called, as EventBridge has it: most likely the brackets around an operator were
/// forgotten.
const RESERVED: [&str; 9] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
];

/// An object of a pattern.
#[derive(Debug, Default)]
pub(super) struct Object {
    pub(super) fields: Vec<(String, Field)>,
    /// The alternatives of its `$or`; empty if it has none.
    pub(super) alternatives: Vec<Object>,
}

/// A field of a pattern.
#[derive(Debug)]
pub(super) enum Field {
    Object(Object),
    Condition(Condition),
}

/// Reads a pattern whose size and depth were checked. Pointers of errors begin with `pointer`.
pub(super) fn parse(source: &Value, pointer: &str) -> Result<Object, Invalid> {
    let mut parser = Parser { findings: Findings::default(), wildcards: 0 };
    let object = parser.object(source, pointer, false);
    if parser.wildcards > WILDCARDS_MAX {
        parser.findings.add(pointer, format!("must have at most {WILDCARDS_MAX} wildcards"));
    }
    parser.findings.into_result(object)
}

/// The pointer to a member of what is at `pointer` (RFC 6901, section 3).
pub(super) fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

struct Parser {
    findings: Findings,
    wildcards: usize,
}

impl Parser {
    fn object(&mut self, source: &Value, pointer: &str, in_or: bool) -> Object {
        let Value::Object(fields) = source else {
            self.findings.add(pointer, "must be an object");
            return Object::default();
        };
        if fields.is_empty() {
            self.findings.add(pointer, "must have at least one field");
        }
        let mut object = Object::default();
        for (name, value) in fields {
            let pointer = child(pointer, name);
            if name == OR {
                object.alternatives = self.alternatives(value, &pointer);
            } else if in_or && RESERVED.contains(&name.as_str()) {
                self.findings.add(pointer, "must not be called like an operator within $or");
            } else {
                let field = self.field(value, &pointer, in_or);
                object.fields.extend(field.map(|field| (name.clone(), field)));
            }
        }
        object
    }

    fn alternatives(&mut self, source: &Value, pointer: &str) -> Vec<Object> {
        match source {
            Value::Array(alternatives) if alternatives.len() >= 2 => {
                let alternatives = alternatives.iter().enumerate();
                alternatives
                    .map(|(index, alternative)| self.object(alternative, &format!("{pointer}/{index}"), true))
                    .collect()
            }
            _ => {
                self.findings.add(pointer, "must be an array of at least two objects");
                Vec::new()
            }
        }
    }

    fn field(&mut self, source: &Value, pointer: &str, in_or: bool) -> Option<Field> {
        match source {
            Value::Object(_) => Some(Field::Object(self.object(source, pointer, in_or))),
            Value::Array(conditions) if !conditions.is_empty() => {
                let mut condition = Condition::default();
                for (index, one) in conditions.iter().enumerate() {
                    self.condition(one, &format!("{pointer}/{index}"), &mut condition);
                }
                condition.sort();
                Some(Field::Condition(condition))
            }
            Value::Array(_) => {
                self.findings.add(pointer, "must have at least one value or operator");
                None
            }
            _ => {
                self.findings.add(pointer, "must be an object, or an array of values and operators");
                None
            }
        }
    }

    fn condition(&mut self, source: &Value, pointer: &str, condition: &mut Condition) {
        match source {
            Value::Null => condition.any_of.null = true,
            Value::Bool(true) => condition.any_of.r#true = true,
            Value::Bool(false) => condition.any_of.r#false = true,
            Value::Number(_) => self.number(source, pointer, &mut condition.any_of),
            Value::String(text) => condition.any_of.add_text(whole(), text),
            Value::Object(operator) => self.operator(operator, pointer, condition),
            Value::Array(_) => {
                self.findings.add(pointer, "must be a text, a number, true, false, null or an operator");
            }
        }
    }

    fn operator(&mut self, operator: &Map<String, Value>, pointer: &str, condition: &mut Condition) {
        let Some((name, operand)) = single(operator) else {
            self.findings.add(pointer, "must have exactly one operator");
            return;
        };
        let pointer = child(pointer, name);
        match name {
            "anything-but" => {
                let mut excluded = Values::default();
                self.anything_but(operand, &pointer, &mut excluded);
                condition.none_of.push(excluded);
            }
            "exists" => match operand {
                Value::Bool(true) => condition.present = true,
                Value::Bool(false) => condition.absent = true,
                _ => self.findings.add(pointer, "must be true or false"),
            },
            "numeric" => match self.range(operand, &pointer) {
                Some(range) => condition.any_of.ranges.push(range),
                None => self.findings.add(pointer, RANGE),
            },
            "cidr" => match operand.as_str().map(str::parse::<IpNet>) {
                Some(Ok(network)) => condition.any_of.networks.push(network),
                _ => self.findings.add(pointer, "must be a range of addresses such as 10.0.0.0/24 or 2001:db8::/32"),
            },
            "wildcard" => self.wildcard(operand, &pointer, &mut condition.any_of),
            "equals-ignore-case" => {
                let how = Comparison { any_case: true, ..whole() };
                self.text(operand, &pointer, how, &mut condition.any_of);
            }
            "prefix" => self.part(operand, &pointer, Part::Prefix, &mut condition.any_of),
            "suffix" => self.part(operand, &pointer, Part::Suffix, &mut condition.any_of),
            _ => self.findings.add(
                pointer,
                "must be one of anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard",
            ),
        }
    }

    /// A prefix or suffix: a text, or one whose case does not matter.
    fn part(&mut self, operand: &Value, pointer: &str, part: Part, values: &mut Values) {
        match operand {
            Value::Object(operator) => match single(operator) {
                Some((name @ "equals-ignore-case", operand)) => {
                    self.text(operand, &child(pointer, name), Comparison { part, any_case: true }, values);
                }
                _ => self
                    .findings
                    .add(pointer, "must be a text, or have equals-ignore-case as its only operator"),
            },
            _ => self.text(operand, pointer, Comparison { part, any_case: false }, values),
        }
    }

    fn text(&mut self, operand: &Value, pointer: &str, how: Comparison, values: &mut Values) {
        match operand {
            Value::String(text) => values.add_text(how, text),
            _ => self.findings.add(pointer, "must be a text"),
        }
    }

    fn wildcard(&mut self, operand: &Value, pointer: &str, values: &mut Values) {
        self.wildcards += 1;
        match operand.as_str().map(Wildcard::parse) {
            Some(Ok(wildcard)) => values.wildcards.push(wildcard),
            Some(Err(error)) => self.findings.add(pointer, error),
            None => self.findings.add(pointer, "must be a text"),
        }
    }

    fn number(&mut self, operand: &Value, pointer: &str, values: &mut Values) {
        match number(operand) {
            Some(number) => values.numbers.push(number),
            None => self.findings.add(pointer, "must be a number that a double can hold"),
        }
    }

    /// Values, or what an operator says of texts: one, or a list.
    fn anything_but(&mut self, operand: &Value, pointer: &str, excluded: &mut Values) {
        match operand {
            Value::Object(operator) => match single(operator) {
                Some((name @ ("prefix" | "suffix" | "equals-ignore-case" | "wildcard"), operand)) => {
                    let pointer = child(pointer, name);
                    self.each(operand, &pointer, &mut |parser, operand, pointer| {
                        parser.excluded_text(name, operand, pointer, excluded);
                    });
                }
                _ => self.findings.add(
                    pointer,
                    "must be values, or have one operator out of prefix, suffix, equals-ignore-case, wildcard",
                ),
            },
            Value::Array(listed) if !alike(listed) => {
                self.findings.add(pointer, "must be a list of texts alone, or of numbers alone");
            }
            _ => self.each(operand, pointer, &mut |parser, operand, pointer| match operand {
                Value::String(text) => excluded.add_text(whole(), text),
                Value::Number(_) => parser.number(operand, pointer, excluded),
                _ => parser.findings.add(pointer, "must be a text or a number"),
            }),
        }
    }

    fn excluded_text(&mut self, name: &str, operand: &Value, pointer: &str, excluded: &mut Values) {
        let part = match name {
            "wildcard" => return self.wildcard(operand, pointer, excluded),
            "prefix" => Part::Prefix,
            "suffix" => Part::Suffix,
            _ => Part::Whole,
        };
        // Each text begins and ends with the empty one: nothing would be left.
        if part != Part::Whole && operand.as_str() == Some("") {
            self.findings.add(pointer, "must not be empty");
        } else {
            self.text(operand, pointer, Comparison { part, any_case: part == Part::Whole }, excluded);
        }
    }

    /// Calls `read` for an operand, or for each one of a list, which must not be empty.
    fn each(&mut self, operand: &Value, pointer: &str, read: &mut dyn FnMut(&mut Self, &Value, &str)) {
        match operand {
            Value::Array(listed) if listed.is_empty() => {
                self.findings.add(pointer, "must have at least one value");
            }
            Value::Array(listed) => {
                for (index, one) in listed.iter().enumerate() {
                    read(self, one, &format!("{pointer}/{index}"));
                }
            }
            _ => read(self, operand, pointer),
        }
    }

    /// A comparison of numbers, or two that bound a range from below and then from above.
    fn range(&mut self, operand: &Value, pointer: &str) -> Option<Range> {
        let terms = operand.as_array()?;
        let range = match terms.as_slice() {
            [operator, operand] => {
                let bound = |included| Some(Bound { number: number(operand)?, included });
                match operator.as_str()? {
                    "=" => Range { lower: Some(bound(true)?), upper: Some(bound(true)?) },
                    "<" => Range { lower: None, upper: Some(bound(false)?) },
                    "<=" => Range { lower: None, upper: Some(bound(true)?) },
                    ">" => Range { lower: Some(bound(false)?), upper: None },
                    ">=" => Range { lower: Some(bound(true)?), upper: None },
                    _ => return None,
                }
            }
            [above, lower, below, upper] => {
                let lower = Bound { number: number(lower)?, included: included(above, ">", ">=")? };
                let upper = Bound { number: number(upper)?, included: included(below, "<", "<=")? };
                Range { lower: Some(lower), upper: Some(upper) }
            }
            _ => return None,
        };
        if range.is_empty() {
            self.findings.add(pointer, "must be a range that has numbers in it");
        }
        Some(range)
    }
}

const RANGE: &str =
    "must be an operator (=, <, <=, >, >=) and a number, or a range such as [\">\", 0, \"<=\", 5]";

fn whole() -> Comparison {
    Comparison { part: Part::Whole, any_case: false }
}

fn single(operator: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut operators = operator.iter();
    let (name, operand) = operators.next()?;
    operators.next().is_none().then_some((name.as_str(), operand))
}

/// Whether a list has nothing but texts, or nothing but numbers. What is neither is told by itself.
fn alike(listed: &[Value]) -> bool {
    !(listed.iter().any(Value::is_string) && listed.iter().any(Value::is_number))
}

fn included(operator: &Value, without: &str, with: &str) -> Option<bool> {
    let operator = operator.as_str()?;
    (operator == with || operator == without).then_some(operator == with)
}

fn number(operand: &Value) -> Option<Number> {
    operand.as_number().and_then(Number::of)
}
