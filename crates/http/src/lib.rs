//! What the functions behind the HTTP API share: how a request is read, and how a refusal is told.

pub mod body;
pub mod problem;
pub mod server;
