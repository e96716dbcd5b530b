//! Filters made to cost as much as they can, each over an event of the largest size that is made to go with it. They
//! are in `hostile.json`, with the name of the event and what is to be found out.
#![expect(clippy::print_stdout, reason = "the times are of interest")]

use std::time::{Duration, Instant};

use carillon_core::event::EVENT_BYTES_MAX;
use carillon_core::subscription::FilterSource;
use carillon_filter::{Filter, Verdict};
use serde_json::{Value, json};

/// How long an evaluation may take, with the reasons, in a build without optimization. Some times what was measured, for
/// machines that are busy with other things.
const EVALUATION_MAX: Duration = Duration::from_secs(5);

/// How often each is tried; the shortest time counts.
const TRIES: usize = 3;

#[test]
fn hostile_filters_are_evaluated_in_a_bounded_time() {
    let hostile: Vec<Value> = serde_json::from_str(include_str!("hostile.json")).unwrap();
    for case in &hostile {
        let name = case["name"].as_str().unwrap();
        let source: FilterSource = serde_json::from_value(case["filter"].clone()).unwrap();
        let event = event(case["event"].as_str().unwrap());

        let began = Instant::now();
        let filter = Filter::compile(&source).unwrap();
        let compiled = began.elapsed();

        let evaluate = || {
            let began = Instant::now();
            let verdict = filter.evaluate(&event);
            (began.elapsed(), verdict)
        };
        let (evaluated, verdict) = (0..TRIES).map(|_| evaluate()).min_by_key(|(time, _)| *time).unwrap();
        let verdict = match verdict {
            Verdict::Match => "match",
            Verdict::NoMatch(_) => "noMatch",
            Verdict::Failed(_) => "failed",
        };
        println!(
            "{:>7.1} ms, compiled in {:>5.1} ms: {name}: {verdict}",
            millis(evaluated),
            millis(compiled)
        );
        assert_eq!(verdict, case["verdict"], "{name}");
        assert!(evaluated < EVALUATION_MAX, "{name} took {evaluated:?}");
        assert!(compiled < EVALUATION_MAX, "{name} was compiled in {compiled:?}");
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The event of a name, with as much in `/data/v` as an event can have.
fn event(name: &str) -> Value {
    let around = event_of(&Value::Null).to_string().len();
    let room = EVENT_BYTES_MAX - around;
    let event = event_of(&match name {
        "oneLongText" => "a".repeat(room - 2).into(),
        "longTexts" => repeated(&"a".repeat(1000).into(), room),
        "manyTexts" => repeated(&json!("a"), room),
        "manyAddresses" => repeated(&json!("10.9.9.9"), room),
        "manyNumbers" => repeated(&json!(1), room),
        "manyEmptyObjects" => repeated(&json!({}), room),
        "manyObjects" => {
            repeated_all(&[json!({"a": 0, "b": 1}), json!({"a": 1, "c": 1}), json!({"b": 1, "c": 1})], room)
        }
        "nestedArrays" => {
            repeated(&(0..100).fold(json!([{"a": 1}, {"b": 1}]), |inner, _| json!([inner])), room)
        }
        "nestedObjects" => nested_objects(room),
        unknown => panic!("there is no event {unknown}"),
    });
    let size = event.to_string().len();
    assert!((EVENT_BYTES_MAX - 4096..=EVENT_BYTES_MAX).contains(&size), "{name} has {size} bytes");
    event
}

fn event_of(value: &Value) -> Value {
    json!({"specversion": "1.0", "id": "1", "source": "/hostile", "type": "hostile", "data": {"v": value}})
}

fn repeated(element: &Value, room: usize) -> Value {
    repeated_all(std::slice::from_ref(element), room)
}

fn repeated_all(elements: &[Value], room: usize) -> Value {
    let size: usize = elements.iter().map(|element| element.to_string().len() + 1).sum();
    let count = (room - 1) / size * elements.len();
    elements.iter().cycle().take(count).cloned().collect::<Vec<_>>().into()
}

/// Objects in arrays, of which each level has two elements until there is no more room: paths of `v` alone.
fn nested_objects(room: usize) -> Value {
    let leaves = json!([{"v": "y"}]);
    let mut value = leaves.clone();
    for _ in 0..11 {
        value = json!([{"v": value}, {"v": [1]}, {"v": value}]);
    }
    let rest = room - value.to_string().len() - 1;
    let Value::Array(elements) = &mut value else { return value };
    elements.extend((0..rest / 12).map(|_| json!({"v": [0, 1]})));
    value
}
