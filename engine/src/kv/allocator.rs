//! Who owns which KV block: a fixed pool, one owner a block, and a count that always adds up.
//!
//! ```text
//!            take                      hold
//!   free ───────────► owned by a lease ─────► held (a fence: a network card may still touch it)
//!    ▲                      │ drop               │ drop
//!    └──────────────────────┴────────────────────┘   generation + 1
//! ```
//!
//! Invariants: `total = free + owned + held` at all times; a block is in at most one [`BlockLease`]; its generation changes
//! each time it goes back to the pool, so that whoever remembers an old generation can tell that the block changed hands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlockId, free_set::FreeSet, lease::BlockLease};

/// Handle to a pool of blocks; clones share the pool.
#[derive(Clone)]
pub(crate) struct BlockAllocator {
    pool: Arc<Pool>,
}

/// Where the blocks of a pool are, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCounts {
    /// Size of the pool: `free + owned + held`.
    pub total: usize,
    /// Ready to be taken.
    pub free: usize,
    /// Of sequences and reservations.
    pub owned: usize,
    /// Kept back until nothing remote can touch them any more.
    pub held: usize,
    /// Taken since the start; minus `freed_total` it is `owned + held`.
    pub taken_total: u64,
    /// Returned since the start.
    pub freed_total: u64,
}

/// The pool has fewer free blocks than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} KV blocks wanted, {free} free")]
pub(crate) struct OutOfBlocks {
    pub(crate) wanted: usize,
    pub(crate) free: usize,
}

/// What a pool's leases share.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    on_freed: Box<dyn Fn() + Send + Sync>,
}

struct PoolState {
    free: FreeSet,
    owners: Vec<Owner>,
    generations: Vec<u64>,
    counts: BlockCounts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Nobody,
    Lease,
    Fence,
}

impl BlockAllocator {
    /// A pool of `total` free blocks. `on_freed` is called, with no lock held, each time blocks have come back.
    pub(crate) fn new(total: usize, on_freed: impl Fn() + Send + Sync + 'static) -> Self {
        let state = PoolState {
            free: FreeSet::full(total),
            owners: vec![Owner::Nobody; total],
            generations: vec![0; total],
            counts: BlockCounts { total, free: total, owned: 0, held: 0, taken_total: 0, freed_total: 0 },
        };
        Self { pool: Arc::new(Pool { state: Mutex::new(state), on_freed: Box::new(on_freed) }) }
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
        self.pool.lock().counts
    }

    /// How often `block` has gone back to the pool; `None` for a block the pool does not have.
    pub(crate) fn generation(&self, block: BlockId) -> Option<u64> {
        self.pool.lock().generations.get(block.0 as usize).copied()
    }

    /// Whether `lease` is of this pool.
    pub(crate) fn owns(&self, lease: &BlockLease) -> bool {
        Arc::ptr_eq(&self.pool, lease.pool())
    }
}

impl Pool {
    pub(super) fn take(&self, wanted: usize, into: &mut Vec<BlockId>) -> Result<(), OutOfBlocks> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.counts.free < wanted {
            return Err(OutOfBlocks { wanted, free: state.counts.free });
        }
        let start = into.len();
        state.free.take(wanted, into);
        for id in &into[start..] {
            debug_assert_eq!(state.owners[id.0 as usize], Owner::Nobody, "{id:?} was taken while owned");
            state.owners[id.0 as usize] = Owner::Lease;
        }
        state.counts.free -= wanted;
        state.counts.owned += wanted;
        state.counts.taken_total += wanted as u64;
        state.check();
        Ok(())
    }

    pub(super) fn hold(&self, ids: &[BlockId]) {
        let mut state = self.lock();
        for id in ids {
            debug_assert_eq!(
                state.owners[id.0 as usize],
                Owner::Lease,
                "{id:?} was held twice, or while free"
            );
            state.owners[id.0 as usize] = Owner::Fence;
        }
        state.counts.owned -= ids.len();
        state.counts.held += ids.len();
        state.check();
    }

    pub(super) fn free(&self, ids: &[BlockId]) {
        if ids.is_empty() {
            return;
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        for id in ids {
            let index = id.0 as usize;
            match std::mem::replace(&mut state.owners[index], Owner::Nobody) {
                Owner::Lease => state.counts.owned -= 1,
                Owner::Fence => state.counts.held -= 1,
                Owner::Nobody => debug_assert!(false, "{id:?} was freed twice"),
            }
            state.generations[index] += 1;
            state.free.put(*id);
        }
        state.counts.free += ids.len();
        state.counts.freed_total += ids.len() as u64;
        state.check();
        drop(guard);
        (self.on_freed)();
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        // A panic elsewhere must not turn into a second one while leases are dropped.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    fn check(&self) {
        let BlockCounts { total, free, owned, held, taken_total, freed_total } = self.counts;
        debug_assert_eq!(total, free + owned + held, "blocks are conserved");
        debug_assert_eq!(
            (owned + held) as u64,
            taken_total - freed_total,
            "every taken block is owned, held or freed"
        );
    }
}

#[cfg(test)]
mod tests;
