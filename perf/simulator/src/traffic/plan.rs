//! The plans of `baton-workload`, which the load generator sends, as traffic to be simulated.

use baton_workload::{Cancel as PlannedCancel, Fill, Plan, Planned, Start as PlannedStart};

use super::{Cancel, PromptPiece, SimRequest, Start, Traffic, TrafficError};

impl Traffic {
    /// What `plan` would send, as [`SimRequest::of_plan`] has it.
    ///
    /// # Errors
    /// [`TrafficError`].
    pub fn of_plan(plan: &Plan) -> Result<Self, TrafficError> {
        Self::try_new(SimRequest::of_plan(plan), plan.pacing().concurrency.unwrap_or(1) as usize)
    }
}

impl SimRequest {
    /// What `plan` would send. Its bound on requests in flight in an open loop is left out; of two pieces of one content and different lengths, the
    /// beginning that they share is not found; and where an earlier answer fails, the session goes on all the same.
    #[must_use]
    pub fn of_plan(plan: &Plan) -> Vec<Self> {
        let ends = plan.pacing().duration;
        let is_sent = |planned: &&Planned| match planned.start {
            PlannedStart::At(at) => ends.is_none_or(|end| at <= end),
            PlannedStart::WhenFree | PlannedStart::After { .. } => true,
        };
        // Indices stay what they are: what is not sent stands at the end of a plan that is in order of time.
        plan.requests().iter().take_while(is_sent).map(request).collect()
    }
}

fn request(planned: &Planned) -> SimRequest {
    let pieces: Vec<PromptPiece> = planned
        .prompt
        .pieces
        .iter()
        .map(|piece| PromptPiece {
            id: piece.id,
            tokens: piece.tokens,
            answer_of: match piece.fill {
                Fill::Answer { index } => Some(index),
                Fill::Made | Fill::Text(_) => None,
            },
        })
        .collect();
    SimRequest {
        start: match planned.start {
            PlannedStart::At(at) => Start::At(at.as_secs_f64() * 1e3),
            PlannedStart::WhenFree => Start::WhenFree,
            PlannedStart::After { index, think } => {
                Start::After { index, think_ms: think.as_secs_f64() * 1e3 }
            }
        },
        prompt_tokens: pieces.iter().map(|piece| piece.tokens).sum(),
        output_tokens: planned.output_tokens,
        pieces,
        cancel: planned.cancel.map(|cancel| match cancel {
            PlannedCancel::AfterTokens(tokens) => Cancel::AfterTokens(tokens),
            PlannedCancel::AfterTime(time) => Cancel::AfterMs(time.as_secs_f64() * 1e3),
        }),
    }
}
