//! End to end: the real binaries and the deployed template on a local AWS, with IAM enforced.

mod access;
mod audience;
mod authorization;
mod changes;
mod crashes;
mod endpoints;
mod fuzz;
mod hostile;
mod http_api;
mod permissions;
mod pipeline;
mod repetitions;
mod samples;
mod subscriptions;
mod tls;
mod troubles;
mod verification;
mod workspaces;
