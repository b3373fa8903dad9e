//! What a sequence has to do with drafts of its next tokens.

use super::Sequence;
use crate::{kv::KvLayout, serve::speculation::DraftRequest};

impl Sequence {
    /// Asks for at most `most` tokens that may come next.
    pub(in crate::serve) fn draft_request(&self, number: u64, most: usize) -> DraftRequest<'_> {
        DraftRequest {
            sequence: number,
            tokens: &self.tokens,
            prompt_len: self.prompt_len,
            sampling: self.sampler.params(),
            scope: self.scope.as_ref(),
            most,
        }
    }

    /// How many drafted tokens can be of use: after the last there is one more, which needs no draft.
    pub(in crate::serve) fn most_drafts(&self) -> usize {
        self.sampler.left().min(self.most_tokens.saturating_sub(self.tokens.len())).saturating_sub(1)
    }

    /// Cuts what can't be right.
    pub(in crate::serve) fn cut_draft(&mut self, draft: &mut Vec<u32>, vocab_size: usize) {
        let known = draft.iter().take_while(|id| (**id as usize) < vocab_size).count();
        draft.truncate(known);
        self.sampler.cut(draft);
    }

    /// Takes the blocks for `drafted` tokens, if there are any, and says for how many tokens it has room then.
    pub(in crate::serve) fn take_draft_blocks(&mut self, drafted: usize, layout: &KvLayout) -> usize {
        let needed = layout.blocks_for(self.tokens.len() + drafted);
        let missing = needed.saturating_sub(self.lease.len());
        if missing == 0 || self.lease.grow(missing).is_ok() {
            return drafted;
        }
        (self.lease.len() * layout.block_tokens).saturating_sub(self.tokens.len())
    }

    /// Gives back the blocks that it took for drafts beyond the `before` that it had, but for those of tokens that it has now.
    pub(in crate::serve) fn give_back_draft_blocks(&mut self, before: usize, layout: &KvLayout) {
        self.lease.shrink(before.max(layout.blocks_for(self.tokens.len())));
    }

    pub(in crate::serve) fn last_token(&self) -> u32 {
        self.tokens[self.tokens.len() - 1]
    }
}
