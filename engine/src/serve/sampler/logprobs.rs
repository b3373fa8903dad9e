//! Log-probabilities of raw logits, for the client to read: nothing is decided by them.

use super::math;
use crate::serve::TokenLogprobs;

/// Log-probability of `chosen` and of the `top` most likely tokens, of equal ones the lowest ids first.
pub(super) fn of(logits: &[f32], chosen: u32, top: usize) -> TokenLogprobs {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(math::exp(logit - best))).sum();
    let norm = f64::from(best) + sum.ln();
    let logprob = |id: u32| (f64::from(logits[id as usize]) - norm) as f32;
    let top = most_likely(logits, top).into_iter().map(|id| (id, logprob(id))).collect();
    TokenLogprobs { chosen: logprob(chosen), top }
}

/// The `count` most likely tokens. `count` is small: one pass, with an insertion into a short list.
fn most_likely(logits: &[f32], count: usize) -> Vec<u32> {
    let mut top: Vec<u32> = Vec::with_capacity(count + 1);
    for (id, logit) in (0_u32..).zip(logits) {
        let is_full = top.len() == count;
        if is_full && top.last().is_none_or(|last| logits[*last as usize] >= *logit) {
            continue;
        }
        let place = top.partition_point(|other| logits[*other as usize] >= *logit);
        top.insert(place, id);
        top.truncate(count);
    }
    top
}
