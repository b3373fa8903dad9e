//! A sequence's blocks: how many it needs, which become final when, and giving them back.

use std::ops::Range;

use super::{Leg, Sequence};
use crate::{
    kv::{BlockAllocator, BlockId, BlockLease, HeldBlocks, KvLayout},
    serve::SharedPrefillSink,
};

/// Blocks that become final in a step.
pub(in crate::serve) struct FinalBlocks<'a> {
    pub(in crate::serve) sink: &'a SharedPrefillSink,
    pub(in crate::serve) blocks: Range<usize>,
    pub(in crate::serve) ids: &'a [BlockId],
}

impl Sequence {
    /// Takes over blocks that were reserved.
    pub(in crate::serve) fn adopt(&mut self, reserved: BlockLease) {
        if let Leg::Whole { lease, .. } = &mut self.leg {
            *lease = reserved;
        }
    }

    /// Whether its blocks can be taken away and computed again.
    pub(in crate::serve) fn is_preemptible(&self) -> bool {
        matches!(self.leg, Leg::Whole { .. }) && !self.block_ids().is_empty()
    }

    /// Whether it needs more blocks as it generates.
    pub(in crate::serve) fn grows(&self) -> bool {
        matches!(self.leg, Leg::Whole { .. })
    }

    pub(in crate::serve) fn block_ids(&self) -> &[BlockId] {
        match &self.leg {
            Leg::Whole { lease, .. } => lease.ids(),
            Leg::First { held, .. } => held.ids(),
        }
    }

    /// Blocks to take before it may run: all that its tokens need, and, when it grows, room for the next token.
    pub(in crate::serve) fn blocks_wanted(&self, layout: &KvLayout) -> usize {
        let owned = self.block_ids().len();
        let needed = layout.blocks_for(self.tokens.len());
        match self.leg {
            _ if owned >= needed => 0,
            Leg::Whole { .. } => layout.blocks_for(self.tokens.len() + 1) - owned,
            Leg::First { .. } => needed,
        }
    }

    /// Whether the next token's keys and values need a block that it does not have.
    pub(in crate::serve) fn is_out_of_blocks(&self, layout: &KvLayout) -> bool {
        self.block_ids().len() < layout.blocks_for(self.tokens.len())
    }

    /// Takes `blocks` blocks; says whether the pool had them.
    pub(in crate::serve) fn take_blocks(&mut self, allocator: &BlockAllocator, blocks: usize) -> bool {
        if blocks == 0 {
            return true;
        }
        match &mut self.leg {
            Leg::Whole { lease, .. } => lease.grow(blocks).is_ok(),
            Leg::First { held, .. } => {
                let mut lease = allocator.lease();
                let taken = lease.grow(blocks).is_ok();
                if taken {
                    held.fill(lease);
                }
                taken
            }
        }
    }

    /// Gives its blocks to others; it is to be computed again.
    pub(in crate::serve) fn preempt(&mut self) {
        self.computed = 0;
        self.release();
    }

    /// The blocks whose contents become final when `count` more tokens are computed; only a first leg has a use for them.
    pub(in crate::serve) fn final_blocks(&self, count: usize, layout: &KvLayout) -> Option<FinalBlocks<'_>> {
        let Leg::First { sink, held, .. } = &self.leg else { return None };
        let end = self.computed + count;
        let full = end / layout.block_tokens;
        let last = if end == self.tokens.len() { layout.blocks_for(end) } else { full };
        let blocks = self.computed / layout.block_tokens..last;
        (!blocks.is_empty()).then(|| FinalBlocks { sink, ids: &held.ids()[blocks.clone()], blocks })
    }

    /// Returns the blocks, or leaves them to whoever holds them.
    pub(super) fn release(&mut self) {
        match &mut self.leg {
            Leg::Whole { lease, .. } => lease.clear(),
            Leg::First { held, .. } => {
                held.mark_held();
                *held = HeldBlocks::pending();
            }
        }
    }
}
