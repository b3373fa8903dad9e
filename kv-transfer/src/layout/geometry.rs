//! A layout with a number of blocks: a pool, and the arithmetic from (layer, block, head, token) to bytes.

use std::ops::Range;

use super::{KvLayout, KvOrder, KvPlacement};

/// Shape of one worker's KV pool.
///
/// The pool is `[layers][blocks][block_bytes]`, or `[layers][2][blocks][tensor_bytes]` where K and V are
/// [split](KvPlacement::Split). Neighbouring block ids of one layer are neighbouring bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvGeometry {
    /// How blocks are cut.
    pub layout: KvLayout,
    /// Blocks in this pool. May differ between the two ends of a transfer.
    pub blocks: u32,
}

/// A pool shape that no machine could hold, or that holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// A number that no layout can have.
    #[error(
        "a KV layout with {field} as in {layout:?} is impossible (tensor parallelism must divide the KV heads, or be a multiple of them)"
    )]
    Layout {
        /// The number's name.
        field: &'static str,
        /// The layout.
        layout: KvLayout,
    },
    /// Too much or nothing.
    #[error(
        "a KV pool of {layers} layers x {blocks} blocks x {block_bytes} bytes is empty or overflows the address space"
    )]
    Size {
        /// Layers asked for.
        layers: u32,
        /// Blocks asked for.
        blocks: u32,
        /// Bytes of a block in a layer.
        block_bytes: u64,
    },
}

impl KvGeometry {
    /// Blocks of one token with one head: for tests to which only their bytes matter.
    #[cfg(test)]
    pub(crate) fn plain(layers: u32, blocks: u32, block_bytes: u32) -> Self {
        let layout = KvLayout {
            layers,
            kv_heads: 1,
            head_dim: block_bytes / 4,
            block_tokens: 1,
            dtype: super::KvDtype::Bf16,
            placement: KvPlacement::Joined,
            order: KvOrder::Hnd,
            tensor_parallel: super::TensorParallel::SINGLE,
        };
        Self { layout, blocks }
    }

    /// Checks that the layout is possible, and that the pool is not empty and fits the address space.
    ///
    /// # Errors
    /// [`GeometryError`].
    pub fn validate(&self) -> Result<(), GeometryError> {
        let (layout, blocks) = (self.layout, self.blocks);
        if let Some(field) = layout.first_fault() {
            return Err(GeometryError::Layout { field, layout });
        }
        let tensors = u64::from(layout.placement.tensors());
        let block =
            [tensors, layout.block_tokens.into(), layout.heads().len() as u64, layout.head_dim.into()];
        let block_bytes = block.into_iter().fold(layout.dtype.bytes(), u64::saturating_mul);
        let pieces = u64::from(layout.layers) * u64::from(blocks);
        match pieces.checked_mul(block_bytes) {
            Some(bytes) if bytes > 0 && bytes <= isize::MAX as u64 => Ok(()),
            _ => Err(GeometryError::Size { layers: layout.layers, blocks, block_bytes }),
        }
    }

    /// Bytes of the whole pool.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        u64::from(self.layout.layers) * self.layer_bytes()
    }

    /// Bytes of all blocks in one layer.
    #[must_use]
    pub fn layer_bytes(&self) -> u64 {
        u64::from(self.blocks) * self.layout.block_bytes()
    }

    /// Where tensor `tensor` (0 is K, 1 is V) of `(layer, block)` starts.
    #[must_use]
    pub fn tensor_offset(&self, layer: u32, tensor: u32, block: u32) -> u64 {
        let tensors = self.layout.placement.tensors();
        debug_assert!(
            layer < self.layout.layers && block < self.blocks && tensor < tensors,
            "({layer}, {tensor}, {block}) is outside {self:?}"
        );
        let (blocks, tensors) = (u64::from(self.blocks), u64::from(tensors));
        let (layer, tensor, block) = (u64::from(layer), u64::from(tensor), u64::from(block));
        let index = match self.layout.placement {
            KvPlacement::Split => (layer * tensors + tensor) * blocks + block,
            KvPlacement::Joined | KvPlacement::Latent => (layer * blocks + block) * tensors + tensor,
        };
        index * self.layout.tensor_bytes()
    }

    /// The bytes of `(layer, block)` as ranges in the pool: K and V together, or each of them.
    pub fn pieces(&self, layer: u32, block: u32) -> impl Iterator<Item = Range<usize>> + use<> {
        let (tensors, bytes) = match self.layout.placement {
            KvPlacement::Split => (2, self.layout.tensor_bytes()),
            KvPlacement::Joined | KvPlacement::Latent => (1, self.layout.block_bytes()),
        };
        let geometry = *self;
        (0..tensors).map(move |tensor| {
            let start = geometry.tensor_offset(layer, tensor, block) as usize;
            start..start + bytes as usize
        })
    }

    /// Bytes from a token of a block to the next, and from a head to the next.
    pub(crate) fn strides(&self) -> (u64, u64) {
        let row = self.layout.row_bytes();
        match self.layout.order {
            KvOrder::Nhd => (row * self.layout.heads().len() as u64, row),
            KvOrder::Hnd => (row, row * u64::from(self.layout.block_tokens)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KvDtype, TensorParallel};
    use super::*;

    fn geometry(placement: KvPlacement) -> KvGeometry {
        let layout = KvLayout {
            layers: 3,
            kv_heads: 4,
            head_dim: 8,
            block_tokens: 2,
            dtype: KvDtype::Bf16,
            placement,
            order: KvOrder::Hnd,
            tensor_parallel: TensorParallel::SINGLE,
        };
        KvGeometry { layout, blocks: 5 }
    }

    #[test]
    fn neighbouring_blocks_are_neighbouring_bytes() {
        for placement in [KvPlacement::Joined, KvPlacement::Split, KvPlacement::Latent] {
            let geometry = geometry(placement);
            for (first, second) in geometry.pieces(0, 0).zip(geometry.pieces(0, 1)) {
                assert_eq!(first.end, second.start);
            }
            let last = geometry.pieces(2, 4).last().unwrap();
            assert_eq!(last.end as u64, geometry.pool_bytes());
            assert_eq!(
                geometry.pieces(1, 3).map(|piece| piece.len() as u64).sum::<u64>(),
                geometry.layout.block_bytes()
            );
        }
    }

    #[test]
    fn empty_and_overflowing_pools_are_refused() {
        let sound = geometry(KvPlacement::Joined);
        sound.validate().unwrap();
        let huge = KvLayout { layers: u32::MAX, head_dim: u32::MAX, ..sound.layout };
        for (layout, blocks) in [(sound.layout, 0), (huge, u32::MAX)] {
            assert!(matches!(KvGeometry { layout, blocks }.validate(), Err(GeometryError::Size { .. })));
        }
        let layout = KvLayout { layers: 0, ..sound.layout };
        let error = KvGeometry { layout, blocks: 1 }.validate();
        assert_eq!(error, Err(GeometryError::Layout { field: "layers", layout }));
    }
}
