//! From logits to a token, the same on every worker.
//!
//! In vLLM's order: `logit_bias`; no end before `min_tokens`; repetition, frequency and presence penalty; then greedy, or
//! temperature, `min_p`, `top_k`, `top_p` and a draw. Log-probabilities are of the raw logits.
//!
//! The draw for output index `i` depends on `(seed, i)` alone, and all arithmetic that decides is plain IEEE addition,
//! multiplication and division in a fixed order: neither batch neighbours nor the machine change the choice.

mod adjust;
mod draw;
mod filter;
mod logprobs;
mod math;

use super::{GeneratedToken, SamplingParams};
use adjust::History;
use filter::Candidate;

/// Temperatures below this are greedy, as in vLLM.
const GREEDY_BELOW: f32 = 1e-5;

/// Chooses the tokens of one sequence.
pub(super) struct Sampler {
    params: SamplingParams,
    /// Tokens that end the output.
    ends: Vec<u32>,
    /// Tokens that may not come before `min_tokens`.
    early: Vec<u32>,
    history: History,
    generated: u32,
}

/// Memory that sampling needs for a moment, kept from token to token.
#[derive(Default)]
pub(super) struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// Logits from which no token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadLogits(pub(super) &'static str);

impl Sampler {
    /// For a sequence that starts with `prompt`, and parameters that are valid.
    pub(super) fn new(params: SamplingParams, eos_token_ids: &[u32], prompt: &[u32]) -> Self {
        let early = [params.stop_token_ids.as_slice(), eos_token_ids].concat();
        let ends = if params.ignore_eos { params.stop_token_ids.clone() } else { early.clone() };
        Self { history: History::new(&params, prompt), params, ends, early, generated: 0 }
    }

    /// Chooses the next token from `logits`, `[vocab_size]`.
    pub(super) fn sample(
        &mut self,
        logits: &[f32],
        scratch: &mut Scratch,
    ) -> Result<GeneratedToken, BadLogits> {
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(BadLogits("a logit is not a number, or infinite"));
        }
        let id = self.choose(logits, scratch)?;
        let logprobs = self.params.logprobs.map(|top| logprobs::of(logits, id, top as usize));
        self.record(id);
        Ok(GeneratedToken { id, logprobs })
    }

    fn choose(&self, raw: &[f32], scratch: &mut Scratch) -> Result<u32, BadLogits> {
        let Scratch { logits, candidates } = scratch;
        logits.clear();
        logits.extend_from_slice(raw);
        adjust::add_bias(logits, &self.params.logit_bias);
        if self.generated < self.params.min_tokens {
            adjust::forbid(logits, &self.early);
        }
        self.history.penalise(logits, &self.params);

        let best = math::argmax(logits).ok_or(BadLogits("no token is allowed"))?;
        if self.params.temperature < GREEDY_BELOW {
            return Ok(best);
        }
        filter::fill(candidates, logits, logits[best as usize], self.params.temperature);
        filter::min_p(candidates, self.params.min_p);
        filter::top_k(candidates, self.params.top_k);
        filter::top_p(candidates, self.params.top_p);
        Ok(draw::pick(candidates, draw::uniform(self.params.seed, self.generated)))
    }

    /// Counts a token as generated.
    pub(super) fn record(&mut self, id: u32) {
        self.history.record(id);
        self.generated += 1;
    }

    /// Whether `id` ends the output.
    pub(super) fn ends_with(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Whether `max_tokens` are generated.
    pub(super) fn is_exhausted(&self) -> bool {
        self.generated >= self.params.max_tokens
    }
}

#[cfg(test)]
mod tests;
