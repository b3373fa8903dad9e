//! Which tokens a draw may give.

use std::cmp::Ordering;

use super::math;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    /// Probability relative to that of the most likely token, in (0, 1].
    pub(super) weight: f32,
}

/// All tokens that are not forbidden, by id. `best` is the largest of `logits`.
pub(super) fn fill(candidates: &mut Vec<Candidate>, logits: &[f32], best: f32, temperature: f32) {
    candidates.clear();
    candidates.extend(
        (0..)
            .zip(logits)
            .map(|(id, logit)| Candidate { id, weight: math::exp((logit - best) / temperature) }),
    );
    candidates.retain(|candidate| candidate.weight > 0.0);
}

/// Keeps the tokens at least `min_p` times as likely as the most likely one; 0 keeps all.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    if min_p > 0.0 {
        candidates.retain(|candidate| candidate.weight >= min_p);
    }
}

/// Keeps the `k` most likely tokens, of equal ones those with the lowest ids, and the order by id; 0 keeps all.
pub(super) fn top_k(candidates: &mut Vec<Candidate>, k: u32) {
    let k = k as usize;
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, more_likely_first);
        candidates.truncate(k);
        candidates.sort_unstable_by_key(|candidate| candidate.id);
    }
}

/// Keeps the smallest set of most likely tokens whose probability, among the candidates, reaches `p`, sorted; 1 keeps all.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let wanted = f64::from(p) * total(candidates);
    // Few tokens are enough as a rule: sort ever larger heads rather than the whole vocabulary.
    let mut sorted = 0;
    let mut reached = 0.0;
    while sorted < candidates.len() {
        let tail = &mut candidates[sorted..];
        let head = tail.len().min(sorted.max(64) * 4);
        if head < tail.len() {
            tail.select_nth_unstable_by(head - 1, more_likely_first);
        }
        tail[..head].sort_unstable_by(more_likely_first);
        for candidate in &tail[..head] {
            reached += f64::from(candidate.weight);
            sorted += 1;
            if reached >= wanted {
                candidates.truncate(sorted);
                return;
            }
        }
    }
}

/// Sum of the weights, in order.
pub(super) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

fn more_likely_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}
