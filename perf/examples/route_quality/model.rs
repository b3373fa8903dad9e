//! What work takes in the simulated cluster. Stated here, once; no policy of ours sees it.

use baton_policy::cost::{DecodeCost, LinkCost, PrefillCost};

/// 70 billion parameters in bf16 on four H100: 140 GFLOP a token at 45 % of 3.96 PFLOP/s, attention of 80 layers of 8,192.
pub(crate) const PREFILL: PrefillCost =
    PrefillCost { fixed_ms: 15.0, per_token_ms: 0.08, per_pair_ms: 1.5e-6 };
/// 140 GB of weights and 320 KiB of KV a token at 70 % of 13.4 TB/s.
pub(crate) const DECODE: DecodeCost =
    DecodeCost { fixed_ms: 15.0, per_sequence_ms: 0.05, per_context_token_ms: 3.4e-5 };
/// KV of one token: 80 layers, 8 heads of 128, keys and values in bf16.
pub(crate) const KV_BYTES_PER_TOKEN: f64 = 327_680.0;
/// Inside a zone, and across: 40 and 10 GB/s.
pub(crate) const LINKS: [LinkCost; 2] = [
    LinkCost { fixed_ms: 0.5, per_byte_ms: 1.0 / 40.0e6 },
    LinkCost { fixed_ms: 2.0, per_byte_ms: 1.0 / 10.0e6 },
];
/// 155 GB of KV.
pub(crate) const DECODE_KV_TOKENS: u64 = 470_000;
/// Prompt tokens of a decode worker's step.
pub(crate) const STEP_TOKENS: u64 = 8_192;
/// Beside those who generate, so many that the step takes this share longer, as Baton's engine cuts them.
pub(crate) const BESIDE_ADDS: f64 = 0.6;
/// How old views may become.
pub(crate) const REPORT_MS: f64 = 200.0;
/// Times vary by so much either way.
pub(crate) const NOISE: f64 = 0.05;

/// A factor around 1 that is the same in each run.
pub(crate) fn noise(request: usize) -> f64 {
    let mut dice = baton_policy::dice::Dice::new(request as u64 ^ 0x5eed);
    1.0 + NOISE * (2.0 * dice.unit() - 1.0)
}
