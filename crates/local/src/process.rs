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

/// The process that holds the other end of a TCP connection of this program, given by that end's address.
#[must_use]
pub fn process_behind(peer: SocketAddr) -> Option<u32> {
    let SocketAddr::V4(address) = peer else { return None };
    (0..READINGS).find_map(|_| process_at(address))
}

/// A connection as one of its ends sees it.
struct Connection<'a> {
    local: &'a str,
    remote: &'a str,
    inode: &'a str,
}

fn process_at(address: SocketAddrV4) -> Option<u32> {
    // The kernel prints the address as one little-endian number and the port as a big-endian one.
    let peer = format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let connections: Vec<_> = table.lines().skip(1).filter_map(Connection::read).collect();
    // A port can be in use towards several others, in connections that are over as well: the one that counts leads here.
    let here = std::process::id();
    let leads_here = |theirs: &Connection<'_>| {
        connections.iter().any(|ours| ours.local == theirs.remote && ours.remote == peer && ours.is_of(here))
    };
    let theirs = connections.iter().find(|theirs| theirs.local == peer && leads_here(theirs))?;
    processes().find(|process| theirs.is_of(*process))
}

impl<'a> Connection<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        Some(Self { local: fields.get(1)?, remote: fields.get(2)?, inode: fields.get(9)? })
    }

    fn is_of(&self, process: u32) -> bool {
        holds(process, Path::new(&format!("socket:[{}]", self.inode)))
    }
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
