//! `cargo xtask prove` and `bench`: they live in the package of the end-to-end tests, since they need what those need
//! and nobody who types `cargo xtask up` should wait for it.

use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;

use anyhow::{Result, bail};
use carillon_local::{build_workspace, cargo, profile_dir, run};

const PROOFS: [&str; 12] = [
    "deploy",
    "faults",
    "deadlines",
    "revisions",
    "many",
    "load",
    "neighbour",
    "rate",
    "pause",
    "clock",
    "redelivery",
    "simulation",
];
/// What throws dice, and can be had again by its seed.
const SEEDED: [&str; 3] = ["faults", "deadlines", "revisions"];
const BENCHES: [&str; 9] =
    ["latency", "api", "size", "coldstart", "deliver", "publish", "fanout", "together", "redrive"];
/// What these measure is what deploys.
const RELEASE_PROOFS: [&str; 1] = ["neighbour"];
const RELEASE_BENCHES: [&str; 7] =
    ["size", "coldstart", "deliver", "publish", "fanout", "together", "redrive"];

pub(crate) fn prove(name: &str) -> Result<()> {
    known("prove", name, &PROOFS)?;
    if name == "simulation" {
        return simulation();
    }
    if SEEDED.contains(&name) {
        return prove_with(name, RandomState::new().hash_one("a seed"));
    }
    heavy(&["prove", name], RELEASE_PROOFS.contains(&name))
}

/// The simulation of the domain in memory, with ten times the runs of the tests.
fn simulation() -> Result<()> {
    let test =
        ["test", "-p", "carillon-core", "--test", "simulation", "nothing_is_lost", "--", "--nocapture"];
    run(cargo().args(test).env("RUNS", "200000"))
}

/// A claim under the faults that this seed draws.
pub(crate) fn prove_with(name: &str, seed: u64) -> Result<()> {
    known("prove --seed", name, &SEEDED)?;
    heavy(&["prove", name, "--seed", &seed.to_string()], false)
}

pub(crate) fn bench(name: &str, release: bool) -> Result<()> {
    known("bench", name, &BENCHES)?;
    heavy(&["bench", name], release || RELEASE_BENCHES.contains(&name))
}

fn known(command: &str, name: &str, names: &[&str]) -> Result<()> {
    if !names.contains(&name) {
        bail!("`{command}` has no `{name}`, but {}", names.join(", "));
    }
    Ok(())
}

fn heavy(arguments: &[&str], release: bool) -> Result<()> {
    let profile = if release { "release" } else { "debug" };
    println!("Building ({profile}) ...");
    build_workspace(release)?;
    run(Command::new(profile_dir()?.with_file_name(profile).join("heavy")).args(arguments))
}
