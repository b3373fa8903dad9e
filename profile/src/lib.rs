//! What work takes at a pair of workers: a small JSON file, measured (`baton tune profile`) or estimated from data sheets ([`Estimate`]).
//!
//! The simulator computes with it, the tuner fits it to what workers report, and a worker told to (`--pace`) takes as long for each step as it says.
//! Beside it: the same learned while serving ([`Regression`]), and how engines fill steps by it ([`batching`]).
//!
//! Left out: times that vary by chance, and whatever depends on more than a step's [`StepShape`].
#![forbid(unsafe_code)]

pub mod batching;
mod cost;
mod estimate;
mod file;
mod hardware;
mod regression;
mod shape;

pub use cost::{DecodePiece, DecodeTimes, PieceError, PrefillPiece, PrefillTimes, step_ms};
pub use estimate::{Assumptions, Estimate, EstimateError};
pub use file::{FORMAT, ProfileError, VERSION, ValueError};
pub use hardware::{ACCELERATORS, Accelerator, MODELS, ModelShape};
pub use regression::Regression;
pub use shape::{StepShape, pairs};

use serde::{Deserialize, Serialize};

/// A worker of each kind, and the way between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// For people: model, machine.
    pub name: String,
    /// Where its numbers come from.
    pub source: Source,
    /// Steps with prompts.
    pub prefill: PrefillTimes,
    /// Steps of those who generate.
    pub decode: DecodeTimes,
    /// Moving KV blocks.
    pub transfer: Transfer,
    /// A worker's KV memory.
    pub kv: KvMemory,
    /// How its engine batches.
    #[serde(default)]
    pub limits: Limits,
    /// Time outside of engines.
    #[serde(default)]
    pub overhead: Overhead,
    /// From starting a worker to its first request, seconds.
    #[serde(default)]
    pub startup_s: f64,
}

/// Where a profile's numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Workers were measured.
    Measured,
    /// Computed from data sheets, by [`Estimate`].
    Estimated,
}

/// Moving KV blocks from a prefill worker to a decode worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// From the last write to "all is here and checked", and back to the engine, ms.
    pub latency_ms: f64,
    /// Of a worker's link, each way.
    pub bytes_per_second: f64,
    /// Each piece takes as long beside its bytes, microseconds.
    pub per_piece_us: f64,
    /// Pieces that a KV block is written in: one for each layer, if a layer's keys and values lie together.
    pub pieces_per_block: u32,
    /// Groups of layers: each is sent as soon as it is computed, so of a step's blocks only the last group waits for the end of the step.
    pub layer_groups: u32,
}

/// A worker's KV memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvMemory {
    /// Keys and values of one token over all layers.
    pub bytes_per_token: f64,
    /// What fits.
    pub capacity_tokens: u64,
    /// Tokens of a block.
    pub block_tokens: u32,
}

/// How an engine batches: the options of a worker that bear on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// `--max-step-tokens`.
    pub step_tokens: u32,
    /// `--prefill-chunk-tokens`; none: as many as make a step 1.6 times as long as without prompts, as the engine does.
    pub mixed_prompt_tokens: Option<u32>,
    /// `--max-running`.
    pub running: u32,
    /// Output tokens that a reservation has room for from the start.
    pub growth_tokens: u32,
}

/// Time outside of engines, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overhead {
    /// Client to sidecar and back: in every time to first token.
    pub request_ms: f64,
    /// From a reservation at the decode worker until whoever computes the prompt has the request.
    pub call_ms: f64,
}

impl Default for Limits {
    /// The worker's own defaults.
    fn default() -> Self {
        Self { step_tokens: 512, mixed_prompt_tokens: None, running: 64, growth_tokens: 64 }
    }
}

impl Transfer {
    /// What moving `tokens` takes a link that does nothing else, ms, without the latency.
    #[must_use]
    pub fn link_ms(&self, tokens: u64, kv: &KvMemory) -> f64 {
        let pieces = tokens.div_ceil(u64::from(kv.block_tokens)) * u64::from(self.pieces_per_block);
        tokens as f64 * kv.bytes_per_token / self.bytes_per_second * 1e3
            + pieces as f64 * self.per_piece_us / 1e3
    }
}

impl KvMemory {
    /// Blocks that fit.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.capacity_tokens / u64::from(self.block_tokens)
    }

    /// Blocks that `tokens` take.
    #[must_use]
    pub fn blocks_for(&self, tokens: u64) -> u64 {
        tokens.div_ceil(u64::from(self.block_tokens))
    }
}

impl Profile {
    /// A step that computes this, ms.
    #[must_use]
    pub fn step_ms(&self, shape: &StepShape) -> f64 {
        step_ms(&self.prefill, &self.decode, shape)
    }

    /// A whole prompt alone: `new_tokens` after `cached_tokens`, in as many steps as it takes, ms.
    #[must_use]
    pub fn prompt_ms(&self, new_tokens: u64, cached_tokens: u64) -> f64 {
        let chunk = u64::from(self.limits.step_tokens);
        let (full, rest) = (new_tokens / chunk, new_tokens % chunk);
        let mut ms = 0.0;
        if full > 0 {
            let piece = self.prefill.piece(chunk);
            let tokens = full * chunk;
            ms += piece.fixed_ms * full as f64
                + piece.per_token_ms * tokens as f64
                + piece.per_pair_ms * pairs(tokens, cached_tokens);
        }
        if rest > 0 {
            ms += self.prefill.step_ms(rest, pairs(rest, cached_tokens + full * chunk));
        }
        ms
    }
}
