//! The seam between running a model and deciding what to run: one step over a batch.

use super::LoraAdapter;
use crate::kv::{BlockId, KvLayout};

/// One sequence's share of a step: the next `tokens` of a sequence whose earlier tokens are in the KV cache already.
#[derive(Clone, Copy, Debug)]
pub struct StepSequence<'a> {
    /// Tokens to compute now, at least one.
    pub tokens: &'a [u32],
    /// Position of `tokens[0]` in the sequence.
    pub position: usize,
    /// Blocks of the sequence, in order; they cover at least `position + tokens.len()` tokens.
    pub block_table: &'a [BlockId],
    /// What computes them beside the model: the same for all tokens of a sequence.
    pub adapter: Option<&'a LoraAdapter>,
    /// After how many of `tokens`, the last ones, logits are wanted.
    pub wanted_logits: usize,
}

/// A model bound to a KV pool: runs steps.
///
/// Batch-invariant: what a sequence gets does not depend on the other sequences of the step, on how its prompt was cut
/// into steps, or on the number of threads.
pub trait Forward: Send {
    /// Entries of a logits row.
    fn vocab_size(&self) -> usize;

    /// Shape of the KV cache it reads and writes.
    fn kv_layout(&self) -> KvLayout;

    /// Blocks of the pool it is bound to.
    fn num_blocks(&self) -> usize;

    /// Longest sequence, in tokens.
    fn max_context_tokens(&self) -> usize;

    /// Computes `batch`, writes its keys and values, and returns the wanted logits, `[wanted, vocab_size]` in batch order, of a
    /// sequence in its own order.
    ///
    /// `on_layer(l)` is called on the calling thread as soon as the keys and values of layer `l` are in the pool, for
    /// l = 0, 1, … in order; it must be quick.
    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32];
}
