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
    /// Destination of the fetch with this number.
    Fetching(u64),
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
        (0..geometry.blocks).for_each(|block| blocks.poison(block));
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

    pub(super) fn len(&self) -> usize {
        self.geometry.blocks as usize
    }

    pub(super) fn free(&self) -> usize {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|used| used.is_none()).count()
    }

    /// The first block that `bytes` of the pool touch and that is not in use as `expected`. What lies behind the pool are no
    /// blocks; that the right bytes go through it shows at the end.
    pub(super) fn first_wrong(&self, bytes: Range<u64>, expected: Use) -> Option<(u32, Option<Use>)> {
        if bytes.start >= self.geometry.pool_bytes() {
            return None;
        }
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.geometry.pieces(0, 0).next().map_or(1, |piece| piece.len() as u64);
        (bytes.start / size..bytes.end.div_ceil(size))
            .map(|piece| (piece % u64::from(self.geometry.blocks)) as u32)
            .map(|block| (block, uses[block as usize]))
            .find(|&(_, used)| used != Some(expected))
    }

    /// The use of the first block that bytes from `offset` on of the pool belong to.
    pub(super) fn used_as(&self, offset: u64) -> Option<Use> {
        let size = self.geometry.pieces(0, 0).next().map_or(1, |piece| piece.len() as u64);
        let block = (offset / size) % u64::from(self.geometry.blocks);
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)[block as usize]
    }

    fn poison(&self, block: u32) {
        for piece in (0..self.geometry.layout.layers).flat_map(|layer| self.geometry.pieces(layer, block)) {
            self.pool.copy_in(piece.start, &vec![POISON; piece.len()]);
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

    /// Writes the content of transfer `tag`, of so many tokens: all heads that this node has.
    pub(super) fn write(&self, tag: u64, tokens: u32) {
        for (row, place) in self.rows(tokens) {
            self.blocks.pool.copy_in(place.start, &vec![row.content(tag); place.len()]);
        }
    }

    /// The first row that does not hold the content of transfer `tag`.
    pub(super) fn first_different(&self, tag: u64, tokens: u32) -> Option<Row> {
        self.rows(tokens).find_map(|(row, place)| {
            let mut found = vec![0; place.len()];
            self.blocks.pool.copy_out(place.start, &mut found);
            found.iter().any(|&byte| byte != row.content(tag)).then_some(row)
        })
    }

    /// Every row of a sequence that lies in these blocks, and its place.
    fn rows(&self, tokens: u32) -> impl Iterator<Item = (Row, Range<usize>)> {
        let geometry = self.blocks.geometry;
        let layout = geometry.layout;
        let (token_stride, head_stride) = geometry.strides();
        let numbers = (0..layout.layers).flat_map(move |layer| {
            (0..layout.placement.tensors()).flat_map(move |tensor| {
                layout
                    .heads()
                    .flat_map(move |head| (0..tokens).map(move |token| Row { layer, tensor, head, token }))
            })
        });
        numbers.map(move |row| {
            let block = self.ids[(row.token / layout.block_tokens) as usize];
            let within = u64::from(row.token % layout.block_tokens) * token_stride
                + u64::from(row.head - layout.heads().start) * head_stride;
            let start = (geometry.tensor_offset(row.layer, row.tensor, block) + within) as usize;
            (row, start..start + layout.row_bytes() as usize)
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ids.iter().for_each(|&id| self.blocks.poison(id));
        let mut uses = self.blocks.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for &id in &self.ids {
            assert!(uses[id as usize].take().is_some(), "block {id} was given back twice");
        }
    }
}

/// One head of one token, of K or V.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    layer: u32,
    tensor: u32,
    head: u32,
    token: u32,
}

impl Row {
    /// What it holds: different for neighbours in each direction, and never the poison.
    fn content(self, tag: u64) -> u8 {
        let Self { layer, tensor, head, token } = self;
        let mixed = tag.wrapping_mul(31)
            + u64::from(layer) * 7
            + u64::from(tensor) * 101
            + u64::from(head) * 53
            + u64::from(token) * 3;
        (mixed % 0xe0) as u8
    }
}
