//! The conditions on one field: what stands between the brackets of a pattern.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::budget::Budget;
use super::number::Number;
use super::texts::{Comparison, Texts};
use super::wildcard::Wildcard;
use crate::TooCostly;

/// The conditions on one field, of which any may hold.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// What the value may be.
    pub(super) any_of: Values,
    /// Of each: what the value may be if it is none of these.
    pub(super) none_of: Vec<Values>,
    /// Whether any value does.
    pub(super) present: bool,
    /// Whether the field may be absent from the event.
    pub(super) absent: bool,
}

/// A set of values, none of them an object or an array.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) null: bool,
    pub(super) r#true: bool,
    pub(super) r#false: bool,
    /// At most one of each way to compare.
    pub(super) texts: Vec<Texts>,
    pub(super) wildcards: Vec<Wildcard>,
    pub(super) networks: Vec<IpNet>,
    /// In ascending order.
    pub(super) numbers: Vec<Number>,
    pub(super) ranges: Vec<Range>,
}

/// A range of numbers, bounded on one side or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) lower: Option<Bound>,
    pub(super) upper: Option<Bound>,
}

/// The end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) number: Number,
    pub(super) included: bool,
}

impl Condition {
    /// Call when all conditions are added.
    pub(super) fn sort(&mut self) {
        self.none_of.iter_mut().chain([&mut self.any_of]).for_each(Values::sort);
    }

    /// Whether a value that is neither object nor array fits.
    pub(super) fn fits(&self, value: &Value, budget: &mut Budget) -> Result<bool, TooCostly> {
        budget.step()?;
        if self.present || self.any_of.contain(value, budget)? {
            return Ok(true);
        }
        for excluded in &self.none_of {
            budget.step()?;
            if !excluded.contain(value, budget)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Values {
    pub(super) fn add_text(&mut self, how: Comparison, text: &str) {
        if let Some(texts) = self.texts.iter_mut().find(|texts| texts.how() == how) {
            texts.add(text);
        } else {
            let mut texts = Texts::new(how);
            texts.add(text);
            self.texts.push(texts);
        }
    }

    fn sort(&mut self) {
        self.texts.iter_mut().for_each(Texts::sort);
        self.numbers.sort_unstable();
        self.numbers.dedup();
    }

    fn contain(&self, value: &Value, budget: &mut Budget) -> Result<bool, TooCostly> {
        match value {
            Value::Null => Ok(self.null),
            Value::Bool(true) => Ok(self.r#true),
            Value::Bool(false) => Ok(self.r#false),
            Value::Number(number) => {
                budget.steps(self.ranges.len())?;
                Ok(Number::of(number).is_some_and(|number| self.contain_number(number)))
            }
            Value::String(text) => self.contain_text(text, budget),
            Value::Array(_) | Value::Object(_) => Ok(false),
        }
    }

    fn contain_number(&self, number: Number) -> bool {
        self.numbers.binary_search(&number).is_ok() || self.ranges.iter().any(|range| range.contains(number))
    }

    fn contain_text(&self, text: &str, budget: &mut Budget) -> Result<bool, TooCostly> {
        for texts in &self.texts {
            budget.read(texts.reach(text))?;
            if texts.contain(text) {
                return Ok(true);
            }
        }
        for wildcard in &self.wildcards {
            budget.read(text.len())?;
            if wildcard.matches(text) {
                return Ok(true);
            }
        }
        if self.networks.is_empty() {
            return Ok(false);
        }
        let Ok(address) = text.parse::<IpAddr>() else { return Ok(false) };
        budget.steps(self.networks.len())?;
        Ok(self.networks.iter().any(|network| network.contains(&address)))
    }
}

impl Range {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match (self.lower, self.upper) {
            (Some(lower), Some(upper)) if lower.included && upper.included => lower.number > upper.number,
            (Some(lower), Some(upper)) => lower.number >= upper.number,
            _ => false,
        }
    }

    fn contains(&self, number: Number) -> bool {
        self.lower.is_none_or(|lower| number > lower.number || lower.included && number == lower.number)
            && self
                .upper
                .is_none_or(|upper| number < upper.number || upper.included && number == upper.number)
    }
}
