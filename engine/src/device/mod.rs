//! Where models compute: the operations that a forward pass is made of, each over all rows of a step.
//!
//! ```text
//! model/decoder   one forward pass, written once ──► trait Device ──┬─ Cpu<bf16>, Cpu<f32>  packed weights, threads, SIMD
//!                 over buffers that it never looks into             └─ Reference            plain loops, f32
//! ```
//! A model file says what is computed, a device how. A further device (CUDA, say) is one more implementation here and one
//! more arm in `model/load.rs`; it passes when the tests in `kernels/` pass on it (`testing.rs` lists the devices).
//!
//! Every operation is batch-invariant: what a row gets depends on that row and, in attention, on the cached keys and values
//! of its sequence.
#![forbid(unsafe_code)]

mod cpu;
mod metered;
mod reference;
#[cfg(test)]
pub(crate) mod testing;

use std::{io, str::FromStr};

pub(crate) use cpu::Cpu;
pub(crate) use metered::{Metered, Note};
pub(crate) use reference::Reference;

use crate::{
    Isa,
    kernels::{Batch, Gate, HeadShape, KvPool, LowRankRows, Routing},
    kv::Dtype,
    model::{StoredExperts, StoredMatrix},
};

/// Which device a model is loaded on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceKind {
    /// The CPU, as fast as it goes.
    #[default]
    Cpu,
    /// The CPU in plain loops, f32 only: what every other device is compared with. Thousands of times slower.
    Reference,
}

/// What matrices are in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WeightFormat {
    /// In the type of activations, or as they are stored if that is smaller (MXFP4).
    #[default]
    Full,
    /// Eight bits, with a scale for each 128 neighbours of a row; activations are brought to eight bits for each product.
    Int8,
}

/// A format of weights that there is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("use none or int8")]
pub struct UnknownWeightFormat;

impl FromStr for WeightFormat {
    type Err = UnknownWeightFormat;

    fn from_str(text: &str) -> Result<Self, UnknownWeightFormat> {
        match text {
            "none" => Ok(Self::Full),
            "int8" => Ok(Self::Int8),
            _ => Err(UnknownWeightFormat),
        }
    }
}

/// What a layer does to queries and keys before they meet.
pub(crate) struct HeadRules<'a, V, F> {
    /// Weights of the norms of queries and of keys, head by head, if they are normalised.
    pub(crate) norms: Option<(&'a V, &'a V)>,
    /// Of those norms.
    pub(crate) eps: f32,
    /// [`Device::rope_table`].
    pub(crate) rope: &'a F,
}

/// Where a layer's keys and values go: a step's block tables, a pool, a layer of it.
pub(crate) struct Place<'a, S> {
    pub(crate) step: &'a S,
    pub(crate) pool: &'a KvPool,
    pub(crate) layer: usize,
}

/// Computes. Holds what computing takes (threads, scratch; a stream), not the model and not the KV pool.
///
/// Buffers ([`Self::Floats`], [`Self::Operands`]) know their shape, `[rows, width]`. An operation gives its output the shape
/// that follows from its inputs, so a caller never states a size. Operations may be queued: only [`Self::read`] and
/// [`Self::wait`] promise that something is done.
///
/// Operations that a device does better together are methods here with a default made of single ones
/// ([`Self::gated_linear`], [`Self::linear_heads`]); a device overrides what it has a fused kernel for.
pub(crate) trait Device: Sized + Send + 'static {
    /// Type of weights, matrix operands and the KV cache.
    const DTYPE: Dtype;

    /// Weights that are not matrices, in f32.
    type Vector: Send + Sync;
    /// A weight matrix `[n, k]`, in whatever order the device reads it.
    type Matrix: Send + Sync;
    /// A weight matrix `[n, k]` for each expert of a layer.
    type Experts: Send + Sync;
    /// Activations in f32: the residual stream, projections, logits.
    type Floats: Default + Send;
    /// Activations in [`Self::DTYPE`]: inputs of matrix products, queries.
    type Operands: Default + Send;
    /// A step's batch with what the device made of it.
    type Step;
    /// The routes of a step's rows to experts.
    type Routes: Default + Send;

    /// A device with `threads` host threads, for CPUs that have `isa`.
    fn open(isa: Isa, threads: usize) -> Self;

    /// Host threads that compute, with the caller's.
    fn threads(&self) -> usize;

    /// Puts a vector on the device.
    fn vector(&mut self, values: &[f32]) -> Self::Vector;

    /// Puts a matrix on the device.
    ///
    /// # Errors
    /// When there is no memory for it.
    fn matrix(&mut self, stored: &StoredMatrix<'_>, format: WeightFormat) -> io::Result<Self::Matrix>;

    /// Puts the matrices of a layer's experts on the device.
    ///
    /// # Errors
    /// When there is no memory for them.
    fn experts(&mut self, stored: &StoredExperts<'_>, format: WeightFormat) -> io::Result<Self::Experts>;

    /// Bytes that a matrix takes.
    fn matrix_bytes(matrix: &Self::Matrix) -> usize;

    /// Bytes that experts' matrices take.
    fn experts_bytes(experts: &Self::Experts) -> usize;

    /// Takes a step's rows, positions and block tables; `shape` is that of all layers.
    fn plan(&mut self, batch: Batch, shape: HeadShape) -> Self::Step;

    /// Row `i` of `out` is the row of `table` that token `i` of the step names.
    fn embed(&mut self, step: &Self::Step, table: &Self::Matrix, out: &mut Self::Floats);

    /// `scale` times the cosines, then the sines, of each row's position times `frequencies`: `[rows, 2 · frequencies]`.
    fn rope_table(
        &mut self,
        step: &Self::Step,
        frequencies: &Self::Vector,
        scale: f32,
        out: &mut Self::Floats,
    );

    /// `out = x / sqrt(mean(x²) + eps) · weight`, row by row.
    fn rms_norm(&mut self, x: &Self::Floats, weight: &Self::Vector, eps: f32, out: &mut Self::Operands);

    /// `y = x · wᵀ + bias`.
    fn linear(
        &mut self,
        x: &Self::Operands,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        y: &mut Self::Floats,
    );

    /// `y += x · wᵀ + bias`; `y` has its shape.
    fn linear_add(
        &mut self,
        x: &Self::Operands,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        y: &mut Self::Floats,
    );

    /// Adds to some rows and columns of `y` a product of low rank of the same rows of `x`: `y += (x · aᵀ) · bᵀ`, the inner
    /// product rounded to [`Self::DTYPE`]. All other places of `y` keep their bits. Matrices are of [`WeightFormat::Full`], their
    /// ranks even; two changes have no place in common.
    fn add_low_rank(
        &mut self,
        x: &Self::Operands,
        changes: &[LowRankRows<'_, Self::Matrix>],
        y: &mut Self::Floats,
    );

    /// From the joint projection `[rows, heads + 2 kv_heads, head_dim]`: queries and keys are normalised and rotated; keys and
    /// values go into the pool, queries into `out`. `qkv` is scratch afterwards.
    fn split_heads(
        &mut self,
        place: &Place<'_, Self::Step>,
        rules: &HeadRules<'_, Self::Vector, Self::Floats>,
        qkv: &mut Self::Floats,
        out: &mut Self::Operands,
    );

    /// The joint projection `x · wᵀ + bias` and its heads, with the bits of [`Self::linear`] and then [`Self::split_heads`].
    /// `qkv` is scratch.
    fn linear_heads(
        &mut self,
        place: &Place<'_, Self::Step>,
        x: &Self::Operands,
        (w, bias): (&Self::Matrix, Option<&Self::Vector>),
        rules: &HeadRules<'_, Self::Vector, Self::Floats>,
        qkv: &mut Self::Floats,
        out: &mut Self::Operands,
    ) {
        self.linear(x, w, bias, qkv);
        self.split_heads(place, rules, qkv, out);
    }

    /// Causal attention of each row over its sequence in the pool, its own token included, or over the newest `window` tokens
    /// of it. A sink is a logit of each query head that takes part in the softmax and has no value.
    fn attention(
        &mut self,
        place: &Place<'_, Self::Step>,
        window: Option<usize>,
        sinks: Option<&Self::Vector>,
        queries: &Self::Operands,
        out: &mut Self::Operands,
    );

    /// The activation: from `[rows, 2, width]`, gate and up, to `[rows, width]`.
    fn gate(&mut self, gate: Gate, gate_up: &Self::Floats, out: &mut Self::Operands);

    /// `out = gate(x · wᵀ + bias)`, with the bits of [`Self::linear`] and then [`Self::gate`]: where adapters change what is between
    /// the two, they are made apart, and rows without one must not see that. `wide` is scratch.
    fn gated_linear(
        &mut self,
        x: &Self::Operands,
        (w, bias): (&Self::Matrix, Option<&Self::Vector>),
        gate: Gate,
        wide: &mut Self::Floats,
        out: &mut Self::Operands,
    ) {
        self.linear(x, w, bias, wide);
        self.gate(gate, wide, out);
    }

    /// Chooses each row's experts by the router's logits, `[rows, experts]`.
    fn route(&mut self, logits: &Self::Floats, routing: Routing, routes: &mut Self::Routes);

    /// A row for each pair of a row and one of its experts, in the device's order.
    fn gather(&mut self, x: &Self::Operands, routes: &Self::Routes, out: &mut Self::Operands);

    /// Each pair's row times the matrix of its expert, plus its expert's part of `bias`, `[experts, n]`.
    fn expert_linear(
        &mut self,
        x: &Self::Operands,
        experts: &Self::Experts,
        bias: Option<&Self::Vector>,
        routes: &Self::Routes,
        y: &mut Self::Floats,
    );

    /// Adds to each row of `out` its pairs' results by their weights, in the order of the row's choices.
    fn combine(&mut self, y: &Self::Floats, routes: &Self::Routes, out: &mut Self::Floats);

    /// Row `i` of `out` is row `rows[i]` of `x`.
    fn take_rows(&mut self, rows: &[usize], x: &Self::Floats, out: &mut Self::Floats);

    /// The same of operands.
    fn take_operand_rows(&mut self, rows: &[usize], x: &Self::Operands, out: &mut Self::Operands);

    /// Returns when everything asked for so far is done and what it wrote can be seen by others.
    fn wait(&mut self) {}

    /// The values of `x` in host memory.
    fn read<'a>(&'a mut self, x: &'a Self::Floats) -> &'a [f32];
}

/// An optional vector as kernels take it.
fn or_empty(vector: Option<&Vec<f32>>) -> &[f32] {
    vector.map_or(&[], Vec::as_slice)
}
