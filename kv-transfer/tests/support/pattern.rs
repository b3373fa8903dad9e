//! Bytes that say where they belong.

use baton_kv_transfer::{KvGeometry, PoolMemory};

/// The content of one piece, different for each seed, layer and position.
fn piece(seed: u64, layer: u32, index: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed ^ (u64::from(layer) << 40) ^ (u64::from(index) << 8) ^ 0x9e37_79b9_7f4a_7c15;
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

/// Writes the pattern into `blocks`, in every layer.
pub fn fill(pool: &PoolMemory, geometry: &KvGeometry, blocks: &[u32], seed: u64) {
    for layer in 0..geometry.layers {
        for (index, &block) in blocks.iter().enumerate() {
            let range = geometry.piece(layer, block);
            pool.copy_in(range.start, &piece(seed, layer, index as u32, range.len()));
        }
    }
}

/// The first (layer, block) whose bytes are not the pattern's.
pub fn first_wrong(
    pool: &PoolMemory,
    geometry: &KvGeometry,
    blocks: &[u32],
    seed: u64,
) -> Option<(u32, u32)> {
    for layer in 0..geometry.layers {
        for (index, &block) in blocks.iter().enumerate() {
            let range = geometry.piece(layer, block);
            let mut found = vec![0; range.len()];
            pool.copy_out(range.start, &mut found);
            if found != piece(seed, layer, index as u32, range.len()) {
                return Some((layer, block));
            }
        }
    }
    None
}
