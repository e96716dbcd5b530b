//! What a function measures of its work, as lines of its log that CloudWatch makes metrics of (CloudWatch embedded metric
//! format): nothing is called, waited for or paid for while nothing happens.
//!
//! A run notes what it does, and writes one line at its end; some more only where it saw several outcomes or causes, or
//! over [`VALUES_MAX`] values of a measure. Lambda leaves a line on stdout that is JSON as it is. The line does not go
//! through `tracing`, which would put it under a member of its own and could be told to leave it out.
//!
//! Every metric has the function's name as its dimension, as Lambda's own have, and no other one with more than a handful
//! of values: each value is a metric of its own, that is paid for.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use carillon_core::outcome::OutcomeClass;
use carillon_core::time::UnixMillis;

use crate::environment::{SettingError, setting};
use crate::now;

/// Where CloudWatch has all that is measured here.
pub const NAMESPACE: &str = "Carillon";

/// The dimension that every metric has: the name of the function, which begins with the stack's.
pub const FUNCTION: &str = "FunctionName";

/// The most values that a metric may have in one line (the format's bound for arrays).
pub const VALUES_MAX: usize = 100;

/// What is written so often is written into a buffer that fits it.
const LINE_BYTES: usize = 1024;

/// What a run adds up. A line has one sum of each, and none of what did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// `deliver`: deliveries that failed for good, their attempts used up or refused by the receiver.
    DeliveriesFailed,
    /// `deliver`: tasks that were handed over to the slow lane, without an attempt.
    HandedOver,
    /// `deliver`: circuits that opened, after several attempts in a row that reached nobody.
    CircuitsOpened,
    /// `deliver`: subscriptions that were disabled, since their receivers failed for days or want no more.
    SubscriptionsDisabled,
    /// `publish`: events that were accepted.
    EventsAccepted,
    /// `publish`: events that had been accepted before.
    EventsDuplicate,
    /// `publish`: events that were not accepted, whoever has to mend it.
    EventsRefused,
    /// `fanout`: events that were matched with all their subscriptions, or with a part of them where those are many.
    EventsFannedOut,
    /// `fanout`: tasks that were sent, of deliveries and of parts of an event with many matches.
    TasksSent,
    /// `fanout`: filters that could not be evaluated over an event: it asked too much of them, or they make no sense.
    FiltersFailed,
    /// `clock`: tasks of the schedule that were sent for their time.
    DueSent,
    /// `clock`: tasks that were sent again, since theirs must have been lost.
    OverdueResent,
    /// `clock`: deliveries that were held and may go on.
    Released,
}

/// What a run sees values of. A line has all of them, so that percentiles can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `deliver`: how long an attempt took, from its first byte to its outcome, in milliseconds.
    AttemptLatency,
    /// `deliver`: how old an event was when the first attempt of a delivery began, since it was accepted, in milliseconds.
    /// Only of deliveries that came straight from fan-out to the usual lane: what was held, put off or handed over waited
    /// for its receiver.
    AgeAtFirstAttempt,
    /// How much a run had to do: tasks for `deliver`, events for `publish`, records for `fanout`.
    BatchSize,
}

/// What a run adds up by the values of a dimension of its own; what they are together is a metric, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakdown {
    /// `deliver`: attempts that were made, by the class of their outcome, named as in rows and answers.
    Attempts,
    /// `deliver`: deliveries that were held, by their cause, named as in rows and answers.
    Held,
}

/// What a function measures. Tasks that run at once share it.
#[derive(Debug)]
pub struct Metrics {
    /// As JSON.
    function: String,
    gathered: Mutex<Gathered>,
}

/// What was noted since the last line.
#[derive(Debug, Default)]
struct Gathered {
    counts: [u64; Counter::ALL.len()],
    values: [Vec<u64>; Measure::ALL.len()],
    attempts: Vec<(OutcomeClass, u64)>,
    held: Vec<(&'static str, u64)>,
}

/// What one line holds.
#[derive(Default)]
struct Line {
    /// What has no dimension but the function, each as a definition of the format.
    definitions: String,
    /// What stands by a dimension of its own, each as a directive of the format.
    directives: String,
    /// The members with the values.
    members: String,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::DeliveriesFailed,
        Self::HandedOver,
        Self::CircuitsOpened,
        Self::SubscriptionsDisabled,
        Self::EventsAccepted,
        Self::EventsDuplicate,
        Self::EventsRefused,
        Self::EventsFannedOut,
        Self::TasksSent,
        Self::FiltersFailed,
        Self::DueSent,
        Self::OverdueResent,
        Self::Released,
    ];

    /// Its name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeliveriesFailed => "DeliveriesFailed",
            Self::HandedOver => "HandedOver",
            Self::CircuitsOpened => "CircuitsOpened",
            Self::SubscriptionsDisabled => "SubscriptionsDisabled",
            Self::EventsAccepted => "EventsAccepted",
            Self::EventsDuplicate => "EventsDuplicate",
            Self::EventsRefused => "EventsRefused",
            Self::EventsFannedOut => "EventsFannedOut",
            Self::TasksSent => "TasksSent",
            Self::FiltersFailed => "FiltersFailed",
            Self::DueSent => "DueSent",
            Self::OverdueResent => "OverdueResent",
            Self::Released => "Released",
        }
    }
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AttemptLatency, Self::AgeAtFirstAttempt, Self::BatchSize];

    /// Its name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AttemptLatency => "AttemptLatency",
            Self::AgeAtFirstAttempt => "AgeAtFirstAttempt",
            Self::BatchSize => "BatchSize",
        }
    }

    /// Its unit, as CloudWatch calls it.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::AttemptLatency | Self::AgeAtFirstAttempt => "Milliseconds",
            Self::BatchSize => "Count",
        }
    }
}

impl Breakdown {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Attempts, Self::Held];

    /// Its name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attempts => "Attempts",
            Self::Held => "Held",
        }
    }

    /// The dimension that it has beside [`FUNCTION`].
    #[must_use]
    pub fn dimension(self) -> &'static str {
        match self {
            Self::Attempts => "Outcome",
            Self::Held => "Cause",
        }
    }
}

impl Metrics {
    /// Those of the function of this name.
    #[must_use]
    pub fn new(function: &str) -> Self {
        let function = serde_json::Value::from(function).to_string();
        Self { function, gathered: Mutex::default() }
    }

    /// Those of the function that this is, by the name that Lambda gives it.
    pub fn from_environment() -> Result<Self, SettingError> {
        Ok(Self::new(&setting::<String>("AWS_LAMBDA_FUNCTION_NAME")?))
    }

    /// Adds to a sum.
    pub fn count(&self, counter: Counter, n: usize) {
        self.gathered().counts[counter as usize] += as_u64(n);
    }

    /// Notes a value.
    pub fn observe(&self, measure: Measure, value: u64) {
        self.gathered().values[measure as usize].push(value);
    }

    /// Notes how much a run has to do: a [`Measure::BatchSize`].
    pub fn batch(&self, size: usize) {
        self.observe(Measure::BatchSize, as_u64(size));
    }

    /// Notes an attempt: its outcome, how long it took in milliseconds, and, where [`Measure::AgeAtFirstAttempt`] says so,
    /// how old its event was when it began, in milliseconds.
    pub fn attempt(&self, outcome: OutcomeClass, latency_ms: u64, age_ms: Option<u64>) {
        let mut gathered = self.gathered();
        add(&mut gathered.attempts, outcome);
        gathered.values[Measure::AttemptLatency as usize].push(latency_ms);
        gathered.values[Measure::AgeAtFirstAttempt as usize].extend(age_ms);
    }

    /// Notes that a delivery was held, for a cause of this name: one of a few, and never text from outside.
    pub fn held(&self, cause: &'static str) {
        add(&mut self.gathered().held, cause);
    }

    /// Writes what was noted since the last time to stdout; nothing if that is nothing. A line that cannot be written is
    /// lost: no work fails for it.
    pub fn flush(&self) {
        let lines = self.lines(now());
        if let Err(error) = io::stdout().lock().write_all(lines.as_bytes()) {
            tracing::warn!(%error, "what was measured could not be written");
        }
    }

    /// The lines that [`Metrics::flush`] would write, which then has nothing left to write.
    #[must_use]
    pub fn lines(&self, now: UnixMillis) -> String {
        let mut gathered = self.gathered();
        let mut text = String::new();
        for number in 0.. {
            let line = gathered.line(number);
            if line.members.is_empty() {
                break;
            }
            line.write(&mut text, &self.function, now);
        }
        gathered.clear();
        text
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    /// The line of this number: the sums in the first one, of each measure another hundred values, of each breakdown the
    /// next value of its dimension, since a line has room for one.
    fn line(&self, number: usize) -> Line {
        let mut line = Line::default();
        let sums = Counter::ALL.into_iter().zip(self.counts).filter(|(_, sum)| number == 0 && *sum > 0);
        for (counter, sum) in sums {
            line.define(counter.name(), "Count");
            line.value(counter.name(), sum);
        }
        for (measure, values) in Measure::ALL.into_iter().zip(&self.values) {
            if let Some(values) = values.chunks(VALUES_MAX).nth(number) {
                line.define(measure.name(), measure.unit());
                line.array(measure.name(), values);
            }
        }
        if let Some((outcome, sum)) = self.attempts.get(number) {
            line.break_down(Breakdown::Attempts, &outcome, *sum);
        }
        if let Some((cause, sum)) = self.held.get(number) {
            line.break_down(Breakdown::Held, &cause, *sum);
        }
        line
    }

    /// Forgets all but the room that it took.
    fn clear(&mut self) {
        self.counts.fill(0);
        self.values.iter_mut().for_each(Vec::clear);
        self.attempts.clear();
        self.held.clear();
    }
}

// Writing to a `String` cannot fail.
impl Line {
    fn define(&mut self, name: &str, unit: &str) {
        let comma = if self.definitions.is_empty() { "" } else { "," };
        _ = write!(self.definitions, r#"{comma}{{"Name":"{name}","Unit":"{unit}"}}"#);
    }

    fn value(&mut self, name: &str, value: u64) {
        _ = write!(self.members, r#","{name}":{value}"#);
    }

    fn array(&mut self, name: &str, values: &[u64]) {
        _ = write!(self.members, r#","{name}":"#);
        for (place, value) in values.iter().enumerate() {
            _ = write!(self.members, "{}{value}", if place == 0 { '[' } else { ',' });
        }
        self.members.push(']');
    }

    fn break_down(&mut self, breakdown: Breakdown, of: &dyn std::fmt::Display, sum: u64) {
        let (name, dimension) = (breakdown.name(), breakdown.dimension());
        _ = write!(
            self.directives,
            r#",{{"Namespace":"{NAMESPACE}","Dimensions":[["{FUNCTION}"],["{FUNCTION}","{dimension}"]],"Metrics":[{{"Name":"{name}","Unit":"Count"}}]}}"#
        );
        _ = write!(self.members, r#","{dimension}":"{of}""#);
        self.value(name, sum);
    }

    fn write(&self, text: &mut String, function: &str, now: UnixMillis) {
        let Self { definitions, directives, members } = self;
        text.reserve(LINE_BYTES);
        _ = write!(text, r#"{{"_aws":{{"Timestamp":{},"CloudWatchMetrics":["#, now.0);
        if definitions.is_empty() {
            text.push_str(directives.trim_start_matches(','));
        } else {
            _ = write!(
                text,
                r#"{{"Namespace":"{NAMESPACE}","Dimensions":[["{FUNCTION}"]],"Metrics":[{definitions}]}}{directives}"#
            );
        }
        _ = writeln!(text, r#"]}},"{FUNCTION}":{function}{members}}}"#);
    }
}

/// Counts one more of a kind. There are so few kinds that looking through them is the quickest.
fn add<K: PartialEq>(sums: &mut Vec<(K, u64)>, kind: K) {
    match sums.iter_mut().find(|(known, _)| *known == kind) {
        Some((_, sum)) => *sum += 1,
        None => sums.push((kind, 1)),
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_007);

    /// The lines, each checked for what the format demands of every one.
    fn lines(metrics: &Metrics) -> Vec<Value> {
        let text = metrics.lines(NOW);
        assert!(text.is_empty() || text.ends_with('\n'));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            let mut targets = vec!["_aws"];
            for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
                assert_eq!(directive["Namespace"], "Carillon");
                for dimension in directive["Dimensions"].as_array().unwrap().iter().flat_map(names) {
                    assert!(line[dimension].is_string(), "{dimension}");
                    targets.push(dimension);
                }
                for metric in directive["Metrics"].as_array().unwrap() {
                    let name = metric["Name"].as_str().unwrap();
                    assert!(line[name].is_u64() || line[name].as_array().unwrap().len() <= VALUES_MAX);
                    targets.push(name);
                }
            }
            let members = line.as_object().unwrap().keys();
            assert!(members.clone().all(|name| targets.contains(&name.as_str())), "{line}");
        }
        lines
    }

    fn names(set: &Value) -> impl Iterator<Item = &str> {
        set.as_array().unwrap().iter().map(|name| name.as_str().unwrap())
    }

    #[test]
    fn a_run_of_one_outcome_is_one_line() {
        let metrics = Metrics::new("carillon-deliver");
        metrics.batch(2);
        metrics.attempt(OutcomeClass::Delivered, 12, Some(340));
        metrics.attempt(OutcomeClass::Delivered, 15, None);
        let by_outcome = json!([["FunctionName"], ["FunctionName", "Outcome"]]);
        let milliseconds = |name: &str| json!({"Name": name, "Unit": "Milliseconds"});
        assert_eq!(
            lines(&metrics),
            [json!({
                "_aws": {
                    "Timestamp": NOW.0,
                    "CloudWatchMetrics": [
                        {
                            "Namespace": "Carillon",
                            "Dimensions": [["FunctionName"]],
                            "Metrics": [
                                milliseconds("AttemptLatency"),
                                milliseconds("AgeAtFirstAttempt"),
                                {"Name": "BatchSize", "Unit": "Count"},
                            ],
                        },
                        {
                            "Namespace": "Carillon",
                            "Dimensions": by_outcome,
                            "Metrics": [{"Name": "Attempts", "Unit": "Count"}],
                        },
                    ],
                },
                "FunctionName": "carillon-deliver",
                "AttemptLatency": [12, 15],
                "AgeAtFirstAttempt": [340],
                "BatchSize": [2],
                "Outcome": "delivered",
                "Attempts": 2,
            })]
        );
        assert_eq!(lines(&metrics), [Value::Null; 0], "it is told once");
    }

    #[test]
    fn each_outcome_and_each_cause_has_a_line() {
        let metrics = Metrics::new("f");
        for outcome in [OutcomeClass::Delivered, OutcomeClass::TimedOut, OutcomeClass::Delivered] {
            metrics.attempt(outcome, 1, None);
        }
        metrics.held("pause");
        metrics.count(Counter::HandedOver, 3);
        let lines = lines(&metrics);
        let told = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
        assert_eq!(told("Outcome"), ["delivered", "timedOut"]);
        assert_eq!(told("Attempts"), [2, 1]);
        assert_eq!(told("Cause"), [json!("pause"), Value::Null]);
        assert_eq!(told("Held"), [json!(1), Value::Null]);
        assert_eq!(told("HandedOver"), [json!(3), Value::Null]);
    }

    #[test]
    fn a_line_has_a_hundred_values_at_most() {
        let metrics = Metrics::new("f");
        (0..250).for_each(|value| metrics.observe(Measure::AttemptLatency, value));
        metrics.count(Counter::TasksSent, 1);
        let lines = lines(&metrics);
        let values = lines.iter().flat_map(|line| line["AttemptLatency"].as_array().unwrap());
        assert!(values.map(|value| value.as_u64().unwrap()).eq(0..250));
        assert_eq!(lines.len(), 3);
        assert_eq!(lines.iter().filter(|line| line["TasksSent"] == 1).count(), 1, "a sum is told once");
    }

    #[test]
    fn a_run_that_did_nothing_writes_nothing() {
        let metrics = Metrics::new("f");
        metrics.count(Counter::DueSent, 0);
        assert_eq!(metrics.lines(NOW), "");
    }

    #[test]
    fn every_counter_and_measure_has_its_place() {
        let places = Counter::ALL.map(|counter| counter as usize);
        assert!(places.into_iter().eq(0..Counter::ALL.len()));
        assert!(Measure::ALL.map(|measure| measure as usize).into_iter().eq(0..Measure::ALL.len()));
    }
}
