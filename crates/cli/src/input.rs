//! What is read from the user and from files.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use console::Term;
use serde_json::Value;

use crate::failure::{Failure, usage};
use crate::secret::Secret;

/// Larger than anything that the API takes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A file's content, or that of the standard input if the path is `-`.
pub(crate) fn file(path: &str) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = if path == "-" {
        io::stdin().lock().take(BYTES_MAX + 1).read_to_end(&mut content)
    } else {
        fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut content))
    };
    let length = read.map_err(|error| usage(format!("cannot read {path}: {error}")))?;
    if u64::try_from(length).is_ok_and(|length| length <= BYTES_MAX) {
        return Ok(content);
    }
    Err(usage(format!("{path} is larger than {} MiB", BYTES_MAX / 1024 / 1024)))
}

/// The JSON of a file, or of the standard input if the path is `-`.
pub(crate) fn json_file(path: &str) -> Result<Value, Failure> {
    serde_json::from_slice(&file(path)?).map_err(|error| usage(format!("{path} holds no JSON: {error}")))
}

/// A text given as it is, or as `@` and the path of the file that it stands in.
pub(crate) fn text_or_file(text: &str) -> Result<String, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    String::from_utf8(file(path)?).map_err(|_| usage(format!("{path} holds no text")))
}

/// A secret: typed without being seen, or read from the standard input if that is no terminal.
pub(crate) fn secret(prompt: &str) -> Result<Secret, Failure> {
    if !io::stdin().is_terminal() {
        let text = String::from_utf8(file("-")?).map_err(|_| usage("the secret is no text"))?;
        return some(text.trim_end_matches(['\r', '\n']), prompt).map(Secret::from);
    }
    ask(&format!("{prompt}: "))?;
    some(&Term::stderr().read_secure_line()?, prompt).map(Secret::from)
}

/// A line that the user types.
pub(crate) fn line(prompt: &str) -> Result<String, Failure> {
    ask(&format!("{prompt}: "))?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    some(line.trim(), prompt)
}

/// Asks before something is done that cannot be undone. Where nobody can be asked, `--yes` must have been said.
pub(crate) fn confirmed(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_interactive() {
        return Err(usage(format!("{question} Say --yes to do it without being asked")));
    }
    ask(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(usage("nothing was done")) }
}

/// Whether somebody is there who can be asked.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn ask(text: &str) -> Result<(), Failure> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{text}")?;
    Ok(stderr.flush()?)
}

fn some(text: &str, what: &str) -> Result<String, Failure> {
    if text.is_empty() { Err(usage(format!("{what}: nothing was given"))) } else { Ok(text.to_owned()) }
}
