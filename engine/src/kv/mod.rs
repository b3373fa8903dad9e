//! The paged KV cache: its shape, its memory, and who owns which block.

mod allocator;
mod free_set;
mod layout;
mod lease;
mod pool;

pub use allocator::BlockCounts;
pub use layout::{BlockId, Dtype, KvLayout};
pub use lease::HeldBlocks;
pub use pool::KvMemory;

pub(crate) use allocator::BlockAllocator;
pub(crate) use lease::BlockLease;
