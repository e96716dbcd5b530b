//! The functions' own binaries, run apart from Lambda and AWS, so that what they cost can be measured.
//!
//! * [`Function`] starts one, and hands it invocation after invocation as Lambda's Runtime API does.
//! * [`StandIns`] answer what it asks of DynamoDB, SQS and KMS, look at the shape of each call, and count.
//! * [`Sink`] is the receiver: it takes everything and looks at some of the signatures.
//! * [`Stage`] sets them up with what a real deployment has written, and knows what Lambda would hand over.
//!
//! None of it is in the process that is measured, and each server is a few threads that do no more than they must.

mod failed;
mod function;
mod sink;
mod stage;
mod stand_ins;
mod tally;
mod wire;

pub use failed::Failed;
pub use function::{Function, Used};
pub use sink::Sink;
pub use stage::{Fanned, Matches, QUEUE_BATCH, STREAM_BATCH, Stage, records};
pub use stand_ins::{Lane, Sent, StandIns};
pub use tally::{Count, Tally};
