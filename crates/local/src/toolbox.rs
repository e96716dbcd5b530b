//! Python environments made from the pinned requirement files of `infra/local`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::repository::{output, profile_dir, root};

/// A Python environment that holds exactly what one requirements file pins.
///
/// It is keyed by the file's content: another content is another environment, and an unfinished one is never used.
#[derive(Clone, Debug)]
pub struct Toolbox {
    folder: PathBuf,
}

impl Toolbox {
    /// What the local AWS needs, with the AWS CLI: small enough to make before the first `cargo xtask up`.
    pub fn local_aws() -> Result<Self> {
        Self::made_from("local-aws", &root().join("infra/local/requirements.txt"))
    }

    /// What linting and real deployments need besides: large, and so only made when asked for.
    pub fn tools() -> Result<Self> {
        Self::made_from("tools", &root().join("infra/local/tools.txt"))
    }

    /// What tries the running API against its OpenAPI document.
    pub fn schemathesis() -> Result<Self> {
        Self::made_from("schemathesis", &root().join("infra/local/schemathesis.txt"))
    }

    /// The libraries of others that deliveries are verified by.
    pub fn receivers() -> Result<Self> {
        Self::made_from("receivers", &root().join("infra/local/receivers.txt"))
    }

    /// What `cargo xtask lint` looks at dependencies with.
    pub fn linters() -> Result<Self> {
        Self::made_from("linters", &root().join("xtask/requirements.txt"))
    }

    /// One of the environment's programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The folder of the environment's programs, for a `PATH`.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    fn made_from(name: &str, requirements: &Path) -> Result<Self> {
        let pinned =
            fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
        let target = profile_dir()?.with_file_name("local-aws");
        fs::create_dir_all(&target)?;
        let folder = target.join(format!("{name}-{}", fingerprint(&pinned)));
        // A virtual environment knows its own path and cannot be renamed into place, so it is made where it stays:
        // under a lock, and with a mark that says that it is whole.
        let lock = File::create(target.join(format!("{name}.lock")))?;
        lock.lock()?;
        let whole = folder.join("whole");
        if !whole.exists() {
            make(name, requirements, &folder)?;
            File::create(&whole)?;
        }
        Ok(Self { folder })
    }
}

fn make(name: &str, requirements: &Path, folder: &Path) -> Result<()> {
    let started = Instant::now();
    eprintln!("Making the Python environment of {name}: once, for a minute or so ...");
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    output(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .context("python3 with its venv module is needed (on Debian and Ubuntu: apt install python3-venv)")?;
    output(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
            // A file names all that belongs to it, and leaves out what its packages ask for but Carillon has no use for.
            .args(["--no-deps", "--require-hashes", "--requirement"])
            .arg(requirements),
    )?;
    eprintln!("Made it in {} s.", started.elapsed().as_secs());
    Ok(())
}

fn fingerprint(content: &[u8]) -> String {
    Sha256::digest(content)[..8].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
