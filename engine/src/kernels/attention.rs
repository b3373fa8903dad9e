//! Causal attention over the paged KV pool, for prefill chunks and single decode tokens alike.
//!
//! A query row's result depends on its position and on the keys and values in the pool, nothing else: the context is cut
//! into tiles at fixed positions of the *sequence*, a row goes through its tiles in order with an online softmax, and
//! keys and values are read back from the pool even when this very step has written them. So it makes no difference
//! whether a token is computed alone, in a chunk of 512, or on another worker that received the blocks.

use std::{ops::Range, sync::Mutex};

use super::{
    Batch, Element, HeadShape, KvPool, Operands, SequenceLayer,
    arith::{Arith, exp, multiversion, sum_lanes},
    threads::{Pointer, Threads},
};

/// Tokens of a context tile; also the lanes in which scores are computed.
pub(super) const TILE: usize = 64;
/// Tasks for each thread at least, where there are as many tiles.
const TASKS: usize = 8;
/// Query rows that share the unpacking of a context tile.
const MAX_ROWS: usize = 128;

/// What a layer's attention is like.
#[derive(Clone, Copy)]
pub(crate) struct AttentionParams<'a> {
    pub(crate) shape: HeadShape,
    /// Newest tokens that a token sees, itself included; none = all.
    pub(crate) window: Option<usize>,
    /// A logit of each query head that takes its share of the softmax and has no value, `[heads]`; or empty.
    pub(crate) sinks: &'a [f32],
}

/// A task: some tokens of a sequence, and the query heads of one KV head.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// In the batch.
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    /// Row of the batch of its first token.
    pub(super) first_row: usize,
    pub(super) tokens: usize,
    /// Position of its first token.
    pub(super) position: usize,
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

/// Queries and results, both `[rows, heads, head_dim]` and with the same stride from a row to the next.
pub(crate) struct Job<'a, T> {
    pub(super) params: AttentionParams<'a>,
    pub(super) batch: &'a Batch,
    pub(super) pool: &'a KvPool,
    pub(super) layer: usize,
    pub(super) q: &'a [T],
    pub(super) out: Pointer<T>,
    stride: usize,
}

/// A compiled kernel: computes some tiles, one after the other.
pub(crate) type Kernel<T> = fn(&Job<'_, T>, &[Tile], &mut Scratch);

impl<'a, T: Element> Job<'a, T> {
    /// Attention of every row of `q` to a layer of a pool, into `out`, which takes the shape of `q`.
    pub(crate) fn new(
        params: AttentionParams<'a>,
        batch: &'a Batch,
        (pool, layer): (&'a KvPool, usize),
        q: &'a Operands<T>,
        out: &'a mut Operands<T>,
    ) -> Self {
        assert_eq!((q.rows(), q.width()), (batch.rows(), params.shape.q_width()), "shape of the queries");
        out.shape(q.rows(), q.width());
        let (stride, out) = (q.stride(), Pointer(out.storage_mut().as_mut_ptr()));
        Self { params, batch, pool, layer, q: q.storage(0, q.rows()), out, stride }
    }

    /// Element of `q` and `out` at which a tile's row begins: one of its tokens, in one of the query heads of its KV head.
    pub(super) fn element_of(&self, tile: &Tile, row: usize) -> usize {
        let HeadShape { heads, kv_heads, head_dim } = self.params.shape;
        let group = heads / kv_heads;
        (tile.first_row + row / group) * self.stride + (tile.kv_head * group + row % group) * head_dim
    }

    /// Keys and values of a tile's sequence.
    pub(super) fn cache(&self, tile: &Tile) -> SequenceLayer<'a> {
        let block_table = self.batch.block_table(tile.sequence);
        SequenceLayer { pool: self.pool, layer: self.layer, block_table }
    }

    /// Where the first context tile of `tile` begins: nothing before is seen by its first token, or by a later one.
    pub(super) fn first_context_tile(&self, tile: &Tile) -> usize {
        self.first_seen(tile.position) / TILE * TILE
    }

    /// Tokens of the context tile at `start` that the token at `position` sees.
    pub(super) fn visible(&self, position: usize, start: usize) -> Range<usize> {
        let end = (position + 1).saturating_sub(start).min(TILE);
        self.first_seen(position).saturating_sub(start).min(end)..end
    }

    fn first_seen(&self, position: usize) -> usize {
        self.params.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The softmax's highest logit and sum of weights before the first token of a query head.
    pub(super) fn start(&self, head: usize) -> (f32, f32) {
        self.params.sinks.get(head).map_or((f32::NEG_INFINITY, 0.0), |sink| (*sink, 1.0))
    }
}

/// The tasks of a step, the same in every layer.
pub(crate) fn plan(shape: HeadShape, batch: &Batch) -> Vec<Tile> {
    let per_tile = (MAX_ROWS / (shape.heads / shape.kv_heads)).max(1);
    let mut tiles = Vec::new();
    for (sequence, share) in batch.sequences.iter().enumerate() {
        for first in (0..share.rows).step_by(per_tile) {
            let tile = |kv_head| Tile {
                sequence,
                kv_head,
                first_row: share.first_row + first,
                tokens: per_tile.min(share.rows - first),
                position: share.position + first,
            };
            tiles.extend((0..shape.kv_heads).map(tile));
        }
    }
    tiles
}

/// Computes every query of the job; `tiles` is the step's [`plan`], `scratch` one for each thread.
pub(crate) fn run<T: Element>(
    kernel: Kernel<T>,
    threads: &mut Threads,
    scratch: &[Mutex<Scratch>],
    tiles: &[Tile],
    job: &Job<'_, T>,
) {
    // A kernel fetches the next of its tiles while it computes one.
    let per_task = (tiles.len() / (threads.count() * TASKS)).clamp(1, job.params.shape.kv_heads);
    let tasks = tiles.len().div_ceil(per_task);
    // Later tiles of a prompt see more context: the longest first.
    threads.run(tasks, &|thread, task| {
        let first = (tasks - 1 - task) * per_task;
        let mut scratch = scratch[thread].lock().expect("no task panics while it holds its thread's scratch");
        kernel(job, &tiles[first..tiles.len().min(first + per_task)], &mut scratch);
    });
}

multiversion! {
    /// The kernel for any element type, in f32 arithmetic.
    pub(crate) fn tiles<T: Element>(job: &Job<'_, T>, tiles: &[Tile], scratch: &mut Scratch) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(job: &Job<'_, T>, tiles: &[Tile], scratch: &mut Scratch) {
    tiles.iter().for_each(|tile| one_tile::<T, A>(job, tile, scratch));
}

#[inline(always)]
fn one_tile<T: Element, A: Arith>(job: &Job<'_, T>, tile: &Tile, scratch: &mut Scratch) {
    let HeadShape { heads, kv_heads, head_dim } = job.params.shape;
    let scratch = &mut scratch.plain;
    let group = heads / kv_heads;
    let rows = tile.tokens * group;
    scratch.keys.resize(head_dim * TILE, 0.0);
    scratch.values.resize(TILE * head_dim, 0.0);
    scratch.rows.clear();
    scratch.rows.extend((0..rows).map(|row| {
        let (max, total) = job.start(tile.kv_head * group + row % group);
        RowState { max, total }
    }));
    scratch.sums.clear();
    scratch.sums.resize(rows * head_dim, 0.0);
    let context = tile.position + tile.tokens;
    let scale = 1.0 / (head_dim as f32).sqrt();
    for start in (job.first_context_tile(tile)..context).step_by(TILE) {
        load_tile::<T>(job.cache(tile), tile.kv_head, start..context.min(start + TILE), head_dim, scratch);
        for row in 0..rows {
            let visible = job.visible(tile.position + row / group, start);
            if !visible.is_empty() {
                attend::<T, A>(&job.q[job.element_of(tile, row)..][..head_dim], visible, scale, row, scratch);
            }
        }
    }
    for row in 0..rows {
        let inverse = 1.0 / scratch.rows[row].total;
        for (i, sum) in scratch.sums[row * head_dim..][..head_dim].iter().enumerate() {
            // SAFETY: a row of `out`, which has the shape of `q`; no other task has this token and head.
            unsafe { job.out.at(job.element_of(tile, row) + i).write(T::from_f32(sum * inverse)) };
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

/// Takes the `visible` tokens of the tile into row `row`.
#[inline(always)]
fn attend<T: Element, A: Arith>(
    q: &[T],
    visible: Range<usize>,
    scale: f32,
    row: usize,
    scratch: &mut PlainScratch,
) {
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
    for score in &mut scores[visible.clone()] {
        *score *= scale;
        max = max.max(*score);
    }
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
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
    let values = scratch.values.chunks_exact(head_dim).skip(visible.start);
    for (weight, value) in scores[visible].iter().zip(values) {
        for (sum, value) in sums.iter_mut().zip(value) {
            *sum = A::mul_add(*weight, *value, *sum);
        }
    }
}

/// The plainest form, in double precision: one query against the keys and values, `[tokens, head_dim]`, that it sees.
pub(crate) fn reference(q: &[f32], keys: &[f32], values: &[f32], sink: Option<f32>) -> Vec<f32> {
    let head_dim = q.len();
    let score = |key: &[f32]| -> f64 {
        let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
        dot / (head_dim as f64).sqrt()
    };
    let scores: Vec<f64> = keys.chunks_exact(head_dim).map(score).collect();
    let sink = sink.map_or(f64::NEG_INFINITY, f64::from);
    let max = scores.iter().copied().fold(sink, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total = weights.iter().sum::<f64>() + (sink - max).exp();
    let mut out = vec![0.0; head_dim];
    for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
        out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / total * f64::from(*value));
    }
    out.into_iter().map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::{
            Place,
            testing::{Probe, close, on_each_device, random},
        },
        kv::{BlockId, KvLayout, KvMemory},
    };

    const CONTEXT: usize = 150;

    /// A pool with one layer of keys and values for `CONTEXT` tokens, and garbage everywhere else.
    fn pool<D: Probe>(shape: HeadShape, table: &[BlockId], keys: &[f32], values: &[f32]) -> KvPool {
        let HeadShape { kv_heads, head_dim, .. } = shape;
        let layout = KvLayout { layers: 1, kv_heads, head_dim, block_tokens: 16, dtype: D::DTYPE };
        let memory = KvMemory::allocate(&layout, table.len());
        // SAFETY: the test's own memory; 0xff is NaN in both types.
        unsafe { memory.base().as_ptr().write_bytes(0xff, memory.len()) };
        let pool = KvPool::new(memory, layout, table.len());
        let cache = SequenceLayer { pool: &pool, layer: 0, block_table: table };
        for (token, head) in (0..CONTEXT).flat_map(|t| (0..kv_heads).map(move |h| (t, h))) {
            let from = (token * kv_heads + head) * head_dim;
            cache.write_key::<D::Element>(head, token, &keys[from..][..head_dim]);
            cache.write_value::<D::Element>(head, token, &values[from..][..head_dim]);
        }
        pool
    }

    struct Case {
        shape: HeadShape,
        window: Option<usize>,
        sinks: bool,
    }

    fn check<D: Probe>(device: &mut D, label: &str, case: &Case) {
        let Case { shape, window, sinks } = *case;
        let (dim, kv_width) = (shape.head_dim, shape.kv_heads * shape.head_dim);
        let twice = |len, seed| random(len, seed).iter().map(|x| 2.0 * x).collect::<Vec<f32>>();
        let keys = D::rounded(&twice(CONTEXT * kv_width, 1));
        let values = D::rounded(&twice(CONTEXT * kv_width, 2));
        let q = D::rounded(&twice(CONTEXT * shape.q_width(), 3));
        let sinks = if sinks { twice(shape.heads, 4) } else { Vec::new() };
        let table: Vec<_> = (0..10).map(|i| BlockId((i * 7 + 3) % 10)).collect();
        let pool = pool::<D>(shape, &table, &keys, &values);
        let sinks_there = (!sinks.is_empty()).then(|| device.vector(&sinks));
        // Another sequence in the batch, of which nothing is looked at.
        let mut run = |position: usize, tokens: usize, neighbour: bool| {
            let mut batch = Batch::default();
            batch.push(&vec![0; tokens], position, &table, 0);
            if neighbour {
                batch.push(&[0; 3], 0, &table, 0);
            }
            let mut queries = q[position * shape.q_width()..][..tokens * shape.q_width()].to_vec();
            queries.resize(batch.rows() * shape.q_width(), 0.5);
            let queries = device.operands(&queries, shape.q_width());
            let step = device.plan(batch, shape);
            let mut out = D::Operands::default();
            let place = Place { step: &step, pool: &pool, layer: 0 };
            device.attention(&place, window, sinks_there.as_ref(), &queries, &mut out);
            device.operand_values(&out)[..tokens * shape.q_width()].to_vec()
        };
        let whole = run(0, CONTEXT, false);
        for (row, out) in whole.chunks(dim).enumerate() {
            let (token, head) = (row / shape.heads, row % shape.heads);
            let kv_head = head / (shape.heads / shape.kv_heads);
            let first = window.map_or(0, |window| (token + 1).saturating_sub(window));
            let seen = |x: &[f32]| -> Vec<f32> {
                let at = |t| x[(t * shape.kv_heads + kv_head) * dim..][..dim].to_vec();
                (first..=token).flat_map(at).collect()
            };
            let want =
                reference(&q[row * dim..][..dim], &seen(&keys), &seen(&values), sinks.get(head).copied());
            // Weights rounded as operands are, and the result, on values up to 2.
            close(&format!("{label} token {token}"), out, &want, 3e-6 + 4.0 * D::ROUNDING);
        }
        for (position, tokens) in [(0, 1), (15, 1), (63, 2), (64, 1), (100, 50), (149, 1), (37, 64)] {
            let part = run(position, tokens, true);
            let same = &whole[position * shape.q_width()..][..part.len()];
            assert!(part == same, "{label}: {tokens} tokens at {position} differ from the whole");
        }
    }

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for (heads, kv_heads, head_dim) in
            [(2, 2, 32), (6, 1, 10), (8, 2, 24), (4, 2, 80), (4, 2, 128), (7, 1, 64)]
        {
            let shape = HeadShape { heads, kv_heads, head_dim };
            check(device, &format!("{label} {shape:?}"), &Case { shape, window: None, sinks: false });
        }
        let shape = HeadShape { heads: 4, kv_heads: 2, head_dim: 24 };
        for (window, sinks) in [
            (Some(1), false),
            (Some(7), true),
            (Some(64), false),
            (Some(65), true),
            (None, true),
            (Some(500), true),
        ] {
            let label = format!("{label} window {window:?}, sinks {sinks}");
            check(device, &label, &Case { shape, window, sinks });
        }
    }

    #[test]
    fn rows_agree_with_softmax_attention_however_the_prompt_is_cut() {
        on_each_device!(agrees);
    }

    #[test]
    fn two_tokens_by_hand() {
        // Scores 0 and ln 3: weights 1/4 and 3/4; with a sink of logit 0 they are 1/5 and 3/5.
        let keys = [0.0, 3f32.ln()];
        assert!((reference(&[1.0], &keys, &[4.0, 8.0], None)[0] - 7.0).abs() < 1e-6);
        assert!((reference(&[1.0], &keys, &[5.0, 10.0], Some(0.0))[0] - 7.0).abs() < 1e-6);
    }
}
