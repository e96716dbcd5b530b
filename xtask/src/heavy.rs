//! `cargo xtask prove` and `bench`: they live in the package of the end-to-end tests, since they need what those need
//! and nobody who types `cargo xtask up` should wait for it.

use std::process::Command;

use anyhow::{Result, bail};
use carillon_local::{build_workspace, profile_dir, run};

const PROOFS: [&str; 8] = ["deploy", "many", "load", "neighbour", "rate", "pause", "clock", "redelivery"];
const BENCHES: [&str; 9] =
    ["latency", "api", "size", "coldstart", "deliver", "publish", "fanout", "together", "redrive"];
/// What these measure is what deploys.
const RELEASE_PROOFS: [&str; 1] = ["neighbour"];
const RELEASE_BENCHES: [&str; 7] =
    ["size", "coldstart", "deliver", "publish", "fanout", "together", "redrive"];

pub(crate) fn prove(name: &str) -> Result<()> {
    known("prove", name, &PROOFS)?;
    heavy(&["prove", name], RELEASE_PROOFS.contains(&name))
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
