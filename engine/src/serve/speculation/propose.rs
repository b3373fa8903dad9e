//! The seam between guessing tokens and checking them.

use std::sync::Arc;

use crate::{kv::CacheScope, serve::SamplingParams};

/// Most tokens drafted for a sequence in a step.
pub const MAX_DRAFT_TOKENS: usize = 16;

/// How an engine speculates.
pub struct Speculation {
    /// Who proposes.
    pub proposer: Box<dyn Propose>,
    /// Most tokens drafted for a sequence in a step, 1 to [`MAX_DRAFT_TOKENS`].
    pub draft_tokens: usize,
    /// Whether fewer are drafted, or none, where drafts do not pay; otherwise always as many.
    pub is_adaptive: bool,
}

/// A sequence that generates, and for which tokens may be drafted.
#[derive(Clone, Copy, Debug)]
pub struct DraftRequest<'a> {
    /// Its number, the same each time. The smaller, the earlier it came.
    pub sequence: u64,
    /// Prompt and output so far, to which tokens are only ever added.
    pub tokens: &'a [u32],
    /// How many of these are the prompt.
    pub prompt_len: usize,
    /// How its tokens are chosen.
    pub sampling: &'a SamplingParams,
    /// With whom it shares what was computed.
    pub scope: Option<&'a Arc<CacheScope>>,
    /// Most tokens that are of use, at least one.
    pub most: usize,
}

/// Guesses what sequences generate next. Called on the engine's thread, which waits.
///
/// A guess may be anything: a wrong one costs time, never a token.
pub trait Propose: Send {
    /// For each of `requests`, the tokens that are likely to follow; empty when there is no good guess.
    fn propose(&mut self, requests: &[DraftRequest<'_>]) -> Vec<Vec<u32>>;

    /// Forgets all sequences but the live ones. Called after each step.
    fn keep_only(&mut self, is_live: &dyn Fn(u64) -> bool);
}
