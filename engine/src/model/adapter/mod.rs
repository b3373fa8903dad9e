//! Adapters (LoRA): small changes to a model's projections that come in folders of their own and are chosen by request.
//!
//! ```text
//! adapter_config.json ──────── AdapterConfig ─┐
//! adapter_model.safetensors ── Checkpoint ────┴─► AdapterWeights<Device> ── LoraAdapter ── StepSequence::adapter
//!                              (names, shapes      (packed by the device,     (a handle;    (rows of the step that
//!                               and scale checked)  scale folded in)           shared)       get its products)
//! ```
//! A projection `W x` becomes `W x + scale · B (A x)`: see [`crate::kernels::low_rank`]. Rows of a step may have any adapters, or
//! none; those with none get the bits of a step without adapters.
//!
//! Whoever has a [`LoraAdapter`] keeps its weights in memory. So unloading one disturbs nobody: sequences that use it go on with
//! it to their end, and its memory comes back with the last of them.

mod config;
mod error;
mod load;
mod registry;
mod usage;
mod weights;

use std::{any::Any, fmt, sync::Arc};

pub use error::AdapterError;
pub use registry::{LoadedAdapter, LoraAdapters};
pub use usage::AdapterUses;

pub(super) use load::{AdapterFiles, load};
pub(crate) use usage::AdapterUse;
pub(super) use weights::{AdapterWeights, Projection};

use crate::kv::Adapter;
use usage::Counts;

/// An adapter in memory; clones share its weights.
#[derive(Clone)]
pub struct LoraAdapter {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Adapter,
    rank: usize,
    bytes: usize,
    /// Of the device that the model is on.
    weights: Box<dyn Any + Send + Sync>,
    counts: Counts,
}

impl LoraAdapter {
    pub(super) fn new(
        identity: Adapter,
        rank: usize,
        bytes: usize,
        weights: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self { inner: Arc::new(Inner { identity, rank, bytes, weights, counts: Counts::default() }) }
    }

    /// What requests select it by.
    pub fn name(&self) -> &str {
        &self.inner.identity.name
    }

    /// Hash of its configuration and all its weights, 16 hexadecimal digits, the same on every machine.
    pub fn revision(&self) -> &str {
        &self.inner.identity.revision
    }

    /// The largest rank of its matrices.
    pub fn rank(&self) -> usize {
        self.inner.rank
    }

    /// Bytes of its weights in memory.
    pub fn bytes(&self) -> usize {
        self.inner.bytes
    }

    /// What the prefix cache knows it by.
    pub(crate) fn identity(&self) -> &Adapter {
        &self.inner.identity
    }

    /// The same for handles that share weights, and for no others.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    /// Its weights, if they are of that kind.
    pub(super) fn weights<W: 'static>(&self) -> Option<&W> {
        self.inner.weights.downcast_ref()
    }
}

impl fmt::Debug for LoraAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoraAdapter").field(&self.inner.identity).finish()
    }
}
