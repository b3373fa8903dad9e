//! What there is and what happened.

use super::{ENTRY_BYTES, Index, blocks::Blocks};

/// State and history of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Blocks that somebody holds or is expected to hold.
    pub blocks: usize,
    /// Hashes of engines that blocks are known by.
    pub names: usize,
    /// Different sets of two or more holders.
    pub sets: usize,
    /// Memory taken.
    pub bytes: usize,
    /// Blocks stored, by all workers.
    pub stored: u64,
    /// Blocks removed, by all workers.
    pub removed: u64,
    /// Blocks dropped to stay within the memory.
    pub evicted: u64,
    /// Blocks that were not indexed because what they follow is not known.
    pub orphans: u64,
    /// Removals of what was not indexed.
    pub unknown_removals: u64,
    /// Blocks of guesses.
    pub guessed: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) removed: u64,
    pub(super) evicted: u64,
    pub(super) orphans: u64,
    pub(super) unknown_removals: u64,
    pub(super) guessed: u64,
}

impl Index {
    /// State and history.
    pub fn stats(&self) -> IndexStats {
        let Counts { stored, removed, evicted, orphans, unknown_removals, guessed } = self.counts;
        IndexStats {
            blocks: self.blocks.len(),
            names: self.names.len(),
            sets: self.sets.len(),
            bytes: self.blocks.bytes() + self.names.bytes() + self.sets.bytes() + self.spares.bytes(),
            stored,
            removed,
            evicted,
            orphans,
            unknown_removals,
            guessed,
        }
    }

    /// Memory by the worst sizes of entries, which bounds what is taken.
    pub(super) fn charged(&self) -> usize {
        let (entries, groups) = self.blocks.used();
        (entries + self.names.len()) * ENTRY_BYTES + groups * Blocks::GROUP_BYTES + self.sets.bytes()
    }
}
