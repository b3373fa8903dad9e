//! Blocks come and go.

use std::ops::ControlFlow;

use super::{Age, Block, Index, Tier, WorkerId, name};
use crate::{
    PromptKeys,
    holders::{Change, Holders, Life},
    table::in_steps,
};

/// Blocks of one call: some ten microseconds.
pub(crate) const SLICE: usize = 256;

/// What the next block of a chain follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    key: u64,
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
        let depth = self.blocks.get(key).map_or(0, |value| Block::from_value(value).age.depth() + 1);
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

    /// `worker` stored blocks in a tier, [`SLICE`] at most; gives what would follow them.
    pub(crate) fn store(
        &mut self,
        worker: WorkerId,
        tier: Tier,
        from: ChainEnd,
        cached: Cached<'_>,
    ) -> ChainEnd {
        let Some(&super::Worker { life, owner, .. }) = self.workers.get(&worker) else { return from };
        let (mut keys, mut names) = ([0; SLICE], [0; SLICE]);
        let (mut end, mut count) = (from, 0);
        for (hash, content) in cached.hashes.iter().zip(cached.contents).take(SLICE) {
            end.key = crate::key::next(end.key, *content);
            (keys[count], names[count]) = (end.key, name(*hash, owner));
            count += 1;
        }
        end.depth += count as u32;
        self.counts.stored += count as u64;
        let change = Change::Store(tier.bit());
        in_steps(
            self,
            count,
            |index, batch| {
                index.blocks.fetch(&keys[batch.clone()]);
                index.names.fetch(&names[batch]);
            },
            |index, batch| {
                index.blocks.fetch_further(&keys[batch.clone()], true);
                index.names.fetch_further(&names[batch], true);
            },
            |index, batch| {
                for at in batch {
                    index.hold(life, change, keys[at], from.depth + at as u32);
                    index.give_name(life, change, names[at], keys[at]);
                }
                ControlFlow::Continue(())
            },
        );
        end
    }

    /// A block is held otherwise than before.
    #[inline]
    fn hold(&mut self, life: Life, change: Change, key: u64, depth: u32) {
        let place = self.blocks.place(key);
        let value = self.blocks.value_mut(place);
        let block = Block::from_value(*value);
        let (holders, before, after) = self.sets.change(block.holders, life, change);
        *value = Block { holders, age: Age::new(self.now, depth) }.value();
        let blocks = self.lives.blocks_mut(life);
        *blocks += u32::from(before == 0 && after != 0);
    }

    /// From now on the block is known by this hash. One that was known by it before is not held any more.
    #[inline]
    fn give_name(&mut self, life: Life, change: Change, name: u64, key: u64) {
        let place = self.names.place(name);
        let before = std::mem::replace(self.names.value_mut(place), key);
        if before != 0 && before != key {
            let Change::Store(tiers) = change else { return };
            self.let_go(life, Change::Remove(tiers), before);
        }
    }

    /// Takes a holder from a block; whether the worker still has it somewhere, and whether anybody has.
    #[inline]
    fn let_go(&mut self, life: Life, change: Change, key: u64) -> (bool, bool) {
        let Some(place) = self.blocks.find(key) else { return (false, false) };
        let value = self.blocks.value_mut(place);
        let block = Block::from_value(*value);
        let (holders, before, after) = self.sets.change(block.holders, life, change);
        let blocks = self.lives.blocks_mut(life);
        *blocks -= u32::from(before != 0 && after == 0);
        if holders == Holders::NOBODY {
            self.blocks.remove(place);
            return (false, false);
        }
        *value = Block { holders, ..block }.value();
        (after != 0, true)
    }

    /// `worker` has the blocks with these hashes, [`SLICE`] at most, in that tier no more.
    pub(crate) fn unstore(&mut self, worker: WorkerId, tier: Tier, hashes: &[u64]) {
        let Some(&super::Worker { life, owner, .. }) = self.workers.get(&worker) else { return };
        let (mut keys, mut names) = ([0; SLICE], [0; SLICE]);
        let count = hashes.len().min(SLICE);
        names.iter_mut().zip(hashes).for_each(|(at, hash)| *at = name(*hash, owner));
        in_steps(
            &mut (&mut *self, &mut keys),
            count,
            |(index, _), batch| index.names.fetch(&names[batch]),
            |(index, _), batch| index.names.fetch_further(&names[batch], true),
            |(index, keys), batch| {
                let names = &names[batch.clone()];
                keys[batch]
                    .iter_mut()
                    .zip(names)
                    .for_each(|(key, name)| *key = index.names.get(*name).unwrap_or(0));
                ControlFlow::Continue(())
            },
        );
        let change = Change::Remove(tier.bit());
        in_steps(
            self,
            count,
            |index, batch| index.blocks.fetch(&keys[batch]),
            |index, batch| index.blocks.fetch_further(&keys[batch], true),
            |index, batch| {
                batch.for_each(|at| index.unstore_one((life, owner), change, names[at], keys[at]));
                ControlFlow::Continue(())
            },
        );
    }

    #[inline]
    fn unstore_one(&mut self, (life, owner): (Life, Life), change: Change, name: u64, key: u64) {
        if key == 0 {
            self.counts.unknown_removals += 1;
            return;
        }
        let (still_has, somebody_has) = self.let_go(life, change, key);
        // Others of the domain may know it by the same name.
        let is_used = if owner == life { still_has } else { somebody_has };
        if !is_used && let Some(place) = self.names.find(name) {
            self.names.remove(place);
        }
        self.counts.removed += 1;
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
            |index, batch| index.blocks.fetch(&keys[batch]),
            |index, batch| index.blocks.fetch_further(&keys[batch], true),
            |index, batch| {
                batch.for_each(|at| index.hold(life, change, keys[at], (first + at) as u32));
                ControlFlow::Continue(())
            },
        );
        self.counts.guessed += count as u64;
        (count < keys.len()).then_some(first + count)
    }
}
