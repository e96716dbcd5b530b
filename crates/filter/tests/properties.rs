//! What holds of every pattern and every event.

use std::collections::BTreeMap;

use carillon_core::subscription::FilterSource;
use carillon_filter::{Filter, Verdict};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Few names and values, so that patterns and events meet.
const NAMES: [&str; 3] = ["a", "b", "c"];

fn scalar() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(-2),
        json!(""),
        json!("x"),
        json!("xy"),
        json!("Xyx"),
        json!("10.0.0.1"),
    ])
}

fn value_of(scalar: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner, 0..4).prop_map(object),
        ]
    })
}

fn event_of(scalar: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(&NAMES[..]), value_of(scalar), 0..4).prop_map(object)
}

fn event() -> impl Strategy<Value = Value> {
    event_of(scalar())
}

fn object(fields: BTreeMap<&str, Value>) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn condition() -> impl Strategy<Value = Value> {
    let operator = prop::sample::select(vec![
        json!({"exists": true}),
        json!({"exists": false}),
        json!({"prefix": "x"}),
        json!({"prefix": {"equals-ignore-case": "X"}}),
        json!({"suffix": "y"}),
        json!({"equals-ignore-case": "XY"}),
        json!({"anything-but": "x"}),
        json!({"anything-but": [1, 2]}),
        json!({"anything-but": {"suffix": ["x", "y"]}}),
        json!({"numeric": [">", 0]}),
        json!({"numeric": [">=", -2, "<", 1]}),
        json!({"cidr": "10.0.0.0/8"}),
    ]);
    prop::collection::vec(prop_oneof![scalar(), operator], 1..3).prop_map(Value::from)
}

fn pattern() -> impl Strategy<Value = Value> {
    pattern_of(condition())
}

fn pattern_of(condition: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let condition = condition.boxed();
    let fields = |inner: BoxedStrategy<Value>| {
        prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner, 1..4).prop_map(object)
    };
    let leaf = fields(condition.clone());
    leaf.prop_recursive(3, 16, 3, move |inner| {
        let field = prop_oneof![2 => condition.clone(), 1 => inner.clone()].boxed();
        let alternatives = prop::option::weighted(0.4, prop::collection::vec(inner, 2..4));
        (fields(field), alternatives).prop_map(|(mut pattern, alternatives)| {
            if let Some(alternatives) = alternatives {
                pattern["$or"] = alternatives.into();
            }
            pattern
        })
    })
}

fn compile(pattern: &Value) -> Filter {
    Filter::compile(&FilterSource::Pattern(pattern.clone())).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn matches(pattern: &Value, event: &Value) -> bool {
    match compile(pattern).evaluate(event) {
        Verdict::Match => true,
        Verdict::NoMatch(reasons) => {
            assert!(!reasons.is_empty());
            false
        }
        Verdict::Failed(reason) => panic!("{reason}: {pattern} over {event}"),
    }
}

/// A pattern that asks for what an event has.
fn made_from(event: &Map<String, Value>, pick: usize) -> Option<Value> {
    let fields = event.iter().filter_map(|(name, value)| Some((name.clone(), asking_for(value, pick)?)));
    let fields: Map<_, _> = fields.collect();
    (!fields.is_empty()).then(|| fields.into())
}

fn asking_for(value: &Value, pick: usize) -> Option<Value> {
    match value {
        Value::Object(fields) => made_from(fields, pick),
        Value::Array(elements) if elements.is_empty() => Some(json!([{"exists": false}])),
        // An element stands for its array, unless it is one that leaves nothing to ask for.
        Value::Array(elements) => {
            asking_for(&elements[pick % elements.len()], pick).filter(|asked| !is_absence(asked))
        }
        Value::String(text) => {
            let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
            let asked = [
                json!(text),
                json!({"prefix": &text[..half]}),
                json!({"suffix": &text[half..]}),
                json!({"equals-ignore-case": text.to_uppercase()}),
                json!({"wildcard": format!("{}*", text.replace('\\', r"\\").replace('*', r"\*"))}),
                json!({"anything-but": format!("{text}.")}),
                json!({"exists": true}),
            ];
            Some(json!([asked[pick % asked.len()]]))
        }
        Value::Number(_) => {
            let asked = [
                json!(value),
                json!({"numeric": ["=", value]}),
                json!({"numeric": [">=", value, "<=", value]}),
            ];
            Some(json!([asked[pick % asked.len()]]))
        }
        Value::Null | Value::Bool(_) => Some(json!([value])),
    }
}

fn is_absence(asked: &Value) -> bool {
    asked.to_string().contains(r#""exists":false"#)
}

/// All patterns that come of taking one condition away.
fn relaxed(pattern: &Value) -> Vec<Value> {
    let Value::Object(fields) = pattern else { return Vec::new() };
    let mut relaxed = Vec::new();
    for (name, field) in fields {
        let mut without = fields.clone();
        without.remove(name);
        if !without.is_empty() {
            relaxed.push(without.into());
        }
        let with = |field: Value| {
            let mut with = fields.clone();
            with.insert(name.clone(), field);
            Value::from(with)
        };
        match field {
            Value::Object(_) => relaxed.extend(self::relaxed(field).into_iter().map(with)),
            Value::Array(alternatives) if name == "$or" => {
                for (index, alternative) in alternatives.iter().enumerate() {
                    for other in self::relaxed(alternative) {
                        let mut alternatives = alternatives.clone();
                        alternatives[index] = other;
                        relaxed.push(with(alternatives.into()));
                    }
                }
            }
            _ => {}
        }
    }
    relaxed
}

/// A pattern with its alternatives multiplied out: for each combination the conditions by the path of their field.
type Combination = Vec<(Vec<String>, Vec<Value>)>;

fn multiplied_out(pattern: &Value, path: &[String]) -> Vec<Combination> {
    let mut combinations = vec![Vec::new()];
    for (name, field) in pattern.as_object().into_iter().flatten() {
        let path: Vec<_> = path.iter().cloned().chain((name != "$or").then(|| name.clone())).collect();
        let choices = match field {
            Value::Array(alternatives) if name == "$or" => {
                alternatives.iter().flat_map(|alternative| multiplied_out(alternative, &path)).collect()
            }
            Value::Array(conditions) => vec![vec![(path, conditions.clone())]],
            _ => multiplied_out(field, &path),
        };
        let product = |combination: &Combination| {
            choices.iter().map(|choice| [combination.as_slice(), choice].concat()).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(product).collect();
    }
    combinations
}

/// An event as its leaves: the path of each, and in which elements of which arrays it stands.
struct Leaf<'e> {
    path: Vec<String>,
    value: &'e Value,
    elements: BTreeMap<*const Value, usize>,
}

fn leaves<'e>(
    value: &'e Value,
    path: &[String],
    elements: &BTreeMap<*const Value, usize>,
    into: &mut Vec<Leaf<'e>>,
) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                leaves(inner, &[path, std::slice::from_ref(name)].concat(), elements, into);
            }
        }
        Value::Array(array) => {
            for (index, inner) in array.iter().enumerate() {
                let mut elements = elements.clone();
                if inner.is_object() || inner.is_array() {
                    elements.insert(std::ptr::from_ref(value), index);
                }
                leaves(inner, path, &elements, into);
            }
        }
        _ => into.push(Leaf { path: path.to_vec(), value, elements: elements.clone() }),
    }
}

/// Whether each condition finds a leaf, none two of which stand in different elements of one array (aws/event-ruler,
/// "JSON Array Matching"): by trying all.
fn by_definition(
    conditions: &[(Vec<String>, Vec<Value>)],
    event: &[Leaf<'_>],
    chosen: &BTreeMap<*const Value, usize>,
) -> bool {
    let Some(((path, conditions), rest)) = conditions.split_first() else { return true };
    let absent = event.iter().all(|leaf| leaf.path != *path);
    if absent && conditions.contains(&json!({"exists": false})) && by_definition(rest, event, chosen) {
        return true;
    }
    event.iter().any(|leaf| {
        let agrees =
            leaf.elements.iter().all(|(array, index)| chosen.get(array).is_none_or(|other| other == index));
        let single = json!({"v": conditions});
        if leaf.path != *path || !agrees || !matches(&single, &json!({"v": leaf.value})) {
            return false;
        }
        let mut chosen = chosen.clone();
        chosen.extend(leaf.elements.iter().map(|(array, index)| (*array, *index)));
        by_definition(rest, event, &chosen)
    })
}

/// Whether an array holds arrays: of these the definition says more than is kept for fields that are demanded twice.
fn has_arrays_in_arrays(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(has_arrays_in_arrays),
        Value::Array(elements) => {
            elements.iter().any(|element| element.is_array() || has_arrays_in_arrays(element))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_pattern_made_from_an_event_matches_it(event in event(), pick in 0_usize..12) {
        if let Some(pattern) = made_from(event.as_object().unwrap(), pick) {
            // Of an event with many fields there can be more wildcards than a pattern may have.
            prop_assume!(pattern.to_string().matches("\"wildcard\"").count() <= 5);
            prop_assert!(matches(&pattern, &event), "{pattern} over {event}");
        }
    }

    #[test]
    fn adding_a_constraint_never_widens(pattern in pattern(), event in event()) {
        if matches(&pattern, &event) {
            for relaxed in relaxed(&pattern) {
                prop_assert!(matches(&relaxed, &event), "{pattern} matches {event}, but not {relaxed}");
            }
        }
    }

    #[test]
    fn an_or_is_the_union_of_its_alternatives(a in pattern(), b in pattern(), event in event()) {
        let either = matches(&a, &event) || matches(&b, &event);
        prop_assert_eq!(matches(&json!({"$or": [a, b]}), &event), either);
    }

    #[test]
    fn further_values_never_narrow(a in condition(), b in condition(), event in event()) {
        let both = [a.as_array().unwrap().as_slice(), b.as_array().unwrap()].concat();
        let either = matches(&json!({"a": a}), &event) || matches(&json!({"a": b}), &event);
        prop_assert_eq!(matches(&json!({"a": both}), &event), either);
    }

    #[test]
    fn it_says_what_the_definition_says(
        pattern in pattern_of(prop::sample::select(vec![
            json!([0]),
            json!([1]),
            json!([0, 1]),
            json!([{"exists": true}]),
            json!([{"exists": false}]),
            json!([1, {"exists": false}]),
        ])),
        event in event_of(prop::sample::select(vec![json!(0), json!(1)])),
    ) {
        prop_assume!(!has_arrays_in_arrays(&event));
        let mut flat = Vec::new();
        leaves(&event, &[], &BTreeMap::new(), &mut flat);
        let combinations = multiplied_out(&pattern, &[]);
        let defined = combinations.iter().any(|all| by_definition(all, &flat, &BTreeMap::new()));
        prop_assert_eq!(matches(&pattern, &event), defined, "{} over {}", pattern, event);
    }

    #[test]
    fn nothing_panics(pattern in value_of(scalar()), event in value_of(scalar()), texts in prop::collection::vec(".*", 2)) {
        let operators = ["prefix", "suffix", "wildcard", "anything-but", "cidr", "equals-ignore-case", "numeric"];
        let patterns = operators.iter().map(|operator| json!({"a": [{*operator: texts[0]}]}));
        for pattern in patterns.chain([pattern]) {
            if let Ok(filter) = Filter::compile(&FilterSource::Pattern(pattern)) {
                let _ = filter.evaluate(&event);
                let _ = filter.evaluate(&json!({"a": texts[1]}));
            }
        }
    }
}
