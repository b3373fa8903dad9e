//! The limit: one thread copies the same pieces between two shared mappings.

use std::time::{Duration, Instant};

use baton_kv_transfer::{KvGeometry, PoolMemory};

/// Copies block `from[i]` to block `to[i]` in every layer; runs of neighbours in one call each, as a fabric may.
pub(super) fn copy(
    source: &PoolMemory,
    target: &PoolMemory,
    geometry: &KvGeometry,
    from: &[u32],
    to: &[u32],
    run: u32,
) -> Duration {
    let bytes = (geometry.layout.block_bytes() * u64::from(run)) as usize;
    assert!(source.len() >= geometry.pool_bytes() as usize && target.len() >= geometry.pool_bytes() as usize);
    let started = Instant::now();
    for layer in 0..geometry.layout.layers {
        for (from, to) in from.chunks(run as usize).zip(to.chunks(run as usize)) {
            let from = source.ptr().as_ptr().wrapping_add(geometry.tensor_offset(layer, 0, from[0]) as usize);
            let to = target.ptr().as_ptr().wrapping_add(geometry.tensor_offset(layer, 0, to[0]) as usize);
            // SAFETY: both runs lie in their pools (`tensor_offset` and the lengths above), the pools are different mappings,
            // and no transfer is under way.
            unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
        }
    }
    started.elapsed()
}
