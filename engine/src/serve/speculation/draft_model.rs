//! Guesses by a smaller model with the same tokens.
//!
//! It follows each sequence in a KV pool of its own: it computes the prompt (which may have come over the network, or out of the
//! other model's prefix cache), then round by round one guess for every sequence that generates, all in one step of the draft model.
//! Prompts are computed in chunks, a chunk's worth for each round of guesses at most, so those who generate meanwhile hardly wait.
//! What it computed of prompts goes into a prefix cache of its pool.
//!
//! A guess is chosen as the sampler chooses, with the same draw, but without what follows from the tokens before (penalties,
//! grammar, `min_tokens`): greedy requests get the most likely token, sampled ones the token at the same place of a distribution
//! that is alike. A greedy guess would be right for those only as often as the most likely token is drawn.

mod follower;

use std::collections::BTreeMap;

use super::{DraftRequest, MAX_DRAFT_TOKENS, Propose};
use crate::{
    kv::{BlockAllocator, CacheMode, KvLayout},
    model::{Forward, StepSequence},
    serve::sampler::{self, Scratch},
};
use follower::Follower;

/// Tokens that follow their sequence's guesses at once; more are a prompt.
const FEW: usize = MAX_DRAFT_TOKENS + 1;

/// Proposes what a draft model would generate.
pub struct DraftModel {
    forward: Box<dyn Forward>,
    layout: KvLayout,
    allocator: BlockAllocator,
    /// Tokens of prompts computed before a step.
    chunk_tokens: usize,
    followers: BTreeMap<u64, Follower>,
    scratch: Scratch,
}

/// A request and what is guessed for it so far.
struct Guesses<'a> {
    request: &'a DraftRequest<'a>,
    drafted: Vec<u32>,
    /// Whether another guess may be made.
    goes_on: bool,
}

/// One sequence's part of a step of the draft model.
struct Part {
    index: usize,
    tokens: Vec<u32>,
    is_whole: bool,
}

impl DraftModel {
    /// Guesses with `forward`, whose KV pool is for this alone. Prompts are computed `chunk_tokens` at a time.
    ///
    /// # Panics
    /// When `chunk_tokens` is 0.
    pub fn new(forward: Box<dyn Forward>, chunk_tokens: usize) -> Self {
        assert!(chunk_tokens > 0, "a prompt is computed some tokens at a time");
        let mode = CacheMode { is_on: true, keeps_events: false };
        Self {
            layout: forward.kv_layout(),
            allocator: BlockAllocator::new(forward.num_blocks(), mode, || ()),
            forward,
            chunk_tokens,
            followers: BTreeMap::new(),
            scratch: Scratch::default(),
        }
    }

    /// One guess more for everybody whose tokens are computed by then.
    fn round(&mut self, all: &mut [Guesses<'_>], chunk_left: &mut usize) {
        let parts: Vec<Part> = all
            .iter_mut()
            .enumerate()
            .filter(|(_, guesses)| guesses.goes_on)
            .filter_map(|(index, guesses)| {
                let part = self.part(index, guesses, chunk_left);
                guesses.goes_on = part.as_ref().is_some_and(|part| part.is_whole);
                part
            })
            .collect();
        if parts.is_empty() {
            return;
        }
        let Self { forward, followers, scratch, .. } = self;
        let batch: Vec<StepSequence<'_>> = parts
            .iter()
            .map(|part| {
                let follower = &followers[&all[part.index].request.sequence];
                StepSequence {
                    tokens: &part.tokens,
                    position: follower.computed(),
                    block_table: follower.block_ids(),
                    adapter: None,
                    wanted_logits: usize::from(part.is_whole),
                }
            })
            .collect();
        let vocab_size = forward.vocab_size();
        let mut rows = forward.step(&batch, &mut |_| ()).chunks_exact(vocab_size);
        for part in parts {
            let Guesses { request, drafted, goes_on } = &mut all[part.index];
            if let Some(follower) = followers.get_mut(&request.sequence) {
                follower.advance(part.tokens.len());
            }
            if let Some(row) = part.is_whole.then(|| rows.next()).flatten() {
                let index = request.tokens.len() - request.prompt_len + drafted.len();
                let guess = sampler::guess(request.sampling, index, row, scratch);
                drafted.extend(guess);
                *goes_on = guess.is_some() && drafted.len() < request.most;
            }
        }
    }

    /// What to compute for a sequence now; nothing if there is no room for it.
    fn part(&mut self, index: usize, guesses: &Guesses<'_>, chunk_left: &mut usize) -> Option<Part> {
        let Guesses { request, drafted, .. } = guesses;
        let follower = self.followers.get_mut(&request.sequence)?;
        let all = request.tokens.len() + drafted.len();
        let left = all - follower.computed();
        let count = if left <= FEW { left } else { left.min(*chunk_left) };
        let known = self.forward.vocab_size();
        let tokens: Vec<u32> =
            request.tokens.iter().chain(drafted).skip(follower.computed()).take(count).copied().collect();
        let fits = all < self.forward.max_context_tokens()
            && count > 0
            && tokens.iter().all(|token| (*token as usize) < known)
            && follower.make_room(count, &self.layout);
        if !fits {
            return None;
        }
        if left > FEW {
            *chunk_left -= count;
        }
        Some(Part { index, tokens, is_whole: count == left })
    }
}

impl Propose for DraftModel {
    fn propose(&mut self, requests: &[DraftRequest<'_>]) -> Vec<Vec<u32>> {
        for request in requests {
            let follower = self
                .followers
                .entry(request.sequence)
                .or_insert_with(|| Follower::new(self.allocator.lease()));
            follower.see(request, &self.layout);
        }
        let mut all: Vec<Guesses<'_>> =
            requests.iter().map(|request| Guesses { request, drafted: Vec::new(), goes_on: true }).collect();
        let mut chunk_left = self.chunk_tokens;
        while all.iter().any(|guesses| guesses.goes_on) {
            self.round(&mut all, &mut chunk_left);
        }
        for Guesses { request, drafted, .. } in &all {
            if let Some(follower) = self.followers.get_mut(&request.sequence) {
                follower.remember(request.tokens.len(), drafted);
            }
        }
        all.into_iter().map(|guesses| guesses.drafted).collect()
    }

    fn keep_only(&mut self, is_live: &dyn Fn(u64) -> bool) {
        self.followers.retain(|sequence, _| is_live(*sequence));
    }
}
