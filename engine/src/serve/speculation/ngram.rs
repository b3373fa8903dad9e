//! Prompt lookup: what followed the last tokens where they stood before follows them again.
//!
//! The longest of the last `most` to `least` tokens that occurs earlier in prompt or output counts; of several places the latest,
//! because text repeats what it said last (a list goes on like its last entry, a revised file like the part just copied). vLLM
//! takes the earliest, of which more follows; here the copy goes on into the draft itself, so that a latest place is never too
//! short, and a repetition with a short period is drafted to any depth.

mod index;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
};

use super::{DraftRequest, Propose};
use index::NgramIndex;

/// Tokens that are put into an index before a step: a long prompt takes a few steps, and holds up none of them.
const INDEXED_AT_ONCE: usize = 1 << 15;

/// Proposes what a sequence's own tokens suggest. Needs no model and next to no time: a look-up for each length, whatever the
/// length of the context. Takes some eight bytes a token for each length.
pub struct NgramLookup {
    least: usize,
    most: usize,
    seed: u64,
    indexes: BTreeMap<u64, NgramIndex>,
}

impl NgramLookup {
    /// Looks up the last `most` tokens, then fewer, down to `least`.
    ///
    /// # Panics
    /// Unless `1 <= least <= most`.
    pub fn new(least: usize, most: usize) -> Self {
        assert!(1 <= least && least <= most, "n-grams of {least} to {most} tokens");
        // Whoever writes prompts must not know which n-grams share a slot.
        Self { least, most, seed: RandomState::new().hash_one(most), indexes: BTreeMap::new() }
    }

    fn follow(&mut self, request: &DraftRequest<'_>) -> Vec<u32> {
        let Self { least, most, seed, indexes } = self;
        let new = || NgramIndex::new(*least, *most, *seed);
        let index = indexes.entry(request.sequence).or_insert_with(new);
        if !index.extend(request.tokens, INDEXED_AT_ONCE) {
            return Vec::new();
        }
        let found = index.find_latest(request.tokens);
        found.map_or_else(Vec::new, |end| copy_from(request.tokens, end, request.most))
    }
}

impl Propose for NgramLookup {
    fn propose(&mut self, requests: &[DraftRequest<'_>]) -> Vec<Vec<u32>> {
        requests.iter().map(|request| self.follow(request)).collect()
    }

    fn keep_only(&mut self, is_live: &dyn Fn(u64) -> bool) {
        self.indexes.retain(|sequence, _| is_live(*sequence));
    }
}

/// `count` tokens from position `from` on, and after the last one those that were just copied.
fn copy_from(tokens: &[u32], from: usize, count: usize) -> Vec<u32> {
    let period = tokens.len() - from;
    (0..count).map(|i| tokens[from + i % period]).collect()
}

#[cfg(test)]
mod tests;
