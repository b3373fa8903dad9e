//! What callers hand to a running engine and what they get back.

use std::{ops::Range, sync::Arc, time::Instant};

use baton_grammar::Grammar;

use super::SequenceFailure;
use crate::{
    LoraAdapter,
    kv::{BlockId, CacheEvent, CacheScope},
};

/// One request, tokenised.
#[derive(Clone, Debug)]
pub struct SequenceRequest {
    /// The request's id, for logs.
    pub id: String,
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// When it is given up, wherever it is then.
    pub deadline: Option<Instant>,
    /// What computes it beside the engine's model, whose adapter it must be. It shares cached prefixes only with those that have the
    /// same.
    pub adapter: Option<LoraAdapter>,
    /// With whom it shares cached prefixes; `None`: with all that have none either.
    pub cache_salt: Option<String>,
}

impl SequenceRequest {
    /// For the model alone, without a deadline.
    pub fn new(id: impl Into<String>, prompt: Vec<u32>, sampling: SamplingParams) -> Self {
        Self { id: id.into(), prompt, sampling, deadline: None, adapter: None, cache_salt: None }
    }

    /// With whom it shares cached prefixes.
    pub(super) fn scope(&self) -> Option<Arc<CacheScope>> {
        let Self { adapter, cache_salt, .. } = self;
        let adapter = adapter.as_ref().map(|adapter| adapter.identity().clone());
        let is_special = adapter.is_some() || cache_salt.is_some();
        is_special.then(|| Arc::new(CacheScope { adapter, salt: cache_salt.clone() }))
    }
}

/// How the next token is chosen; validated by [`SamplingParams::validate`] on submission.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 = greedy.
    pub temperature: f32,
    /// Smallest set of tokens whose probability reaches this; 1 = off.
    pub top_p: f32,
    /// Most likely tokens kept; 0 = off.
    pub top_k: u32,
    /// Tokens kept are at least this likely, relative to the most likely one; 0 = off.
    pub min_p: f32,
    /// The draw for the token at index `i` of the output depends on `(seed, i)` alone, so any worker repeats it.
    pub seed: u64,
    /// Subtracted once from the logit of each generated token; 0 = off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a generated token for each time it occurs; 0 = off.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; 1 = off.
    pub repetition_penalty: f32,
    /// Most tokens to generate, at least 1.
    pub max_tokens: u32,
    /// No end-of-sequence or stop token before this many.
    pub min_tokens: u32,
    /// Generate on through the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Token ids that end the output, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// `Some(n)`: the chosen token's log-probability and the `n` most likely tokens'.
    pub logprobs: Option<u32>,
    /// Added to logits before anything else.
    pub logit_bias: Vec<(u32, f32)>,
    /// What the output must be: only tokens that it allows are generated, and it is complete where the output stops.
    pub grammar: Option<Grammar>,
}

/// Log-probabilities of one generated token, from the raw logits (before temperature and penalties).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub chosen: f32,
    /// Most likely first.
    pub top: Vec<(u32, f32)>,
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// Token id.
    pub id: u32,
    /// When asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence or stop token, which is the last token sent.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

/// What a request's channel carries; after `Finished` or `Failed` nothing follows.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceEvent {
    /// The prompt is computed; its first token follows. Absent when it was computed elsewhere.
    Prefilled(Prefilled),
    /// A new token.
    Token(GeneratedToken),
    /// The end, with where the time went.
    Finished(FinishReason, SequenceTiming),
    /// The sequence could not be finished.
    Failed(SequenceFailure),
}

/// How a prompt came to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefilled {
    /// Where the time went so far.
    pub timing: SequenceTiming,
    /// Tokens of the prompt whose keys and values were in the prefix cache.
    pub cached_tokens: usize,
}

/// What the first leg ends with: the prompt is computed, and every layer of it was reported to the [`PrefillSink`] before.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstToken {
    /// The token after the prompt.
    pub token: GeneratedToken,
    /// Set when the request ends with this token already.
    pub finish: Option<FinishReason>,
    /// Where the time went so far.
    pub timing: SequenceTiming,
    /// Tokens of the prompt whose keys and values were in the prefix cache.
    pub cached_tokens: usize,
}

/// Where a sequence's time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceTiming {
    /// From submission to the first step that computed it.
    pub queue_us: u64,
    /// From there to the first token.
    pub prefill_us: u64,
    /// First token to last.
    pub decode_us: u64,
}

/// Told on the engine's thread when keys and values of a prompt are final in the pool. Must not block for long, or panic,
/// which would end the engine.
///
/// When the request is cancelled, the step under way may still call it. The engine drops its reference when no call will follow.
pub trait PrefillSink: Send + Sync {
    /// Layers `layers` of the blocks at `blocks` (indices into the sequence's block table, whose ids are `ids`) hold their
    /// final contents and will not change while the sequence lives. Over a whole prompt each (layer, block) is reported exactly once.
    fn layers_ready(&self, layers: Range<usize>, blocks: Range<usize>, ids: &[BlockId]);
}

/// Told on the engine's thread what happens to the prefix cache, in order, after each step. Must not block, or panic.
pub trait CacheObserver: Send {
    /// What happened since the last call; never empty.
    fn changed(&mut self, events: Vec<CacheEvent>);

    /// All that is cached now, parents before their children, as [`Engine::tell_cache`](super::Engine::tell_cache) asked. What
    /// happened before is part of it, what happens after follows.
    fn all(&mut self, stored: Vec<CacheEvent>);
}

/// Shared handle of a [`PrefillSink`].
pub type SharedPrefillSink = Arc<dyn PrefillSink>;
