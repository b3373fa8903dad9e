//! What no split can exceed, without a simulation: work by time.

use std::collections::HashSet;

use baton_policy::dice::Dice;
use baton_profile::{Profile, pairs};
use baton_simulator::SimRequest;

use crate::{Objective, Sample, Split};

/// Work of a mean request, with everything in its favour: no queues, whatever was computed once is cached everywhere, prompts in full steps, those who
/// generate as many as is best, and of the requests only as many served as must be in time: those with the least work, as who is refused costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bound {
    /// Computing its prompt, ms of a worker.
    pub prefill_ms: f64,
    /// Generating its answer, ms of a worker.
    pub decode_ms: f64,
    /// The same in steps that compute prompts, too, and read the weights for both.
    pub beside_ms: f64,
}

impl Bound {
    /// For `sample` on workers like `profile`.
    #[must_use]
    pub fn new(sample: &Sample, profile: &Profile, objective: &Objective) -> Self {
        let requests = sample.requests();
        let count = requests.len().max(1) as f64;
        let served = (count * objective.share).ceil() as usize;
        let mut seen = HashSet::new();
        let prompt = |request: &SimRequest| {
            let cached = cached(request, &mut seen, profile.kv.block_tokens);
            prompt_ms(profile, u64::from(request.prompt_tokens) - cached, cached)
        };
        let mut prompts: Vec<f64> = requests.iter().map(prompt).collect();
        prompts.sort_unstable_by(f64::total_cmp);
        let prefill_ms = prompts.iter().take(served).sum::<f64>() / count;
        // The first token of each is its prompt's.
        let steps = |request: &SimRequest| f64::from(request.output_tokens - 1);
        let context = |request: &SimRequest| f64::from(request.prompt_tokens) + steps(request) / 2.0;
        let least = |of: &dyn Fn(&SimRequest) -> f64| {
            let mut requests: Vec<&SimRequest> = requests.iter().collect();
            requests.sort_by(|a, b| of(a).total_cmp(&of(b)));
            requests.truncate(served);
            requests
        };
        let all_steps: f64 = least(&steps).into_iter().map(steps).sum();
        if all_steps <= 0.0 {
            return Self { prefill_ms, decode_ms: 0.0, beside_ms: 0.0 };
        }
        let short = least(&context);
        let read: f64 = short.iter().map(|request| steps(request) * context(request)).sum();
        let context = read / short.into_iter().map(steps).sum::<f64>().max(1.0);
        let (mut decode_ms, mut beside_ms) = (f64::INFINITY, f64::INFINITY);
        for sequences in 1..=profile.limits.running {
            let tokens = context * f64::from(sequences);
            let step_ms = profile.decode.step_ms(sequences, tokens as u64);
            let is_possible = tokens <= profile.kv.capacity_tokens as f64 && step_ms <= objective.tpot_ms;
            if is_possible || sequences == 1 {
                let hidden = step_ms.min(profile.prefill.step_ms(sequences.into(), 0.0));
                decode_ms = decode_ms.min(step_ms / f64::from(sequences));
                beside_ms = beside_ms.min((step_ms - hidden) / f64::from(sequences));
            }
        }
        let steps = all_steps / count;
        Self { prefill_ms, decode_ms: decode_ms * steps, beside_ms: beside_ms * steps }
    }

    /// Requests a second that `split` can't exceed for long.
    #[must_use]
    pub fn per_second(&self, split: Split) -> f64 {
        let Self { prefill_ms, beside_ms, .. } = *self;
        let together = split.workers() as f64 / (prefill_ms + beside_ms).max(1e-9);
        let generating = split.decode as f64 / beside_ms.max(1e-9);
        // Who generates may compute prompts, too; nobody who prefills generates.
        together.min(generating) * 1e3
    }

    /// The same if every prompt is computed by a prefill worker.
    #[must_use]
    pub fn per_second_apart(&self, split: Split) -> f64 {
        if split.is_aggregated() {
            return self.per_second(split);
        }
        let prefilling = split.prefill as f64 / self.prefill_ms.max(1e-9) * 1e3;
        let generating = split.decode as f64 / self.decode_ms.max(1e-9) * 1e3;
        prefilling.min(generating).min(self.per_second(split))
    }
}

// In steps of its own, or in its share of full ones.
fn prompt_ms(profile: &Profile, new_tokens: u64, cached_tokens: u64) -> f64 {
    let full = u64::from(profile.limits.step_tokens);
    let shared = new_tokens as f64 / full as f64 * profile.prefill.step_ms(full, 0.0)
        + profile.prefill.piece(full).per_pair_ms * pairs(new_tokens, cached_tokens);
    shared.min(profile.prompt_ms(new_tokens, cached_tokens))
}

// Tokens of a prompt that are those of one before it. Beginnings are told apart by 64 bits.
fn cached(request: &SimRequest, seen: &mut HashSet<u64>, block_tokens: u32) -> u64 {
    let (mut tokens, mut is_known, mut beginning) = (0, true, 0);
    for piece in &request.pieces {
        beginning =
            Dice::new(beginning ^ Dice::new(piece.id ^ u64::from(piece.tokens) << 40).next_u64()).next_u64();
        let is_new = seen.insert(beginning);
        is_known &= !is_new;
        if is_known {
            tokens += piece.tokens;
        }
    }
    u64::from(tokens.min(request.prompt_tokens - 1) / block_tokens * block_tokens)
}
