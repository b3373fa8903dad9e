//! The draw: a number from `(seed, index)`, and the token that it falls on.

use super::filter::{self, Candidate};

/// Uniform in [0, 1), a function of its arguments alone.
pub(super) fn uniform(seed: u64, index: u32) -> f64 {
    let bits = mix(mix(seed.wrapping_add(GOLDEN)) ^ u64::from(index).wrapping_mul(GOLDEN));
    // The 53 bits that a double holds exactly.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The candidate at `point` of the way through the weights, in the order given. There is at least one.
pub(super) fn pick(candidates: &[Candidate], point: f64) -> u32 {
    let target = point * filter::total(candidates);
    let mut passed = 0.0;
    for candidate in candidates {
        passed += f64::from(candidate.weight);
        if passed > target {
            return candidate.id;
        }
    }
    // Only rounding can bring us here.
    candidates.last().expect("the most likely token is always a candidate").id
}

/// 2^64 / golden ratio, the increment of SplitMix64 (Steele, Lea, Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: a bijection in which each bit of the input changes half of the output.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
