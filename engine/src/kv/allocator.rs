//! Who has which KV block: a fixed pool, and a count that always adds up.
//!
//! ```text
//!             take                         hold
//!   free ──────────────► owned by leases ─────────► held (fences: a network card may still touch it)
//!    ▲ ▲                   │        ▲                 │
//!    │ └───────────────────┤ last drop                │ last drop     contents of no use to others: free, generation + 1
//!    │ evict               ▼        │ share           │               contents in the prefix index: cached
//!    └────────────────── cached ────┴◄────────────────┘
//! ```
//!
//! Invariants: `total = free + cached + owned + held` at all times. A block that is not in the prefix index is in at most one
//! [`BlockLease`]; one that is may be in several, and its contents do not change. Its generation changes each time its contents
//! are given up, so that whoever remembers an old generation can tell that the block changed hands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlockId, CacheEvent, CacheMode, CacheScope, lease::BlockLease, ledger::Ledger};

/// Handle to a pool of blocks; clones share the pool.
#[derive(Clone)]
pub(crate) struct BlockAllocator {
    pool: Arc<Pool>,
}

/// Where the blocks of a pool are, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Size of the pool: `free + cached + owned + held`.
    pub total: usize,
    /// Ready to be taken, and of no other use.
    pub free: usize,
    /// Ready to be taken, and until then the beginning of a sequence that may come again.
    pub cached: usize,
    /// Of sequences and reservations.
    pub owned: usize,
    /// Kept back until nothing remote can touch them any more.
    pub held: usize,
    /// In the prefix index: the cached ones, and those of the others whose contents can be shared.
    pub indexed: usize,
    /// Cached blocks that were taken for other contents, since the start.
    pub evicted_total: u64,
    /// Blocks that left `free` and `cached` since the start; minus `freed_total` it is `owned + held`.
    pub taken_total: u64,
    /// Blocks that came back since the start.
    pub freed_total: u64,
}

impl BlockCounts {
    /// Blocks that can be taken.
    pub fn available(&self) -> usize {
        self.free + self.cached
    }

    /// Blocks that somebody uses.
    pub fn in_use(&self) -> usize {
        self.owned + self.held
    }
}

/// Fewer blocks can be taken than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} KV blocks wanted, {available} available")]
pub(crate) struct OutOfBlocks {
    pub(crate) wanted: usize,
    pub(crate) available: usize,
}

/// The beginning of a sequence, as the prefix cache knows it.
#[derive(Clone, Copy)]
pub(crate) struct Prefix<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) block_tokens: usize,
    pub(crate) scope: Option<&'a Arc<CacheScope>>,
}

/// What a pool's leases share.
pub(super) struct Pool {
    ledger: Mutex<Ledger>,
    on_freed: Box<dyn Fn() + Send + Sync>,
}

impl BlockAllocator {
    /// A pool of `total` free blocks. `on_freed` is called, with no lock held, each time blocks have come back.
    pub(crate) fn new(total: usize, mode: CacheMode, on_freed: impl Fn() + Send + Sync + 'static) -> Self {
        let ledger = Mutex::new(Ledger::new(total, mode));
        Self { pool: Arc::new(Pool { ledger, on_freed: Box::new(on_freed) }) }
    }

    /// A lease of no blocks, to be grown.
    pub(crate) fn lease(&self) -> BlockLease {
        BlockLease::empty(self.pool.clone())
    }

    /// A lease of `blocks` blocks, in ascending runs where the pool has them.
    #[cfg(test)]
    pub(crate) fn take(&self, blocks: usize) -> Result<BlockLease, OutOfBlocks> {
        let mut lease = self.lease();
        lease.grow(blocks)?;
        Ok(lease)
    }

    /// Where the blocks are now.
    pub(crate) fn counts(&self) -> BlockCounts {
        self.pool.lock().counts()
    }

    /// How many blocks of a beginning are cached, and how many of these nobody uses. Nothing is taken.
    pub(crate) fn probe(&self, prefix: &Prefix<'_>) -> (usize, usize) {
        let ledger = self.pool.lock();
        let (mut parent, mut blocks, mut idle) = (None, 0, 0);
        while blocks < prefix.full_blocks() {
            let Some((found, is_used)) = ledger.find(parent, prefix.scope, prefix.block(blocks)) else {
                break;
            };
            (parent, blocks) = (Some(found), blocks + 1);
            idle += usize::from(!is_used);
        }
        (blocks, idle)
    }

    /// Forgets what is cached. Who uses a block keeps it, and shares it with nobody new.
    pub(crate) fn clear_cache(&self) {
        self.pool.lock().clear_cache();
    }

    /// What happened to the prefix cache since the last call.
    pub(crate) fn take_events(&self) -> Vec<CacheEvent> {
        self.pool.lock().take_events()
    }

    /// The same, and all that is cached after it.
    pub(crate) fn take_events_and_all(&self) -> (Vec<CacheEvent>, Vec<CacheEvent>) {
        let mut pool = self.pool.lock();
        (pool.take_events(), pool.all_cached())
    }

    /// How often the contents of `block` were given up; `None` for a block the pool does not have.
    pub(crate) fn generation(&self, block: BlockId) -> Option<u64> {
        self.pool.lock().generation(block)
    }

    /// Whether `lease` is of this pool.
    pub(crate) fn owns(&self, lease: &BlockLease) -> bool {
        Arc::ptr_eq(&self.pool, lease.pool())
    }
}

impl Prefix<'_> {
    /// Blocks that its tokens fill.
    pub(super) fn full_blocks(&self) -> usize {
        self.tokens.len() / self.block_tokens
    }

    /// Tokens of a block that is full.
    pub(super) fn block(&self, index: usize) -> &[u32] {
        &self.tokens[index * self.block_tokens..][..self.block_tokens]
    }
}

impl Pool {
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere must not turn into a second one while leases are dropped.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn give_back(&self, ids: &[BlockId], is_fence: bool) {
        if ids.is_empty() {
            return;
        }
        self.lock().give_back(ids, is_fence);
        (self.on_freed)();
    }
}

#[cfg(test)]
mod tests;
