//! A compiled pattern: a tree of the fields that it names, each named once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::branches::{BRANCHES_MAX, Branches};
use super::budget::Budget;
use super::condition::Condition;
use super::source::{Field, Object};
use crate::TooCostly;

/// A field that the pattern names, or its root.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) leaves: Vec<Leaf>,
    pub(super) children: BTreeMap<String, Node>,
    /// The branches that have a condition on the field, or below it.
    pub(super) demanded: Branches,
    /// Those that have one below it.
    pub(super) below: Branches,
    /// Whether a condition on the field or below it allows for absence.
    may_be_absent: bool,
}

/// Conditions on a field.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) condition: Condition,
    /// The branches that have them.
    pub(super) branches: Branches,
    /// The number by which absence is noted.
    index: usize,
}

/// In how many ways the alternatives within can be combined.
pub(super) fn combinations(object: &Object) -> usize {
    let of_alternatives = match object.alternatives.as_slice() {
        [] => 1,
        alternatives => alternatives.iter().map(combinations).fold(0, usize::saturating_add),
    };
    let nested = object.fields.iter().filter_map(|(_, field)| match field {
        Field::Object(object) => Some(combinations(object)),
        Field::Condition(_) => None,
    });
    nested.fold(of_alternatives, usize::saturating_mul)
}

/// The tree of a pattern whose alternatives can be combined in `count` ways, at most [`BRANCHES_MAX`].
pub(super) fn build(object: Object, count: usize) -> Node {
    let count = count.min(BRANCHES_MAX);
    let mut builder = Builder { count, leaves: 0 };
    let mut root = builder.node();
    let branches = (0..count).map(|branch| (branch, branch)).collect();
    builder.object(object, branches, &mut root);
    root.summarize();
    root
}

struct Builder {
    count: usize,
    leaves: usize,
}

impl Builder {
    /// Adds an object's fields to a node. Each branch comes with its number within the object, which says what it takes
    /// of each `$or` there: numbers of a mixed radix, one digit for the `$or` and one for each field that is an object.
    fn object(&mut self, object: Object, branches: Vec<(usize, usize)>, node: &mut Node) {
        let mut rest = branches;
        for (name, field) in object.fields {
            let child = node.children.entry(name).or_insert_with(|| self.node());
            match field {
                Field::Condition(condition) => self.leaf(condition, &rest, child),
                Field::Object(object) => {
                    let radix = combinations(&object);
                    let digits = rest.iter().map(|(branch, number)| (*branch, number % radix)).collect();
                    for (_, number) in &mut rest {
                        *number /= radix;
                    }
                    self.object(object, digits, child);
                }
            }
        }
        let mut begin = 0;
        for alternative in object.alternatives {
            let end = begin + combinations(&alternative);
            let taken = rest.iter().filter(|(_, number)| (begin..end).contains(number));
            let taken = taken.map(|(branch, number)| (*branch, number - begin)).collect();
            self.object(alternative, taken, node);
            begin = end;
        }
    }

    fn leaf(&mut self, condition: Condition, branches: &[(usize, usize)], node: &mut Node) {
        let mut of_leaf = Branches::none(self.count);
        for (branch, _) in branches {
            of_leaf.insert(*branch);
        }
        node.leaves.push(Leaf { condition, branches: of_leaf, index: self.leaves });
        self.leaves += 1;
    }

    fn node(&self) -> Node {
        let none = Branches::none(self.count);
        Node {
            leaves: Vec::new(),
            children: BTreeMap::new(),
            demanded: none,
            below: none,
            may_be_absent: false,
        }
    }
}

impl Node {
    fn summarize(&mut self) {
        for child in self.children.values_mut() {
            child.summarize();
            self.below.add(&child.demanded);
            self.may_be_absent |= child.may_be_absent;
        }
        self.demanded.add(&self.below);
        for leaf in &self.leaves {
            self.demanded.add(&leaf.branches);
            self.may_be_absent |= leaf.condition.absent;
        }
    }

    pub(super) fn leaf_count(&self) -> usize {
        self.leaves.len() + self.children.values().map(Self::leaf_count).sum::<usize>()
    }
}

/// An evaluation over one event.
pub(super) struct Evaluation {
    pub(super) budget: Budget,
    /// By the number of a condition: whether it allows for absence, and no value of the event stands in its field.
    absent: Vec<bool>,
}

impl Evaluation {
    /// Looks for the fields that may be absent.
    pub(super) fn begin(root: &Node, event: &Value) -> Result<Self, TooCostly> {
        let mut evaluation = Self { budget: Budget::full(), absent: Vec::new() };
        if root.may_be_absent {
            evaluation.absent = vec![false; root.leaf_count()];
            evaluation.allow_absence(root);
            evaluation.note_presence(root, event)?;
        }
        Ok(evaluation)
    }

    /// Those out of `branches` whose conditions on the fields of an object hold.
    pub(super) fn of_object(
        &mut self,
        node: &Node,
        object: Option<&Map<String, Value>>,
        mut branches: Branches,
    ) -> Result<Branches, TooCostly> {
        for (name, child) in &node.children {
            self.step(&branches)?;
            let concerned = branches.both(&child.demanded);
            if concerned.is_empty() {
                continue;
            }
            branches.remove(&child.demanded);
            let value = object.and_then(|object| object.get(name));
            if value.is_some() || child.may_be_absent {
                branches.add(&self.of_value(child, value, concerned)?);
            }
            if branches.is_empty() {
                break;
            }
        }
        Ok(branches)
    }

    /// Those out of `branches` whose conditions on a field, and on what is below it, hold. Of several objects in an array
    /// one must fulfil all that a branch demands below the field.
    pub(super) fn of_value(
        &mut self,
        node: &Node,
        value: Option<&Value>,
        mut branches: Branches,
    ) -> Result<Branches, TooCostly> {
        for leaf in &node.leaves {
            self.step(&branches)?;
            if !branches.both(&leaf.branches).is_empty() && !self.holds(leaf, value)? {
                branches.remove(&leaf.branches);
            }
        }
        let mut open = branches.both(&node.below);
        let mut held = branches.without(&node.below);
        if node.may_be_absent && !open.is_empty() {
            held.add(&self.of_object(node, None, open)?);
            open.remove(&held);
        }
        let mut elements = Elements::of(value);
        while !open.is_empty() {
            let Some(element) = elements.next(&mut self.budget)? else { break };
            if let Value::Object(object) = element {
                held.add(&self.of_object(node, Some(object), open)?);
                open.remove(&held);
            }
        }
        Ok(held)
    }

    /// Whether the conditions hold for a field: for its value, or for an element of its array.
    pub(super) fn holds(&mut self, leaf: &Leaf, value: Option<&Value>) -> Result<bool, TooCostly> {
        if self.is_absent(leaf) {
            return Ok(true);
        }
        let mut elements = Elements::of(value);
        while let Some(element) = elements.next(&mut self.budget)? {
            if !element.is_object() && leaf.condition.fits(element, &mut self.budget)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the conditions hold because the field is absent.
    pub(super) fn is_absent(&self, leaf: &Leaf) -> bool {
        self.absent.get(leaf.index).is_some_and(|absent| *absent)
    }

    fn allow_absence(&mut self, node: &Node) {
        for leaf in node.leaves.iter().filter(|leaf| leaf.condition.absent) {
            if let Some(absent) = self.absent.get_mut(leaf.index) {
                *absent = true;
            }
        }
        node.children.values().for_each(|child| self.allow_absence(child));
    }

    fn note_presence(&mut self, node: &Node, value: &Value) -> Result<(), TooCostly> {
        let mut elements = Elements::of(Some(value));
        while let Some(element) = elements.next(&mut self.budget)? {
            if let Value::Object(object) = element {
                for (name, child) in node.children.iter().filter(|(_, child)| child.may_be_absent) {
                    self.budget.step()?;
                    if let Some(value) = object.get(name) {
                        self.note_presence(child, value)?;
                    }
                }
            } else {
                for leaf in &node.leaves {
                    self.budget.step()?;
                    if let Some(absent) = self.absent.get_mut(leaf.index) {
                        *absent = false;
                    }
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, branches: &Branches) -> Result<(), TooCostly> {
        self.budget.steps(1 + branches.words() / 4)
    }
}

/// The values that stand in a field: its own, or those of its array, and of arrays within that. None of them is an array.
pub(super) struct Elements<'v> {
    single: Option<&'v Value>,
    arrays: Vec<std::slice::Iter<'v, Value>>,
}

impl<'v> Elements<'v> {
    pub(super) fn of(value: Option<&'v Value>) -> Self {
        Self { single: value, arrays: Vec::new() }
    }

    pub(super) fn next(&mut self, budget: &mut Budget) -> Result<Option<&'v Value>, TooCostly> {
        loop {
            let next = match self.single.take() {
                Some(single) => Some(single),
                None => match self.arrays.last_mut() {
                    Some(array) => array.next(),
                    None => return Ok(None),
                },
            };
            budget.step()?;
            match next {
                Some(Value::Array(elements)) => self.arrays.push(elements.iter()),
                Some(element) => return Ok(Some(element)),
                None => drop(self.arrays.pop()),
            }
        }
    }
}
