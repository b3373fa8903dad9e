//! A model on the CPU: the order of kernels that makes a step.

use std::sync::{Arc, Mutex};

use half::bf16;

use super::{
    Forward, Model, ModelConfig, StepSequence,
    load::AnyWeights,
    weights::{LayerWeights, Weights},
};
use crate::{
    Isa,
    kernels::{
        AttentionScratch, AttentionSequence, AttentionTile, Buffer, Element, HeadParams, KvPool, Output,
        SequenceLayer, Threads, attention, linear, plan_attention, rms_norm, rope_row, split_heads, swiglu,
    },
    kv::{KvLayout, KvMemory},
};

/// A model bound to a KV pool and to compute threads of its own.
pub struct CpuForward(Either);

enum Either {
    Bf16(Runner<bf16>),
    F32(Runner<f32>),
}

/// A model with elements of type `T`.
struct Runner<T> {
    config: ModelConfig,
    weights: Arc<Weights<T>>,
    frequencies: Vec<f32>,
    isa: Isa,
    threads: Threads,
    pool: KvPool,
    scratch: Vec<Mutex<AttentionScratch>>,
    activations: Activations<T>,
}

/// What a step computes on its way; `rows` is the step's number of tokens. Kept from step to step.
struct Activations<T> {
    /// The residual stream, `[rows, hidden]`.
    residual: Buffer<f32>,
    /// Cosines and sines, `[rows, head_dim]`.
    rope: Buffer<f32>,
    /// The normalised residual, `[rows, hidden]`.
    normed: Buffer<T>,
    /// The joint projection, `[rows, qkv_width]`, and later gate and up, `[rows, 2, intermediate]`.
    wide: Buffer<f32>,
    /// `[rows, heads, head_dim]`.
    queries: Buffer<T>,
    /// Result of attention, `[rows, heads, head_dim]`.
    attended: Buffer<T>,
    /// Input of the down projection, `[rows, intermediate]`.
    gated: Buffer<T>,
    /// `[rows that want logits, vocab]`.
    logits: Buffer<f32>,
}

/// Where a row of the step belongs.
#[derive(Clone, Copy)]
struct Row {
    sequence: usize,
    position: usize,
}

impl CpuForward {
    /// `memory` fits `layout` and `blocks`, and the layout is the model's: checked by [`Model::bind`].
    pub(super) fn new(
        model: &Model,
        memory: KvMemory,
        layout: KvLayout,
        blocks: usize,
        threads: usize,
    ) -> Self {
        let pool = KvPool::new(memory, layout, blocks);
        Self(match model.weights() {
            AnyWeights::Bf16(w) => Either::Bf16(Runner::new(model, Arc::clone(w), pool, threads)),
            AnyWeights::F32(w) => Either::F32(Runner::new(model, Arc::clone(w), pool, threads)),
        })
    }

    /// Compute threads, with the one that calls [`Forward::step`].
    pub fn threads(&self) -> usize {
        match &self.0 {
            Either::Bf16(r) => r.threads.count(),
            Either::F32(r) => r.threads.count(),
        }
    }
}

impl Forward for CpuForward {
    fn vocab_size(&self) -> usize {
        match &self.0 {
            Either::Bf16(r) => r.config.vocab,
            Either::F32(r) => r.config.vocab,
        }
    }

    fn kv_layout(&self) -> KvLayout {
        match &self.0 {
            Either::Bf16(r) => *r.pool.layout(),
            Either::F32(r) => *r.pool.layout(),
        }
    }

    fn num_blocks(&self) -> usize {
        match &self.0 {
            Either::Bf16(r) => r.pool.blocks(),
            Either::F32(r) => r.pool.blocks(),
        }
    }

    fn max_context_tokens(&self) -> usize {
        match &self.0 {
            Either::Bf16(r) => r.config.max_position,
            Either::F32(r) => r.config.max_position,
        }
    }

    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        match &mut self.0 {
            Either::Bf16(r) => r.step(batch, on_layer),
            Either::F32(r) => r.step(batch, on_layer),
        }
    }
}

impl<T: Element> Runner<T> {
    fn new(model: &Model, weights: Arc<Weights<T>>, pool: KvPool, threads: usize) -> Self {
        assert_eq!(pool.layout().dtype, T::DTYPE, "checked by `Model::bind`");
        let config = model.config().clone();
        let threads = Threads::new(threads);
        Self {
            frequencies: config.rope_scaling.frequencies(config.rope_theta, config.head_dim),
            isa: model.isa(),
            scratch: (0..threads.count()).map(|_| Mutex::default()).collect(),
            activations: Activations {
                residual: Buffer::new(),
                rope: Buffer::new(),
                normed: Buffer::new(),
                wide: Buffer::new(),
                queries: Buffer::new(),
                attended: Buffer::new(),
                gated: Buffer::new(),
                logits: Buffer::new(),
            },
            config,
            weights,
            threads,
            pool,
        }
    }

    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        self.check(batch);
        let rows: Vec<Row> = batch
            .iter()
            .enumerate()
            .flat_map(|(sequence, s)| {
                (0..s.tokens.len()).map(move |t| Row { sequence, position: s.position + t })
            })
            .collect();
        let mut first_row = 0;
        let sequences = batch.iter().map(|s| {
            first_row += s.tokens.len();
            AttentionSequence {
                block_table: s.block_table,
                first_row: first_row - s.tokens.len(),
                tokens: s.tokens.len(),
                position: s.position,
            }
        });
        let tiles = plan_attention(self.config.head_shape(), sequences);
        self.embed(batch, &rows);
        let weights = Arc::clone(&self.weights);
        for (layer, weights) in weights.layers.iter().enumerate() {
            self.write_keys_and_values(layer, weights, batch, &rows);
            on_layer(layer);
            self.attend(layer, weights, &tiles, rows.len());
            self.feed_forward(weights, rows.len());
        }
        self.logits(batch)
    }

    /// What the kernels trust: tokens in the vocabulary, block tables that are long enough and within the pool.
    fn check(&self, batch: &[StepSequence<'_>]) {
        for s in batch {
            let blocks = self.pool.layout().blocks_for(s.position + s.tokens.len());
            assert!(!s.tokens.is_empty(), "a sequence of a step has at least one token");
            assert!(s.block_table.len() >= blocks, "the block table covers the sequence");
            let in_pool = s.block_table[..blocks].iter().all(|b| (b.0 as usize) < self.pool.blocks());
            assert!(in_pool, "block ids are within the pool");
            let known = s.tokens.iter().all(|t| (*t as usize) < self.config.vocab);
            assert!(known, "token ids are within the vocabulary");
        }
    }

    /// Residual stream and angles of each row.
    fn embed(&mut self, batch: &[StepSequence<'_>], rows: &[Row]) {
        let (hidden, dim) = (self.config.hidden, self.config.head_dim);
        let residual = self.activations.residual.at_least(rows.len() * hidden);
        let embedding = &self.weights.embedding;
        self.threads.for_chunks(residual, hidden, |row, out| {
            let Row { sequence, position } = rows[row];
            let s = &batch[sequence];
            embedding.row(s.tokens[position - s.position] as usize, out);
        });
        let rope = self.activations.rope.at_least(rows.len() * dim);
        let frequencies = &self.frequencies;
        self.threads.for_chunks(rope, dim, |row, out| rope_row(frequencies, rows[row].position, out));
    }

    /// Rows for each task of a loop over rows.
    fn rows_per_task(&self, rows: usize) -> usize {
        rows.div_ceil(4 * self.threads.count())
    }

    fn normalise(&mut self, weight: &[f32], rows: usize) {
        let (hidden, isa, eps) = (self.config.hidden, self.isa, self.config.rms_norm_eps);
        let per_task = self.rows_per_task(rows);
        let residual = &self.activations.residual[..rows * hidden];
        let normed = self.activations.normed.at_least(rows * hidden);
        self.threads.for_chunks(normed, per_task * hidden, |task, out| {
            let x = &residual[task * per_task * hidden..][..out.len()];
            rms_norm(isa, x, weight, eps, out);
        });
    }

    fn write_keys_and_values(
        &mut self,
        layer: usize,
        weights: &LayerWeights<T>,
        batch: &[StepSequence<'_>],
        rows: &[Row],
    ) {
        self.normalise(&weights.input_norm, rows.len());
        let (isa, hidden, shape) = (self.isa, self.config.hidden, self.config.head_shape());
        let a = &mut self.activations;
        let qkv = a.wide.at_least(rows.len() * shape.qkv_width());
        linear(isa, &mut self.threads, &a.normed[..rows.len() * hidden], &weights.qkv, Output::Store(qkv));
        let params = HeadParams {
            shape,
            bias: &weights.qkv_bias,
            q_norm: &weights.q_norm,
            k_norm: &weights.k_norm,
            eps: self.config.rms_norm_eps,
        };
        let rope = &a.rope[..];
        let queries = a.queries.at_least(rows.len() * shape.q_width());
        let pool = &self.pool;
        self.threads.for_chunk_pairs((qkv, shape.qkv_width()), (queries, shape.q_width()), |row, qkv, q| {
            let Row { sequence, position } = rows[row];
            let cache = SequenceLayer { pool, layer, block_table: batch[sequence].block_table };
            let rope = &rope[row * shape.head_dim..][..shape.head_dim];
            split_heads(isa, &params, qkv, rope, position, cache, q);
        });
    }

    fn attend(&mut self, layer: usize, weights: &LayerWeights<T>, tiles: &[AttentionTile<'_>], rows: usize) {
        let (isa, shape) = (self.isa, self.config.head_shape());
        let a = &mut self.activations;
        let queries = &a.queries[..rows * shape.q_width()];
        let attended = a.attended.at_least(rows * shape.q_width());
        let place = (shape, &self.pool, layer);
        attention(isa, &mut self.threads, &self.scratch, tiles, place, queries, attended);
        let residual = &mut a.residual[..rows * self.config.hidden];
        linear(isa, &mut self.threads, attended, &weights.attention_output, Output::Add(residual));
    }

    fn feed_forward(&mut self, weights: &LayerWeights<T>, rows: usize) {
        self.normalise(&weights.post_attention_norm, rows);
        let (isa, hidden, width) = (self.isa, self.config.hidden, self.config.intermediate);
        let per_task = self.rows_per_task(rows);
        let a = &mut self.activations;
        let gate_up = a.wide.at_least(rows * 2 * width);
        linear(isa, &mut self.threads, &a.normed[..rows * hidden], &weights.gate_up, Output::Store(gate_up));
        let gated = a.gated.at_least(rows * width);
        let gate_up = &*gate_up;
        self.threads.for_chunks(gated, per_task * width, |task, out| {
            let x = &gate_up[task * per_task * 2 * width..][..2 * out.len()];
            swiglu(isa, x, width, out);
        });
        linear(isa, &mut self.threads, gated, &weights.down, Output::Add(&mut a.residual[..rows * hidden]));
    }

    /// Logits after the last token of each sequence that wants them.
    fn logits(&mut self, batch: &[StepSequence<'_>]) -> &[f32] {
        let (isa, hidden) = (self.isa, self.config.hidden);
        let a = &mut self.activations;
        let wanted = batch.iter().filter(|s| s.wants_logits).count();
        let normed = a.normed.at_least(wanted * hidden);
        let mut end = 0;
        let mut out = normed.chunks_exact_mut(hidden);
        for s in batch {
            end += s.tokens.len();
            if s.wants_logits
                && let Some(out) = out.next()
            {
                let last = &a.residual[(end - 1) * hidden..][..hidden];
                rms_norm(isa, last, &self.weights.final_norm, self.config.rms_norm_eps, out);
            }
        }
        let logits = a.logits.at_least(wanted * self.config.vocab);
        linear(isa, &mut self.threads, normed, self.weights.output(), Output::Store(logits));
        logits
    }
}
