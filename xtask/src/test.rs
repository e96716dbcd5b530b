//! `cargo xtask test`: everything that a change must pass, in the order of how soon it tells.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use carillon_local::{Toolbox, build_functions, cargo, root, run};

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
    run(cargo().args(["test", "--workspace"]))?;
    println!("\nAll passed in {:.1} minutes.", began.elapsed().as_secs_f64() / 60.0);
    Ok(())
}

/// Has the test that holds the API's document fast write it instead.
pub(crate) fn write_openapi() -> Result<()> {
    run(cargo().args(["test", "--workspace", "--test", "openapi"]).env("CARILLON_WRITE_OPENAPI", "1"))
}
