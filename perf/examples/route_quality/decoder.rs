//! A decode worker: continuous batching, in steps.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use crate::{model, trace::Request};

#[derive(Default)]
pub(crate) struct Decoder {
    /// Runnable, but without room yet.
    pub(crate) waiting: VecDeque<usize>,
    /// Prompts to be computed here.
    pub(crate) local: VecDeque<Local>,
    pub(crate) is_stepping: bool,
    pub(crate) context_tokens: u64,
    pub(crate) reserved_tokens: u64,
    // By the step after which they end.
    running: BinaryHeap<Reverse<(u64, usize)>>,
    first_at: HashMap<usize, f64>,
    steps: u64,
    step_ms: f64,
    chunk_tokens: u64,
}

/// A prompt that is computed here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) request: usize,
    pub(crate) done: u64,
    /// Of the steps that computed it.
    pub(crate) took_ms: f64,
    pub(crate) is_alone: bool,
}

impl Local {
    pub(crate) fn new(request: usize) -> Self {
        Self { request, done: 0, took_ms: 0.0, is_alone: true }
    }
}

/// What a step did.
#[derive(Default)]
pub(crate) struct Stepped {
    pub(crate) step_ms: f64,
    pub(crate) sequences: usize,
    pub(crate) context_tokens: u64,
    pub(crate) had_prompt: bool,
    pub(crate) prefilled: Vec<Local>,
    /// With the time of their first token.
    pub(crate) finished: Vec<(usize, f64)>,
}

impl Decoder {
    pub(crate) fn sequences(&self) -> usize {
        self.running.len()
    }

    /// Takes in those for whom there is room, in order.
    pub(crate) fn admit(&mut self, requests: &[Request], now: f64) -> Vec<usize> {
        let mut admitted = Vec::new();
        while let Some(&index) = self.waiting.front() {
            let request = &requests[index];
            let needed = request.prompt_tokens + request.output_tokens;
            if self.reserved_tokens + needed > model::DECODE_KV_TOKENS && self.reserved_tokens > 0 {
                break;
            }
            self.waiting.pop_front();
            self.reserved_tokens += needed;
            self.context_tokens += request.prompt_tokens;
            self.first_at.insert(index, now);
            // Its first token is there; a step at least passes before it is seen to be the last.
            self.running.push(Reverse((self.steps + (request.output_tokens - 1).max(1), index)));
            admitted.push(index);
        }
        admitted
    }

    /// The time of the next step; `None` when there is nothing to do.
    pub(crate) fn begin_step(&mut self, requests: &[Request]) -> Option<f64> {
        self.chunk_tokens = 0;
        let decode_ms = match self.running.len() {
            0 => 0.0,
            count => model::DECODE.step_ms(count as u32, self.context_tokens),
        };
        let mut prompt_ms = 0.0;
        if let Some(prompt) = self.local.front_mut() {
            let left = requests[prompt.request].prompt_tokens - prompt.done;
            (self.chunk_tokens, prompt_ms) = chunk(left, prompt.done, decode_ms);
            prompt.took_ms += prompt_ms + decode_ms;
            prompt.is_alone &= decode_ms == 0.0;
        }
        if self.running.is_empty() && self.chunk_tokens == 0 {
            return None;
        }
        self.is_stepping = true;
        self.step_ms = prompt_ms + decode_ms;
        Some(self.step_ms)
    }

    pub(crate) fn end_step(&mut self, requests: &[Request]) -> Stepped {
        self.is_stepping = false;
        self.steps += 1;
        let mut stepped = Stepped {
            step_ms: self.step_ms,
            sequences: self.running.len(),
            context_tokens: self.context_tokens,
            had_prompt: self.chunk_tokens > 0,
            ..Stepped::default()
        };
        self.context_tokens += self.running.len() as u64;
        while let Some(&Reverse((end, index))) = self.running.peek()
            && end <= self.steps
        {
            self.running.pop();
            let request = &requests[index];
            let generated = (request.output_tokens - 1).max(1);
            self.context_tokens -= request.prompt_tokens + generated;
            self.reserved_tokens -= request.prompt_tokens + request.output_tokens;
            stepped.finished.push((index, self.first_at.remove(&index).unwrap_or_default()));
        }
        if self.chunk_tokens > 0
            && let Some(prompt) = self.local.front_mut()
        {
            prompt.done += self.chunk_tokens;
            if prompt.done >= requests[prompt.request].prompt_tokens {
                stepped.prefilled.push(*prompt);
                self.waiting.push_back(prompt.request);
                self.local.pop_front();
            }
        }
        stepped
    }
}

/// Tokens of a prompt that a step computes beside `decode_ms` of generation, and what they add to it. The weights are read once for both.
fn chunk(left: u64, done: u64, decode_ms: f64) -> (u64, f64) {
    let cost = model::PREFILL;
    if decode_ms == 0.0 {
        let tokens = left.min(model::STEP_TOKENS);
        return (tokens, cost.predict(tokens, done));
    }
    let per_token_ms = cost.per_token_ms + cost.per_pair_ms * done as f64;
    let tokens = ((decode_ms * model::BESIDE_ADDS / per_token_ms) as u64).clamp(1, left);
    (tokens, cost.predict(tokens, done) - cost.fixed_ms)
}
