//! Who owns which block of a node's pool: the allocator that agents use, and the oracle that the network asks.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng;
use rand::rngs::SmallRng;

use crate::ids::TransferKey;
use crate::{KvGeometry, PoolMemory};

/// What free blocks hold.
const POISON: u8 = 0xee;

/// For what a block is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Taken, and not part of a transfer yet.
    Taken,
    /// Destination of a transfer to this node.
    Destination(TransferKey),
    /// Source of a transfer to another node.
    Source(usize, TransferKey),
}

/// The blocks of one node.
#[derive(Clone)]
pub(super) struct Blocks {
    pool: PoolMemory,
    geometry: KvGeometry,
    uses: Arc<Mutex<Vec<Option<Use>>>>,
}

impl Blocks {
    pub(super) fn new(pool: PoolMemory, geometry: KvGeometry) -> Self {
        let blocks =
            Self { pool, geometry, uses: Arc::new(Mutex::new(vec![None; geometry.blocks as usize])) };
        (0..geometry.blocks).for_each(|block| blocks.fill(block, |_| POISON));
        blocks
    }

    /// Takes `count` random free blocks.
    pub(super) fn take(&self, count: usize, random: &mut SmallRng) -> Option<Lease> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free: Vec<u32> =
            (0..self.geometry.blocks).filter(|&block| uses[block as usize].is_none()).collect();
        if free.len() < count {
            return None;
        }
        let ids: Vec<u32> =
            (0..count).map(|_| free.swap_remove(random.random_range(0..free.len()))).collect();
        ids.iter().for_each(|&id| uses[id as usize] = Some(Use::Taken));
        Some(Lease { blocks: self.clone(), ids })
    }

    pub(super) fn free(&self) -> usize {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|used| used.is_none()).count()
    }

    /// The first block that `bytes` of the pool touch and that is not in use as `expected`.
    pub(super) fn first_wrong(&self, bytes: Range<u64>, expected: Use) -> Option<(u32, Option<Use>)> {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.geometry.block_bytes;
        (bytes.start / size..bytes.end.div_ceil(size))
            .map(|piece| (piece % u64::from(self.geometry.blocks)) as u32)
            .map(|block| (block, uses[block as usize]))
            .find(|&(_, used)| used != Some(expected))
    }

    /// Fills all layers of a block; each piece with what `content` says of its layer.
    fn fill(&self, block: u32, content: impl Fn(u32) -> u8) {
        for layer in 0..self.geometry.layers {
            let piece = vec![content(layer); self.geometry.block_bytes as usize];
            self.pool.copy_in(self.geometry.offset(layer, block) as usize, &piece);
        }
    }
}

/// Blocks in use; given back, and poisoned, when dropped.
pub(super) struct Lease {
    blocks: Blocks,
    pub(super) ids: Vec<u32>,
}

impl Lease {
    pub(super) fn used_as(&self, used: Use) {
        let mut uses = self.blocks.uses.lock().unwrap_or_else(PoisonError::into_inner);
        self.ids.iter().for_each(|&id| uses[id as usize] = Some(used));
    }

    /// Writes the content of transfer `tag`.
    pub(super) fn write(&self, tag: u64) {
        for (index, &id) in self.ids.iter().enumerate() {
            self.blocks.fill(id, |layer| content(tag, layer, index));
        }
    }

    /// The first piece, as layer and index, that does not hold the content of transfer `tag`.
    pub(super) fn first_different(&self, tag: u64) -> Option<(u32, usize)> {
        let geometry = self.blocks.geometry;
        let mut piece = vec![0; geometry.block_bytes as usize];
        let all = (0..geometry.layers).flat_map(|layer| (0..self.ids.len()).map(move |index| (layer, index)));
        all.into_iter().find(|&(layer, index)| {
            self.blocks.pool.copy_out(geometry.offset(layer, self.ids[index]) as usize, &mut piece);
            piece.iter().any(|&byte| byte != content(tag, layer, index))
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ids.iter().for_each(|&id| self.blocks.fill(id, |_| POISON));
        let mut uses = self.blocks.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for &id in &self.ids {
            assert!(uses[id as usize].take().is_some(), "block {id} was given back twice");
        }
    }
}

/// What a piece holds: different for neighbours in each direction, and never the poison.
fn content(tag: u64, layer: u32, index: usize) -> u8 {
    let mixed = tag.wrapping_mul(31).wrapping_add(u64::from(layer) * 7).wrapping_add(index as u64 * 3);
    (mixed % 0xe0) as u8
}
