//! Why an event does not match: which conditions do not hold, and where in the event.

use carillon_core::invalid::FieldError;
use serde_json::Value;

use super::branches::Branches;
use super::condition::{Bound, Condition, Range, Values};
use super::number::Number;
use super::source::child;
use super::texts::{Comparison, Part, Texts};
use super::tree::{Elements, Evaluation, Leaf, Node};
use crate::TooCostly;

/// The most reasons that are told.
pub const REASONS_MAX: usize = 10;

/// The longest pointer and the longest sentence, in bytes. A longer pointer is cut to one of what is around.
const POINTER_BYTES_MAX: usize = 1024;
const DETAIL_BYTES_MAX: usize = 512;

/// The most values or operators that are told of a list.
const LISTED_MAX: usize = 6;

/// The most characters of a value that a reason repeats.
const SHOWN_MAX: usize = 60;

/// Tells, of the ways to match that came closest, the conditions that do not hold.
pub(super) struct Reasons<'p> {
    evaluation: Evaluation,
    branches: Branches,
    failing: Vec<(Vec<&'p str>, &'p Leaf)>,
    /// By branch: how many of its conditions do not hold.
    counts: Vec<usize>,
}

impl<'p> Reasons<'p> {
    /// The reasons why none of the branches holds; just that, if the rest cannot be found within the bound of one
    /// evaluation.
    pub(super) fn find(root: &'p Node, event: &Value, branches: Branches) -> Vec<FieldError> {
        let reasons = Evaluation::begin(root, event).and_then(|evaluation| {
            let counts = vec![0; branches.iter().count()];
            Self { evaluation, branches, failing: Vec::new(), counts }.look(root, event)
        });
        let mut reasons = reasons.unwrap_or_default();
        if reasons.is_empty() {
            reasons.push(error("", "does not match".to_owned()));
        }
        reasons
    }

    fn look(mut self, root: &'p Node, event: &Value) -> Result<Vec<FieldError>, TooCostly> {
        if !event.is_object() {
            return Ok(vec![error("", "must be an object".to_owned())]);
        }
        self.collect(root, event, &mut Vec::new())?;
        let fewest = self.counts.iter().copied().min().unwrap_or(0);
        let closest = self.branches.iter().filter(|branch| self.counts.get(*branch) == Some(&fewest));
        let mut of_closest = self.branches.without(&self.branches);
        closest.for_each(|branch| of_closest.insert(branch));
        if fewest == 0 {
            let Some(branch) = of_closest.iter().next() else { return Ok(Vec::new()) };
            return Ok(self.scattered(root, event, "", branch)?.into_iter().collect());
        }
        let told = self.failing.iter().filter(|(_, leaf)| !leaf.branches.both(&of_closest).is_empty());
        Ok(told.take(REASONS_MAX).map(|(path, leaf)| reason(path, leaf, event, &self.branches)).collect())
    }

    /// Notes each condition that no value in its field fulfils.
    fn collect(&mut self, node: &'p Node, event: &Value, path: &mut Vec<&'p str>) -> Result<(), TooCostly> {
        for leaf in &node.leaves {
            if !self.holds_anywhere(leaf, event, path)? {
                for branch in leaf.branches.iter() {
                    self.evaluation.budget.step()?;
                    if let Some(count) = self.counts.get_mut(branch) {
                        *count += 1;
                    }
                }
                self.failing.push((path.clone(), leaf));
            }
        }
        for (name, child) in &node.children {
            path.push(name);
            self.collect(child, event, path)?;
            path.pop();
        }
        Ok(())
    }

    fn holds_anywhere(&mut self, leaf: &Leaf, value: &Value, path: &[&str]) -> Result<bool, TooCostly> {
        let Some((name, path)) = path.split_first() else { return self.evaluation.holds(leaf, Some(value)) };
        if self.evaluation.is_absent(leaf) {
            return Ok(true);
        }
        let mut elements = Elements::of(Some(value));
        while let Some(element) = elements.next(&mut self.evaluation.budget)? {
            if let Some(value) = element.get(name)
                && self.holds_anywhere(leaf, value, path)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Each condition of the branch holds somewhere: in which array not for one and the same element.
    fn scattered(
        &mut self,
        node: &Node,
        value: &Value,
        pointer: &str,
        branch: usize,
    ) -> Result<Option<FieldError>, TooCostly> {
        let mut only = self.branches.without(&self.branches);
        only.insert(branch);
        let demanded: Vec<_> =
            node.children.iter().filter(|(_, child)| child.demanded.contains(branch)).collect();
        if value.is_array() && demanded.len() > 1 {
            let names: Vec<_> = demanded.iter().map(|(name, _)| quoted(name)).collect();
            let names = listed(names.into_iter(), "and");
            let detail =
                format!("must have one element that fulfils the conditions on {names}, not one for each");
            return Ok(Some(error(pointer, detail)));
        }
        for (name, below) in demanded {
            let mut elements = Elements::of(Some(value));
            while let Some(element) = elements.next(&mut self.evaluation.budget)? {
                let Some(inner) = element.get(name) else { continue };
                if self.evaluation.of_value(below, Some(inner), only)?.is_empty() {
                    let pointer = if value.is_array() { pointer.to_owned() } else { child(pointer, name) };
                    if let Some(reason) = self.scattered(below, inner, &pointer, branch)? {
                        return Ok(Some(reason));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn reason(path: &[&str], leaf: &Leaf, event: &Value, branches: &Branches) -> FieldError {
    let (pointer, place) = place(path, event);
    let expectation = expectation(&leaf.condition);
    let mut detail = match place {
        Place::Missing => format!("must {expectation}, but is missing"),
        Place::Inner(path) if expectation == ABSENCE => {
            format!("must have no element with {}", quoted(&path.join(".")))
        }
        Place::Inner(path) => {
            format!("must have an element whose {} fits: must {expectation}", quoted(&path.join(".")))
        }
        Place::Found(Value::Array(_)) if expectation == ABSENCE => {
            format!("must {expectation}, but has elements")
        }
        Place::Found(Value::Array(elements)) if elements.is_empty() => {
            format!("must {expectation}, but has no elements")
        }
        Place::Found(Value::Array(_)) => format!("must have an element that fits: must {expectation}"),
        Place::Found(Value::Object(_)) => format!("must {expectation}, but is an object"),
        Place::Found(value) => format!("must {expectation}, but is {}", shown(value)),
    };
    if leaf.branches != *branches {
        detail.push_str("; or another alternative of $or must match");
    }
    error(&pointer, detail)
}

/// Where a field stands in an event.
enum Place<'v, 'p> {
    Missing,
    Found(&'v Value),
    /// In elements of an array, at this path within them.
    Inner(&'p [&'p str]),
}

fn place<'v, 'p>(path: &'p [&'p str], event: &'v Value) -> (String, Place<'v, 'p>) {
    let mut pointer = String::new();
    let mut value = event;
    for (depth, name) in path.iter().enumerate() {
        if value.is_array() {
            return (pointer, Place::Inner(&path[depth..]));
        }
        let Some(inner) = value.get(name) else {
            let missing = path[depth..].iter().fold(pointer, |pointer, name| child(&pointer, name));
            return (missing, Place::Missing);
        };
        pointer = child(&pointer, name);
        value = inner;
    }
    (pointer, Place::Found(value))
}

/// What is asked of a field that may have no value.
const ABSENCE: &str = "be absent";

/// What the conditions ask of a value, as the rest of a sentence that begins with "must".
fn expectation(condition: &Condition) -> String {
    let excluded =
        condition.none_of.iter().map(|excluded| format!("not {}", listed(phrases(excluded), "or")));
    let existence = [(condition.present, "exist"), (condition.absent, ABSENCE)];
    let existence = existence.into_iter().filter(|(asked, _)| *asked).map(|(_, text)| text.to_owned());
    listed(phrases(&condition.any_of).chain(excluded).chain(existence), "or")
}

/// One for each kind of value in the set.
fn phrases(values: &Values) -> impl Iterator<Item = String> + '_ {
    let is_equal = |texts: &&Texts| texts.how() == Comparison { part: Part::Whole, any_case: false };
    let literals = [(values.null, "null"), (values.r#true, "true"), (values.r#false, "false")];
    let literals = literals.into_iter().filter(|(asked, _)| *asked).map(|(_, text)| text.to_owned());
    let equal = values.texts.iter().filter(is_equal).flat_map(Texts::shown).map(|text| quoted(&text));
    let equal = equal.chain(values.numbers.iter().map(Number::to_string)).chain(literals);
    let similar = values.texts.iter().filter(move |texts| !is_equal(texts)).map(similar);
    let wildcards =
        values.wildcards.iter().map(|wildcard| format!("look like {}", quoted(wildcard.source())));
    let networks = values.networks.iter().map(|network| format!("be an address in {network}"));
    let ranges = values.ranges.iter().map(range);
    one_of(equal).into_iter().chain(similar).chain(wildcards).chain(networks).chain(ranges)
}

fn one_of(values: impl Iterator<Item = String>) -> Option<String> {
    let mut values = values.peekable();
    let first = values.next()?;
    Some(match values.peek() {
        None => format!("be {first}"),
        Some(_) => format!("be one of {}", listed(std::iter::once(first).chain(values), "or")),
    })
}

fn similar(texts: &Texts) -> String {
    let how = texts.how();
    let verb = match how.part {
        Part::Whole => "be",
        Part::Prefix => "begin with",
        Part::Suffix => "end with",
    };
    let case = if how.any_case { " in any case" } else { "" };
    format!("{verb} {}{case}", listed(texts.shown().map(|text| quoted(&text)), "or"))
}

fn range(range: &Range) -> String {
    let bound = |bound: Option<Bound>, than: &str| {
        bound.map(|bound| format!("{than}{} {}", if bound.included { "=" } else { "" }, bound.number))
    };
    match (range.lower, range.upper) {
        (Some(lower), Some(upper)) if lower == upper => format!("be {}", lower.number),
        (lower, upper) => {
            let bounds: Vec<_> = bound(lower, ">").into_iter().chain(bound(upper, "<")).collect();
            format!("be a number {}", bounds.join(" and "))
        }
    }
}

/// The first of these, and how many more there are.
fn listed(mut items: impl Iterator<Item = String>, conjunction: &str) -> String {
    let mut told: Vec<_> = items.by_ref().take(LISTED_MAX).collect();
    match items.count() {
        0 => {}
        more => told.push(format!("one of {more} more")),
    }
    let last = told.pop().unwrap_or_default();
    if told.is_empty() { last } else { format!("{} {conjunction} {last}", told.join(", ")) }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// A text in quotes, shortened.
fn quoted(text: &str) -> String {
    let shortened: String = text.chars().take(SHOWN_MAX).collect();
    let ellipsis = if shortened.len() < text.len() { "…" } else { "" };
    format!("{}{ellipsis}", Value::String(shortened))
}

fn error(pointer: &str, mut detail: String) -> FieldError {
    let mut pointer = pointer;
    while pointer.len() > POINTER_BYTES_MAX {
        pointer = pointer.rfind('/').map_or("", |end| &pointer[..end]);
    }
    if detail.len() > DETAIL_BYTES_MAX {
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        detail.push('…');
    }
    FieldError { pointer: pointer.to_owned(), detail }
}
