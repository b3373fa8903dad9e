//! Causal attention over the paged KV pool, for prefill chunks and single decode tokens alike.
//!
//! A query row's result depends on its position and on the keys and values in the pool, nothing else: the context is cut
//! into tiles at fixed positions of the *sequence*, a row goes through its tiles in order with an online softmax, and
//! keys and values are read back from the pool even when this very step has written them. So it makes no difference
//! whether a token is computed alone, in a chunk of 512, or on another worker that received the blocks.

use super::{
    Element, HeadShape, Isa, SequenceLayer,
    arith::{Arith, exp, multiversion, sum_lanes},
    threads::{Pointer, Threads},
};
use std::sync::Mutex;

/// Tokens of a context tile; also the lanes in which scores are computed.
pub(super) const TILE: usize = 64;
/// Query rows that share the unpacking of a context tile.
const MAX_ROWS: usize = 64;

/// One sequence's queries in a step.
#[derive(Clone, Copy)]
pub(crate) struct AttentionSequence<'a> {
    pub(crate) cache: SequenceLayer<'a>,
    /// Row of the batch at which the sequence's tokens begin.
    pub(crate) first_row: usize,
    /// Tokens of the sequence in this step.
    pub(crate) tokens: usize,
    /// Position of the first.
    pub(crate) position: usize,
}

/// A task: some tokens of a sequence, and the query heads of one KV head.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) sequence: AttentionSequence<'a>,
    pub(super) kv_head: usize,
    /// Tokens `first..first + tokens` of the sequence's share.
    pub(super) first: usize,
    pub(super) tokens: usize,
}

/// Working memory of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Keys of a tile, transposed: `[head_dim][TILE]`.
    keys: Vec<f32>,
    /// Values of a tile: `[TILE][head_dim]`.
    values: Vec<f32>,
    rows: Vec<RowState>,
    /// Weighted sums of values, `[rows][head_dim]`.
    sums: Vec<f32>,
}

/// Online softmax of one query row.
#[derive(Clone, Copy)]
struct RowState {
    max: f32,
    total: f32,
}

/// Queries and results, both `[rows, heads, head_dim]`.
pub(super) struct Job<'a, T> {
    pub(super) shape: HeadShape,
    pub(super) q: &'a [T],
    pub(super) out: Pointer<T>,
}

/// Attention of every row of `q`.
pub(crate) fn attention<T: Element>(
    isa: Isa,
    threads: &mut Threads,
    scratch: &[Mutex<Scratch>],
    shape: HeadShape,
    sequences: &[AttentionSequence<'_>],
    q: &[T],
    out: &mut [T],
) {
    let per_tile = (MAX_ROWS / (shape.heads / shape.kv_heads)).max(1);
    let tiles = || {
        sequences.iter().flat_map(move |sequence| {
            (0..sequence.tokens).step_by(per_tile).flat_map(move |first| {
                (0..shape.kv_heads).map(move |kv_head| Tile {
                    sequence: *sequence,
                    kv_head,
                    first,
                    tokens: per_tile.min(sequence.tokens - first),
                })
            })
        })
    };
    let tiles: Vec<_> = tiles().collect();
    let job = Job { shape, q, out: Pointer(out.as_mut_ptr()) };
    // Later tiles of a prompt see more context: the longest first.
    threads.run(tiles.len(), &|thread, task| {
        let mut scratch = scratch[thread].lock().expect("no task panics while it holds its thread's scratch");
        compute(isa, &job, tiles[tiles.len() - 1 - task], &mut scratch);
    });
}

multiversion! {
    fn compute<T: Element>(job: &Job<'_, T>, tile: Tile<'_>, scratch: &mut Scratch) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(job: &Job<'_, T>, tile: Tile<'_>, scratch: &mut Scratch) {
    let HeadShape { heads, kv_heads, head_dim } = job.shape;
    let group = heads / kv_heads;
    let rows = tile.tokens * group;
    scratch.keys.resize(head_dim * TILE, 0.0);
    scratch.values.resize(TILE * head_dim, 0.0);
    scratch.rows.clear();
    scratch.rows.resize(rows, RowState { max: f32::NEG_INFINITY, total: 0.0 });
    scratch.sums.clear();
    scratch.sums.resize(rows * head_dim, 0.0);
    let position = tile.sequence.position + tile.first;
    let context = position + tile.tokens;
    let scale = 1.0 / (head_dim as f32).sqrt();
    for start in (0..context).step_by(TILE) {
        load_tile::<T>(&tile, start, TILE.min(context - start), head_dim, scratch);
        for row in 0..rows {
            let visible = (position + row / group + 1).saturating_sub(start).min(TILE);
            if visible > 0 {
                let token = tile.sequence.first_row + tile.first + row / group;
                let q = &job.q[(token * heads + tile.kv_head * group + row % group) * head_dim..][..head_dim];
                attend::<T, A>(q, visible, scale, row, scratch);
            }
        }
    }
    for row in 0..rows {
        let token = tile.sequence.first_row + tile.first + row / group;
        let at = (token * heads + tile.kv_head * group + row % group) * head_dim;
        let inverse = 1.0 / scratch.rows[row].total;
        for (i, sum) in scratch.sums[row * head_dim..][..head_dim].iter().enumerate() {
            // SAFETY: a row of `out`, which has the shape of `q`; no other task has this token and head.
            unsafe { job.out.at(at + i).write(T::from_f32(sum * inverse)) };
        }
    }
}

/// Reads `tokens` keys and values from position `start` on.
#[inline(always)]
fn load_tile<T: Element>(
    tile: &Tile<'_>,
    start: usize,
    tokens: usize,
    head_dim: usize,
    scratch: &mut Scratch,
) {
    for t in 0..tokens {
        let key = tile.sequence.cache.key::<T>(tile.kv_head, start + t);
        let value = tile.sequence.cache.value::<T>(tile.kv_head, start + t);
        for d in 0..head_dim {
            // SAFETY: a token's row in a block that the sequence owns, written in this step or before. The pool is
            // shared with peers, so no reference to it is made.
            scratch.keys[d * TILE + t] = unsafe { key.add(d).read() }.to_f32();
            // SAFETY: as above.
            scratch.values[t * head_dim + d] = unsafe { value.add(d).read() }.to_f32();
        }
    }
}

/// Takes the first `visible` tokens of the tile into row `row`.
#[inline(always)]
fn attend<T: Element, A: Arith>(q: &[T], visible: usize, scale: f32, row: usize, scratch: &mut Scratch) {
    let head_dim = q.len();
    let mut scores = [0.0f32; TILE];
    for (q, keys) in q.iter().zip(scratch.keys.as_chunks::<TILE>().0) {
        let q = q.to_f32();
        for (score, key) in scores.iter_mut().zip(keys) {
            *score = A::mul_add(q, *key, *score);
        }
    }
    let state = &mut scratch.rows[row];
    let mut max = state.max;
    for score in &mut scores[..visible] {
        *score *= scale;
        max = max.max(*score);
    }
    scores[visible..].fill(f32::NEG_INFINITY);
    let sums = &mut scratch.sums[row * head_dim..][..head_dim];
    let shrink = exp::<A>(state.max - max);
    for sum in sums.iter_mut() {
        *sum *= shrink;
    }
    let mut lanes = [0.0f32; 16];
    for chunk in scores.as_chunks_mut::<16>().0 {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score = exp::<A>(*score - max);
            *lane += *score;
        }
    }
    *state = RowState { max, total: A::mul_add(state.total, shrink, sum_lanes(lanes)) };
    for (weight, value) in scores[..visible].iter().zip(scratch.values.chunks_exact(head_dim)) {
        for (sum, value) in sums.iter_mut().zip(value) {
            *sum = A::mul_add(*weight, *value, *sum);
        }
    }
}
