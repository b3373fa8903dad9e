//! The free blocks of a pool, as a bitmap that hands out ascending runs.

use super::BlockId;

/// Free blocks; one bit each.
///
/// Blocks are taken upwards from where the last ones were taken: a prompt gets neighbouring blocks where it can, which a
/// transfer moves as one piece, and a block that was just freed is the last to be used again.
pub(super) struct FreeSet {
    words: Vec<u64>,
    total: usize,
    /// Block at which the next search starts.
    cursor: usize,
}

impl FreeSet {
    /// Blocks `0..total`, all free.
    pub(super) fn full(total: usize) -> Self {
        let mut words = vec![u64::MAX; total.div_ceil(64)];
        if let (Some(last), rest @ 1..) = (words.last_mut(), total % 64) {
            *last = (1 << rest) - 1;
        }
        Self { words, total, cursor: 0 }
    }

    /// Moves `wanted` blocks to the end of `into`. There must be that many.
    pub(super) fn take(&mut self, wanted: usize, into: &mut Vec<BlockId>) {
        let mut left = wanted;
        let mut words_passed = 0;
        while left > 0 {
            let (word, bit) = (self.cursor / 64, self.cursor % 64);
            let found = (self.words[word] & (u64::MAX << bit)).trailing_zeros();
            if found < 64 {
                self.words[word] &= !(1 << found);
                self.cursor = word * 64 + found as usize;
                into.push(BlockId(u32::try_from(self.cursor).expect("block ids are 32 bits")));
                self.cursor += 1;
                left -= 1;
            } else {
                self.cursor = (word + 1) * 64;
                words_passed += 1;
                assert!(words_passed <= self.words.len() + 1, "the free set does not hold {wanted} blocks");
            }
            if self.cursor >= self.total {
                self.cursor = 0;
            }
        }
    }

    /// Makes `block` free.
    pub(super) fn put(&mut self, block: BlockId) {
        self.words[block.0 as usize / 64] |= 1 << (block.0 % 64);
    }
}
