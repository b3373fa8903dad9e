//! Computing a prompt where it decodes, beside those who generate there.

use super::{MOST_UTILISATION, RECOMPUTE_PRICE, Sides};
use crate::{
    cost::BESIDE_ADDS,
    estimate::term::{Term, Terms, Weights},
    view::{Ms, WorkerView},
};

/// A millisecond by which others' tokens come later counts like one of waiting. But who was promised a time per token is not served better by more: what stays within
/// counts this much, so that idle prefill workers are still preferred, and what does not is [`Term::ObjectiveOthers`].
const WITHIN_PROMISE: f64 = 0.25;

impl Sides<'_> {
    /// What computing the prompt where it decodes costs at least, whoever is there.
    #[must_use]
    pub fn local_floor(&self, compute_ms: Ms, weights: &Weights) -> f64 {
        compute_ms * (weights.get(Term::Prefill) + weights.get(Term::PrefillOthers) * RECOMPUTE_PRICE)
    }

    /// The terms of computing the prompt where it decodes: steps are shared with those who generate there, and all of them take longer.
    #[must_use]
    pub fn local(&self, index: usize, compute_ms: Ms) -> Terms {
        let worker = self.worker(index);
        let mut terms = self.prefill(index, compute_ms);
        if worker.sequences() == 0 {
            return terms;
        }
        let others = f64::from(worker.sequences());
        let ahead_ms = terms.get(Term::Queue);
        let took_ms = compute_ms * worker.costs.beside;
        // Each of them ends later by what this adds to the steps, and keeps its memory for longer: the fuller, the more wait for that.
        let full = worker.kv_used_share().min(MOST_UTILISATION);
        let weight = if self.request.objective.tpot_ms.is_some() { WITHIN_PROMISE } else { 1.0 };
        let delayed = added_ms(took_ms) * others * weight / (1.0 - full);
        let step_ms = worker.costs.decode.step_ms(worker.sequences(), worker.context_tokens());
        let slow = |prompts_ms| self.promise.slow(self.tpot_ms(worker, step_ms, prompts_ms));
        terms.set(Term::Prefill, took_ms);
        terms.set(Term::PrefillOthers, terms.get(Term::PrefillOthers) + delayed);
        terms.set(Term::ObjectiveOthers, others * (slow(ahead_ms + took_ms) - slow(ahead_ms)));
        terms
    }

    /// Time per token of those who generate at `worker`, where a step without prompts takes `step_ms`: some have prompts as often as they did lately, and `prompts_ms`
    /// of prompts come on top while one answer is generated.
    pub(super) fn tpot_ms(&self, worker: &WorkerView, step_ms: Ms, prompts_ms: Ms) -> Ms {
        let (_, busy) = worker.own.recent.rates(self.fleet.traffic.factor(), self.now);
        let most = step_ms * BESIDE_ADDS;
        step_ms + (most * busy + added_ms(prompts_ms) / self.output).min(most)
    }
}

/// What prompts that take `took_ms` beside those who generate add to their steps.
fn added_ms(took_ms: Ms) -> Ms {
    took_ms * BESIDE_ADDS / (1.0 + BESIDE_ADDS)
}
