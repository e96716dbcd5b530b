//! End to end: the real binaries and the deployed template on a local AWS, with IAM enforced.

mod crashes;
mod http_api;
mod permissions;
mod pipeline;
mod repetitions;
mod samples;
mod troubles;
