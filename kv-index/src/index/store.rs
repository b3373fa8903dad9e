//! Blocks come and go.

use std::ops::ControlFlow;

use super::{
    Age, Index, Tier, WorkerId,
    blocks::{BATCH, Near},
    name,
    steps::in_steps,
};
use crate::{
    PromptKeys,
    holders::{Change, Holders, Life},
};

/// Blocks of one call: some ten microseconds.
pub(crate) const SLICE: usize = 256;

/// What the next block of a chain follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    pub(super) key: u64,
    /// Blocks so far.
    depth: u32,
}

/// Blocks of one chain that a worker stored: the engine's hash and the content of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cached<'a> {
    pub(crate) hashes: &'a [u64],
    pub(crate) contents: &'a [u64],
}

impl Index {
    /// What blocks without a parent follow. `None` if the worker is not known.
    pub(crate) fn chain(
        &mut self,
        worker: WorkerId,
        adapter: Option<&str>,
        block_tokens: u32,
    ) -> Option<ChainEnd> {
        self.root(worker, adapter, block_tokens).map(|key| ChainEnd { key, depth: 0 })
    }

    /// What blocks follow whose parent has this hash. `None`, and counted, if it is not known, so that these blocks cannot be.
    pub(crate) fn chain_after(&mut self, worker: WorkerId, parent: u64, blocks: usize) -> Option<ChainEnd> {
        let owner = self.workers.get(&worker)?.owner;
        let Some(key) = self.names.get(name(parent, owner)) else {
            self.counts.orphans += blocks as u64;
            return None;
        };
        let depth = self.blocks.get(key, &mut Near::default()).map_or(0, |block| block.age.depth() + 1);
        Some(ChainEnd { key, depth })
    }

    /// Which group of layers of `worker` is indexed: the first that asks.
    pub(crate) fn claims_group(&mut self, worker: WorkerId, group: Option<u64>) -> bool {
        let Some(entry) = self.workers.get_mut(&worker) else { return false };
        group.is_none_or(|group| *entry.group.get_or_insert(group) == group)
    }

    /// Whether removals of this group are of blocks that are indexed.
    pub(crate) fn has_group(&self, worker: WorkerId, group: Option<u64>) -> bool {
        let indexed = self.workers.get(&worker).and_then(|entry| entry.group);
        group.is_none_or(|group| indexed.is_none_or(|indexed| indexed == group))
    }

    /// `worker` stored blocks in a tier, [`SLICE`] at most; gives what would follow them. [`Self::warm`] comes before.
    pub(crate) fn store(
        &mut self,
        worker: WorkerId,
        tier: Tier,
        from: ChainEnd,
        cached: Cached<'_>,
    ) -> ChainEnd {
        let Some(&super::Worker { life, owner, .. }) = self.workers.get(&worker) else { return from };
        let change = Change::Store(tier.bit());
        let mut end = from;
        for (hash, content) in cached.hashes.iter().zip(cached.contents).take(SLICE) {
            end.key = crate::key::next(end.key, *content);
            self.hold(life, change, end.key, end.depth);
            self.give_name(life, change, name(*hash, owner), end.key);
            end.depth += 1;
            self.counts.stored += 1;
        }
        end
    }

    /// A block is held otherwise than before.
    #[inline]
    fn hold(&mut self, life: Life, change: Change, key: u64, depth: u32) {
        let age = Age::new(self.now, depth);
        let is_new = self.blocks.update(key, age, &mut self.near, |holders| {
            let (holders, before, after) = self.sets.change(holders, life, change);
            (holders, before == 0 && after != 0)
        });
        *self.lives.blocks_mut(life) += u32::from(is_new);
    }

    /// From now on the block is known by this hash. One that was known by it before is not held any more.
    #[inline]
    fn give_name(&mut self, life: Life, change: Change, name: u64, key: u64) {
        let before = self.names.replace(name, key);
        if before != 0 && before != key {
            let Change::Store(tiers) = change else { return };
            self.let_go(life, Change::Remove(tiers), before);
        }
    }

    /// Takes a holder from a block; whether the worker still has it somewhere, and whether anybody has.
    #[inline]
    fn let_go(&mut self, life: Life, change: Change, key: u64) -> (bool, bool) {
        let Some(place) = self.blocks.find(key, &mut self.near) else { return (false, false) };
        let holders = self.blocks.block(place).holders;
        let (holders, before, after) = self.sets.change(holders, life, change);
        let blocks = self.lives.blocks_mut(life);
        *blocks -= u32::from(before != 0 && after == 0);
        if holders == Holders::NOBODY {
            self.blocks.remove(key, place, &mut self.near);
            return (false, false);
        }
        self.blocks.set_holders(place, holders);
        (after != 0, true)
    }

    /// `worker` has the blocks with these hashes in that tier no more. [`Self::warm`] comes before.
    pub(crate) fn unstore(&mut self, worker: WorkerId, tier: Tier, hashes: &[u64]) {
        let Some(&super::Worker { life, owner, .. }) = self.workers.get(&worker) else { return };
        let change = Change::Remove(tier.bit());
        for hash in hashes {
            let Some(place) = self.names.find(name(*hash, owner)) else {
                self.counts.unknown_removals += 1;
                continue;
            };
            let (still_has, somebody_has) = self.let_go(life, change, self.names.value(place));
            // Others of the domain may know it by the same name.
            let is_used = if owner == life { still_has } else { somebody_has };
            if !is_used {
                self.names.remove(place);
            }
            self.counts.removed += 1;
        }
    }

    /// `worker` was sent a prompt and will have it soon: the blocks from `first` on, 256 at most. Where to go on, if there are more.
    /// What the worker does not say it has by then is forgotten again.
    ///
    /// Blocks that it has count as used now, so that they stay longer in a full index.
    pub fn guess(&mut self, worker: WorkerId, prompt: &PromptKeys, first: usize) -> Option<usize> {
        let &super::Worker { life, .. } = self.workers.get(&worker)?;
        let keys = prompt.keys().get(first..)?;
        let count = keys.len().min(SLICE);
        let change = Change::Guess(self.guesses.make());
        in_steps(
            self,
            count,
            BATCH,
            |index, batch| index.blocks.fetch(&keys[batch]),
            |index, batch| index.blocks.fetch_further(&keys[batch]),
            |index, batch| {
                batch.for_each(|at| index.hold(life, change, keys[at], (first + at) as u32));
                ControlFlow::Continue(())
            },
        );
        self.counts.guessed += count as u64;
        (count < keys.len()).then_some(first + count)
    }
}
