//! The prefix cache: which full blocks hold the keys and values of which beginning of a sequence.
//!
//! ```text
//!   scope ── [t0…t15] ── [t16…t31] ──┬── [t32…t47]        a node is a full block: its tokens, after its parent's
//!                                    └── [other 16]       children need their parent: it leaves after them
//! ```
//!
//! A node is found by the hash of all tokens up to its end, and believed only when its own tokens and its parent are the
//! very same: two sequences whose hashes collide never share a block.

mod event;
mod idle;
mod index;
mod scope;

pub use event::CacheEvent;
pub use scope::{Adapter, CacheScope};

pub(super) use event::EventLog;
pub(super) use idle::IdleBlocks;
pub(super) use index::{PrefixIndex, Stored};
