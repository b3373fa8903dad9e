//! The decoder: the forward pass that all families share, written once for every device, and its weights.
//!
//! ```text
//! token ─ embed ─┬──────────────────────────(+)─┬─────────────────────────(+)─ … ─ norm ─ output projection ─ logits
//!                └ norm ─ qkv ─ heads ─ attention ┘ └ norm ─ gated or experts ┘
//!                              └► keys, values into the KV pool
//! ```

mod adapted;
mod load;
mod pass;

use std::sync::Arc;

pub(super) use load::Loader;
pub(crate) use pass::Pass;

use super::{
    AdapterError, Forward, LoraAdapter, ModelConfig,
    adapter::{self, AdapterFiles},
};
use crate::{
    Isa,
    device::Device,
    kernels::{Gate, KvPool, Routing},
    kv::{Adapter, Dtype},
};

/// All weights of a model.
pub(crate) struct Weights<D: Device> {
    embedding: D::Matrix,
    layers: Vec<LayerWeights<D>>,
    final_norm: D::Vector,
    /// None: the embedding table is also the output projection.
    output: Option<D::Matrix>,
}

/// Weights of one transformer layer.
struct LayerWeights<D: Device> {
    input_norm: D::Vector,
    /// Query, key and value projections, one below the other.
    qkv: Linear<D>,
    /// Of queries, of keys.
    head_norms: Option<(D::Vector, D::Vector)>,
    sinks: Option<D::Vector>,
    attention_output: Linear<D>,
    post_attention_norm: D::Vector,
    feed_forward: FeedForwardWeights<D>,
}

/// A projection.
struct Linear<D: Device> {
    matrix: D::Matrix,
    bias: Option<D::Vector>,
}

enum FeedForwardWeights<D: Device> {
    Dense {
        /// Gate and up projections, one below the other.
        gate_up: Linear<D>,
        down: Linear<D>,
    },
    Experts {
        router: Linear<D>,
        routing: Routing,
        gate: Gate,
        gate_up: ExpertLinear<D>,
        down: ExpertLinear<D>,
    },
}

/// A projection of each expert.
struct ExpertLinear<D: Device> {
    matrices: D::Experts,
    /// `[experts, n]`.
    bias: Option<D::Vector>,
}

/// Weights on some device.
pub(super) trait LoadedWeights: Send + Sync {
    /// Type of matrices, their operands and the KV cache.
    fn dtype(&self) -> Dtype;

    /// Bytes of all matrices in memory.
    fn bytes(&self) -> usize;

    /// An adapter for these weights; packed for an instruction set by so many threads.
    fn load_adapter(
        &self,
        config: &ModelConfig,
        files: &AdapterFiles,
        identity: Adapter,
        host: (Isa, usize),
    ) -> Result<LoraAdapter, AdapterError>;

    /// A forward pass over these weights with threads of its own; and how many those are.
    fn bind(
        self: Arc<Self>,
        config: ModelConfig,
        pool: KvPool,
        isa: Isa,
        threads: usize,
    ) -> (Box<dyn Forward>, usize);
}

impl<D: Device> LoadedWeights for Weights<D> {
    fn dtype(&self) -> Dtype {
        D::DTYPE
    }

    fn bytes(&self) -> usize {
        let layer = |l: &LayerWeights<D>| {
            let attention = D::matrix_bytes(&l.qkv.matrix) + D::matrix_bytes(&l.attention_output.matrix);
            attention
                + match &l.feed_forward {
                    FeedForwardWeights::Dense { gate_up, down } => {
                        D::matrix_bytes(&gate_up.matrix) + D::matrix_bytes(&down.matrix)
                    }
                    FeedForwardWeights::Experts { router, gate_up, down, .. } => {
                        D::matrix_bytes(&router.matrix)
                            + D::experts_bytes(&gate_up.matrices)
                            + D::experts_bytes(&down.matrices)
                    }
                }
        };
        let output = self.output.as_ref().map_or(0, D::matrix_bytes);
        D::matrix_bytes(&self.embedding) + output + self.layers.iter().map(layer).sum::<usize>()
    }

    fn load_adapter(
        &self,
        config: &ModelConfig,
        files: &AdapterFiles,
        identity: Adapter,
        (isa, threads): (Isa, usize),
    ) -> Result<LoraAdapter, AdapterError> {
        let (weights, rank) = adapter::load(config, files, D::open(isa, threads))?;
        let bytes = weights.bytes();
        Ok(LoraAdapter::new(identity, rank, bytes, Box::new(weights)))
    }

    fn bind(
        self: Arc<Self>,
        config: ModelConfig,
        pool: KvPool,
        isa: Isa,
        threads: usize,
    ) -> (Box<dyn Forward>, usize) {
        let device = D::open(isa, threads);
        let threads = device.threads();
        (Box::new(pass::Pass::new(config, self, device, pool)), threads)
    }
}
