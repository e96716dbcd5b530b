//! What an evaluation costs at most, from the shapes of schema and value alone.
//!
//! In an expanded schema each part is applied to values of one level alone: a part below two `properties` or `items` to
//! values two levels below the root, each at most once. So the sum over the levels of the work per value times the number
//! of values bounds the whole.

use serde_json::Value;

/// The most that checking one value may cost. The unit is the time of one keyword on one value: with 20 ns for it, a check
/// ends within 40 ms.
pub const COST_MAX: u64 = 2_000_000;

/// How many bytes of text cost as much as a value.
const BYTES_PER_VALUE: u64 = 32;

/// How many steps of a regular expression, each a byte of text in a state, cost as much as a keyword. The engine is that
/// slow only where it cannot build its table of transitions as it goes, such as for `(a|b)*a(a|b){20}`.
const STEPS_PER_KEYWORD: u64 = 2;

/// What an index adds to a pointer, in bytes, about.
const INDEX_BYTES: u64 = 4;

/// Up to this size the items of an array are compared with each other, all with all.
const COMPARED_ITEMS_MAX: u64 = 15;

/// The work that a schema does on the values of each level.
#[derive(Debug, Default)]
pub(crate) struct Work {
    levels: Vec<LevelWork>,
    branches: bool,
}

#[derive(Clone, Debug, Default)]
struct LevelWork {
    /// Keywords for each value.
    keywords: u64,
    /// Steps of regular expressions for each byte of text.
    steps: u64,
    /// How often the items of each array are checked to be unique.
    unique_items: u64,
}

/// How many values a value has on each level, and how much text.
#[derive(Debug)]
pub(crate) struct Shape {
    levels: Vec<LevelShape>,
    /// Bytes of the longest pointer.
    pointer_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct LevelShape {
    /// Values, and names of members, which `propertyNames` treats as values.
    values: u64,
    /// Bytes of strings and names.
    bytes: u64,
    /// What it costs to check that the items of each array here are unique.
    comparisons: u64,
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Position {
    level: usize,
    pointer_bytes: u64,
}

impl Position {
    fn item(self) -> Self {
        Self { level: self.level + 1, pointer_bytes: self.pointer_bytes + INDEX_BYTES }
    }

    fn member(self, name: &str) -> Self {
        Self { level: self.level + 1, pointer_bytes: self.pointer_bytes + 1 + name.len() as u64 }
    }
}

impl Work {
    /// A keyword with `parts` names, values or the like to be looked at, on each value of a level.
    pub(crate) fn keyword(&mut self, level: usize, parts: usize) {
        self.level(level).keywords += 1 + parts as u64;
    }

    /// A comparison with a value that has `bytes` as JSON.
    pub(crate) fn comparison(&mut self, level: usize, bytes: usize) {
        self.level(level).keywords += 1 + bytes as u64 / BYTES_PER_VALUE;
    }

    /// A regular expression with `states` on each string, or each member's name, of a level.
    pub(crate) fn pattern(&mut self, level: usize, states: u64) {
        let level = self.level(level);
        level.keywords += 1;
        level.steps += states;
    }

    /// A check that the items of each array are unique.
    pub(crate) fn unique_items(&mut self, level: usize) {
        self.level(level).unique_items += 1;
    }

    /// Alternatives: each that fails keeps copies of what it failed at.
    pub(crate) fn branch(&mut self) {
        self.branches = true;
    }

    /// Whether there are alternatives.
    pub(crate) fn branches(&self) -> bool {
        self.branches
    }

    /// What checking a value of this shape costs at most.
    pub(crate) fn cost(&self, shape: &Shape) -> u64 {
        let cost = |(work, shape): (&LevelWork, &LevelShape)| {
            let values = work.keywords.saturating_mul(shape.values);
            let steps = work.steps.saturating_mul(shape.bytes) / STEPS_PER_KEYWORD;
            let comparisons = work.unique_items.saturating_mul(shape.comparisons);
            values.saturating_add(steps).saturating_add(comparisons)
        };
        self.levels.iter().zip(&shape.levels).map(cost).fold(0, u64::saturating_add)
    }

    /// How much finding all faults of a value of this shape keeps in memory at most, in values: each fault has its pointer,
    /// and one below an alternative a copy of the value that it is in.
    pub(crate) fn cost_of_faults(&self, shape: &Shape) -> u64 {
        let pointer = shape.pointer_bytes / BYTES_PER_VALUE;
        let mut below = 0_u64;
        let mut cost = 0_u64;
        for (level, shape) in shape.levels.iter().enumerate().rev() {
            below = below.saturating_add(shape.values + shape.bytes / BYTES_PER_VALUE);
            let work = self.levels.get(level).map_or(0, |work| work.keywords);
            let pointers = shape.values.saturating_mul(pointer);
            cost = cost.saturating_add(work.saturating_mul(below.saturating_add(pointers)));
        }
        cost
    }

    fn level(&mut self, level: usize) -> &mut LevelWork {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, LevelWork::default);
        }
        &mut self.levels[level]
    }
}

impl Shape {
    /// The shape of a value, as deep as it matters for this work.
    pub(crate) fn of(value: &Value, work: &Work) -> Self {
        let whole = work.branches || work.levels.iter().any(|level| level.unique_items > 0);
        let mut shape = Self { levels: Vec::with_capacity(work.levels.len()), pointer_bytes: 0 };
        let until = if whole { usize::MAX } else { work.levels.len() };
        shape.measure(value, Position { level: 0, pointer_bytes: 0 }, until);
        shape
    }

    /// Returns the size of the whole value, in values.
    fn measure(&mut self, value: &Value, at: Position, until: usize) -> u64 {
        if at.level >= until {
            return 0;
        }
        self.pointer_bytes = self.pointer_bytes.max(at.pointer_bytes);
        self.level(at.level).values += 1;
        match value {
            Value::String(text) => 1 + self.text(at.level, text),
            Value::Array(items) => {
                let size = 1 + items.iter().map(|item| self.measure(item, at.item(), until)).sum::<u64>();
                // Scalar items are hashed by a secret key. Arrays and objects are hashed in a way that can be made to
                // give the same for all, and are then compared, all with all.
                let hashed_alike = items.iter().filter(|item| item.is_array() || item.is_object()).count();
                let rounds = (items.len() as u64).min(COMPARED_ITEMS_MAX).max(hashed_alike as u64);
                let level = self.level(at.level);
                level.comparisons = level.comparisons.saturating_add(size.saturating_mul(rounds));
                size
            }
            Value::Object(members) => {
                let mut size = 1;
                for (name, member) in members {
                    let within = at.member(name);
                    self.level(within.level).values += 1;
                    size += 1 + self.text(within.level, name) + self.measure(member, within, until);
                }
                size
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        }
    }

    fn text(&mut self, at: usize, text: &str) -> u64 {
        let bytes = text.len() as u64;
        self.level(at).bytes += bytes;
        bytes / BYTES_PER_VALUE
    }

    fn level(&mut self, level: usize) -> &mut LevelShape {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, LevelShape::default);
        }
        &mut self.levels[level]
    }
}

/// States of an automaton over bytes for what takes nearly any character.
const ANY_CHARACTER_STATES: u64 = 4;

/// States for a property of characters, such as `\p{L}`: its ranges are many.
const PROPERTY_STATES: u64 = 400;

/// About how many states an automaton for this regular expression has, and rather more than less.
pub(crate) fn pattern_states(pattern: &str) -> u64 {
    /// States up to here within the group, and how many of them the last atom has.
    #[derive(Default)]
    struct Group {
        states: u64,
        last: u64,
    }
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let atom = match c {
            '(' => {
                outer.push(std::mem::take(&mut group));
                continue;
            }
            ')' => {
                let states = group.states + 1;
                group = outer.pop().unwrap_or_default();
                states
            }
            '{' => match times(&mut rest) {
                Some(times) => {
                    let more = group.last.saturating_mul(times.saturating_sub(1));
                    group.states = group.states.saturating_add(more);
                    group.last = group.last.saturating_mul(times);
                    continue;
                }
                None => 1,
            },
            '[' => class(&mut rest),
            '\\' => match rest.next() {
                Some('p' | 'P') => property(&mut rest),
                Some('D' | 'S' | 'W') => ANY_CHARACTER_STATES,
                _ => 1,
            },
            '.' => ANY_CHARACTER_STATES,
            '*' | '+' | '?' | '|' | '^' | '$' => {
                group.states = group.states.saturating_add(1);
                continue;
            }
            other => other.len_utf8() as u64,
        };
        group.states = group.states.saturating_add(atom);
        group.last = atom;
    }
    outer.into_iter().fold(group.states, |sum, group| sum.saturating_add(group.states)).max(1)
}

/// How often a counted repetition repeats at most, one more if that has no end. Nothing is taken if it is none.
fn times(rest: &mut std::str::Chars<'_>) -> Option<u64> {
    let (count, behind) = rest.as_str().split_once('}')?;
    let (least, most) = count.split_once(',').unwrap_or((count, count));
    let least = least.trim().parse::<u64>().ok()?;
    let most = if most.trim().is_empty() { least.saturating_add(1) } else { most.trim().parse().ok()? };
    *rest = behind.chars();
    Some(most.max(least))
}

/// The states of a class in brackets, whose beginning has been read.
fn class(rest: &mut std::str::Chars<'_>) -> u64 {
    let mut states: u64 = 1;
    while let Some(c) = rest.next() {
        states += match c {
            ']' => break,
            '^' => ANY_CHARACTER_STATES,
            '\\' => match rest.next() {
                Some('p' | 'P') => property(rest),
                Some('D' | 'S' | 'W') => ANY_CHARACTER_STATES,
                _ => 0,
            },
            c if c.is_ascii() => 0,
            _ => 2,
        };
    }
    states
}

/// The states of a property, whose `\p` has been read.
fn property(rest: &mut std::str::Chars<'_>) -> u64 {
    if rest.next() == Some('{') {
        rest.find(|c| *c == '}');
    }
    PROPERTY_STATES
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repetitions_multiply_the_states_of_what_they_repeat() {
        for (pattern, states) in [
            ("abc", 3),
            ("^[A-Z]{3}$", 5),
            ("(ab){10}", 30),
            ("((a{10}){10}){10}", 1110),
            ("x{2,}", 3),
            ("{x(a){9}", 20),
            ("[]a{9}]", 11),
            ("(((", 1),
            (r"\p{L}{3}\P{N}x", 1601),
            (r"[\p{L}-]{2}", 802),
            ("^.{1,255}$", 1022),
        ] {
            assert_eq!(pattern_states(pattern), states, "{pattern}");
        }
        assert_eq!(pattern_states(&format!("a{}", "{1000}".repeat(99))), u64::MAX);
    }

    #[test]
    fn the_shape_counts_by_level() {
        let mut work = Work::default();
        work.unique_items(1);
        let shape = Shape::of(&json!({"list": [1, "two", [3]], "b": {}}), &work);
        let values: Vec<_> = shape.levels.iter().map(|level| level.values).collect();
        assert_eq!(values, [1, 4, 3, 1]);
        let bytes: Vec<_> = shape.levels.iter().map(|level| level.bytes).collect();
        assert_eq!(bytes, [0, 5, 3, 0]);
        assert_eq!(work.cost(&shape), 5 * 3);
    }

    #[test]
    fn levels_that_the_schema_does_not_reach_are_not_looked_at() {
        let mut work = Work::default();
        work.keyword(0, 0);
        assert_eq!(Shape::of(&json!([[[[1]]]]), &work).levels.len(), 1);
    }
}
