//! The receiving half: which transfers are expected, what has arrived, and when blocks are safe again.

mod incoming;
mod manifest;
mod receiver;
mod table;

pub(crate) use incoming::{Arrival, IncomingCell};
pub use incoming::{Incoming, Received};
pub(crate) use manifest::CheckedManifest;
#[cfg(any(test, fuzzing))]
pub(crate) use manifest::Wanted;
pub(crate) use receiver::Receiver;
pub(crate) use table::{AttachError, Effect, Expected, ReceiveTable, Scatter, TableRules};
