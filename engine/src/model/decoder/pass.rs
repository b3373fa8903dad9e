//! The forward pass: the order of a device's operations that makes a step.

use std::{mem::swap, sync::Arc};

use super::{FeedForwardWeights, LayerWeights, Weights, adapted::Adapted};
use crate::{
    device::{Device, HeadRules, Place},
    kernels::{Gate, KvPool, LowRankRows},
    kv::KvLayout,
    model::{Forward, ModelConfig, StepSequence, adapter::Projection},
};

/// A model bound to a device and a KV pool.
pub(crate) struct Pass<D: Device> {
    config: ModelConfig,
    weights: Arc<Weights<D>>,
    frequencies: D::Vector,
    device: D,
    pool: KvPool,
    activations: Activations<D>,
}

/// One layer of a step.
struct LayerOf<'a, D: Device> {
    step: &'a D::Step,
    index: usize,
    weights: &'a LayerWeights<D>,
    adapted: &'a Adapted<'a, D>,
}

/// What a step computes on its way; `rows` is the step's number of tokens. Kept from step to step.
struct Activations<D: Device> {
    /// The residual stream, `[rows, hidden]`.
    residual: D::Floats,
    /// Cosines and sines, `[rows, head_dim]`.
    rope: D::Floats,
    /// The normalised residual, `[rows, hidden]`.
    normed: D::Operands,
    /// The joint projection, `[rows, qkv_width]`; later gate and up, `[rows or pairs, 2 · width]`.
    wide: D::Floats,
    /// `[rows, heads, head_dim]`.
    queries: D::Operands,
    /// Result of attention, `[rows, heads, head_dim]`.
    attended: D::Operands,
    /// Input of the down projection, `[rows or pairs, width]`.
    gated: D::Operands,
    experts: ExpertActivations<D>,
    /// Rows taken of `residual`.
    taken: D::Floats,
    /// Rows taken of `queries`.
    taken_queries: D::Operands,
    /// `[rows that want logits, vocab]`.
    logits: D::Floats,
}

/// A pair is a row with one of its experts.
struct ExpertActivations<D: Device> {
    /// The router's, `[rows, experts]`.
    logits: D::Floats,
    routes: D::Routes,
    /// Each pair's input, `[pairs, hidden]`.
    input: D::Operands,
    /// Each pair's result, `[pairs, hidden]`.
    output: D::Floats,
}

impl<D: Device> Default for Activations<D> {
    fn default() -> Self {
        Self {
            residual: Default::default(),
            rope: Default::default(),
            normed: Default::default(),
            wide: Default::default(),
            queries: Default::default(),
            attended: Default::default(),
            gated: Default::default(),
            experts: ExpertActivations {
                logits: Default::default(),
                routes: Default::default(),
                input: Default::default(),
                output: Default::default(),
            },
            taken: Default::default(),
            taken_queries: Default::default(),
            logits: Default::default(),
        }
    }
}

impl<D: Device> Pass<D> {
    pub(crate) fn new(config: ModelConfig, weights: Arc<Weights<D>>, mut device: D, pool: KvPool) -> Self {
        assert_eq!(pool.layout().dtype, D::DTYPE, "checked by `Model::bind`");
        let frequencies = device.vector(&config.rope.frequencies(config.head_dim));
        Self { config, weights, frequencies, device, pool, activations: Activations::default() }
    }

    /// What it computes on.
    pub(crate) fn device(&mut self) -> &mut D {
        &mut self.device
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
            assert!(s.wanted_logits <= s.tokens.len(), "logits are wanted of tokens of the step");
        }
    }

    fn write_keys_and_values(&mut self, layer: &LayerOf<'_, D>, on_layer: &mut dyn FnMut(usize)) {
        let LayerOf { step, index, weights, adapted } = *layer;
        let (a, device, eps) = (&mut self.activations, &mut self.device, self.config.rms_norm_eps);
        device.rms_norm(&a.residual, &weights.input_norm, eps, &mut a.normed);
        let place = Place { step, pool: &self.pool, layer: index };
        let norms = weights.head_norms.as_ref().map(|(q, k)| (q, k));
        let rules = HeadRules { norms, eps, rope: &a.rope };
        let projection = (&weights.qkv.matrix, weights.qkv.bias.as_ref());
        let changes = adapted.changes(index, Projection::Qkv);
        if changes.is_empty() {
            device.linear_heads(&place, &a.normed, projection, &rules, &mut a.wide, &mut a.queries);
        } else {
            device.linear(&a.normed, projection.0, projection.1, &mut a.wide);
            device.add_low_rank(&a.normed, &changes, &mut a.wide);
            device.split_heads(&place, &rules, &mut a.wide, &mut a.queries);
        }
        device.wait();
        on_layer(index);
    }

    fn attend(&mut self, layer: &LayerOf<'_, D>) {
        let LayerOf { step, index, weights, adapted } = *layer;
        let (a, device) = (&mut self.activations, &mut self.device);
        let place = Place { step, pool: &self.pool, layer: index };
        let window = self.config.layers[index].attention.window;
        device.attention(&place, window, weights.sinks.as_ref(), &a.queries, &mut a.attended);
        let output = &weights.attention_output;
        device.linear_add(&a.attended, &output.matrix, output.bias.as_ref(), &mut a.residual);
        add_changes(device, &a.attended, &adapted.changes(index, Projection::Output), &mut a.residual);
    }

    fn feed_forward(&mut self, layer: &LayerOf<'_, D>) {
        let LayerOf { index, weights, adapted, .. } = *layer;
        let (a, device) = (&mut self.activations, &mut self.device);
        let norm = &weights.post_attention_norm;
        device.rms_norm(&a.residual, norm, self.config.rms_norm_eps, &mut a.normed);
        match &weights.feed_forward {
            FeedForwardWeights::Experts { router, routing, gate, gate_up, down } => {
                let e = &mut a.experts;
                device.linear(&a.normed, &router.matrix, router.bias.as_ref(), &mut e.logits);
                device.route(&e.logits, *routing, &mut e.routes);
                device.gather(&a.normed, &e.routes, &mut e.input);
                let bias = gate_up.bias.as_ref();
                device.expert_linear(&e.input, &gate_up.matrices, bias, &e.routes, &mut a.wide);
                device.gate(*gate, &a.wide, &mut a.gated);
                let bias = down.bias.as_ref();
                device.expert_linear(&a.gated, &down.matrices, bias, &e.routes, &mut e.output);
                device.combine(&e.output, &e.routes, &mut a.residual);
            }
            FeedForwardWeights::Dense { gate_up, down } => {
                let projection = (&gate_up.matrix, gate_up.bias.as_ref());
                let changes = adapted.changes(index, Projection::GateUp);
                if changes.is_empty() {
                    device.gated_linear(&a.normed, projection, Gate::Silu, &mut a.wide, &mut a.gated);
                } else {
                    device.linear(&a.normed, projection.0, projection.1, &mut a.wide);
                    device.add_low_rank(&a.normed, &changes, &mut a.wide);
                    device.gate(Gate::Silu, &a.wide, &mut a.gated);
                }
                device.linear_add(&a.gated, &down.matrix, down.bias.as_ref(), &mut a.residual);
                add_changes(device, &a.gated, &adapted.changes(index, Projection::Down), &mut a.residual);
            }
        }
    }

    /// The last layer after its keys and values, and the logits, of `wanted` rows alone: nobody reads what it would make of
    /// the others.
    fn finish(
        &mut self,
        sequences: &[StepSequence<'_>],
        mut wanted: Vec<usize>,
        layer: &LayerOf<'_, D>,
    ) -> &[f32] {
        if wanted.is_empty() {
            return &[];
        }
        let heard: Vec<_> = sequences.iter().filter_map(heard).collect();
        let (batch, adapted) = Adapted::batch(&heard);
        wanted.sort_unstable();
        let (a, device) = (&mut self.activations, &mut self.device);
        device.take_rows(&wanted, &a.residual, &mut a.taken);
        device.take_operand_rows(&wanted, &a.queries, &mut a.taken_queries);
        swap(&mut a.residual, &mut a.taken);
        swap(&mut a.queries, &mut a.taken_queries);
        let wanted = batch.wanted.clone();
        let step = device.plan(batch, self.config.head_shape());
        let layer = LayerOf { step: &step, adapted: &adapted, ..*layer };
        self.attend(&layer);
        self.feed_forward(&layer);
        self.logits(&wanted)
    }

    /// Logits after `wanted` rows.
    fn logits(&mut self, wanted: &[usize]) -> &[f32] {
        let (a, device) = (&mut self.activations, &mut self.device);
        device.take_rows(wanted, &a.residual, &mut a.taken);
        device.rms_norm(&a.taken, &self.weights.final_norm, self.config.rms_norm_eps, &mut a.normed);
        let output = self.weights.output.as_ref().unwrap_or(&self.weights.embedding);
        device.linear(&a.normed, output, None, &mut a.logits);
        device.read(&a.logits)
    }
}

/// Of a sequence's share the tokens after which logits are wanted, if there are any.
fn heard<'a>(share: &StepSequence<'a>) -> Option<StepSequence<'a>> {
    let unheard = share.tokens.len() - share.wanted_logits;
    let tokens = &share.tokens[unheard..];
    (!tokens.is_empty()).then_some(StepSequence { tokens, position: share.position + unheard, ..*share })
}

/// Adds what adapters change, if any do.
fn add_changes<D: Device>(
    device: &mut D,
    x: &D::Operands,
    changes: &[LowRankRows<'_, D::Matrix>],
    y: &mut D::Floats,
) {
    if !changes.is_empty() {
        device.add_low_rank(x, changes, y);
    }
}

impl<D: Device> Forward for Pass<D> {
    fn vocab_size(&self) -> usize {
        self.config.vocab
    }

    fn kv_layout(&self) -> KvLayout {
        *self.pool.layout()
    }

    fn num_blocks(&self) -> usize {
        self.pool.blocks()
    }

    fn max_context_tokens(&self) -> usize {
        self.config.max_position
    }

    fn step(&mut self, sequences: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        self.check(sequences);
        let (batch, adapted) = Adapted::batch(sequences);
        let (rows, wanted) = (batch.rows(), batch.wanted.clone());
        let step = self.device.plan(batch, self.config.head_shape());
        let weights = Arc::clone(&self.weights);
        let (a, device) = (&mut self.activations, &mut self.device);
        device.embed(&step, &weights.embedding, &mut a.residual);
        device.rope_table(&step, &self.frequencies, self.config.rope.attention_factor(), &mut a.rope);
        let mut layers = weights.layers.iter().enumerate();
        let last = layers.next_back().expect("a model has a layer");
        let layer_of =
            |(index, weights): (usize, _)| LayerOf { step: &step, index, weights, adapted: &adapted };
        for layer in layers.map(layer_of) {
            self.write_keys_and_values(&layer, on_layer);
            self.attend(&layer);
            self.feed_forward(&layer);
        }
        let layer = layer_of(last);
        self.write_keys_and_values(&layer, on_layer);
        if wanted.len() == rows {
            self.attend(&layer);
            self.feed_forward(&layer);
            return self.logits(&wanted);
        }
        self.finish(sequences, wanted, &layer)
    }
}
