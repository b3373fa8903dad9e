//! Numbers that say where they belong: the same for every layout of the same cache.

use std::ops::Range;

use baton_kv_transfer::{KvGeometry, KvOrder, PoolMemory};

/// One head of one token, of K or V, in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    layer: u32,
    tensor: u32,
    head: u32,
    token: u32,
}

impl Row {
    fn content(self, seed: u64, bytes: usize) -> Vec<u8> {
        let Self { layer, tensor, head, token } = self;
        let mut state = seed ^ (u64::from(layer) << 40) ^ (u64::from(head) << 52) ^ 0x9e37_79b9_7f4a_7c15;
        state ^= (u64::from(token) << 8) ^ (u64::from(tensor) << 36);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
        };
        let mut content = Vec::with_capacity(bytes + 8);
        while content.len() < bytes {
            content.extend_from_slice(&next());
        }
        content.truncate(bytes);
        content
    }
}

/// The rows of a sequence of `tokens` in `blocks`, each with its place; by the definition of the layouts.
fn rows<'a>(
    geometry: &'a KvGeometry,
    blocks: &'a [u32],
    tokens: u32,
) -> impl Iterator<Item = (Row, u32, Range<usize>)> + 'a {
    let layout = &geometry.layout;
    let (heads, row) = (layout.heads(), layout.row_bytes());
    let (here, each) = (heads.len() as u64, u64::from(layout.block_tokens));
    (0..layout.layers).flat_map(move |layer| {
        let heads = heads.clone();
        (0..2).flat_map(move |tensor| {
            let heads = heads.clone();
            (0..tokens).flat_map(move |token| {
                let (block, within) =
                    (blocks[(token / layout.block_tokens) as usize], u64::from(token) % each);
                let first = heads.start;
                heads.clone().map(move |head| {
                    let head_here = u64::from(head - first);
                    let index = match layout.order {
                        KvOrder::Nhd => within * here + head_here,
                        KvOrder::Hnd => head_here * each + within,
                    };
                    let start = (geometry.tensor_offset(layer, tensor, block) + index * row) as usize;
                    (Row { layer, tensor, head, token }, block, start..start + row as usize)
                })
            })
        })
    })
}

/// What `push` takes: each block with its position in the sequence.
pub fn pairs(blocks: &[u32]) -> Vec<(u32, u32)> {
    blocks.iter().copied().zip(0..).collect()
}

/// Writes the pattern into all of `blocks`, in every layer.
pub fn fill(pool: &PoolMemory, geometry: &KvGeometry, blocks: &[u32], seed: u64) {
    let tokens = blocks.len() as u32 * geometry.layout.block_tokens;
    for (row, _, place) in rows(geometry, blocks, tokens) {
        pool.copy_in(place.start, &row.content(seed, place.len()));
    }
}

/// The first (layer, block) whose bytes are not the pattern's.
pub fn first_wrong(
    pool: &PoolMemory,
    geometry: &KvGeometry,
    blocks: &[u32],
    seed: u64,
) -> Option<(u32, u32)> {
    first_wrong_of(pool, geometry, blocks, blocks.len() as u32 * geometry.layout.block_tokens, seed)
}

/// The same for the first `tokens` only.
pub fn first_wrong_of(
    pool: &PoolMemory,
    geometry: &KvGeometry,
    blocks: &[u32],
    tokens: u32,
    seed: u64,
) -> Option<(u32, u32)> {
    rows(geometry, blocks, tokens).find_map(|(row, block, place)| {
        let mut found = vec![0; place.len()];
        pool.copy_out(place.start, &mut found);
        (found != row.content(seed, place.len())).then_some((row.layer, block))
    })
}
