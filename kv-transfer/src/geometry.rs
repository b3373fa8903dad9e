//! The shape of a KV pool, and the arithmetic from (layer, block) to bytes.

use std::ops::Range;

/// Shape of one worker's KV pool.
///
/// The pool is `[layers][blocks][block_bytes]`: the piece of `(layer, block)` holds both K and V of that block and lies
/// at `(layer * blocks + block) * block_bytes`. Neighbouring block ids of one layer are therefore neighbouring bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvGeometry {
    /// Transformer layers that own KV.
    pub layers: u32,
    /// Blocks in this pool. May differ between the two ends of a transfer.
    pub blocks: u32,
    /// Bytes of K and V of one block in one layer.
    pub block_bytes: u64,
}

/// A pool shape that no machine could hold, or that holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a KV pool of {layers} layers x {blocks} blocks x {block_bytes} bytes is empty or overflows the address space"
)]
pub struct GeometryError {
    /// Layers asked for.
    pub layers: u32,
    /// Blocks asked for.
    pub blocks: u32,
    /// Bytes a block asked for.
    pub block_bytes: u64,
}

impl KvGeometry {
    /// Checks that the pool is not empty and fits the address space.
    ///
    /// # Errors
    /// [`GeometryError`] when a dimension is zero or the product leaves `isize`.
    pub fn validate(&self) -> Result<(), GeometryError> {
        let error = GeometryError { layers: self.layers, blocks: self.blocks, block_bytes: self.block_bytes };
        let pieces = u64::from(self.layers) * u64::from(self.blocks);
        let bytes = pieces.checked_mul(self.block_bytes).ok_or(error)?;
        if bytes == 0 || bytes > isize::MAX as u64 { Err(error) } else { Ok(()) }
    }

    /// Bytes of the whole pool.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        u64::from(self.layers) * u64::from(self.blocks) * self.block_bytes
    }

    /// Where the piece of `(layer, block)` starts.
    #[must_use]
    pub fn offset(&self, layer: u32, block: u32) -> u64 {
        debug_assert!(
            layer < self.layers && block < self.blocks,
            "piece ({layer}, {block}) is outside {self:?}"
        );
        (u64::from(layer) * u64::from(self.blocks) + u64::from(block)) * self.block_bytes
    }

    /// The bytes of the piece of `(layer, block)` as a range in the pool.
    #[must_use]
    pub fn piece(&self, layer: u32, block: u32) -> Range<usize> {
        let start = self.offset(layer, block) as usize;
        start..start + self.block_bytes as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_blocks_are_neighbouring_bytes() {
        let geometry = KvGeometry { layers: 3, blocks: 5, block_bytes: 64 };
        assert_eq!(geometry.piece(0, 1).start, geometry.piece(0, 0).end);
        assert_eq!(geometry.piece(1, 0).start, geometry.piece(0, 4).end);
        assert_eq!(geometry.piece(2, 4).end as u64, geometry.pool_bytes());
    }

    #[test]
    fn empty_and_overflowing_pools_are_refused() {
        for (layers, blocks, block_bytes) in
            [(0, 1, 1), (1, 0, 1), (1, 1, 0), (u32::MAX, u32::MAX, u64::MAX), (2, 1 << 31, 1 << 32)]
        {
            assert!(KvGeometry { layers, blocks, block_bytes }.validate().is_err());
        }
    }
}
