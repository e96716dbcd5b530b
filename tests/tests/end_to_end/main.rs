//! End to end: the real binaries and the deployed template on a local AWS, with IAM enforced.

mod access;
mod audience;
mod authorization;
mod calls;
mod changes;
mod crashes;
mod endpoints;
mod engine;
mod faults;
mod fuzz;
mod hostile;
mod hostile_receiver;
mod http_api;
mod interop;
mod mtls;
mod permissions;
mod pipeline;
mod repetitions;
mod samples;
mod subscriptions;
mod tls;
mod tokens;
mod traces;
mod troubles;
mod verification;
mod workspaces;
