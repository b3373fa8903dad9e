//! A shorter context than the model was made for.

use baton_engine::{Forward, KvLayout, StepSequence};

/// `inner` with at most `max_context_tokens` tokens in a sequence.
pub(crate) struct LimitedContext<F> {
    pub(crate) inner: F,
    pub(crate) max_context_tokens: usize,
}

impl<F: Forward> Forward for LimitedContext<F> {
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn kv_layout(&self) -> KvLayout {
        self.inner.kv_layout()
    }

    fn num_blocks(&self) -> usize {
        self.inner.num_blocks()
    }

    fn max_context_tokens(&self) -> usize {
        self.max_context_tokens
    }

    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        self.inner.step(batch, on_layer)
    }
}
