//! One step: a batch for the model, and what comes out of it.

use std::time::Instant;

use baton_profile::StepShape;

use super::{
    core::Core,
    mailbox::Arrival,
    outcome::Outcomes,
    schedule::{self, StepLimits, Work},
    sequence::{FinalBlocks, Life},
    speculation::{DraftLimits, Drafts},
};
use crate::model::StepSequence;

impl Core {
    /// Computes one step and sends what it gave.
    pub(super) fn step(&mut self) {
        let begun = Instant::now();
        let layout = self.shared.layout;
        // What somebody else has computed since they were let in, they need not compute again.
        for sequence in self.running.values_mut() {
            sequence.share_cached(&layout, self.shared.config.layer_group);
        }
        let mut drafts = self.draft();
        let plan = self.plan(&drafts);
        let shape = self.shape(&plan);
        let timed = self.throttle.begin(&shape);
        let has_drafts = !drafts.is_empty();
        let Self { forward, shared, running, totals, scratch, drafter, pace, throttle, .. } = self;
        let started = Instant::now();
        for (arrival, _) in &plan {
            if let Some(sequence) = running.get_mut(arrival) {
                sequence.start(started);
            }
        }
        let batch: Vec<StepSequence<'_>> = plan
            .iter()
            .map(|(arrival, count)| {
                let sequence = &running[arrival];
                let draft = drafts.get(arrival);
                StepSequence {
                    tokens: draft.map_or_else(|| sequence.next_tokens(*count), |draft| draft.tokens()),
                    position: sequence.position(),
                    block_table: sequence.block_ids(),
                    adapter: sequence.adapter(),
                    wanted_logits: match draft {
                        Some(draft) => draft.tokens().len(),
                        None => usize::from(sequence.uncomputed() == *count),
                    },
                }
            })
            .collect();
        let final_blocks: Vec<FinalBlocks<'_>> = plan
            .iter()
            .filter_map(|(arrival, count)| running[arrival].final_blocks(*count, &layout))
            .collect();
        let logits = forward.step(&batch, &mut |layer| {
            if !final_blocks.is_empty() {
                timed.wait((layer + 1) as f64 / layout.layers as f64);
            }
            report_layer(layer, layout.layers, shared.config.layer_group, &final_blocks);
        });
        totals.steps += 1;
        throttle.end(&timed);

        let now = Instant::now();
        let drafted: usize = drafts.values().map(|draft| draft.guesses().len()).sum();
        pace.observe(&shape, drafted, now - started);
        if shape.prompt_tokens == 0 {
            totals.decode.note(shape.sequences.into(), shape.context_tokens, now - started);
        }
        if let Some(drafter) = drafter
            && shape.prompt_tokens == 0
        {
            let rows = plan.iter().map(|(_, count)| count).sum();
            drafter.observe_step(rows, plan.len(), now - started);
        }
        let rows = logits.chunks_exact(shared.vocab_size);
        let mut outcomes = Outcomes { rows, shared, totals, scratch, now };
        for (arrival, count) in plan {
            let Some(sequence) = running.get_mut(&arrival) else { continue };
            let life = match (drafts.remove(&arrival), &mut *drafter) {
                (Some(draft), Some(drafter)) => {
                    let (accepted, life) = outcomes.check(sequence, draft.guesses());
                    drafter.note(arrival, draft.guesses().len(), accepted);
                    sequence.give_back_draft_blocks(draft.blocks_before, &layout);
                    life
                }
                _ => outcomes.take(sequence, count),
            };
            if life == Life::Ended {
                running.remove(&arrival);
            }
        }
        if !has_drafts {
            self.shared.steps.note(shape, begun.elapsed());
        }
    }

    fn shape(&self, plan: &[(Arrival, usize)]) -> StepShape {
        let mut shape = StepShape::default();
        for (arrival, count) in plan {
            let sequence = &self.running[arrival];
            match sequence.is_decoding() {
                true => shape.sequence(sequence.position() as u64),
                false => shape.prompt(*count as u64, sequence.position() as u64),
            }
        }
        shape
    }

    /// Guesses the next tokens of those that generate, if the engine speculates.
    fn draft(&mut self) -> Drafts {
        let limits = self.limits();
        let Self { drafter, running, shared, .. } = self;
        let Some(drafter) = drafter else { return Drafts::new() };
        let generating = running.values().filter(|sequence| sequence.is_decoding()).count();
        let tokens = schedule::most_drafts(generating, generating < running.len(), limits);
        let limits = DraftLimits { layout: &shared.layout, vocab_size: shared.vocab_size, tokens };
        drafter.draft(running, limits)
    }

    fn plan(&self, drafts: &Drafts) -> Vec<(Arrival, usize)> {
        let work: Vec<Work> = self
            .running
            .iter()
            .map(|(arrival, sequence)| Work {
                arrival: *arrival,
                computed: sequence.position(),
                uncomputed: sequence.uncomputed(),
                is_decoding: sequence.is_decoding(),
                drafted: drafts.get(arrival).map_or(0, |draft| draft.guesses().len()),
            })
            .collect();
        schedule::plan_step(&work, self.limits())
    }

    fn limits(&self) -> StepLimits {
        let (config, block) = (&self.shared.config, self.shared.layout.block_tokens);
        let tokens = config.max_step_tokens;
        let paced = || {
            let mut generating = StepShape::default();
            let sequences = self.running.values().filter(|sequence| sequence.is_decoding());
            sequences.for_each(|sequence| generating.sequence(sequence.position() as u64));
            let mut prompts = self.running.values().filter(|sequence| !sequence.is_decoding());
            let computed = prompts.next().map_or(0, |prompt| prompt.position());
            self.pace.prompt_tokens(&generating, computed, tokens.max(block))
        };
        StepLimits {
            tokens,
            mixed_prompt_tokens: config.mixed_prompt_tokens.unwrap_or_else(paced),
            least_prompt_tokens: block,
            prompt_costs: self.pace.prompt_costs(),
        }
    }
}

/// Tells the sinks of all first legs in a step about a group of layers, once its last layer is computed.
fn report_layer(layer: usize, layers: usize, group: usize, final_blocks: &[FinalBlocks<'_>]) {
    let first = layer - layer % group;
    if layer + 1 < layers && layer + 1 < first + group {
        return;
    }
    for blocks in final_blocks {
        blocks.report(first..layer + 1);
    }
}
