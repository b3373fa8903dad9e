//! A step's sequences in the order of their adapters, and what those add.

use std::ops::Range;

use crate::{
    device::Device,
    kernels::{Batch, LowRankRows},
    model::{
        LoraAdapter, StepSequence,
        adapter::{AdapterWeights, Projection},
    },
};

/// The rows of a step that have an adapter: a run of rows for each.
pub(super) struct Adapted<'a, D: Device> {
    runs: Vec<(Range<usize>, &'a AdapterWeights<D>)>,
}

impl<'a, D: Device> Adapted<'a, D> {
    /// The batch of `sequences`, and who has which adapter.
    ///
    /// Sequences with the same adapter come together, so that its weights are read once; those without come first, in their
    /// order. Wanted rows stay in the order of `sequences`.
    pub(super) fn batch(sequences: &[StepSequence<'a>]) -> (Batch, Self) {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|index| sequences[*index].adapter.map_or(0, LoraAdapter::address));
        let (mut batch, mut runs) = (Batch::default(), Vec::new());
        let mut wanted = vec![0..0; sequences.len()];
        for index in order {
            let s = &sequences[index];
            let (first_row, first_wanted) = (batch.rows(), batch.wanted.len());
            batch.push(s.tokens, s.position, s.block_table, s.wanted_logits);
            wanted[index] = first_wanted..batch.wanted.len();
            if let Some(adapter) = s.adapter {
                add_run(&mut runs, first_row..batch.rows(), adapter);
            }
        }
        batch.wanted = wanted.into_iter().flat_map(|range| batch.wanted[range].to_vec()).collect();
        (batch, Self { runs })
    }

    /// What is added to a projection of layer `layer`; nothing, when no sequence of the step has an adapter that changes it.
    pub(super) fn changes(&self, layer: usize, projection: Projection) -> Vec<LowRankRows<'a, D::Matrix>> {
        let of_run = |(rows, weights): &(Range<usize>, &'a AdapterWeights<D>)| {
            weights.changes(layer, projection, rows.clone())
        };
        self.runs.iter().flat_map(of_run).collect()
    }
}

fn add_run<'a, D: Device>(
    runs: &mut Vec<(Range<usize>, &'a AdapterWeights<D>)>,
    rows: Range<usize>,
    adapter: &'a LoraAdapter,
) {
    let weights =
        adapter.weights::<AdapterWeights<D>>().expect("an adapter is used with the model that loaded it");
    match runs.last_mut() {
        Some((run, of)) if std::ptr::eq(*of, weights) => run.end = rows.end,
        _ => runs.push((rows, weights)),
    }
}
