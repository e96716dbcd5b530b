//! What the functions behind the HTTP API share: who may do what, how a request is read, and how a refusal is told.

pub mod access;
pub mod body;
pub mod problem;
mod rejection;
pub mod routes;
pub mod server;
