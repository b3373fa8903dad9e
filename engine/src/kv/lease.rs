//! Ownership of blocks as values: what a lease holds goes back to the pool exactly once, when it is dropped.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    BlockId,
    allocator::{OutOfBlocks, Pool},
};

/// Blocks of one owner. May be dropped on any thread.
pub(crate) struct BlockLease {
    pool: Arc<Pool>,
    ids: Vec<BlockId>,
}

/// Keeps blocks out of the pool while something that the engine cannot see may still read or write them, such as a network
/// card. The blocks go back when the last clone is dropped and the engine itself is done with them.
#[derive(Clone)]
pub struct HeldBlocks {
    lease: Arc<OnceLock<BlockLease>>,
}

impl BlockLease {
    pub(super) fn empty(pool: Arc<Pool>) -> Self {
        Self { pool, ids: Vec::new() }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The blocks, in the order they were taken.
    pub(crate) fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Takes `blocks` more from the pool, all or none.
    pub(crate) fn grow(&mut self, blocks: usize) -> Result<(), OutOfBlocks> {
        self.pool.take(blocks, &mut self.ids)
    }

    /// Returns all blocks to the pool now.
    pub(crate) fn clear(&mut self) {
        self.pool.free(&self.ids);
        self.ids.clear();
    }

    /// Counts the blocks as held from here on.
    pub(crate) fn mark_held(&self) {
        self.pool.hold(&self.ids);
    }
}

impl Drop for BlockLease {
    fn drop(&mut self) {
        self.clear();
    }
}

impl HeldBlocks {
    /// For blocks that are taken later, by [`Self::fill`].
    pub(crate) fn pending() -> Self {
        Self { lease: Arc::new(OnceLock::new()) }
    }

    /// Blocks that nothing but a fence owns.
    pub(crate) fn fenced(lease: BlockLease) -> Self {
        lease.mark_held();
        let held = Self::pending();
        held.fill(lease);
        held
    }

    /// Puts the blocks in; once.
    pub(crate) fn fill(&self, lease: BlockLease) {
        let refused = self.lease.set(lease);
        debug_assert!(refused.is_ok(), "blocks are put into a holder once");
    }

    /// From here on the blocks count as held rather than owned by a sequence.
    pub(crate) fn mark_held(&self) {
        if let Some(lease) = self.lease.get() {
            lease.mark_held();
        }
    }

    /// The blocks; none while the request that they are for still waits for them.
    pub fn ids(&self) -> &[BlockId] {
        self.lease.get().map_or(&[], BlockLease::ids)
    }
}

impl fmt::Debug for BlockLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockLease").field(&self.ids).finish()
    }
}

impl fmt::Debug for HeldBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldBlocks").field(&self.ids()).finish()
    }
}
