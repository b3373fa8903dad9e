//! Causal attention over the paged KV pool, for prefill chunks and single decode tokens alike.
//!
//! A query row's result depends on its position and on the keys and values in the pool, nothing else: the context is cut
//! into tiles at fixed positions of the *sequence*, a row goes through its tiles in order with an online softmax, and
//! keys and values are read back from the pool even when this very step has written them. So it makes no difference
//! whether a token is computed alone, in a chunk of 512, or on another worker that received the blocks.

use std::{ops::Range, sync::Mutex};

use super::{
    Element, HeadShape, Isa, KvPool, SequenceLayer,
    arith::{Arith, exp, multiversion, sum_lanes},
    threads::{Pointer, Threads},
};
use crate::kv::BlockId;

/// Tokens of a context tile; also the lanes in which scores are computed.
pub(super) const TILE: usize = 64;
/// Query rows that share the unpacking of a context tile.
const MAX_ROWS: usize = 64;

/// One sequence's queries in a step.
#[derive(Clone, Copy)]
pub(crate) struct AttentionSequence<'a> {
    pub(crate) block_table: &'a [BlockId],
    /// Row of the batch at which the sequence's tokens begin.
    pub(crate) first_row: usize,
    /// Tokens of the sequence in this step.
    pub(crate) tokens: usize,
    /// Position of the first.
    pub(crate) position: usize,
}

/// A task: some tokens of a sequence, and the query heads of one KV head.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    pub(super) sequence: AttentionSequence<'a>,
    pub(super) kv_head: usize,
    /// Tokens `first..first + tokens` of the sequence's share.
    pub(super) first: usize,
    pub(super) tokens: usize,
}

/// Working memory of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    plain: PlainScratch,
    #[cfg(target_arch = "x86_64")]
    pub(super) avx512: super::attention_avx512::Scratch,
}

/// Working memory of the kernel in this file.
#[derive(Default)]
struct PlainScratch {
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
pub(crate) struct Job<'a, T> {
    pub(super) shape: HeadShape,
    pub(super) pool: &'a KvPool,
    pub(super) layer: usize,
    pub(super) q: &'a [T],
    pub(super) out: Pointer<T>,
}

impl<'a, T> Job<'a, T> {
    /// Keys and values of a tile's sequence.
    pub(super) fn cache(&self, tile: &Tile<'a>) -> SequenceLayer<'a> {
        SequenceLayer { pool: self.pool, layer: self.layer, block_table: tile.sequence.block_table }
    }
}

/// The tasks of a step, the same in every layer.
pub(crate) fn plan<'a>(
    shape: HeadShape,
    sequences: impl Iterator<Item = AttentionSequence<'a>>,
) -> Vec<Tile<'a>> {
    let per_tile = (MAX_ROWS / (shape.heads / shape.kv_heads)).max(1);
    let mut tiles = Vec::new();
    for sequence in sequences {
        for first in (0..sequence.tokens).step_by(per_tile) {
            let tokens = per_tile.min(sequence.tokens - first);
            tiles.extend((0..shape.kv_heads).map(|kv_head| Tile { sequence, kv_head, first, tokens }));
        }
    }
    tiles
}

/// Attention of every row of `q`, both `[rows, heads, head_dim]`, in layer `layer`; `tiles` is the step's [`plan`].
pub(crate) fn attention<T: Element>(
    isa: Isa,
    threads: &mut Threads,
    scratch: &[Mutex<Scratch>],
    tiles: &[Tile<'_>],
    (shape, pool, layer): (HeadShape, &KvPool, usize),
    q: &[T],
    out: &mut [T],
) {
    assert_eq!(q.len(), out.len(), "one result for each query");
    let job = Job { shape, pool, layer, q, out: Pointer(out.as_mut_ptr()) };
    // Later tiles of a prompt see more context: the longest first.
    threads.run(tiles.len(), &|thread, task| {
        let mut scratch = scratch[thread].lock().expect("no task panics while it holds its thread's scratch");
        T::attention_tile(isa, &job, tiles[tiles.len() - 1 - task], &mut scratch);
    });
}

/// Computes one tile in f32 arithmetic.
pub(crate) fn compute<T: Element>(isa: Isa, job: &Job<'_, T>, tile: Tile<'_>, scratch: &mut Scratch) {
    compute_plain(isa, job, tile, &mut scratch.plain);
}

multiversion! {
    fn compute_plain<T: Element>(job: &Job<'_, T>, tile: Tile<'_>, scratch: &mut PlainScratch) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(job: &Job<'_, T>, tile: Tile<'_>, scratch: &mut PlainScratch) {
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
        load_tile::<T>(job.cache(&tile), tile.kv_head, start..context.min(start + TILE), head_dim, scratch);
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

/// Reads the keys and values of `tokens`.
#[inline(always)]
fn load_tile<T: Element>(
    cache: SequenceLayer<'_>,
    kv_head: usize,
    tokens: Range<usize>,
    head_dim: usize,
    scratch: &mut PlainScratch,
) {
    for (t, token) in tokens.enumerate() {
        let (key, value) = (cache.key::<T>(kv_head, token), cache.value::<T>(kv_head, token));
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
fn attend<T: Element, A: Arith>(q: &[T], visible: usize, scale: f32, row: usize, scratch: &mut PlainScratch) {
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

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::{
        kernels::testing::random,
        kv::{KvLayout, KvMemory},
    };

    const CONTEXT: usize = 150;

    /// A pool with one layer of random keys and values for `CONTEXT` tokens, and garbage everywhere else.
    fn pool<T: Element>(shape: HeadShape, table: &[BlockId], keys: &[T], values: &[T]) -> KvPool {
        let HeadShape { kv_heads, head_dim, .. } = shape;
        let layout = KvLayout { layers: 1, kv_heads, head_dim, block_tokens: 16, dtype: T::DTYPE };
        let memory = KvMemory::allocate(&layout, table.len());
        // SAFETY: the test's own memory; 0xff is NaN in both types.
        unsafe { memory.base().as_ptr().write_bytes(0xff, memory.len()) };
        let pool = KvPool::new(memory, layout, table.len());
        let cache = SequenceLayer { pool: &pool, layer: 0, block_table: table };
        for (token, head) in (0..CONTEXT).flat_map(|t| (0..kv_heads).map(move |h| (t, h))) {
            for d in 0..head_dim {
                let from = (token * kv_heads + head) * head_dim + d;
                // SAFETY: within a token's row of the test's own pool.
                unsafe { cache.key::<T>(head, token).add(d).write(keys[from]) };
                // SAFETY: as above.
                unsafe { cache.value::<T>(head, token).add(d).write(values[from]) };
            }
        }
        pool
    }

    /// Softmax attention of one query in double precision.
    fn reference<T: Element>(
        shape: HeadShape,
        q: &[T],
        head: usize,
        seen: usize,
        keys: &[T],
        values: &[T],
    ) -> Vec<f64> {
        let HeadShape { heads, kv_heads, head_dim } = shape;
        let at = |x: &[T], token: usize, d: usize| {
            f64::from(x[(token * kv_heads + head / (heads / kv_heads)) * head_dim + d].to_f32())
        };
        let score = |t| (0..head_dim).map(|d| f64::from(q[d].to_f32()) * at(keys, t, d)).sum::<f64>();
        let weights: Vec<f64> = (0..seen).map(|t| (score(t) / (head_dim as f64).sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..head_dim).map(|d| (0..seen).map(|t| weights[t] / total * at(values, t, d)).sum()).collect()
    }

    fn check<T: Element>(shape: HeadShape, tolerance: f64) {
        let kv_width = shape.kv_heads * shape.head_dim;
        let typed =
            |len, seed| random(len, seed).into_iter().map(|x| T::from_f32(2.0 * x)).collect::<Vec<T>>();
        let (keys, values) = (typed(CONTEXT * kv_width, 1), typed(CONTEXT * kv_width, 2));
        let q = typed(CONTEXT * shape.q_width(), 3);
        let table: Vec<_> = (0..10).map(|i| BlockId((i * 7 + 3) % 10)).collect();
        let pool = pool(shape, &table, &keys, &values);
        let run = |isa, threads: usize, position: usize, tokens: usize| {
            let sequence = AttentionSequence { block_table: &table, first_row: 0, tokens, position };
            let scratch: Vec<_> = (0..threads).map(|_| Mutex::default()).collect();
            let q = &q[position * shape.q_width()..][..tokens * shape.q_width()];
            let mut out = vec![T::default(); q.len()];
            let tiles = plan(shape, [sequence].into_iter());
            attention(isa, &mut Threads::new(threads), &scratch, &tiles, (shape, &pool, 0), q, &mut out);
            out.iter().map(|x| x.to_f32()).collect::<Vec<_>>()
        };
        for isa in Isa::available() {
            let whole = run(isa, 3, 0, CONTEXT);
            for (row, out) in whole.chunks(shape.head_dim).enumerate() {
                let (token, head) = (row / shape.heads, row % shape.heads);
                let q = &q[row * shape.head_dim..][..shape.head_dim];
                for (out, want) in out.iter().zip(reference(shape, q, head, token + 1, &keys, &values)) {
                    assert!(
                        (f64::from(*out) - want).abs() < tolerance,
                        "{isa} {shape:?} {token}: {out} {want}"
                    );
                }
            }
            for (position, tokens) in [(0, 1), (15, 1), (63, 2), (64, 1), (100, 50), (149, 1), (37, 64)] {
                let part = run(isa, 1, position, tokens);
                let same = &whole[position * shape.q_width()..][..part.len()];
                assert!(part == same, "{isa} {shape:?}: {tokens} tokens at {position} differ from the whole");
            }
        }
    }

    #[test]
    fn rows_agree_with_softmax_attention_however_the_prompt_is_cut() {
        for (heads, kv_heads, head_dim) in
            [(2, 2, 32), (6, 1, 10), (8, 2, 24), (4, 2, 80), (4, 2, 128), (7, 1, 64)]
        {
            let shape = HeadShape { heads, kv_heads, head_dim };
            check::<f32>(shape, 3e-6);
            // bf16 weights, and a result rounded to bf16: two roundings of 2^-9 on values up to 2.
            check::<bf16>(shape, 2.0 * 2.0 / 256.0);
        }
    }
}
