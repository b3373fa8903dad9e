//! Blocks come and go.

use super::{Age, Block, Index, Tier, WorkerId, name};
use crate::{
    PromptKeys,
    holders::{Change, Holders, Life},
    table::BATCH,
};

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

    /// `worker` stored blocks in a tier; gives what would follow them.
    pub(crate) fn store(
        &mut self,
        worker: WorkerId,
        tier: Tier,
        from: ChainEnd,
        cached: Cached<'_>,
    ) -> ChainEnd {
        let Some(&super::Worker { life, owner, .. }) = self.workers.get(&worker) else { return from };
        let mut end = from;
        let change = Change::Store(tier.bit());
        for (hashes, contents) in cached.hashes.chunks(BATCH).zip(cached.contents.chunks(BATCH)) {
            let (mut keys, mut names) = ([0; BATCH], [0; BATCH]);
            let depth = end.depth;
            for (at, (hash, content)) in hashes.iter().zip(contents).enumerate() {
                end.key = crate::key::next(end.key, *content);
                (keys[at], names[at]) = (end.key, name(*hash, owner));
            }
            let count = hashes.len().min(contents.len());
            end.depth += count as u32;
            let (keys, names) = (&keys[..count], &names[..count]);
            self.blocks.fetch(keys);
            self.names.fetch(names);
            for (at, (&key, &name)) in keys.iter().zip(names).enumerate() {
                self.hold(life, change, key, depth + at as u32);
                self.give_name(life, change, name, key);
            }
            self.counts.stored += count as u64;
        }
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

    /// `worker` has the blocks with these hashes in that tier no more.
    pub(crate) fn unstore(&mut self, worker: WorkerId, tier: Tier, hashes: &[u64]) {
        let Some(&super::Worker { life, owner, .. }) = self.workers.get(&worker) else { return };
        let change = Change::Remove(tier.bit());
        for hashes in hashes.chunks(BATCH) {
            let mut names = [0; BATCH];
            for (at, hash) in hashes.iter().enumerate() {
                names[at] = name(*hash, owner);
            }
            let names = &names[..hashes.len()];
            self.names.fetch(names);
            let mut keys = [0; BATCH];
            for (key, name) in keys.iter_mut().zip(names) {
                *key = self.names.get(*name).unwrap_or(0);
            }
            let keys = &keys[..hashes.len()];
            self.blocks.fetch(keys);
            for (&key, &name) in keys.iter().zip(names) {
                if key == 0 {
                    self.counts.unknown_removals += 1;
                    continue;
                }
                let (still_has, somebody_has) = self.let_go(life, change, key);
                // Others of the domain may know it by the same name.
                if !if owner == life { still_has } else { somebody_has }
                    && let Some(place) = self.names.find(name)
                {
                    self.names.remove(place);
                }
                self.counts.removed += 1;
            }
        }
    }

    /// `worker` was sent a prompt and will have it soon. What it does not say it has by then is forgotten again.
    ///
    /// Blocks that it has count as used now, so that they stay longer in a full index.
    pub fn guess(&mut self, worker: WorkerId, prompt: &PromptKeys) {
        let Some(&super::Worker { life, .. }) = self.workers.get(&worker) else { return };
        let change = Change::Guess(self.guesses.make());
        let mut depth = 0;
        for keys in prompt.keys().chunks(BATCH) {
            self.blocks.fetch(keys);
            for &key in keys {
                self.hold(life, change, key, depth);
                depth += 1;
            }
        }
        self.counts.guessed += u64::from(depth);
    }
}
