//! What one step of an engine computes: all that its time depends on.

/// What a step computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepShape {
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// New tokens of prompts, each with the tokens before it: `new` after `cached` make `new·(cached + new/2)`.
    pub pairs: f64,
    /// Sequences that generate a token.
    pub sequences: u32,
    /// Tokens whose keys and values those sequences have.
    pub context_tokens: u64,
}

impl StepShape {
    /// With a prompt's part: `new` tokens after `cached`.
    pub fn prompt(&mut self, new: u64, cached: u64) {
        self.prompt_tokens += new;
        self.pairs += pairs(new, cached);
    }

    /// With a sequence that generates, which has `context` tokens.
    pub fn sequence(&mut self, context: u64) {
        self.sequences += 1;
        self.context_tokens += context;
    }
}

/// Pairs of `new` tokens after `cached` ones.
#[must_use]
pub fn pairs(new: u64, cached: u64) -> f64 {
    new as f64 * (cached as f64 + new as f64 / 2.0)
}
