//! The hostile receiver by itself, until standard input ends: one line for each mode, its name and its URL.

#![allow(clippy::print_stdout, reason = "the URLs are what it is for")]

use std::io::Read as _;

use anyhow::Result;
use carillon_local::{Hostile, MODES};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let hostile = Hostile::start()?;
    for mode in MODES {
        println!("{}\t{}", mode.name, hostile.url(mode.name)?);
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
