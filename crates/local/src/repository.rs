//! Where things are, and the commands that everything here runs.

use std::env::current_exe;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

/// The functions of the template, by the names of their packages and binaries.
pub const FUNCTIONS: [&str; 7] = ["api", "publish", "fanout", "deliver", "clock", "redrive", "inbox"];

/// The repository's root.
///
/// # Panics
///
/// Never: this crate lies two folders below it.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new("."))
}

/// The folder that this program was built into (`target/debug`, say): it tells both the target folder and the profile.
pub fn profile_dir() -> Result<PathBuf> {
    let program = current_exe().context("cannot tell which program this is")?;
    program
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .map(Path::to_path_buf)
        .with_context(|| format!("{} lies in no target folder", program.display()))
}

/// The cargo that started this program, or the one on the `PATH`.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root());
    cargo
}

/// Builds the functions, with cargo's own progress shown, in the profile of this program.
pub fn build_functions() -> Result<()> {
    build_workspace(profile_dir()?.ends_with("release"))
}

/// Builds the whole workspace, with cargo's own progress shown: a part of it, be it all but this program, would be built
/// with other features, and its dependencies anew.
pub fn build_workspace(release: bool) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--workspace"]);
    if release {
        build.arg("--release");
    }
    run(&mut build)
}

/// Lays the functions out as Lambda wants them: `target/lambda-<profile>/<function>/bootstrap`.
pub(crate) fn lay_out_functions() -> Result<PathBuf> {
    /// Threads share the process id that other programs are told apart by.
    static ONE_THREAD_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_THREAD_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let built = profile_dir()?;
    let profile = built.file_name().context("the target folder has no name")?.to_string_lossy().into_owned();
    let packed = built.with_file_name(format!("lambda-{profile}"));
    for function in FUNCTIONS {
        let binary = built.join(function);
        if !binary.exists() {
            bail!("{} is missing: run `cargo build --workspace` first", binary.display());
        }
        let folder = packed.join(function);
        fs::create_dir_all(&folder)?;
        let bootstrap = folder.join("bootstrap");
        // A link made under a name of our own and renamed: another test run may be reading the old one.
        let fresh = folder.join(format!("bootstrap.{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        fs::hard_link(&binary, &fresh).or_else(|_| fs::copy(&binary, &fresh).map(drop))?;
        fs::rename(&fresh, &bootstrap)?;
        // Renaming a link onto another link of the same file leaves both.
        let _ = fs::remove_file(&fresh);
    }
    Ok(packed)
}

/// Runs a command to its end, its output shown. Fails when it does.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command to its end and gives what it printed. Fails with what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let complaint = String::from_utf8_lossy(&done.stderr);
        bail!("{} failed ({}):\n{}{}", shown(command), done.status, printed, complaint.trim_end());
    }
    Ok(printed)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
