//! How far the draft model has come in one sequence.

use super::DraftRequest;
use crate::kv::{BlockId, BlockLease, Duplicate, KvLayout, Prefix};

/// The draft model's blocks of a sequence.
pub(super) struct Follower {
    lease: BlockLease,
    /// Tokens whose keys and values are computed.
    computed: usize,
    /// Blocks of the lease, from the first, that are in the prefix cache.
    stored_blocks: usize,
    is_cacheable: bool,
    /// Tokens that the sequence had when guesses were last made, and those guesses.
    seen: usize,
    guessed: Vec<u32>,
}

impl Follower {
    pub(super) fn new(lease: BlockLease) -> Self {
        Self { lease, computed: 0, stored_blocks: 0, is_cacheable: true, seen: 0, guessed: Vec::new() }
    }

    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    pub(super) fn block_ids(&self) -> &[BlockId] {
        self.lease.ids()
    }

    /// Takes note of what the sequence has become: guesses that were wrong are not computed any more, and what others computed of
    /// its prompt need not be.
    pub(super) fn see(&mut self, request: &DraftRequest<'_>, layout: &KvLayout) {
        let right = request.tokens[self.seen..].iter().zip(&self.guessed).take_while(|(a, b)| a == b).count();
        // The last token is computed in any case, for what comes after it.
        self.computed = self.computed.min(self.seen + right).min(request.tokens.len() - 1);
        self.guessed.clear();
        self.seen = request.tokens.len();
        self.share_and_store(request, layout);
    }

    fn share_and_store(&mut self, request: &DraftRequest<'_>, layout: &KvLayout) {
        let block_tokens = layout.block_tokens;
        let prefix = |tokens| Prefix { tokens, block_tokens, scope: request.scope };
        if self.is_cacheable && self.computed == self.stored_blocks * block_tokens {
            let sharable = prefix(&request.tokens[..request.tokens.len() - 1]);
            self.stored_blocks = self.lease.share_cached(self.stored_blocks, &sharable);
            self.computed = self.stored_blocks * block_tokens;
        }
        let full = self.computed / block_tokens;
        if self.is_cacheable && full > self.stored_blocks {
            let computed = prefix(&request.tokens[..self.computed]);
            self.stored_blocks = self.lease.store(self.stored_blocks, full, &computed, Duplicate::Free);
            self.is_cacheable = self.stored_blocks == full;
        }
    }

    /// Takes the blocks for `count` more tokens; says whether there were any. Who gets none waits for others to end.
    pub(super) fn make_room(&mut self, count: usize, layout: &KvLayout) -> bool {
        let missing = layout.blocks_for(self.computed + count).saturating_sub(self.lease.len());
        missing == 0 || self.lease.grow(missing).is_ok()
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// What was guessed after `seen` tokens.
    pub(super) fn remember(&mut self, seen: usize, guessed: &[u32]) {
        self.seen = seen;
        self.guessed.extend_from_slice(guessed);
    }
}
