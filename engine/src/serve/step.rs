//! One step: a batch for the model, and what comes out of it.

use std::time::Instant;

use super::{
    core::Core,
    schedule::{self, StepLimits, Work},
    sequence::{FinalBlocks, Life},
};
use crate::model::StepSequence;

impl Core {
    /// Computes one step and sends what it gave.
    pub(super) fn step(&mut self) {
        let Self { forward, shared, running, totals, scratch, .. } = self;
        let layout = &shared.layout;
        // What somebody else has computed since they were let in, they need not compute again.
        for sequence in running.values_mut() {
            sequence.share_cached(layout, shared.config.layer_group);
        }
        let work: Vec<Work> = running
            .iter()
            .map(|(arrival, sequence)| Work {
                arrival: *arrival,
                uncomputed: sequence.uncomputed(),
                is_decoding: sequence.is_decoding(),
            })
            .collect();
        let limits = StepLimits {
            tokens: shared.config.max_step_tokens,
            mixed_prompt_tokens: shared.config.mixed_prompt_tokens,
            least_prompt_tokens: layout.block_tokens,
        };
        let plan = schedule::plan_step(&work, limits);
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
                StepSequence {
                    tokens: sequence.next_tokens(*count),
                    position: sequence.position(),
                    block_table: sequence.block_ids(),
                    wanted_logits: usize::from(sequence.uncomputed() == *count),
                }
            })
            .collect();
        let final_blocks: Vec<FinalBlocks<'_>> = plan
            .iter()
            .filter_map(|(arrival, count)| running[arrival].final_blocks(*count, layout))
            .collect();
        let logits = forward.step(&batch, &mut |layer| {
            report_layer(layer, layout.layers, shared.config.layer_group, &final_blocks);
        });
        totals.steps += 1;

        let now = Instant::now();
        let mut rows = logits.chunks_exact(shared.vocab_size);
        for (arrival, count) in plan {
            let Some(sequence) = running.get_mut(&arrival) else { continue };
            let (of_prompt, again) = sequence.advance(count);
            totals.prompt_tokens += of_prompt as u64;
            totals.recomputed_tokens += again as u64;
            sequence.store_computed(layout);
            if sequence.uncomputed() > 0 {
                continue;
            }
            let row = rows.next().expect("the model gives a row of logits for each sequence that wants one");
            totals.generation_tokens += 1;
            if sequence.output_len() == 0 && shared.config.prefix_cache {
                totals.prefix_query_tokens += sequence.prompt_len() as u64;
                totals.prefix_hit_tokens += sequence.cached_tokens() as u64;
            }
            if sequence.sample(row, scratch, now) == Life::Ended {
                running.remove(&arrival);
            }
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
