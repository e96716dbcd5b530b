//! `cargo xtask lint`: what can be said of the code without running it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use carillon_local::{Toolbox, cargo, root, run};
use serde_json::Value;

/// The crates whose names begin so have no place below the core: it knows no AWS, no HTTP and no runtime.
const FOREIGN_TO_THE_CORE: [&str; 5] = ["aws", "lambda", "reqwest", "hyper", "tokio"];

pub(crate) fn lint() -> Result<()> {
    step("Format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    step("Clippy");
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    step("Dependencies: bans, licences, sources");
    run(Command::new(Toolbox::linters()?.program("cargo-deny")).current_dir(root()).args([
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    step("Architecture: the core is pure, dependencies point one way");
    core_is_pure()?;
    dependencies_point_one_way()?;
    step("Template");
    lint_template()
}

fn step(name: &str) {
    println!("\n{name} ...");
}

fn core_is_pure() -> Result<()> {
    let tree = printed(
        cargo()
            .args(["tree", "--package", "carillon-core", "--edges", "normal,build"])
            .args(["--prefix", "none", "--format", "{p}"]),
    )?;
    let foreign = tree
        .lines()
        .filter(|line| FOREIGN_TO_THE_CORE.iter().any(|prefix| line.starts_with(prefix)))
        .collect::<Vec<_>>();
    ensure!(foreign.is_empty(), "carillon-core must not depend on {}", foreign.join(", "));
    Ok(())
}

fn dependencies_point_one_way() -> Result<()> {
    let metadata = printed(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo tells of no packages")?;
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        // A dependency with a path is a package of this workspace.
        for dependency in dependencies.filter(|dependency| dependency["path"].is_string()) {
            let other = dependency["name"].as_str().unwrap_or_default();
            if layer(other)? >= layer(name)? {
                bail!("{name} depends on {other}, which does not lie below it");
            }
        }
    }
    Ok(())
}

/// How high a package stands: it may depend on those that stand lower, and on no other of this workspace.
fn layer(package: &str) -> Result<u8> {
    Ok(match package {
        "carillon-core" => 0,
        "carillon-aws" | "carillon-schema" | "carillon-sender" => 1,
        "carillon-attempt" | "carillon-catalogue" | "carillon-filter" | "carillon-http" => 2,
        "api" | "publish" | "fanout" | "deliver" | "clock" | "redrive" | "inbox" => 3,
        // What deploys never depends on what only runs on a developer's machine.
        "carillon-local" => 4,
        "carillon-cli" | "carillon-tests" | "xtask" => 5,
        other => bail!("{other} has no place among the layers yet: give it one in xtask/src/lint.rs"),
    })
}

fn lint_template() -> Result<()> {
    let tools = Toolbox::tools()?;
    let template = Path::new("infra/template.yaml");
    run(Command::new(tools.program("cfn-lint")).current_dir(root()).arg(template))?;
    run(Command::new(tools.program("sam"))
        .current_dir(root())
        .env("SAM_CLI_TELEMETRY", "0")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .args(["validate", "--lint", "--template"])
        .arg(template))
}

fn printed(command: &mut Command) -> Result<String> {
    let done = command.output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_holds() {
        core_is_pure().unwrap();
        dependencies_point_one_way().unwrap();
    }

    #[test]
    fn a_package_without_a_layer_is_noticed() {
        assert!(layer("carillon-elsewhere").is_err());
    }
}
