//! The functions' processes, as the kernel tells of them: who runs, who is behind a connection, and an end for them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

/// The processes that run a function of one local AWS now, told by what their environment says.
#[must_use]
pub fn processes_of(function: &str, endpoint: &str) -> Vec<u32> {
    processes()
        .filter(|process| {
            let environment = environment(*process);
            let says = |name: &str, value: &str| environment.get(name).is_some_and(|said| said == value);
            says("AWS_LAMBDA_FUNCTION_NAME", function) && says("AWS_ENDPOINT_URL", endpoint)
        })
        .collect()
}

/// The environment that a process was started with; empty when it is gone.
#[must_use]
pub fn environment(process: u32) -> BTreeMap<String, String> {
    let raw = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&raw)
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// How often the kernel's tables are read for a connection: a reading that others' connections come into can miss one.
const READINGS: usize = 20;

/// The process that holds the other end of a TCP connection on this machine, given by that end's address.
#[must_use]
pub fn process_behind(peer: SocketAddr) -> Option<u32> {
    let SocketAddr::V4(address) = peer else { return None };
    (0..READINGS).find_map(|_| process_at(address))
}

fn process_at(address: SocketAddrV4) -> Option<u32> {
    // The kernel prints the address as one little-endian number and the port as a big-endian one.
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let fields = line.split_ascii_whitespace().collect::<Vec<_>>();
        (fields.get(1) == Some(&local.as_str())).then(|| fields.get(9).copied()).flatten()
    })?;
    let socket = format!("socket:[{inode}]");
    processes().find(|process| holds(*process, Path::new(&socket)))
}

/// Ends a process as a crash does: without warning.
pub fn kill(process: u32) -> Result<()> {
    signal("KILL", process)
}

/// Asks a process to end.
pub(crate) fn ask_to_end(process: u32) -> Result<()> {
    signal("TERM", process)
}

/// By the shell's own `kill`: the system call would be unsafe code.
fn signal(name: &str, process: u32) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &process.to_string()]);
    ensure!(shell.stderr(Stdio::null()).status()?.success(), "process {process} cannot be sent SIG{name}");
    Ok(())
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds(process: u32, socket: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == socket)
}
