//! The domain of Carillon, pure: what an event is, whom it concerns, and how one delivery lives and ends.
//!
//! Nothing here knows AWS, an HTTP client, a clock, the environment or a source of randomness. Time comes in as
//! [`time::UnixMillis`], chance as identifiers made elsewhere, so every rule can be driven by a test.
//!
//! The way of an event through these modules: [`event`] parses and checks it, [`pattern`] and [`matching`] find the
//! subscriptions that asked for it, [`task`] is what travels through the queues, [`delivery`] decides what a task may
//! do and what follows an attempt, [`outcome`] and [`retry`] feed that decision, [`payload`] makes what is posted and
//! [`signature`] signs it, where it is asked for by one of the workspace's [`keys`]. [`access`], [`workspace`] and
//! [`subscription`] are what people set up, and [`inbox`] what they try it with. [`akamai`] tells where a delivery stands in
//! another system's words.

pub mod access;
pub mod address;
pub mod akamai;
pub mod audit;
pub mod deadline;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod health;
pub mod id;
pub mod inbox;
pub mod invalid;
pub mod job;
pub mod keys;
pub mod matching;
pub mod operational;
pub mod outcome;
pub mod pattern;
pub mod payload;
pub mod rate;
pub mod retry;
pub mod signature;
pub mod subscription;
pub mod task;
pub mod time;
pub mod trace;
pub mod workspace;
