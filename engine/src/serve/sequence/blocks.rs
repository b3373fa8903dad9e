//! A sequence's blocks: how many it needs, which are cached, which become final when, and giving them back.

use std::{ops::Range, sync::Arc};

use super::{Leg, Sequence};
use crate::{
    kv::{
        BlockAllocator, BlockId, BlockLease, CacheScope, Duplicate, HeldBlocks, KvLayout, OutOfBlocks, Prefix,
    },
    serve::{SharedPrefillSink, schedule::Wanted},
};

/// Blocks that become final in a step.
pub(in crate::serve) struct FinalBlocks<'a> {
    pub(in crate::serve) sink: &'a SharedPrefillSink,
    pub(in crate::serve) blocks: Range<usize>,
    pub(in crate::serve) ids: &'a [BlockId],
}

impl FinalBlocks<'_> {
    pub(in crate::serve) fn report(&self, layers: Range<usize>) {
        self.sink.layers_ready(layers, self.blocks.clone(), self.ids);
    }
}

impl Sequence {
    /// Takes over blocks that were reserved, of which the first ones are shared.
    pub(in crate::serve) fn adopt(
        &mut self,
        reserved: BlockLease,
        shared_blocks: usize,
        block_tokens: usize,
    ) {
        (self.lease, self.stored_blocks) = (reserved, shared_blocks);
        if self.computed == 0 {
            self.cached_tokens = self.pass(shared_blocks * block_tokens);
        }
    }

    /// Whether its blocks can be taken away and computed again.
    pub(in crate::serve) fn is_preemptible(&self) -> bool {
        self.grows() && !self.lease.is_empty()
    }

    /// Whether it needs more blocks as it generates.
    pub(in crate::serve) fn grows(&self) -> bool {
        matches!(self.leg, Leg::Whole { .. })
    }

    pub(in crate::serve) fn block_ids(&self) -> &[BlockId] {
        self.lease.ids()
    }

    /// What it has to be given before it may run: blocks for all its tokens and, when it grows, room for the next one.
    pub(in crate::serve) fn blocks_wanted(&self, allocator: &BlockAllocator, layout: &KvLayout) -> Wanted {
        let owned = self.lease.len();
        if owned >= layout.blocks_for(self.tokens.len()) {
            return Wanted::default();
        }
        // Cached blocks take the places of its own where it has some already.
        let (cached, idle) = if owned == 0 {
            allocator.probe(&sharable(&self.tokens, self.scope.as_ref(), layout))
        } else {
            (0, 0)
        };
        let needed = layout.blocks_for(self.tokens.len() + usize::from(self.grows()));
        Wanted { fresh: needed - owned - cached, idle }
    }

    /// Whether the next token's keys and values need a block that it does not have.
    pub(in crate::serve) fn is_out_of_blocks(&self, layout: &KvLayout) -> bool {
        self.lease.len() < layout.blocks_for(self.tokens.len())
    }

    /// Takes `blocks` more blocks.
    pub(in crate::serve) fn take_blocks(&mut self, blocks: usize) -> Result<(), OutOfBlocks> {
        self.lease.grow(blocks)
    }

    /// Takes cached blocks for what it has not computed yet. A first leg's sink is told of them, `layer_group` layers at a time.
    pub(in crate::serve) fn share_cached(&mut self, layout: &KvLayout, layer_group: usize) {
        let (from, block_tokens) = (self.stored_blocks, layout.block_tokens);
        let is_at_the_end_of_them = self.computed == from * block_tokens;
        if !self.is_cacheable || !is_at_the_end_of_them || self.uncomputed() <= block_tokens {
            return;
        }
        let Self { tokens, scope, lease, .. } = self;
        self.stored_blocks = lease.share_cached(from, &sharable(tokens, scope.as_ref(), layout));
        self.cached_tokens += self.pass((self.stored_blocks - from) * block_tokens);
        if let Some(shared) = self.reported(from..self.stored_blocks) {
            for first in (0..layout.layers).step_by(layer_group) {
                shared.report(first..layout.layers.min(first + layer_group));
            }
        }
    }

    /// Puts the blocks that are full and computed into the prefix cache.
    pub(in crate::serve) fn store_computed(&mut self, layout: &KvLayout) {
        let (from, to) = (self.stored_blocks, self.computed / layout.block_tokens);
        if !self.is_cacheable || from >= to {
            return;
        }
        let tokens = &self.tokens[..self.computed];
        let prefix = Prefix { tokens, block_tokens: layout.block_tokens, scope: self.scope.as_ref() };
        let duplicate = if self.grows() { Duplicate::Free } else { Duplicate::Retain };
        self.stored_blocks = self.lease.store(from, to, &prefix, duplicate);
        self.is_cacheable = self.stored_blocks == to;
    }

    /// Gives its blocks to others; what of them is gone when its turn comes again is computed again.
    pub(in crate::serve) fn preempt(&mut self) {
        (self.computed, self.stored_blocks, self.is_cacheable) = (0, 0, true);
        self.set_running(false);
        self.release();
    }

    /// The blocks whose contents become final when `count` more tokens are computed; only a first leg has a use for them.
    pub(in crate::serve) fn final_blocks(&self, count: usize, layout: &KvLayout) -> Option<FinalBlocks<'_>> {
        let end = self.computed + count;
        let full = end / layout.block_tokens;
        let last = if end == self.tokens.len() { layout.blocks_for(end) } else { full };
        self.reported(self.computed / layout.block_tokens..last)
    }

    fn reported(&self, blocks: Range<usize>) -> Option<FinalBlocks<'_>> {
        let Leg::First { sink, .. } = &self.leg else { return None };
        (!blocks.is_empty()).then(|| FinalBlocks { sink, ids: &self.lease.ids()[blocks.clone()], blocks })
    }

    /// Returns the blocks, or leaves them to whoever holds them.
    pub(super) fn release(&mut self) {
        match &mut self.leg {
            Leg::Whole { .. } => self.lease.clear(),
            Leg::First { held, .. } if !self.lease.is_empty() => {
                held.fill(self.lease.take());
                *held = HeldBlocks::pending();
            }
            Leg::First { .. } => {}
        }
    }
}

/// All of a sequence that others may have computed: its last token it computes itself, for the logits.
fn sharable<'a>(tokens: &'a [u32], scope: Option<&'a Arc<CacheScope>>, layout: &KvLayout) -> Prefix<'a> {
    Prefix { tokens: &tokens[..tokens.len() - 1], block_tokens: layout.block_tokens, scope }
}
