//! The life of events and deliveries under everything that AWS, receivers and people do to them, in virtual time: messages
//! that come twice, late, in any order or again before they are done; shards of the stream in any order; functions that
//! die between any two calls; calls that are refused, take seconds, or take place without an answer; an index that lags
//! behind; clocks that differ; receivers that fail, hang and come back; subscriptions that are paused, disabled, changed and
//! deleted; operators who replay, redeliver and fan out again at any time. Afterwards all trouble stops, and what is
//! promised must hold.
//!
//! The rules are the core's own; the order of the functions' steps is written down once more in [`workers`]. One seed is
//! one run. A seed that fails is replayed, with all that happens, by
//!
//! ```sh
//! SEED=… cargo test -p carillon-core --test simulation one_seed -- --nocapture
//! ```
//!
//! and, with one of the [`rules`] broken, by `BROKEN=…` besides. `RUNS=…` sets the number of runs.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod checks;
mod people;
mod queue;
mod receiver;
mod rules;
mod seed;
mod sim;
mod stream;
mod tables;
mod workers;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checks::Report;
use crate::rules::Rule;
use crate::sim::Sim;
use crate::world::World;

/// How many runs a test makes, unless `RUNS` says otherwise.
const RUNS: u64 = 20_000;

/// Within how many runs each broken rule must be found out.
const RUNS_TO_FIND: u64 = 20_000;

/// Within how much time all comes to rest, in milliseconds: longer than the longest retry policy.
const RESTS_WITHIN: u64 = 60 * 3_600_000;

const MINUTE: u64 = 60_000;

/// How many threads make runs.
const THREADS: u64 = 2;

/// A whole run.
fn run(seed: u64, broken: Option<Rule>, told: bool) -> Report {
    let sim = Sim::new(World::of(seed, broken, told));
    people::set_out(&sim);
    let troubled_until = sim.world().troubled_until;
    sim.run_until(troubled_until);
    people::heal(&sim);
    if rests(&sim) {
        sim.world().check(false);
        people::redeliver_failed(&sim);
        if rests(&sim) {
            sim.world().check(true);
        }
    }
    let report = sim.world().report.clone();
    sim.end_all();
    report
}

/// Lets time pass until nothing is left to be done.
fn rests(sim: &Sim) -> bool {
    let begin = sim.now();
    while sim.now() < begin + RESTS_WITHIN && sim.world().report.violations.is_empty() {
        sim.run_until(sim.now() + MINUTE);
        if sim.world().is_at_rest() {
            return true;
        }
    }
    let mut world = sim.world();
    if world.report.violations.is_empty() {
        let rest = world.rest();
        world.violation(format!("it never came to rest: {rest}"));
    }
    false
}

/// What came of a seed, or how it ended.
fn outcome(seed: u64, broken: Option<Rule>) -> Report {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, broken, false)));
    outcome.unwrap_or_else(|_| Report { violations: vec!["it panicked".to_owned()], ..Report::default() })
}

/// Makes runs until one fails: all that happened, and the first seed that failed.
fn runs(count: u64, broken: Option<Rule>) -> (Report, Option<(u64, Vec<String>)>) {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(count));
    let (total, failed) = (Mutex::new(Report::default()), Mutex::new(None::<(u64, Vec<String>)>));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = outcome(seed, broken);
                    if !report.violations.is_empty() {
                        end.fetch_min(seed, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap();
                        if failed.as_ref().is_none_or(|(first, _)| seed < *first) {
                            *failed = Some((seed, report.violations.clone()));
                        }
                    }
                    total.lock().unwrap().add(report);
                }
            });
        }
    });
    (total.into_inner().unwrap(), failed.into_inner().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "whoever replays a seed says which")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|value| value.parse().unwrap())
}

#[expect(clippy::print_stdout, reason = "what happened tells whether it was enough")]
fn say(what: &str) {
    println!("{what}");
}

#[test]
fn nothing_is_lost() {
    let (report, failed) = runs(number("RUNS").unwrap_or(RUNS), None);
    say(&format!("{report:#?}"));
    if let Some((seed, violations)) = failed {
        panic!(
            "seed {seed}: {violations:#?}\nSEED={seed} cargo test -p carillon-core --test simulation one_seed -- --nocapture"
        );
    }
}

#[test]
fn one_seed() {
    let seed = number("SEED").unwrap_or(1);
    let broken = setting("BROKEN").map(|name| {
        let named = |rule: &&Rule| format!("{rule:?}") == name;
        *Rule::ALL.iter().find(named).unwrap()
    });
    let told = setting("SEED").is_some();
    let report = run(seed, broken, told);
    assert_eq!(format!("{report:?}"), format!("{:?}", run(seed, broken, false)), "a seed is one run");
    assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
}

#[test]
fn each_rule_is_needed() {
    let count = number("RUNS").unwrap_or(RUNS_TO_FIND);
    let mut unfound = Vec::new();
    for rule in Rule::ALL {
        match runs(count, Some(*rule)).1 {
            Some((seed, violations)) => say(&format!("{rule:?}: seed {seed}: {}", violations[0])),
            None => unfound.push(rule),
        }
    }
    assert!(unfound.is_empty(), "{count} runs do not find out that these are broken: {unfound:?}");
}
