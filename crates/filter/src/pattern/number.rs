//! Numbers as JSON means them: `1`, `1.0` and `1e0` are one number.

use std::cmp::Ordering;
use std::fmt;

/// Beyond it in magnitude a float is taken for no integer, since it might not fit.
const INTEGER_MAX: f64 = 1e38;

/// A number. Integers are exact as far as the JSON parser keeps them (64 bits); others are the nearest double.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Integer(i128),
    /// Not an integer, or of a magnitude of at least [`INTEGER_MAX`].
    Float(f64),
}

impl Number {
    /// `None` for what no double can hold.
    pub(super) fn of(number: &serde_json::Number) -> Option<Self> {
        let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        integer
            .map(Self::Integer)
            .or_else(|| number.as_f64().filter(|float| float.is_finite()).map(Self::of_float))
    }

    #[expect(clippy::cast_possible_truncation, reason = "an integer below the bound of i128")]
    fn of_float(float: f64) -> Self {
        if float.abs() < INTEGER_MAX && float.fract() == 0.0 {
            Self::Integer(float as i128)
        } else {
            Self::Float(float)
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Integer(a), Self::Float(b)) => integer_to_float(*a, *b),
            (Self::Float(a), Self::Integer(b)) => integer_to_float(*b, *a).reverse(),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Float(float) => write!(f, "{float:?}"),
        }
    }
}

/// A float that is no integer lies between two, one of which is the integral part of it.
fn integer_to_float(integer: i128, float: f64) -> Ordering {
    if float.abs() >= INTEGER_MAX {
        return if float > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    match Number::of_float(float.floor()) {
        Number::Integer(floor) if integer <= floor => Ordering::Less,
        _ => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn numbers_are_compared_by_what_they_mean() {
        for (a, b) in [("1", "1.0"), ("1", "1e0"), ("100", "1E2"), ("0", "-0.0"), ("300", "3.00e2")] {
            assert_eq!(number(a), number(b), "{a} {b}");
        }
        let ordered = [
            "-1e300",
            "-9223372036854775808",
            "-1.5",
            "-1",
            "-0.5",
            "0",
            "1e-300",
            "0.5",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551614",
            "18446744073709551615",
            "1e38",
            "1e39",
        ];
        for (index, a) in ordered.iter().enumerate() {
            for b in &ordered[index + 1..] {
                assert!(number(a) < number(b) && number(b) > number(a), "{a} {b}");
            }
        }
    }
}
