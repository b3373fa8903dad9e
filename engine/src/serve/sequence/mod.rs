//! One request inside the engine: its tokens, its blocks, and where its results go.

mod blocks;
mod clock;
mod delivery;
mod drafts;

use std::{sync::Arc, time::Instant};

use tokio::sync::{mpsc, oneshot};

use super::{
    FirstToken, GeneratedToken, SequenceEvent, SequenceFailure, SequenceRequest, SharedPrefillSink,
    sampler::Sampler,
};
use crate::{
    LoraAdapter,
    kv::{BlockLease, CacheScope, HeldBlocks},
    model::AdapterUse,
};
use clock::Clock;

pub(super) use blocks::FinalBlocks;

/// A sequence. Its keys and values are computed up to `computed`; the tokens after that are the next to be computed.
///
/// What the prefix cache holds of it counts as computed, wherever it was computed before. When it is preempted `computed` goes
/// back to 0 and what is not cached then is computed again, which gives the same tokens: kernels do not see how the sequence was
/// cut into steps, and the sampler draws by index.
pub(super) struct Sequence {
    pub(super) deadline: Option<Instant>,
    id: String,
    /// Prompt, then output.
    tokens: Vec<u32>,
    prompt_len: usize,
    computed: usize,
    /// Largest `computed` there has been.
    computed_before: usize,
    /// Tokens of the prompt that it found in the prefix cache, rather than computing them a first time.
    cached_tokens: usize,
    /// Blocks of the lease, from the first, that are in the prefix cache.
    stored_blocks: usize,
    /// Whether the next full block can be added to those.
    is_cacheable: bool,
    adapter: Option<AdapterUse>,
    scope: Option<Arc<CacheScope>>,
    lease: BlockLease,
    /// Length at which it ends, whatever `max_tokens` says: the context, or the whole pool.
    most_tokens: usize,
    sampler: Sampler,
    leg: Leg,
    clock: Clock,
}

/// What is computed for whom.
pub(super) enum Leg {
    /// Every token, for a [`SequenceHandle`](super::SequenceHandle).
    Whole { events: mpsc::Sender<SequenceEvent> },
    /// The prompt and one token, for a [`PrefillHandle`](super::PrefillHandle). Never preempted: its blocks were reported.
    First {
        reply: Option<oneshot::Sender<Result<FirstToken, SequenceFailure>>>,
        sink: SharedPrefillSink,
        held: HeldBlocks,
    },
}

/// Whether a sequence goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    GoesOn,
    Ended,
}

impl Leg {
    pub(super) fn first(
        reply: oneshot::Sender<Result<FirstToken, SequenceFailure>>,
        sink: SharedPrefillSink,
        held: HeldBlocks,
    ) -> Self {
        Self::First { reply: Some(reply), sink, held }
    }
}

impl Sequence {
    /// With an empty lease.
    pub(super) fn new(
        request: SequenceRequest,
        eos_token_ids: &[u32],
        most_tokens: usize,
        lease: BlockLease,
        leg: Leg,
    ) -> Self {
        let scope = request.scope();
        let SequenceRequest { id, prompt, sampling, deadline, adapter, cache_salt: _ } = request;
        Self {
            deadline,
            id,
            prompt_len: prompt.len(),
            computed: 0,
            computed_before: 0,
            cached_tokens: 0,
            stored_blocks: 0,
            is_cacheable: true,
            adapter: adapter.map(AdapterUse::new),
            scope,
            lease,
            most_tokens,
            sampler: Sampler::new(sampling, eos_token_ids, &prompt),
            tokens: prompt,
            leg,
            clock: Clock { submitted: Instant::now(), started: None, first_token: None },
        }
    }

    /// Goes on after a token that another worker sampled, with the prompt computed.
    pub(super) fn resume_after(&mut self, first: GeneratedToken) {
        self.computed = self.prompt_len;
        self.computed_before = self.prompt_len;
        self.clock.first_token = Some(self.clock.submitted);
        self.sampler.record(first.id);
        self.tokens.push(first.id);
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// Tokens of the prompt that it need not compute because somebody had computed them before.
    pub(super) fn cached_tokens(&self) -> usize {
        self.cached_tokens
    }

    pub(super) fn output_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Tokens to compute before the next one can be sampled.
    pub(super) fn uncomputed(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether it generates: one token a step, or more with drafts.
    pub(super) fn is_decoding(&self) -> bool {
        self.output_len() > 0 && self.uncomputed() == 1
    }

    /// The next `count` tokens to compute.
    pub(super) fn next_tokens(&self, count: usize) -> &[u32] {
        &self.tokens[self.computed..self.computed + count]
    }

    /// Position of the first token that is not computed.
    pub(super) fn position(&self) -> usize {
        self.computed
    }

    /// What computes it beside the model.
    pub(super) fn adapter(&self) -> Option<&LoraAdapter> {
        self.adapter.as_ref().map(AdapterUse::adapter)
    }

    /// Notes that it was let in, or has to wait again.
    pub(super) fn set_running(&mut self, is_running: bool) {
        if let Some(adapter) = &mut self.adapter {
            adapter.set_running(is_running);
        }
    }

    /// Notes the first step that computes it.
    pub(super) fn start(&mut self, now: Instant) {
        self.clock.started.get_or_insert(now);
    }

    /// Notes that `count` tokens were computed; says how many of them were of the prompt, and how many again.
    pub(super) fn advance(&mut self, count: usize) -> (usize, usize) {
        let again = self.computed_before.min(self.computed + count).saturating_sub(self.computed);
        (self.pass(count), again)
    }

    /// Goes on by `count` tokens; says how many of the prompt it has come by for the first time.
    fn pass(&mut self, count: usize) -> usize {
        let from = self.computed.max(self.computed_before);
        self.computed += count;
        self.computed_before = self.computed_before.max(self.computed);
        self.prompt_len.min(self.computed).saturating_sub(from)
    }
}

impl Drop for Sequence {
    /// A cancelled sequence is just dropped.
    fn drop(&mut self) {
        self.release();
    }
}
