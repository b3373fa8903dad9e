//! How near each operator of a forward pass comes to what the machine allows.
//!
//! ```text
//! a step of the real model on `device::Metered` ──► calls, time, bytes, operations of each operator ─┐
//! `Limits::measure`: reading memory, loops of products ──────────────────────────────────────────────┴─► time / least time
//! ```

mod limits;

use std::{collections::BTreeMap, path::Path, time::Duration};

pub use limits::Limits;

use crate::{
    BlockId, Forward as _, LoadError, LoadOptions, StepSequence, device::Note, kv::KvMemory,
    model::MeteredModel,
};

const BLOCK_TOKENS: usize = 16;

/// A model with a clock on each of its operators, computing in bf16 on the CPU.
pub struct Roofline {
    model: MeteredModel,
    limits: Limits,
}

/// A step whose operators are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepShape {
    /// A prompt of so many tokens.
    Prefill(usize),
    /// One token of each of `batch` sequences, which have `context` tokens.
    Decode {
        /// Sequences.
        batch: usize,
        /// Tokens of each.
        context: usize,
    },
}

/// What an operator did in a step, all its calls together.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorRow {
    /// Its name, with the shape of its weights.
    pub operator: String,
    /// Calls in a step.
    pub calls: u64,
    /// Time in a step, the median of all steps.
    pub time: Duration,
    /// Bytes that it must move.
    pub bytes: u64,
    /// Multiplications and additions of its products; 0 where they count for little.
    pub operations: u64,
    /// The least time by the machine's limits: of its bytes or of its operations, whichever is longer.
    pub least: Duration,
}

impl OperatorRow {
    /// The part of the limit that it reached; above 1 if its bytes came from a cache.
    pub fn reached(&self) -> f64 {
        self.least.as_secs_f64() / self.time.as_secs_f64()
    }
}

impl Roofline {
    /// Loads the model in `folder` and measures the machine; `options` says with what weights, instructions and threads.
    ///
    /// # Errors
    /// The model can't be loaded.
    pub fn load(folder: &Path, options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        let model = MeteredModel::load(folder, options)?;
        let limits = Limits::measure(model.isa(), options.threads)
            .map_err(|source| LoadError::OutOfMemory { bytes: limits::READ_BYTES, source })?;
        Ok(Self { model, limits })
    }

    /// The machine's limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The operators of a step, the longest first; `steps` are measured after one that is not.
    pub fn measure(&self, shape: StepShape, steps: usize) -> Vec<OperatorRow> {
        let (batch, context, rows) = match shape {
            StepShape::Prefill(tokens) => (1, 0, tokens),
            StepShape::Decode { batch, context } => (batch, context, 1),
        };
        let per_sequence = (context + rows).div_ceil(BLOCK_TOKENS);
        let layout = self.model.kv_layout(BLOCK_TOKENS);
        let blocks = batch * per_sequence;
        let mut pass = self.model.bind(KvMemory::allocate(&layout, blocks), layout, blocks);
        let tokens: Vec<u32> =
            (0..context.max(rows)).map(|i| ((i * 7919 + 13) % pass.vocab_size()) as u32).collect();
        let table: Vec<BlockId> = (0..blocks).map(|id| BlockId(id as u32)).collect();
        let tables: Vec<&[BlockId]> = table.chunks(per_sequence).collect();
        let sequence = |block_table, position, count| StepSequence {
            tokens: &tokens[..count],
            position,
            block_table,
            wanted_logits: 1,
            adapter: None,
        };
        if context > 0 {
            for block_table in &tables {
                pass.step(&[sequence(*block_table, 0, context)], &mut |_| {});
            }
        }
        let step: Vec<_> = tables.iter().map(|table| sequence(*table, context, rows)).collect();
        let mut all = Vec::new();
        for measured in 0..=steps {
            pass.device().take();
            pass.step(&step, &mut |_| {});
            if measured > 0 {
                all.push(pass.device().take());
            }
        }
        self.rows(&all)
    }

    fn rows(&self, steps: &[BTreeMap<String, Note>]) -> Vec<OperatorRow> {
        let mut rows: Vec<_> = steps[0]
            .iter()
            .map(|(operator, Note { calls, cost, .. })| {
                let mut times: Vec<_> = steps.iter().map(|step| step[operator].time).collect();
                times.sort_unstable();
                let moving = cost.bytes as f64 / self.limits.read_bytes;
                let computing = cost.operations as f64 / self.limits.operations(cost.unit);
                OperatorRow {
                    operator: operator.clone(),
                    calls: *calls,
                    time: times[times.len() / 2],
                    bytes: cost.bytes,
                    operations: cost.operations,
                    least: Duration::from_secs_f64(moving.max(computing)),
                }
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.time));
        rows
    }
}
