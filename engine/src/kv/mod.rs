//! The paged KV cache: its shape, its memory, who has which block, and which prefixes are in it.

mod allocator;
mod free_set;
mod layout;
mod lease;
mod ledger;
mod pool;
mod prefix;

pub use allocator::BlockCounts;
pub use layout::{BlockId, Dtype, KvLayout};
pub use lease::HeldBlocks;
pub use pool::KvMemory;
pub use prefix::{Adapter, CacheEvent, CacheScope};

pub(crate) use allocator::{BlockAllocator, OutOfBlocks, Prefix};
pub(crate) use lease::{BlockLease, Duplicate};
pub(crate) use ledger::CacheMode;
