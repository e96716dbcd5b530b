//! `cargo xtask test`: everything that a change must pass, in the order of how soon it tells.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use carillon_local::{Toolbox, build_functions, cargo, root, run};

/// More that fail at once are no accident.
const ACCIDENTS_MAX: usize = 3;

pub(crate) fn test() -> Result<()> {
    let began = Instant::now();
    println!("Building the functions ...");
    build_functions()?;

    println!("\nTesting the local AWS: each patch, the launcher, the deployment ...");
    let python = Toolbox::local_aws()?.program("python");
    run(Command::new(python)
        .current_dir(root().join("infra/local"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-m", "unittest", "discover", "--start-directory", "tests"]))?;

    println!("\nTesting the workspace: units, properties, and end to end on a local AWS ...");
    workspace()?;
    println!("\nAll passed in {:.1} minutes.", began.elapsed().as_secs_f64() / 60.0);
    Ok(())
}

/// Scenarios share a machine, and wait for real processes and clocks: one that stands still for a while may fail what is
/// right. So the few that fail are tried again, one by one, and named. What fails twice has failed.
fn workspace() -> Result<()> {
    let tests = ["test", "--workspace"];
    let failed = failures(cargo().args(tests).arg("--no-fail-fast"))?;
    if failed.is_empty() {
        return Ok(());
    }
    ensure!(failed.len() <= ACCIDENTS_MAX, "{} tests failed", failed.len());
    println!("\nThese failed, and are tried once more, by themselves: {}", failed.join(", "));
    run(cargo().args(tests).args(["--", "--exact", "--test-threads", "1"]).args(&failed))?;
    println!("\nAt the second try these passed: {}", failed.join(", "));
    Ok(())
}

/// Runs tests, with all that they print, and gives the names of those that failed. Fails if anything else did.
fn failures(tests: &mut Command) -> Result<Vec<String>> {
    let mut tests = tests.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut failed = Vec::new();
    for line in BufReader::new(tests.stdout.take().context("cargo prints nothing")?).lines() {
        let line = line?;
        println!("{line}");
        failed.extend(failed_test(&line).map(str::to_owned));
    }
    let status = tests.wait()?;
    ensure!(status.success() || !failed.is_empty(), "the tests did not run ({status})");
    Ok(failed)
}

/// The test that a line says has failed.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// Has the test that holds the API's document fast write it instead.
pub(crate) fn write_openapi() -> Result<()> {
    run(cargo().args(["test", "--workspace", "--test", "openapi"]).env("CARILLON_WRITE_OPENAPI", "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_told_from_others() {
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        for other in ["test a::b ... ok", "test result: FAILED. 1 passed; 1 failed", "failures:"] {
            assert_eq!(failed_test(other), None, "{other}");
        }
    }
}
