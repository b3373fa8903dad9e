//! Blocks as values: what a lease has goes back to the pool exactly once, when it is dropped.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    BlockId,
    allocator::{OutOfBlocks, Pool, Prefix},
    prefix::Stored,
};

/// The block table of one owner. May be dropped on any thread.
///
/// Blocks at its beginning may be shared with others through the prefix cache; nobody writes those.
pub(crate) struct BlockLease {
    pool: Arc<Pool>,
    ids: Vec<BlockId>,
    /// No longer in the table, but still read by something remote.
    retained: Vec<BlockId>,
    /// It only keeps the blocks out of the pool.
    is_fence: bool,
}

/// Keeps blocks out of the pool while something that the engine cannot see may still read or write them, such as a network
/// card. The blocks go back when the last clone is dropped and the engine itself is done with them.
#[derive(Clone)]
pub struct HeldBlocks {
    lease: Arc<OnceLock<BlockLease>>,
}

/// What becomes of a block whose contents turn out to be cached already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Duplicate {
    /// Nobody else knows it: back to the pool.
    Free,
    /// It was handed to something remote: kept as long as the lease.
    Retain,
}

impl BlockLease {
    pub(super) fn empty(pool: Arc<Pool>) -> Self {
        Self { pool, ids: Vec::new(), retained: Vec::new(), is_fence: false }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The blocks, in the order of the sequence.
    pub(crate) fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Takes `blocks` more from the pool, all or none.
    pub(crate) fn grow(&mut self, blocks: usize) -> Result<(), OutOfBlocks> {
        self.pool.lock().take(blocks, &mut self.ids)
    }

    /// Gives back all but the first `blocks` blocks, which nobody else may know.
    pub(crate) fn shrink(&mut self, blocks: usize) {
        if blocks < self.ids.len() {
            let beyond = self.ids.split_off(blocks);
            self.pool.give_back(&beyond, self.is_fence);
        }
    }

    /// From block `from` on, takes cached blocks that hold the sequence's tokens, in place of its own if it has some there;
    /// says up to which block. Blocks before `from` are in the cache already.
    pub(crate) fn share_cached(&mut self, from: usize, prefix: &Prefix<'_>) -> usize {
        let mut replaced = Vec::new();
        let mut next = from;
        let mut ledger = self.pool.lock();
        while next < prefix.full_blocks() {
            let parent = next.checked_sub(1).map(|before| self.ids[before]);
            let Some((found, _)) = ledger.find(parent, prefix.scope, prefix.block(next)) else { break };
            ledger.share(found);
            match self.ids.get_mut(next) {
                Some(own) => replaced.push(std::mem::replace(own, found)),
                None => self.ids.push(found),
            }
            next += 1;
        }
        drop(ledger);
        self.pool.give_back(&replaced, self.is_fence);
        next
    }

    /// Puts blocks `from..to`, whose contents are final, into the prefix cache; says up to which block that went. Those that
    /// are there already give way to the cached ones.
    pub(crate) fn store(
        &mut self,
        from: usize,
        to: usize,
        prefix: &Prefix<'_>,
        duplicate: Duplicate,
    ) -> usize {
        let mut replaced = Vec::new();
        let mut next = from;
        let mut ledger = self.pool.lock();
        while next < to {
            let parent = next.checked_sub(1).map(|before| self.ids[before]);
            match ledger.store(parent, prefix.scope, prefix.block(next), self.ids[next]) {
                Stored::New { .. } => {}
                Stored::Already(cached) => {
                    ledger.share(cached);
                    replaced.push(std::mem::replace(&mut self.ids[next], cached));
                }
                Stored::Refused => break,
            }
            next += 1;
        }
        drop(ledger);
        match duplicate {
            Duplicate::Free => self.pool.give_back(&replaced, self.is_fence),
            Duplicate::Retain => self.retained.append(&mut replaced),
        }
        next
    }

    /// All that it has, as a lease of its own; it stays empty.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::empty(self.pool.clone()))
    }

    /// Gives all blocks back now.
    pub(crate) fn clear(&mut self) {
        // Together, so that whoever waits for them sees all or none.
        self.retained.append(&mut self.ids);
        self.pool.give_back(&self.retained, self.is_fence);
        self.retained.clear();
    }

    /// Counts the blocks as held from here on.
    fn into_fence(mut self) -> Self {
        let mut ledger = self.pool.lock();
        ledger.hold(&self.ids);
        ledger.hold(&self.retained);
        drop(ledger);
        self.is_fence = true;
        self
    }
}

impl Drop for BlockLease {
    fn drop(&mut self) {
        self.clear();
    }
}

impl HeldBlocks {
    /// For blocks that are put in later, by [`Self::fill`].
    pub(crate) fn pending() -> Self {
        Self { lease: Arc::new(OnceLock::new()) }
    }

    /// Blocks that nothing but a fence has.
    pub(crate) fn fenced(lease: BlockLease) -> Self {
        let held = Self::pending();
        held.fill(lease);
        held
    }

    /// Puts the blocks in, once. They count as held from here on rather than as owned by a sequence.
    pub(crate) fn fill(&self, lease: BlockLease) {
        let refused = self.lease.set(lease.into_fence());
        debug_assert!(refused.is_ok(), "blocks are put into a holder once");
    }

    /// The blocks; none while the request that they are for is still computed, or waits.
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
