//! What alarms and dashboards look at is what the functions measure, by namespace, name and dimensions; and nothing is
//! measured that no one looks at. A wrong name is no error anywhere: the graph stays empty and the alarm silent.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use carillon_aws::metrics::{Breakdown, Counter, FUNCTION, Measure, Metrics, NAMESPACE};
use carillon_core::outcome::OutcomeClass;
use carillon_core::time::UnixMillis;
use carillon_local::root;
use serde_json::{Value, json};

/// A metric of ours: the function that has it, its name, and its dimensions beside the function's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    function: String,
    name: String,
    dimensions: BTreeSet<String>,
}

const FUNCTIONS: [&str; 7] = ["api", "publish", "fanout", "deliver", "clock", "redrive", "inbox"];

#[test]
fn alarms_and_dashboards_look_at_what_is_measured() -> Result<()> {
    let (emitted, watched) = (emitted()?, watched()?);
    let unknown: Vec<_> = watched.difference(&emitted).collect();
    assert!(unknown.is_empty(), "looked at, but measured by no function: {unknown:#?}");
    let by_name = |all: &BTreeSet<Series>| {
        all.iter().map(|series| (series.function.clone(), series.name.clone())).collect::<BTreeSet<_>>()
    };
    let (emitted, watched) = (by_name(&emitted), by_name(&watched));
    let unseen: Vec<_> = emitted.difference(&watched).collect();
    assert!(unseen.is_empty(), "measured, but looked at by no alarm and no dashboard: {unseen:#?}");
    Ok(())
}

#[test]
fn everything_that_can_be_measured_is() -> Result<()> {
    let emitted: BTreeSet<_> = emitted()?.into_iter().map(|series| series.name).collect();
    let counters = Counter::ALL.map(Counter::name);
    let measures = Measure::ALL.map(Measure::name);
    let breakdowns = Breakdown::ALL.map(Breakdown::name);
    for name in counters.into_iter().chain(measures).chain(breakdowns) {
        assert!(emitted.contains(name), "no function measures {name}");
    }
    Ok(())
}

/// What the functions measure: what stands in their sources, done to metrics of their own, whose lines are read.
fn emitted() -> Result<BTreeSet<Series>> {
    let mut emitted = BTreeSet::new();
    for function in FUNCTIONS {
        let source = source(function)?;
        let metrics = Metrics::new(function);
        for counter in
            Counter::ALL.into_iter().filter(|counter| names(&source, &format!("Counter::{counter:?}")))
        {
            metrics.count(counter, 1);
        }
        for measure in
            Measure::ALL.into_iter().filter(|measure| names(&source, &format!("Measure::{measure:?}")))
        {
            metrics.observe(measure, 1);
        }
        if source.contains("metrics.batch(") {
            metrics.batch(1);
        }
        if source.contains("metrics.attempt(") {
            metrics.attempt(OutcomeClass::Delivered, 1, Some(1));
        }
        if source.contains("metrics.held(") {
            metrics.held("cause");
        }
        for line in metrics.lines(UnixMillis(0)).lines() {
            emitted.extend(series_of_line(&serde_json::from_str(line)?)?);
        }
    }
    Ok(emitted)
}

/// All code of a function, without white space.
fn source(function: &str) -> Result<String> {
    let mut source = String::new();
    let mut folders = vec![root().join("functions").join(function).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                source.extend(fs::read_to_string(path)?.split_whitespace());
            }
        }
    }
    Ok(source)
}

/// Whether a path stands in a source, and not only as the beginning of another one.
fn names(source: &str, path: &str) -> bool {
    source.match_indices(path).any(|(place, _)| {
        !source[place + path.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
    })
}

/// The metrics that CloudWatch makes of a line (embedded metric format).
fn series_of_line(line: &Value) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for directive in list(&line["_aws"]["CloudWatchMetrics"])? {
        ensure!(directive["Namespace"] == NAMESPACE, "{directive}");
        for metric in list(&directive["Metrics"])? {
            for dimensions in list(&directive["Dimensions"])? {
                let mut dimensions: BTreeSet<_> =
                    list(dimensions)?.iter().map(text).collect::<Result<_>>()?;
                ensure!(dimensions.remove(FUNCTION), "a metric without its function: {line}");
                all.push(Series {
                    function: text(&line[FUNCTION])?,
                    name: text(&metric["Name"])?,
                    dimensions,
                });
            }
        }
    }
    Ok(all)
}

/// What alarms and dashboards look at of ours.
fn watched() -> Result<BTreeSet<Series>> {
    let template = fs::read_to_string(root().join("infra/template.yaml"))?;
    let mut watched = alarmed(&template)?;
    let boards = template.split("DashboardBody: !Sub |\n").skip(1);
    for board in boards {
        let body: String = board.lines().take_while(|line| line.starts_with("        ")).collect();
        let body: Value = serde_json::from_str(&body).context("a dashboard is no JSON")?;
        for widget in list(&body["widgets"])? {
            watched.extend(shown(list(&widget["properties"]["metrics"])?)?);
        }
    }
    ensure!(!watched.is_empty(), "the template has no metric of ours: it is not read as it is written");
    Ok(watched)
}

/// What alarms look at: a namespace, a name and dimensions, each on a line of its own.
fn alarmed(template: &str) -> Result<BTreeSet<Series>> {
    let mut alarmed = BTreeSet::new();
    let mut lines = template.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(namespace) = line.strip_prefix("Namespace: ") else { continue };
        if !is_ours(namespace)? {
            continue;
        }
        let name = lines.next().and_then(|line| line.strip_prefix("MetricName: ")).context("no name")?;
        ensure!(lines.next() == Some("Dimensions:"), "{name} has no dimensions");
        let dimensions = lines
            .clone()
            .map_while(|line| line.strip_prefix("- { Name: ")?.strip_suffix(" }")?.split_once(", Value: "));
        alarmed.insert(series(name, dimensions)?);
    }
    Ok(alarmed)
}

/// What a widget shows: the rows of `metrics` as CloudWatch has them, with `.` for the same as above and `...` for all
/// that comes before the rest, or a search.
fn shown(rows: &[Value]) -> Result<Vec<Series>> {
    let mut shown = Vec::new();
    let mut above: Vec<String> = Vec::new();
    for row in rows {
        let row = list(row)?;
        if let Some(search) = row.first().and_then(|first| first["expression"].as_str()) {
            shown.push(searched(search)?);
            continue;
        }
        let row: Vec<_> = row.iter().filter_map(Value::as_str).collect();
        let whole: Vec<String> = match row[..] {
            ["...", ref rest @ ..] => {
                let kept = above.len().checked_sub(rest.len()).context("a row of more than the one above")?;
                above[..kept].iter().cloned().chain(rest.iter().map(ToString::to_string)).collect()
            }
            ref row => {
                let part = |(place, part): (usize, &&str)| match *part {
                    "." => above.get(place).cloned().context("nothing above"),
                    part => Ok(part.to_owned()),
                };
                row.iter().enumerate().map(part).collect::<Result<_>>()?
            }
        };
        let [namespace, name, dimensions @ ..] = &whole[..] else { anyhow::bail!("no metric: {row:?}") };
        if is_ours(namespace)? {
            let pairs = dimensions.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str()));
            shown.push(series(name, pairs)?);
        }
        above = whole;
    }
    Ok(shown)
}

/// What a search finds: `SEARCH('{NAMESPACE,DIMENSION,DIMENSION} MetricName="NAME" DIMENSION="VALUE"', 'STATISTIC')`.
fn searched(search: &str) -> Result<Series> {
    let inner = search.strip_prefix("SEARCH('{").context("no search")?;
    let (schema, rest) = inner.split_once("} ").context("no schema")?;
    let (conditions, _) = rest.split_once("',").context("no statistic")?;
    let mut schema = schema.split(',');
    ensure!(schema.next().is_some_and(|namespace| namespace == NAMESPACE), "{search}");
    let value = |name: &str| {
        let (_, rest) = conditions.split_once(&format!("{name}=\"")).context("a condition is missing")?;
        rest.split('"').next().context("an open quote")
    };
    let (name, function) = (value("MetricName")?, value(FUNCTION)?);
    series(name, schema.map(|dimension| (dimension, if dimension == FUNCTION { function } else { "" })))
}

fn series<'a>(name: &str, dimensions: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Series> {
    let (mut function, mut others) = (None, BTreeSet::new());
    for (dimension, value) in dimensions {
        if dimension == FUNCTION {
            let resource = value.trim_start_matches("!Ref ").trim_matches(['$', '{', '}']);
            function = resource.strip_suffix("Function").map(str::to_lowercase);
        } else {
            if dimension == Breakdown::Attempts.dimension() && !value.is_empty() {
                let class = serde_json::from_value::<OutcomeClass>(json!(value));
                class.with_context(|| format!("{value} is no outcome"))?;
            }
            others.insert(dimension.to_owned());
        }
    }
    let function = function.with_context(|| format!("{name} is of no function"))?;
    Ok(Series { function, name: name.to_owned(), dimensions: others })
}

/// Whether a namespace is ours; an error if it is nobody's.
fn is_ours(namespace: &str) -> Result<bool> {
    ensure!(namespace == NAMESPACE || namespace.starts_with("AWS/"), "nobody's namespace: {namespace}");
    Ok(namespace == NAMESPACE)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("no list: {value}"))
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("no text: {value}"))
}
