//! A prefill worker's prefix cache, and what an oracle would have kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::trace::{BLOCK_TOKENS, Request};

/// Blocks, the least recently used leaving first.
#[derive(Default)]
pub(crate) struct Lru {
    capacity: usize,
    stamps: HashMap<u64, u64>,
    by_stamp: BTreeMap<u64, u64>,
    clock: u64,
    // Blocks of requests that are on their way, by scheduler: its own entries.
    coming: HashMap<(usize, u64), u32>,
}

impl Lru {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Blocks of the prefix that are there.
    pub(crate) fn present(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.stamps.contains_key(block)).count()
    }

    /// The same with those that are on their way, as far as this scheduler knows.
    pub(crate) fn expected(&self, scheduler: usize, blocks: &[u64]) -> usize {
        let is_known =
            |block: &&u64| self.stamps.contains_key(block) || self.coming.contains_key(&(scheduler, **block));
        blocks.iter().take_while(is_known).count()
    }

    pub(crate) fn announce(&mut self, scheduler: usize, blocks: &[u64]) {
        for &block in blocks {
            *self.coming.entry((scheduler, block)).or_default() += 1;
        }
    }

    pub(crate) fn arrived(&mut self, scheduler: usize, blocks: &[u64]) {
        for &block in blocks {
            if let Some(count) = self.coming.get_mut(&(scheduler, block)) {
                *count -= 1;
                if *count == 0 {
                    self.coming.remove(&(scheduler, block));
                }
            }
        }
        // The last first: a beginning stays longer than what follows it.
        for &block in blocks.iter().rev() {
            self.touch(block);
        }
    }

    fn touch(&mut self, block: u64) {
        self.clock += 1;
        if let Some(old) = self.stamps.insert(block, self.clock) {
            self.by_stamp.remove(&old);
        }
        self.by_stamp.insert(self.clock, block);
        while self.stamps.len() > self.capacity {
            let Some((_, oldest)) = self.by_stamp.pop_first() else { return };
            self.stamps.remove(&oldest);
        }
    }
}

/// Cached tokens of each request if all workers' memory were one cache and it knew the future: what is used again last leaves first (Belady).
pub(crate) fn oracle(requests: &[Request], capacity: usize) -> Vec<u64> {
    let mut uses: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, request) in requests.iter().enumerate() {
        for &block in &request.blocks {
            uses.entry(block).or_default().push(index);
        }
    }
    let mut next_use: HashMap<u64, usize> = HashMap::new();
    let mut by_next: BTreeSet<(usize, u64)> = BTreeSet::new();
    let mut cached = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let hits = request.blocks.iter().take_while(|block| next_use.contains_key(block)).count();
        cached.push(cached_tokens(hits, request.prompt_tokens));
        for &block in &request.blocks {
            let next = after(&uses[&block], index);
            if let Some(old) = next_use.insert(block, next) {
                by_next.remove(&(old, block));
            }
            by_next.insert((next, block));
        }
        while next_use.len() > capacity {
            let Some((_, block)) = by_next.pop_last() else { break };
            next_use.remove(&block);
        }
    }
    cached
}

/// The last token is always computed.
pub(crate) fn cached_tokens(blocks: usize, prompt_tokens: u64) -> u64 {
    (blocks as u64 * BLOCK_TOKENS).min(prompt_tokens - 1)
}

fn after(uses: &[usize], index: usize) -> usize {
    uses.get(uses.partition_point(|&at| at <= index)).copied().unwrap_or(usize::MAX)
}
