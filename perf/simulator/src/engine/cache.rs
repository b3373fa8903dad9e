//! A worker's prefix cache: blocks by the node of the tree of prompts that they end in. What nobody uses is evicted from the leaves, the least recently used
//! first, block by block.

use crate::traffic::{NONE, Prefixes};

/// Entries in a list from the least to the most recently used; only those that nobody uses are in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    // [node]
    slot_of: Vec<u32>,
    // The first is the list's head and tail.
    slots: Vec<Slot>,
    free: Vec<u32>,
    idle_blocks: u32,
    used_blocks: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// [`NONE`]: an answer that no prompt begins with.
    node: u32,
    blocks: u32,
    users: u32,
    older: u32,
    younger: u32,
}

/// Who has which node, for those who place requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    words: usize,
    // [node, word]: a bit for each worker.
    bits: Vec<u64>,
}

impl Holders {
    pub(crate) fn new(nodes: usize, workers: usize) -> Self {
        let words = workers.div_ceil(64);
        Self { words, bits: vec![0; nodes * words] }
    }

    pub(crate) fn set(&mut self, node: u32, worker: usize, has: bool) {
        let Some(word) = self.bits.get_mut(node as usize * self.words + worker / 64) else { return };
        let bit = 1 << (worker % 64);
        *word = if has { *word | bit } else { *word & !bit };
    }

    /// Of workers `64·word..`.
    pub(crate) fn word(&self, node: u32, word: usize) -> u64 {
        self.bits.get(node as usize * self.words + word).copied().unwrap_or(0)
    }

    pub(crate) fn words(&self) -> usize {
        self.words
    }
}

/// What of a path is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Nodes, the last perhaps in part.
    pub(crate) nodes: u32,
    /// Blocks of these.
    pub(crate) blocks: u32,
    /// Of these, blocks that nobody uses now.
    pub(crate) idle: u32,
}

impl Cache {
    pub(crate) fn new(nodes: usize) -> Self {
        let end = Slot { node: NONE, blocks: 0, users: 1, older: 0, younger: 0 };
        Self { slot_of: vec![NONE; nodes], slots: vec![end], ..Self::default() }
    }

    /// Blocks that requests use.
    pub(crate) fn used_blocks(&self) -> u32 {
        self.used_blocks
    }

    /// Blocks that nobody uses.
    pub(crate) fn idle_blocks(&self) -> u32 {
        self.idle_blocks
    }

    /// What of `path`, after its first `from` nodes and up to `most` blocks of these, is here.
    pub(crate) fn look(
        &self,
        path: &[u32],
        from: u32,
        most: u32,
        prefixes: &Prefixes,
        block_tokens: u32,
    ) -> Hit {
        let mut hit = Hit::default();
        for &node in path.iter().skip(from as usize) {
            let slot = self.slot_of.get(node as usize).copied().unwrap_or(NONE);
            if slot == NONE || hit.blocks >= most {
                break;
            }
            let Slot { blocks, users, .. } = self.slots[slot as usize];
            hit.nodes += 1;
            hit.blocks += blocks;
            if users == 0 {
                hit.idle += blocks;
            }
            if blocks < prefixes.blocks(node, block_tokens) {
                break;
            }
        }
        hit.blocks = hit.blocks.min(most);
        hit
    }

    /// `path` has one more user.
    pub(crate) fn take(&mut self, path: &[u32]) {
        for &node in path {
            let slot = self.slot_of[node as usize];
            debug_assert_ne!(slot, NONE, "what is taken was looked up");
            self.use_slot(slot);
        }
    }

    /// All of `path` is computed, by a user of its first `from` nodes. Says how many blocks are in the cache that were its user's own.
    pub(crate) fn store(
        &mut self,
        path: &[u32],
        from: u32,
        prefixes: &Prefixes,
        block_tokens: u32,
        mut told: impl FnMut(u32, bool),
    ) -> u32 {
        let mut stored = 0;
        for (at, &node) in path.iter().enumerate() {
            let blocks = prefixes.blocks(node, block_tokens);
            let slot = self.slot_of[node as usize];
            let slot = if slot == NONE {
                let slot = self.add(node);
                self.slot_of[node as usize] = slot;
                self.slots[slot as usize].users = 1;
                slot
            } else {
                if at >= from as usize {
                    self.use_slot(slot);
                }
                slot
            };
            // New, or evicted in part meanwhile.
            let had = std::mem::replace(&mut self.slots[slot as usize].blocks, blocks);
            self.used_blocks += blocks - had;
            if had < blocks {
                told(node, true);
            }
            if at >= from as usize {
                stored += blocks;
            } else {
                stored += blocks - had;
            }
        }
        stored
    }

    /// `path` has one user less; the leaf is the first to be evicted.
    pub(crate) fn release(&mut self, path: &[u32]) {
        for &node in path.iter().rev() {
            let slot = self.slot_of[node as usize];
            debug_assert_ne!(slot, NONE, "what is used stays");
            let entry = &mut self.slots[slot as usize];
            entry.users -= 1;
            if entry.users == 0 {
                let blocks = entry.blocks;
                self.used_blocks -= blocks;
                self.idle_blocks += blocks;
                self.push_youngest(slot);
            }
        }
    }

    /// An answer of so many blocks stays, until others need the room; [`NONE`]: no prompt begins with it.
    pub(crate) fn keep_answer(&mut self, node: u32, blocks: u32) {
        if blocks == 0 || (node != NONE && self.slot_of[node as usize] != NONE) {
            return;
        }
        let slot = self.add(node);
        if node != NONE {
            self.slot_of[node as usize] = slot;
        }
        self.slots[slot as usize].blocks = blocks;
        self.idle_blocks += blocks;
        self.push_youngest(slot);
    }

    /// Evicts until at most `most` blocks are idle.
    pub(crate) fn shrink(&mut self, most: u32, mut told: impl FnMut(u32, bool)) {
        while self.idle_blocks > most {
            let oldest = self.slots[0].younger;
            let entry = &mut self.slots[oldest as usize];
            let evicted = entry.blocks.min(self.idle_blocks - most);
            entry.blocks -= evicted;
            self.idle_blocks -= evicted;
            let (node, is_gone) = (entry.node, entry.blocks == 0);
            if node != NONE {
                told(node, false);
            }
            if is_gone {
                self.unlink(oldest);
                self.free.push(oldest);
                if node != NONE {
                    self.slot_of[node as usize] = NONE;
                }
            }
        }
    }

    /// Forgets everything; nobody may use anything.
    pub(crate) fn clear(&mut self, told: impl FnMut(u32, bool)) {
        self.shrink(0, told);
    }

    fn use_slot(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.users += 1;
        if entry.users == 1 {
            let blocks = entry.blocks;
            self.idle_blocks -= blocks;
            self.used_blocks += blocks;
            self.unlink(slot);
        }
    }

    fn add(&mut self, node: u32) -> u32 {
        let new = Slot { node, blocks: 0, users: 0, older: 0, younger: 0 };
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                self.slots.push(new);
                self.slots.len() as u32 - 1
            }
        }
    }

    fn push_youngest(&mut self, slot: u32) {
        let youngest = std::mem::replace(&mut self.slots[0].older, slot);
        self.slots[youngest as usize].younger = slot;
        let entry = &mut self.slots[slot as usize];
        (entry.older, entry.younger) = (youngest, 0);
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { older, younger, .. } = self.slots[slot as usize];
        self.slots[older as usize].younger = younger;
        self.slots[younger as usize].older = older;
    }
}
