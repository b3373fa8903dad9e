//! The data plane: one thread that owns the fabric, takes commands from a bounded queue and never logs or allocates per write.

#[cfg(test)]
pub(crate) mod allocations;
mod command;
mod queue;
mod sending;
mod staged;
mod thread;

pub(crate) use command::{Command, SendId};
pub(crate) use queue::{CommandQueue, NoRoom};
pub(crate) use sending::{Again, Next, Sending, Work};
pub(crate) use staged::{Staged, UnitCursor};
#[cfg(test)]
pub(crate) use thread::Round;
pub(crate) use thread::{DataPlane, Memory, PEER_SHARE, gather, spread};
