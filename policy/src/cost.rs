//! What work takes: linear models with few coefficients, which can be learned online and read by people.

use serde::{Deserialize, Serialize};

use crate::view::{Cached, Ms};

/// Share of a transfer that cannot overlap with computing: the last group of layers leaves when the prompt is done.
pub const TRANSFER_TAIL: f64 = 1.0 / 8.0;

/// Prompts beside those who generate are cut so that a step takes this share longer than without (`engine/src/serve/pace.rs`).
pub const BESIDE_ADDS: f64 = 0.6;

/// So a prompt takes so many times as long as alone, if none of it is hidden: of each step, only what was added computes it.
pub(crate) const BESIDE: f64 = (1.0 + BESIDE_ADDS) / BESIDE_ADDS;

/// One more sequence takes at least this share of what a step without any would take.
const LEAST_SEQUENCE_SHARE: f64 = 0.01;

/// Computing a prompt: `fixed + new·per_token + new·(cached + new/2)·per_pair`; the last is attention, each new token to all before it.
/// (DistServe's model, with cached tokens.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrefillCost {
    /// For each prompt, ms.
    pub fixed_ms: f64,
    /// For each token that is not cached, ms.
    pub per_token_ms: f64,
    /// For each pair of a new token and one before it, ms.
    pub per_pair_ms: f64,
}

/// One step of generation: `fixed + sequences·per_sequence + context tokens·per_context_token`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeCost {
    /// Reading the weights, ms.
    pub fixed_ms: f64,
    /// For each sequence, ms.
    pub per_sequence_ms: f64,
    /// For each KV token read, ms.
    pub per_context_token_ms: f64,
}

/// Moving KV blocks: `fixed + bytes·per_byte`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkCost {
    /// For each transfer, ms.
    pub fixed_ms: f64,
    /// For each byte, ms.
    pub per_byte_ms: f64,
}

/// A worker's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCosts {
    /// Of prompts.
    pub prefill: PrefillCost,
    /// Of generating.
    pub decode: DecodeCost,
    /// Fetching cached tokens into the memory that it computes from.
    pub tiers: TierCost,
    /// A prompt that is computed beside those who generate takes so many times as long as alone, as it is cut; at least 1.
    pub beside: f64,
}

/// Fetching a cached token, ms for each byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierCost {
    /// From host memory.
    pub host_per_byte_ms: f64,
    /// From disk.
    pub disk_per_byte_ms: f64,
}

impl Default for WorkerCosts {
    fn default() -> Self {
        Self {
            prefill: PrefillCost::default(),
            decode: DecodeCost::default(),
            tiers: TierCost::default(),
            beside: BESIDE,
        }
    }
}

/// A new fleet's, until something was measured: 8 billion parameters in bf16 on one H100 at 45 % of 990 TFLOP/s, attention of 32 layers of 4,096
/// (16 GFLOP and 0.52 MFLOP per pair); decoding at 70 % of 3.35 TB/s.
impl Default for PrefillCost {
    fn default() -> Self {
        Self { fixed_ms: 5.0, per_token_ms: 0.036, per_pair_ms: 1.2e-6 }
    }
}

impl Default for DecodeCost {
    fn default() -> Self {
        Self { fixed_ms: 7.0, per_sequence_ms: 0.04, per_context_token_ms: 5.6e-5 }
    }
}

/// A 400 Gb/s NIC at 80 %.
impl Default for LinkCost {
    fn default() -> Self {
        Self { fixed_ms: 0.5, per_byte_ms: 1.0 / 40.0e6 }
    }
}

/// PCIe 5 at 40 GB/s, NVMe at 6 GB/s.
impl Default for TierCost {
    fn default() -> Self {
        Self { host_per_byte_ms: 1.0 / 40.0e6, disk_per_byte_ms: 1.0 / 6.0e6 }
    }
}

impl PrefillCost {
    /// What the coefficients are multiplied with.
    #[must_use]
    pub fn features(new_tokens: u64, cached_tokens: u64) -> [f64; 3] {
        let (new, cached) = (new_tokens as f64, cached_tokens as f64);
        [1.0, new, new * (cached + new / 2.0)]
    }

    /// Time to compute `new_tokens` after `cached_tokens`.
    #[must_use]
    pub fn predict(&self, new_tokens: u64, cached_tokens: u64) -> Ms {
        let [one, new, pairs] = Self::features(new_tokens, cached_tokens);
        self.fixed_ms * one + self.per_token_ms * new + self.per_pair_ms * pairs
    }
}

impl DecodeCost {
    /// Time of a step.
    #[must_use]
    pub fn step_ms(&self, sequences: u32, context_tokens: u64) -> Ms {
        self.fixed_ms
            + self.per_sequence_ms * f64::from(sequences)
            + self.per_context_token_ms * context_tokens as f64
    }

    /// What one more sequence of `context_tokens` adds to each step. Who has only seen steps of one sequence can't tell what another one costs; that it costs nothing
    /// is never true, and would put all on one worker.
    #[must_use]
    pub fn added_ms(&self, context_tokens: f64) -> Ms {
        let sequence_ms = self.per_sequence_ms.max(self.fixed_ms * LEAST_SEQUENCE_SHARE);
        sequence_ms + self.per_context_token_ms * context_tokens
    }
}

impl LinkCost {
    /// Time of a transfer by itself.
    #[must_use]
    pub fn transfer_ms(&self, bytes: f64) -> Ms {
        if bytes <= 0.0 { 0.0 } else { self.fixed_ms + self.per_byte_ms * bytes }
    }

    /// What of a transfer remains to be waited for after a computation of `overlap_ms` during which it ran.
    #[must_use]
    pub fn exposed_ms(transfer_ms: Ms, overlap_ms: Ms) -> Ms {
        (transfer_ms * TRANSFER_TAIL).max(transfer_ms - overlap_ms)
    }
}

impl TierCost {
    /// Fetching what is cached elsewhere than where it is computed from.
    #[must_use]
    pub fn fetch_ms(&self, cached: &Cached, bytes_per_token: f64) -> Ms {
        bytes_per_token
            * (f64::from(cached.host_tokens) * self.host_per_byte_ms
                + f64::from(cached.disk_tokens) * self.disk_per_byte_ms)
    }
}
