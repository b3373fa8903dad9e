//! Where engine and transfer node meet: one piece of memory.
//!
//! ```text
//!  peer's write ──► PoolMemory (kv-transfer: mapped, registered with the fabric)
//!                        │ same bytes
//!                        ▼
//!                   KvMemory   (engine: read and written by its kernels)
//! ```
#![expect(
    unsafe_code,
    reason = "the two crates do not know each other; only here is it known that the one's pool is the other's"
)]

use std::sync::Arc;

use baton_engine::KvMemory;
use baton_kv_transfer::PoolMemory;

/// The transfer node's pool as memory of an engine.
pub fn kv_memory(pool: PoolMemory) -> KvMemory {
    let (base, len) = (pool.ptr(), pool.len());
    // SAFETY: `pool` is a mapping of `len` bytes from `base`, page-aligned, zeroed by the kernel, never moved, and unmapped
    // when its last clone is dropped; this one goes along as owner.
    unsafe { KvMemory::new(base, len, Arc::new(pool)) }
}
