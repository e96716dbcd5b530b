//! The patterns of the EventBridge User Guide, each by itself, and what is refused.

use carillon_core::subscription::FilterSource;
use carillon_filter::pattern::{REASONS_MAX, WILDCARDS_MAX};
use carillon_filter::{Filter, Verdict};
use serde_json::{Value, json};

/// What a pattern matches, and what not.
struct Row {
    name: &'static str,
    pattern: Value,
    matching: Vec<Value>,
    others: Vec<Value>,
}

fn row(name: &'static str, pattern: Value, matching: Value, others: Value) -> Row {
    let events = |list| match list {
        Value::Array(events) => events,
        other => panic!("not a list: {other}"),
    };
    Row { name, pattern, matching: events(matching), others: events(others) }
}

fn compile(pattern: &Value) -> Filter {
    Filter::compile(&FilterSource::Pattern(pattern.clone())).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn check(rows: Vec<Row>) {
    for Row { name, pattern, matching, others } in rows {
        let filter = compile(&pattern);
        for event in matching {
            assert_eq!(filter.evaluate(&event), Verdict::Match, "{name}: {pattern} over {event}");
        }
        for event in others {
            let Verdict::NoMatch(reasons) = filter.evaluate(&event) else {
                panic!("{name}: {pattern} must not match {event}")
            };
            assert!(
                (1..=REASONS_MAX).contains(&reasons.len()),
                "{name}: {pattern} over {event}: {reasons:?}"
            );
        }
    }
}

/// "Comparison operators for use in event patterns in Amazon EventBridge", row by row.
#[test]
fn each_row_of_the_table_of_comparison_operators() {
    check(vec![
        row(
            "And",
            json!({"Location": ["New York"], "Day": ["Monday"]}),
            json!([{"Location": "New York", "Day": "Monday"}, {"Location": "New York", "Day": "Monday", "Hour": 3}]),
            json!([{"Location": "New York", "Day": "Tuesday"}, {"Location": "New York"}, {"Day": "Monday"}, {}]),
        ),
        row(
            "Anything-but",
            json!({"state": [{"anything-but": "initializing"}]}),
            json!([{"state": "running"}, {"state": ""}, {"state": "Initializing"}, {"state": 1}, {"state": null}]),
            json!([{"state": "initializing"}, {}, {"state": {}}, {"state": []}]),
        ),
        row(
            "Anything-but (begins with)",
            json!({"Region": [{"anything-but": {"prefix": "us-"}}]}),
            json!([{"Region": "eu-west-1"}, {"Region": "us"}]),
            json!([{"Region": "us-east-1"}, {"Region": "us-"}, {}]),
        ),
        row(
            "Anything-but (ends with)",
            json!({"FileName": [{"anything-but": {"suffix": ".png"}}]}),
            json!([{"FileName": "a.jpg"}, {"FileName": "a.PNG"}]),
            json!([{"FileName": "a.png"}, {}]),
        ),
        row(
            "Anything-but (ignore case)",
            json!({"state": [{"anything-but": {"equals-ignore-case": "initializing"}}]}),
            json!([{"state": "running"}]),
            json!([{"state": "initializing"}, {"state": "INITIALIZING"}, {"state": "Initializing"}, {}]),
        ),
        row(
            "Anything-but using a wildcard",
            json!({"FilePath": [{"anything-but": {"wildcard": "*/lib/*"}}]}),
            json!([{"FilePath": "/usr/bin/x"}, {"FilePath": "/usr/libexec/x"}]),
            json!([{"FilePath": "/usr/lib/x"}, {}]),
        ),
        row(
            "Begins with",
            json!({"Region": [{"prefix": "us-"}]}),
            json!([{"Region": "us-east-1"}, {"Region": "us-"}]),
            json!([{"Region": "eu-us-1"}, {"Region": "US-east-1"}, {"Region": 1}, {}]),
        ),
        row(
            "Begins with (ignore case)",
            json!({"service": [{"prefix": {"equals-ignore-case": "eventb"}}]}),
            json!([{"service": "EventBridge"}, {"service": "eventb"}, {"service": "EVENTBUS"}]),
            json!([{"service": "Event"}, {"service": "AEventB"}]),
        ),
        row(
            "Empty",
            json!({"LastName": [""]}),
            json!([{"LastName": ""}]),
            json!([{"LastName": "x"}, {"LastName": null}, {}]),
        ),
        row(
            "Equals",
            json!({"Name": ["Alice"]}),
            json!([{"Name": "Alice"}]),
            json!([{"Name": "alice"}, {"Name": "Alice "}, {"Name": {"Alice": "Alice"}}, {}]),
        ),
        row(
            "Equals (ignore case)",
            json!({"Name": [{"equals-ignore-case": "alice"}]}),
            json!([{"Name": "Alice"}, {"Name": "ALICE"}, {"Name": "alice"}]),
            json!([{"Name": "Alicia"}, {"Name": 1}]),
        ),
        row(
            "Ends with",
            json!({"FileName": [{"suffix": ".png"}]}),
            json!([{"FileName": "a.png"}, {"FileName": ".png"}]),
            json!([{"FileName": "a.PNG"}, {"FileName": "png"}, {"FileName": "a.png.txt"}]),
        ),
        row(
            "Ends with (ignore case)",
            json!({"service": [{"suffix": {"equals-ignore-case": "tBridge"}}]}),
            json!([{"service": "EventBridge"}, {"service": "EVENTBRIDGE"}, {"service": "tbridge"}]),
            json!([{"service": "Bridge"}, {"service": "EventBridges"}]),
        ),
        row(
            "Exists",
            json!({"ProductName": [{"exists": true}]}),
            json!([{"ProductName": "x"}, {"ProductName": null}, {"ProductName": ""}, {"ProductName": [[1]]}]),
            json!([{}, {"ProductName": {"a": 1}}, {"ProductName": []}]),
        ),
        row(
            "Does not exist",
            json!({"ProductName": [{"exists": false}]}),
            json!([{}, {"Other": 1}, {"ProductName": {"a": 1}}, {"ProductName": []}]),
            json!([{"ProductName": "x"}, {"ProductName": null}, {"ProductName": ["x"]}]),
        ),
        row(
            "Not",
            json!({"Weather": [{"anything-but": ["Raining"]}]}),
            json!([{"Weather": "Sunny"}, {"Weather": ["Raining", "Windy"]}]),
            json!([{"Weather": "Raining"}, {"Weather": ["Raining", "Raining"]}, {}]),
        ),
        row(
            "Null",
            json!({"UserID": [null]}),
            json!([{"UserID": null}]),
            json!([{"UserID": ""}, {"UserID": 0}, {"UserID": "null"}, {}]),
        ),
        row(
            "Numeric (equals)",
            json!({"Price": [{"numeric": ["=", 100]}]}),
            json!([{"Price": 100}, {"Price": 100.0}, {"Price": 1e2}]),
            json!([{"Price": 101}, {"Price": "100"}, {"Price": 100.000_001}]),
        ),
        row(
            "Numeric (range)",
            json!({"Price": [{"numeric": [">", 10, "<=", 20]}]}),
            json!([{"Price": 10.5}, {"Price": 20}]),
            json!([{"Price": 10}, {"Price": 20.1}, {"Price": "15"}, {"Price": null}]),
        ),
        row(
            "Or",
            json!({"PaymentType": ["Credit", "Debit"]}),
            json!([{"PaymentType": "Credit"}, {"PaymentType": "Debit"}]),
            json!([{"PaymentType": "Cash"}]),
        ),
        row(
            "Or (multiple fields)",
            json!({"$or": [{"Location": ["New York"]}, {"Day": ["Monday"]}]}),
            json!([{"Location": "New York"}, {"Day": "Monday"}, {"Location": "New York", "Day": "Tuesday"}]),
            json!([{"Location": "Boston", "Day": "Tuesday"}, {}]),
        ),
        row(
            "Wildcard",
            json!({"FileName": [{"wildcard": "dir/*.png"}]}),
            json!([{"FileName": "dir/a.png"}, {"FileName": "dir/sub/a.png"}, {"FileName": "dir/.png"}]),
            json!([{"FileName": "dir/a.jpg"}, {"FileName": "other/a.png"}, {"FileName": "dir.png"}]),
        ),
    ]);
}

/// "Content filtering", "Arrays" and "Null values and empty strings" of the User Guide.
#[test]
fn the_further_examples_of_the_guide() {
    let numeric = json!({"detail": {
        "c-count": [{"numeric": [">", 0, "<=", 5]}],
        "d-count": [{"numeric": ["<", 10]}],
        "x-limit": [{"numeric": ["=", 3.018e2]}],
    }});
    let combined = json!({
        "time": [{"prefix": "2017-10-02"}],
        "detail": {
            "state": [{"anything-but": "initializing"}],
            "c-count": [{"numeric": [">", 0, "<=", 5]}],
            "d-count": [{"numeric": ["<", 10]}],
            "x-limit": [{"anything-but": [100, 200, 300]}],
        },
    });
    let or = json!({"detail": {"$or": [
        {"c-count": [{"numeric": [">", 0, "<=", 5]}]},
        {"d-count": [{"numeric": ["<", 10]}]},
        {"x-limit": [{"numeric": ["=", 3.018e2]}]},
    ]}});
    let or_with_and = json!({
        "source": ["aws.cloudwatch"],
        "$or": [
            {"metricName": ["CPUUtilization", "ReadLatency"]},
            {"metricType": ["MetricType"], "namespace": ["AWS/EC2", "AWS/ES"], "$or": [
                {"metricId": [1234]},
                {"spaceId": [1000]},
            ]},
            {"scope": ["Service"]},
        ],
    });
    let null_and_empty = json!({"detail": {"eventVersion": "", "responseElements": null}, "resources": []});
    check(vec![
        row(
            "prefix of a time",
            json!({"time": [{"prefix": "2017-10-02"}]}),
            json!([{"time": "2017-10-02T18:43:48Z"}]),
            json!([{"time": "2017-10-03T18:43:48Z"}]),
        ),
        row(
            "suffix in any case",
            json!({"FileName": [{"suffix": {"equals-ignore-case": ".png"}}]}),
            json!([{"FileName": "a.PNG"}, {"FileName": "a.png"}]),
            json!([{"FileName": "a.jpg"}]),
        ),
        row(
            "anything-but with a number",
            json!({"detail": {"x-limit": [{"anything-but": 123}]}}),
            json!([{"detail": {"x-limit": 124}}, {"detail": {"x-limit": "123"}}]),
            json!([{"detail": {"x-limit": 123}}, {"detail": {"x-limit": 123.0}}, {"detail": {}}]),
        ),
        row(
            "anything-but with a list of texts",
            json!({"detail": {"state": [{"anything-but": ["stopped", "overloaded"]}]}}),
            json!([{"detail": {"state": "running"}}]),
            json!([{"detail": {"state": "stopped"}}, {"detail": {"state": "overloaded"}}]),
        ),
        row(
            "anything-but with a list of numbers",
            json!({"detail": {"x-limit": [{"anything-but": [100, 200, 300]}]}}),
            json!([{"detail": {"x-limit": 150}}]),
            json!([{"detail": {"x-limit": 100}}, {"detail": {"x-limit": 3e2}}]),
        ),
        row(
            "anything-but in any case with a list",
            json!({"detail": {"state": [{"anything-but": {"equals-ignore-case": ["initializing", "stopped"]}}]}}),
            json!([{"detail": {"state": "running"}}]),
            json!([{"detail": {"state": "Stopped"}}, {"detail": {"state": "INITIALIZING"}}]),
        ),
        row(
            "anything-but with a list of prefixes",
            json!({"detail": {"state": [{"anything-but": {"prefix": ["init", "error"]}}]}}),
            json!([{"detail": {"state": "running"}}]),
            json!([{"detail": {"state": "initializing"}}, {"detail": {"state": "error: 1"}}]),
        ),
        row(
            "anything-but with a list of suffixes",
            json!({"FileName": [{"anything-but": {"suffix": [".txt", ".rtf"]}}]}),
            json!([{"FileName": "a.png"}]),
            json!([{"FileName": "a.txt"}, {"FileName": "a.rtf"}]),
        ),
        row(
            "anything-but with a list of wildcards",
            json!({"FilePath": [{"anything-but": {"wildcard": ["*/lib/*", "*/bin/*"]}}]}),
            json!([{"FilePath": "/usr/share/x"}]),
            json!([{"FilePath": "/usr/lib/x"}, {"FilePath": "/usr/bin/x"}]),
        ),
        row(
            "numeric matching",
            numeric,
            json!([{"detail": {"c-count": 5, "d-count": -3, "x-limit": 301.8}}]),
            json!([
                {"detail": {"c-count": 0, "d-count": 3, "x-limit": 301.8}},
                {"detail": {"c-count": 5, "d-count": 10, "x-limit": 301.8}},
                {"detail": {"c-count": 5, "d-count": 3, "x-limit": 301.9}},
                {"detail": {"c-count": "5", "d-count": 3, "x-limit": 301.8}},
            ]),
        ),
        row(
            "all comparisons of numbers",
            json!({"a": [{"numeric": ["<", 1]}], "b": [{"numeric": ["<=", 1]}], "c": [{"numeric": [">", 1]}],
                "d": [{"numeric": [">=", 1]}], "e": [{"numeric": [">=", 1, "<", 2]}]}),
            json!([{"a": 0.9, "b": 1, "c": 1.1, "d": 1, "e": 1}, {"a": -1, "b": 0, "c": 5_000_000_001_i64, "d": 2, "e": 1.9}]),
            json!([{"a": 1, "b": 1, "c": 1.1, "d": 1, "e": 1}, {"a": 0, "b": 1.1, "c": 1.1, "d": 1, "e": 1},
                {"a": 0, "b": 1, "c": 1, "d": 1, "e": 1}, {"a": 0, "b": 1, "c": 1.1, "d": 0, "e": 1},
                {"a": 0, "b": 1, "c": 1.1, "d": 1, "e": 2}]),
        ),
        row(
            "addresses of version 4",
            json!({"detail": {"sourceIPAddress": [{"cidr": "10.0.0.0/24"}]}}),
            json!([{"detail": {"sourceIPAddress": "10.0.0.0"}}, {"detail": {"sourceIPAddress": "10.0.0.255"}}]),
            json!([{"detail": {"sourceIPAddress": "10.0.1.0"}}, {"detail": {"sourceIPAddress": "::10.0.0.1"}},
                {"detail": {"sourceIPAddress": "example.com"}}, {"detail": {"sourceIPAddress": 10}}]),
        ),
        row(
            "addresses of version 6",
            json!({"ip": [{"cidr": "2001:db8::/32"}]}),
            json!([{"ip": "2001:db8::1"}, {"ip": "2001:0DB8:ffff:0:0:0:0:1"}]),
            json!([{"ip": "2001:db9::1"}, {"ip": "10.0.0.1"}]),
        ),
        row(
            "exists looks at leaves",
            json!({"detail": {"c-count": [{"exists": false}]}}),
            json!([{"detail": {"state": ["initializing", "running"]}}, {"detail": {"c-count": {"c1": 100}}}, {}]),
            json!([{"detail": {"c-count": 100}}]),
        ),
        row(
            "a star and a backslash as themselves",
            json!({"path": [{"wildcard": r"C:\\*\*"}]}),
            json!([{"path": r"C:\dir\*"}, {"path": r"C:\*"}]),
            json!([{"path": r"C:\dir\x"}, {"path": "C:/dir*"}]),
        ),
        row(
            "several operators",
            combined,
            json!([{"time": "2017-10-02T18:43:48Z", "detail": {"state": "running", "c-count": 1, "d-count": 2, "x-limit": 1}}]),
            json!([{"time": "2017-10-02T18:43:48Z", "detail": {"state": "running", "c-count": 1, "d-count": 2, "x-limit": 200}}]),
        ),
        row(
            "$or over operators",
            or,
            json!([{"detail": {"c-count": 1}}, {"detail": {"d-count": 9}}, {"detail": {"x-limit": 301.8}}]),
            json!([{"detail": {"c-count": 6, "d-count": 10, "x-limit": 1}}, {"c-count": 1}, {}]),
        ),
        row(
            "$or with and within, nested",
            or_with_and,
            json!([
                {"source": "aws.cloudwatch", "metricName": "ReadLatency"},
                {"source": "aws.cloudwatch", "scope": "Service"},
                {"source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES", "spaceId": 1000},
            ]),
            json!([
                {"source": "aws.s3", "scope": "Service"},
                {"source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES"},
                {"source": "aws.cloudwatch", "metricType": "MetricType", "spaceId": 1000},
            ]),
        ),
        row(
            "$or beside $or",
            json!({"$or": [{"a": [1]}, {"b": [1]}], "c": {"$or": [{"d": [1]}, {"e": [1]}, {"f": [1]}]}, "g": {"$or": [
                {"h": [1]},
                {"i": [1]},
            ]}}),
            json!([
                {"a": 1, "c": {"d": 1}, "g": {"h": 1}},
                {"a": 1, "c": {"e": 1}, "g": {"i": 1}},
                {"b": 1, "c": {"f": 1}, "g": {"h": 1}},
                {"b": 1, "c": {"d": 1}, "g": {"i": 1}},
            ]),
            json!([{"a": 1, "c": {"d": 1}}, {"c": {"d": 1}, "g": {"h": 1}}, {"b": 1, "c": {"g": 1}, "g": {"h": 1}}]),
        ),
        row(
            "an array that has one of the values",
            json!({"resources": ["arn:a", "arn:b"]}),
            json!([{"resources": ["arn:x", "arn:b"]}, {"resources": "arn:a"}, {"resources": [["arn:x"], ["arn:a"]]}]),
            json!([{"resources": ["arn:x"]}, {"resources": []}]),
        ),
        row(
            "the empty text",
            json!({"detail": {"eventVersion": [""]}}),
            json!([null_and_empty]),
            json!([{"detail": {"eventVersion": null}}]),
        ),
        row(
            "null",
            json!({"detail": {"responseElements": [null]}}),
            json!([null_and_empty]),
            json!([{"detail": {"responseElements": ""}}]),
        ),
        row(
            "true and false",
            json!({"a": [true], "b": [false]}),
            json!([{"a": true, "b": false}]),
            json!([{"a": "true", "b": false}, {"a": true, "b": 0}]),
        ),
    ]);
}

/// "JSON Array Matching" of aws/event-ruler, and what follows from it.
#[test]
fn all_that_is_demanded_of_an_element_must_hold_for_one() {
    let employees = json!({"employees": [
        {"firstName": "John", "lastName": "Doe"},
        {"firstName": "Anna", "lastName": "Smith"},
        {"firstName": "Peter", "lastName": "Jones"},
    ]});
    let nested = json!({"employees": [
        [{"firstName": "John", "lastName": "Doe"}, {"firstName": "Anna", "lastName": "Smith"}],
        [{"firstName": "Peter", "lastName": "Jones"}],
    ]});
    check(vec![
        row(
            "one field",
            json!({"employees": {"firstName": ["Anna"]}}),
            json!([employees, nested]),
            json!([]),
        ),
        row(
            "two fields of one element",
            json!({"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}}),
            json!([employees, nested]),
            json!([]),
        ),
        row(
            "two fields of two elements",
            json!({"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}}),
            json!([]),
            json!([employees, nested]),
        ),
        row(
            "across an $or",
            json!({"employees": {"firstName": ["Anna"]}, "$or": [
                {"employees": {"lastName": ["Jones"]}},
                {"employees": {"lastName": ["Doe"]}},
            ]}),
            json!([]),
            json!([employees, nested]),
        ),
        row(
            "arrays within elements",
            json!({"a": {"b": {"c": [1], "d": [2]}, "e": [3]}}),
            json!([{"a": [{"e": 1}, {"b": [{"c": 1}, {"c": 1, "d": 2}], "e": [0, 3]}]}]),
            json!([
                {"a": [{"b": [{"c": 1, "d": 2}]}, {"e": 3}]},
                {"a": [{"b": [{"c": 1}, {"d": 2}], "e": 3}]},
                {"a": [1, 2, 3]},
            ]),
        ),
        row(
            "absence is absence from the event",
            json!({"items": {"sku": ["A"], "discount": [{"exists": false}]}}),
            json!([{"items": [{"sku": "A"}, {"sku": "B"}]}, {"items": {"sku": "A"}}]),
            json!([{"items": [{"sku": "A", "discount": 1}]}, {"items": [{"sku": "A"}, {"discount": 1}]}, {"items": []}]),
        ),
        row(
            "absent, or of a value",
            json!({"a": {"b": [1, {"exists": false}], "c": [{"exists": false}]}}),
            json!([{}, {"a": []}, {"a": 5}, {"a": [{}, {"b": 1}]}, {"a": {"b": [2, 1]}}]),
            json!([{"a": [{"b": 2}]}, {"a": [{"b": 1}, {"c": 1}]}]),
        ),
        row(
            "a field beside an $or and within",
            json!({"a": [{"prefix": "x"}], "$or": [{"a": [{"suffix": "y"}]}, {"b": [1]}]}),
            json!([{"a": "xy"}, {"a": "x", "b": 1}]),
            json!([{"a": "x"}, {"a": "zy"}, {"b": 1}]),
        ),
    ]);
}

#[test]
fn what_is_wrong_with_a_pattern_is_told_with_its_place() {
    let wildcards: Vec<_> = (0..=WILDCARDS_MAX).map(|_| json!({"wildcard": "*a"})).collect();
    let ors: Vec<_> = (0..11).map(|n| (format!("f{n}"), json!({"$or": [{"a": [1]}, {"b": [1]}]}))).collect();
    let ors = Value::Object(ors.into_iter().collect());
    for (pattern, pointers) in [
        (json!([]), vec![""]),
        (json!("x"), vec![""]),
        (json!({}), vec![""]),
        (json!({"a": "x"}), vec!["/a"]),
        (json!({"a": 1, "b": null}), vec!["/a", "/b"]),
        (json!({"a": []}), vec!["/a"]),
        (json!({"a": {}}), vec!["/a"]),
        (json!({"a": {"b": {"c/d~": true}}}), vec!["/a/b/c~1d~0"]),
        (json!({"a": [["x"]]}), vec!["/a/0"]),
        (json!({"a": [{}]}), vec!["/a/0"]),
        (json!({"a": [{"prefix": "a", "suffix": "b"}]}), vec!["/a/0"]),
        (json!({"a": ["x", {"regex": "a+"}]}), vec!["/a/1/regex"]),
        (json!({"a": [{"prefix": 1}, {"suffix": null}]}), vec!["/a/0/prefix", "/a/1/suffix"]),
        (json!({"a": [{"prefix": {"wildcard": "x"}}]}), vec!["/a/0/prefix"]),
        (json!({"a": [{"prefix": {"equals-ignore-case": 1}}]}), vec!["/a/0/prefix/equals-ignore-case"]),
        (json!({"a": [{"equals-ignore-case": ["x"]}]}), vec!["/a/0/equals-ignore-case"]),
        (json!({"a": [{"exists": "yes"}]}), vec!["/a/0/exists"]),
        (json!({"a": [{"anything-but": null}]}), vec!["/a/0/anything-but"]),
        (json!({"a": [{"anything-but": []}]}), vec!["/a/0/anything-but"]),
        (json!({"a": [{"anything-but": ["x", 1]}]}), vec!["/a/0/anything-but"]),
        (json!({"a": [{"anything-but": ["x", true]}]}), vec!["/a/0/anything-but/1"]),
        (json!({"a": [{"anything-but": {"numeric": ["=", 1]}}]}), vec!["/a/0/anything-but"]),
        (json!({"a": [{"anything-but": {"prefix": ""}}]}), vec!["/a/0/anything-but/prefix"]),
        (json!({"a": [{"anything-but": {"suffix": ["x", ""]}}]}), vec!["/a/0/anything-but/suffix/1"]),
        (json!({"a": [{"anything-but": {"wildcard": ["*x", "**"]}}]}), vec!["/a/0/anything-but/wildcard/1"]),
        (json!({"a": [{"wildcard": "a**b"}, {"wildcard": r"\d"}]}), vec!["/a/0/wildcard", "/a/1/wildcard"]),
        (json!({"a": [{"numeric": []}]}), vec!["/a/0/numeric"]),
        (json!({"a": [{"numeric": ["=", "1"]}]}), vec!["/a/0/numeric"]),
        (json!({"a": [{"numeric": ["!=", 1]}]}), vec!["/a/0/numeric"]),
        (json!({"a": [{"numeric": ["<", 1, ">", 0]}]}), vec!["/a/0/numeric"]),
        (json!({"a": [{"numeric": [">", 1, "<", 1]}]}), vec!["/a/0/numeric"]),
        (json!({"a": [{"numeric": [">", 0, "<"]}]}), vec!["/a/0/numeric"]),
        (json!({"a": [{"cidr": "10.0.0.1"}, {"cidr": "10.0.0.0/33"}]}), vec!["/a/0/cidr", "/a/1/cidr"]),
        (json!({"$or": {"a": ["x"]}}), vec!["/$or"]),
        (json!({"$or": [{"a": ["x"]}]}), vec!["/$or"]),
        (json!({"$or": [{"a": ["x"]}, {}]}), vec!["/$or/1"]),
        (json!({"$or": [{"a": ["x"]}, 1]}), vec!["/$or/1"]),
        (json!({"$or": [{"a": ["x"]}, {"b": {"prefix": ["x"]}}]}), vec!["/$or/1/b/prefix"]),
        (json!({"a": wildcards}), vec![""]),
        (ors, vec![""]),
    ] {
        let wrong = Filter::compile(&FilterSource::Pattern(pattern.clone())).unwrap_err().0;
        let told: Vec<_> =
            wrong.iter().map(|error| error.pointer.strip_prefix("/pattern").unwrap()).collect();
        assert_eq!(told, pointers, "{pattern}: {wrong:?}");
    }
}

#[test]
fn the_reasons_name_the_place_in_the_event() {
    let event = json!({"type": "order.paid", "data": {
        "state": "running", "amount": 5, "items": [{"sku": "A", "n": 1}, {"sku": "B", "n": 2}], "tags": ["x"], "none": [],
    }});
    for (pattern, reasons) in [
        (
            json!({"data": {"state": ["stopped", "failed"], "amount": [{"numeric": [">", 5, "<=", 7]}]}}),
            vec![
                ("/data/amount", "must be a number > 5 and <= 7, but is 5"),
                ("/data/state", r#"must be one of "failed" or "stopped", but is "running""#),
            ],
        ),
        (
            json!({"data": {"state": [{"anything-but": {"prefix": ["run", "init"]}}, null]}}),
            vec![("/data/state", r#"must be null or not begin with "init" or "run", but is "running""#)],
        ),
        (json!({"subject": {"id": [1]}}), vec![("/subject/id", "must be 1, but is missing")]),
        (
            json!({"data": {"state": [{"exists": false}]}}),
            vec![("/data/state", r#"must be absent, but is "running""#)],
        ),
        (json!({"data": {"none": [1]}}), vec![("/data/none", "must be 1, but has no elements")]),
        (
            json!({"data": {"tags": [{"suffix": "y"}]}}),
            vec![("/data/tags", r#"must have an element that fits: must end with "y""#)],
        ),
        (
            json!({"data": {"items": {"sku": ["C"]}}}),
            vec![("/data/items", r#"must have an element whose "sku" fits: must be "C""#)],
        ),
        (
            json!({"data": {"items": {"sku": ["A"], "n": [2]}}}),
            vec![(
                "/data/items",
                r#"must have one element that fulfils the conditions on "n" and "sku", not one for each"#,
            )],
        ),
        (
            json!({"data": {"items": {"n": [{"exists": false}]}, "tags": [{"exists": false}]}}),
            vec![
                ("/data/items", r#"must have no element with "n""#),
                ("/data/tags", "must be absent, but has elements"),
            ],
        ),
        // Of the alternatives the closest one is told.
        (
            json!({"$or": [{"type": ["order.paid"], "data": {"state": ["x"]}}, {"type": ["a"], "data": {"state": ["y"]}}]}),
            vec![(
                "/data/state",
                r#"must be "x", but is "running"; or another alternative of $or must match"#,
            )],
        ),
    ] {
        let Verdict::NoMatch(told) = compile(&pattern).evaluate(&event) else { panic!("{pattern}") };
        let told: Vec<_> = told.iter().map(|error| (error.pointer.as_str(), error.detail.as_str())).collect();
        assert_eq!(told, reasons, "{pattern}");
    }
}

#[test]
fn reasons_are_short_however_long_the_values_are() {
    let long = "x".repeat(10_000);
    let values: Vec<_> = (0..100).map(|n| format!("{n}-{}", "y".repeat(100))).collect();
    let pattern = json!({"a": values, "b": [{"prefix": "z".repeat(2000)}], "long".repeat(500): {"c": [1]}});
    let Verdict::NoMatch(reasons) = compile(&pattern).evaluate(&json!({"a": long, "b": long})) else {
        panic!()
    };
    assert_eq!(reasons.len(), 3);
    assert!(reasons.iter().all(|reason| reason.detail.len() < 600 && reason.pointer.len() <= 1024));
}

#[test]
fn an_event_that_is_no_object_matches_nothing() {
    let filter = compile(&json!({"a": [{"exists": false}]}));
    for event in [json!(null), json!([]), json!([{}]), json!("a"), json!(1)] {
        assert!(matches!(filter.evaluate(&event), Verdict::NoMatch(_)), "{event}");
    }
}
