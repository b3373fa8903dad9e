//! The state of every block of a pool, and its transitions. No lock and no I/O: the allocator keeps it behind a mutex.
//!
//! A block is in one of four places:
//!
//! | place  | used by                                    | prefix index |
//! |--------|--------------------------------------------|--------------|
//! | free   | nobody                                     | not in it    |
//! | cached | nobody; evicted when nothing is free       | in it        |
//! | owned  | a lease, or several that share its content | either       |
//! | held   | fences only                                | either       |
//!
//! Each operation takes the same time per block, whatever the size of the pool.

use std::sync::Arc;

use super::{
    BlockCounts, BlockId, CacheEvent, CacheScope, OutOfBlocks,
    free_set::FreeSet,
    prefix::{EventLog, IdleBlocks, PrefixIndex, Stored},
};

/// How a pool uses its prefix cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheMode {
    /// Whether anything is cached.
    pub(crate) is_on: bool,
    /// Whether somebody takes the events.
    pub(crate) keeps_events: bool,
}

pub(super) struct Ledger {
    free: FreeSet,
    blocks: Vec<Block>,
    index: PrefixIndex,
    idle: IdleBlocks,
    events: EventLog,
    counts: BlockCounts,
    is_caching: bool,
}

#[derive(Clone, Copy, Default)]
struct Block {
    /// Leases that have it, fences among them.
    uses: u32,
    /// Leases that only keep it out of the pool.
    fences: u32,
    /// How often its contents were given up.
    generation: u64,
}

impl Ledger {
    pub(super) fn new(total: usize, mode: CacheMode) -> Self {
        Self {
            free: FreeSet::full(total),
            blocks: vec![Block::default(); total],
            index: PrefixIndex::of_pool(total),
            idle: IdleBlocks::of_pool(total),
            events: EventLog::new(mode.keeps_events),
            counts: BlockCounts { total, free: total, ..BlockCounts::default() },
            is_caching: mode.is_on,
        }
    }

    pub(super) fn counts(&self) -> BlockCounts {
        self.counts
    }

    pub(super) fn generation(&self, block: BlockId) -> Option<u64> {
        self.blocks.get(block.0 as usize).map(|block| block.generation)
    }

    pub(super) fn take_events(&mut self) -> Vec<CacheEvent> {
        self.events.take()
    }

    /// All that is cached, as if it were stored now.
    pub(super) fn all_cached(&self) -> Vec<CacheEvent> {
        let mut log = EventLog::new(true);
        self.index.each(|hash, parent, tokens, scope| log.stored(hash, parent, tokens, scope));
        log.take()
    }

    /// Moves `wanted` blocks to the end of `into`, evicting what was used longest ago when too few are free.
    pub(super) fn take(&mut self, wanted: usize, into: &mut Vec<BlockId>) -> Result<(), OutOfBlocks> {
        let available = self.counts.available();
        if available < wanted {
            return Err(OutOfBlocks { wanted, available });
        }
        // All that is needed first: neighbours among the evicted are handed out as neighbours.
        while self.counts.free < wanted {
            let oldest = self.idle.pop_oldest().expect("what is available and not free is idle");
            self.evict(oldest);
        }
        let start = into.len();
        self.free.take(wanted, into);
        for id in &into[start..] {
            let block = &mut self.blocks[id.0 as usize];
            debug_assert_eq!(block.uses, 0, "{id:?} was taken while in use");
            block.uses = 1;
        }
        self.counts.free -= wanted;
        self.counts.owned += wanted;
        self.counts.taken_total += wanted as u64;
        self.check();
        Ok(())
    }

    /// The cached block that holds `tokens` after `parent`, and whether anybody uses it.
    pub(super) fn find(
        &self,
        parent: Option<BlockId>,
        scope: Option<&Arc<CacheScope>>,
        tokens: &[u32],
    ) -> Option<(BlockId, bool)> {
        if !self.is_caching {
            return None;
        }
        let found = self.index.find(parent, scope, tokens)?;
        Some((found, self.blocks[found.0 as usize].uses > 0))
    }

    /// One more lease has `id`, which is in the index.
    pub(super) fn share(&mut self, id: BlockId) {
        debug_assert!(self.index.contains(id), "{id:?} has contents to share");
        let block = &mut self.blocks[id.0 as usize];
        match (block.uses, block.fences) {
            (0, _) => {
                self.idle.remove(id);
                self.counts.cached -= 1;
                self.counts.owned += 1;
                self.counts.taken_total += 1;
            }
            (uses, fences) if uses == fences => {
                self.counts.held -= 1;
                self.counts.owned += 1;
            }
            _ => {}
        }
        block.uses += 1;
        self.check();
    }

    /// Notes that `id`, which a lease has, holds `tokens` after `parent` and will not change.
    pub(super) fn store(
        &mut self,
        parent: Option<BlockId>,
        scope: Option<&Arc<CacheScope>>,
        tokens: &[u32],
        id: BlockId,
    ) -> Stored {
        debug_assert!(self.blocks[id.0 as usize].uses > 0, "{id:?} is stored by who has it");
        if !self.is_caching {
            return Stored::Refused;
        }
        let stored = self.index.store(parent, scope, tokens, id);
        if let Stored::New { hash, parent } = stored {
            self.events.stored(hash, parent, tokens, scope);
            self.counts.indexed += 1;
        }
        stored
    }

    /// The leases of `ids` only keep them out of the pool from here on.
    pub(super) fn hold(&mut self, ids: &[BlockId]) {
        for id in ids {
            let block = &mut self.blocks[id.0 as usize];
            debug_assert!(block.uses > block.fences, "{id:?} was held twice, or while nobody had it");
            block.fences += 1;
            if block.uses == block.fences {
                self.counts.owned -= 1;
                self.counts.held += 1;
            }
        }
        self.check();
    }

    /// A lease, or a fence, gives `ids` back: the last one first, so that children are evicted before their parents.
    pub(super) fn give_back(&mut self, ids: &[BlockId], is_fence: bool) {
        for id in ids.iter().rev() {
            self.give_back_one(*id, is_fence);
        }
        self.check();
    }

    /// Forgets all contents. Who uses a block keeps it.
    pub(super) fn clear_cache(&mut self) {
        while let Some(oldest) = self.idle.pop_oldest() {
            self.forget(oldest);
        }
        self.index.clear();
        self.counts.indexed = 0;
        self.events.cleared();
        self.check();
    }

    fn give_back_one(&mut self, id: BlockId, is_fence: bool) {
        let block = &mut self.blocks[id.0 as usize];
        if block.uses == 0 {
            debug_assert!(false, "{id:?} was given back twice");
            return;
        }
        let was_held = block.uses == block.fences;
        block.uses -= 1;
        block.fences -= u32::from(is_fence);
        let Block { uses, fences, .. } = *block;
        if uses > 0 {
            if uses == fences && !was_held {
                self.counts.owned -= 1;
                self.counts.held += 1;
            }
            return;
        }
        if was_held {
            self.counts.held -= 1
        } else {
            self.counts.owned -= 1
        }
        self.counts.freed_total += 1;
        if self.index.contains(id) {
            self.idle.push(id);
            self.counts.cached += 1;
        } else {
            block.generation += 1;
            self.free.put(id);
            self.counts.free += 1;
        }
    }

    fn evict(&mut self, id: BlockId) {
        if let Some(hash) = self.index.remove(id) {
            self.events.removed(hash);
            self.counts.indexed -= 1;
            self.counts.evicted_total += 1;
        }
        self.forget(id);
    }

    /// From cached, and out of the list of idle ones, to free.
    fn forget(&mut self, id: BlockId) {
        self.blocks[id.0 as usize].generation += 1;
        self.free.put(id);
        self.counts.cached -= 1;
        self.counts.free += 1;
    }

    fn check(&self) {
        let BlockCounts { total, free, cached, owned, held, indexed, taken_total, freed_total, .. } =
            self.counts;
        debug_assert_eq!(total, free + cached + owned + held, "blocks are conserved");
        debug_assert_eq!(cached, self.idle.len(), "what is cached can be evicted");
        debug_assert_eq!(indexed, self.index.len(), "what is indexed is counted");
        debug_assert_eq!(
            (owned + held) as u64,
            taken_total - freed_total,
            "every taken block is owned, held or given back"
        );
    }
}
