//! Every decision as a record: what was chosen, from what, why, on how old a view, and what then happened.

mod explain;
mod ring;

pub use explain::{WhatIf, explain, what_if};
pub use ring::Ring;

use serde::{Deserialize, Serialize};

use crate::{
    decide::Decision,
    estimate::{Sides, Terms, Weights},
    view::{FleetView, Ms, RequestView},
};

/// A candidate with the parts of its cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Who would have computed the prompt; `None`: the decode worker.
    pub prefill: Option<String>,
    /// Who would have generated.
    pub decode: String,
    /// The parts, before weights.
    pub terms: Terms,
    /// Age of the older of the two workers' reports; `None`: one has never reported.
    pub report_age_ms: Option<Ms>,
}

/// What happened then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Waiting for the prompt to be computed.
    pub queue_ms: Ms,
    /// Computing it.
    pub prefill_ms: Ms,
    /// From the last layer computed until it could generate.
    pub transfer_ms: Ms,
    /// From then until the first step that generated for it.
    #[serde(default)]
    pub decode_wait_ms: Ms,
    /// Bytes of KV blocks that were moved.
    #[serde(default)]
    pub moved_bytes: u64,
    /// Of the link while they were, as the prefill worker saw it; 0: nobody did.
    #[serde(default)]
    pub link_bytes_per_second: u64,
    /// Time to first token.
    pub ttft_ms: Ms,
    /// From the first token to the last.
    pub decode_ms: Ms,
    /// Tokens that it generated.
    pub output_tokens: u64,
    /// Tokens of the prompt that were cached.
    pub cached_tokens: u64,
    /// It was served otherwise than decided, or not at all.
    pub failed: bool,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The request's id.
    pub request_id: String,
    /// When it was decided.
    pub at: Ms,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens that it was thought to generate.
    pub expected_output_tokens: f64,
    /// What each part counted.
    pub weights: Weights,
    /// The cheapest candidates, cheapest first.
    pub choices: Vec<Choice>,
    /// Which of them it was.
    pub winner: usize,
    /// How many workers were eligible.
    pub fleet_workers: usize,
    /// What happened, once it is known.
    pub outcome: Option<Outcome>,
}

impl Record {
    /// Of a decision that has just been made on `fleet`.
    #[must_use]
    pub fn new(
        request_id: String,
        decision: &Decision,
        weights: Weights,
        fleet: &FleetView,
        request: &RequestView<'_>,
        now: Ms,
    ) -> Self {
        let sides = Sides::new(fleet, request, decision.prefill_workers, now);
        let choices = decision
            .candidates
            .iter()
            .map(|candidate| Choice {
                prefill: candidate.prefill.map(|index| fleet.workers[index].id.to_string()),
                decode: fleet.workers[candidate.decode].id.to_string(),
                terms: sides.all(candidate.prefill, candidate.decode),
                report_age_ms: [candidate.prefill.unwrap_or(candidate.decode), candidate.decode]
                    .map(|index| fleet.workers[index].report_age(now))
                    .into_iter()
                    .reduce(f64::max)
                    .filter(|age| age.is_finite()),
            })
            .collect();
        Self {
            request_id,
            at: now,
            prompt_tokens: request.prompt_tokens,
            expected_output_tokens: request.expected_output_tokens,
            weights,
            choices,
            winner: decision.winner,
            fleet_workers: fleet.workers.len(),
            outcome: None,
        }
    }

    /// What the cheapest other candidate would have cost more than the winner; `None` when there was no other.
    #[must_use]
    pub fn margin_ms(&self) -> Option<Ms> {
        let cost = |choice: &Choice| choice.terms.cost(&self.weights);
        let own = cost(self.choices.get(self.winner)?);
        let others = self.choices.iter().enumerate().filter(|&(index, _)| index != self.winner);
        others.map(|(_, choice)| cost(choice) - own).reduce(f64::min)
    }
}
