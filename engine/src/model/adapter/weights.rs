//! An adapter's matrices on a device.

use std::ops::Range;

use crate::{device::Device, kernels::LowRankRows};

/// What an adapter changes; one entry a layer of the model.
pub(crate) struct AdapterWeights<D: Device> {
    pub(super) layers: Vec<LayerChanges<D>>,
}

/// The projections of a layer that can be changed, as the forward pass makes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Projection {
    /// Query, key and value, side by side.
    Qkv,
    /// The output of attention.
    Output,
    /// Gate and up, side by side.
    GateUp,
    /// Back to the residual stream.
    Down,
}

/// Changes of one layer, by projection.
pub(super) struct LayerChanges<D: Device> {
    pub(super) parts: Vec<(Projection, LowRank<D>)>,
}

/// A change of some columns of a projection.
pub(super) struct LowRank<D: Device> {
    /// `[rank, k]`.
    pub(super) a: D::Matrix,
    /// `[n, rank]`, with the scale.
    pub(super) b: D::Matrix,
    pub(super) first_column: usize,
}

impl<D: Device> AdapterWeights<D> {
    /// What is added to a projection of layer `layer`, for `rows` of a step.
    pub(crate) fn changes(
        &self,
        layer: usize,
        projection: Projection,
        rows: Range<usize>,
    ) -> impl Iterator<Item = LowRankRows<'_, D::Matrix>> {
        let of_projection = self.layers[layer].parts.iter().filter(move |(of, _)| *of == projection);
        of_projection.map(move |(_, LowRank { a, b, first_column })| LowRankRows {
            rows: rows.clone(),
            a,
            b,
            first_column: *first_column,
        })
    }

    /// Bytes of all matrices in memory.
    pub(crate) fn bytes(&self) -> usize {
        let parts = self.layers.iter().flat_map(|layer| &layer.parts);
        parts.map(|(_, part)| D::matrix_bytes(&part.a) + D::matrix_bytes(&part.b)).sum()
    }
}
