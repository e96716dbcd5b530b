//! Carillon on one machine: the local AWS, the receiver and the client that `cargo xtask` and the end-to-end tests share.
//!
//! * [`Toolbox`] makes the Python environments that the local AWS and the developer's tools live in.
//! * [`LocalAws`] is one emulated AWS on a free port, with IAM enforced; [`Stack`] is the template deployed on it.
//! * [`Receiver`] is a subscriber's HTTP server: it verifies with the official library and answers as it is told.
//! * [`Proxy`] stands between the functions and the local AWS and strikes at a chosen request; [`Faults`] are a plan, drawn
//!   from a seed, of what goes wrong there.
//! * [`Carillon`] speaks the service's own HTTP API.
//! * `Hostile` (feature `hostile`) is a receiver that does what none should, one behaviour for each of its modes.
//! * `Issuer` (feature `issuer`) is an issuer of tokens, right and forged.
//!
//! Nothing here is part of what deploys. No AWS SDK is used, so that `cargo xtask up` compiles in seconds.

#![allow(clippy::print_stderr, reason = "the user waits for what this crate does, and is told what it is")]

mod aws;
mod carillon;
mod client;
mod dice;
mod faults;
#[cfg(feature = "hostile")]
mod hostile;
#[cfg(feature = "issuer")]
mod issuer;
mod process;
mod proxy;
mod receiver;
mod repository;
mod stack;
mod toolbox;

pub use crate::aws::{LocalAws, Options};
pub use crate::carillon::{Carillon, Subscription, event};
pub use crate::client::{Reply, Request, send};
pub use crate::dice::Dice;
pub use crate::faults::{Fault, Faults, Rates, Tally};
#[cfg(feature = "hostile")]
pub use crate::hostile::{AUTHORITY, Hostile, MODES, MOMENT, Mode};
#[cfg(feature = "issuer")]
pub use crate::issuer::{Issuer, Key};
pub use crate::process::{environment, kill, process_behind, processes_of};
pub use crate::proxy::{Held, Moment, Proxy, Trap};
pub use crate::receiver::{Answer, Received, Receiver, Verdict};
pub use crate::repository::{FUNCTIONS, build_functions, build_workspace, cargo, profile_dir, root, run};
pub use crate::stack::{ALL_SCOPES, Credentials, Stack};
pub use crate::toolbox::Toolbox;
