//! From the joint projection to attention's inputs: per-head norm, rope; queries out, keys and values into the pool.

use super::{
    Batch, Element, Kernels, KvPool, Operands, PackedMatrix, Rows, Scratches, SequenceLayer, Threads,
    arith::{Arith, multiversion},
    element::LANES,
    fused::{self, Groups},
    norm::inverse_rms,
};

/// Shape of attention in one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadShape {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Elements of each.
    pub(crate) head_dim: usize,
}

impl HeadShape {
    /// Elements of a row of queries.
    pub(crate) fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of a row of the joint projection: queries, keys, values.
    pub(crate) fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// What a layer does to queries and keys.
pub(crate) struct HeadParams<'a> {
    pub(crate) shape: HeadShape,
    /// `[head_dim]`, or empty.
    pub(crate) q_norm: &'a [f32],
    /// `[head_dim]`, or empty.
    pub(crate) k_norm: &'a [f32],
    pub(crate) eps: f32,
}

/// A compiled kernel; see [`one_row`].
pub(crate) type Kernel<T> =
    fn(&HeadParams<'_>, usize, &mut [f32], &[f32], usize, SequenceLayer<'_>, &mut [T]);

multiversion! {
    /// One token: `qkv` is its row of the joint projection from head `first` on, `rope` the cosines and then the sines of its
    /// position (`head_dim / 2` each), `q` its row of queries from that head on.
    pub(crate) fn one_row<T: Element>(
        params: &HeadParams<'_>, first: usize, qkv: &mut [f32], rope: &[f32], token: usize, cache: SequenceLayer<'_>,
        q: &mut [T],
    ) = body;
}

/// What [`split`] and [`project`] take and fill beside the projection.
pub(crate) struct Heads<'a> {
    pub(crate) params: HeadParams<'a>,
    pub(crate) batch: &'a Batch,
    pub(crate) pool: &'a KvPool,
    pub(crate) layer: usize,
    /// Cosines and sines, `[rows, head_dim]`.
    pub(crate) rope: &'a Rows<f32>,
}

impl Heads<'_> {
    /// Takes some heads of a row, from `first` on.
    fn take<T: Element>(&self, kernel: Kernel<T>, row: usize, first: usize, qkv: &mut [f32], q: &mut [T]) {
        let block_table = self.batch.block_table(self.batch.sequence_of[row]);
        let cache = SequenceLayer { pool: self.pool, layer: self.layer, block_table };
        kernel(&self.params, first, qkv, self.rope.row(row), self.batch.positions[row], cache, q);
    }
}

/// From the joint projection, `[rows, heads + 2 kv_heads, head_dim]`, to queries and to keys and values in the pool.
pub(crate) fn split<T: Element>(
    kernel: Kernel<T>,
    threads: &mut Threads,
    heads: &Heads<'_>,
    qkv: &mut Rows<f32>,
    q: &mut Operands<T>,
) {
    let shape = heads.params.shape;
    q.shape(qkv.rows(), shape.q_width());
    let (stride, q_width) = (q.stride(), shape.q_width());
    let qkv = (&mut qkv[..], shape.qkv_width());
    threads.for_chunk_pairs(qkv, (q.storage_mut(), stride), |row, qkv, q| {
        heads.take(kernel, row, 0, qkv, &mut q[..q_width]);
    });
}

/// Whether [`project`] can do it, and pays.
pub(crate) fn fuses(rows: usize, shape: HeadShape) -> bool {
    rows >= fused::LEAST_ROWS && shape.head_dim.is_multiple_of(LANES)
}

/// The joint projection of `x`, and then as [`split`].
pub(crate) fn project<T: Element>(
    kernels: &Kernels<T>,
    (threads, scratch): (&mut Threads, &Scratches<f32>),
    x: &Operands<T>,
    projection: (&PackedMatrix<T>, &[f32]),
    heads: &Heads<'_>,
    q: &mut Operands<T>,
) {
    let (shape, kernel) = (heads.params.shape, kernels.split_heads);
    let groups = Groups { parts: 1, panels: shape.head_dim / LANES };
    q.shape(x.rows(), shape.q_width());
    fused::linear(kernels.gemm, (threads, scratch), x, projection, groups, q, &|row, column, qkv, q| {
        heads.take(kernel, row, column / shape.head_dim, qkv, q);
    });
}

#[inline(always)]
fn body<T: Element, A: Arith>(
    params: &HeadParams<'_>,
    first: usize,
    qkv: &mut [f32],
    rope: &[f32],
    token: usize,
    cache: SequenceLayer<'_>,
    q: &mut [T],
) {
    let HeadShape { heads, kv_heads, head_dim } = params.shape;
    for (index, x) in qkv.chunks_exact_mut(head_dim).enumerate() {
        let head = first + index;
        if head < heads {
            prepare::<A>(x, params.q_norm, params.eps, rope);
            for (q, x) in q[index * head_dim..].iter_mut().zip(x) {
                *q = T::from_f32(*x);
            }
        } else if head < heads + kv_heads {
            prepare::<A>(x, params.k_norm, params.eps, rope);
            store(x, cache.key::<T>(head - heads, token));
        } else {
            store(x, cache.value::<T>(head - heads - kv_heads, token));
        }
    }
}

/// Normalises a head if the model does that, then rotates element `i` with element `i + head_dim / 2`.
#[inline(always)]
fn prepare<A: Arith>(x: &mut [f32], norm: &[f32], eps: f32, rope: &[f32]) {
    if !norm.is_empty() {
        let scale = inverse_rms::<A>(x, eps);
        for (x, weight) in x.iter_mut().zip(norm) {
            *x = *x * scale * weight;
        }
    }
    let half = x.len() / 2;
    let (cos, sin) = rope.split_at(half);
    let (first, second) = x.split_at_mut(half);
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[inline(always)]
fn store<T: Element>(x: &[f32], to: *mut T) {
    for (i, x) in x.iter().enumerate() {
        // SAFETY: `to` is a token's row of `head_dim` elements in the pool, aligned to an element; the sequence owns
        // its block, and each token of a step is written by one task. The pool is shared with peers, so no reference.
        unsafe { to.add(i).write(T::from_f32(*x)) };
    }
}

/// The plainest form: queries, keys and values of one token, one after the other, in double precision.
pub(crate) fn reference(params: &HeadParams<'_>, qkv: &[f32], rope: &[f32]) -> Vec<f32> {
    let HeadShape { heads, kv_heads, head_dim } = params.shape;
    let half = head_dim / 2;
    let mut out: Vec<f64> = qkv.iter().map(|x| f64::from(*x)).collect();
    for (head, x) in out.chunks_exact_mut(head_dim).enumerate().take(heads + kv_heads) {
        let norm = if head < heads { params.q_norm } else { params.k_norm };
        let mean = x.iter().map(|x| x * x).sum::<f64>() / head_dim as f64;
        for (x, weight) in x.iter_mut().zip(norm) {
            *x *= f64::from(*weight) / (mean + f64::from(params.eps)).sqrt();
        }
        for i in 0..half {
            let (cos, sin) = (f64::from(rope[i]), f64::from(rope[half + i]));
            let (a, b) = (x[i], x[half + i]);
            (x[i], x[half + i]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    out.into_iter().map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::{
            HeadRules, Place,
            testing::{Probe, close, on_each_device, random},
        },
        kernels::{Batch, KvPool},
        kv::{BlockId, KvLayout, KvMemory},
    };

    const SHAPE: HeadShape = HeadShape { heads: 4, kv_heads: 2, head_dim: 10 };

    /// Two sequences in a batch, the second from a position in the middle of a block on.
    fn agrees<D: Probe>(device: &mut D, label: &str) {
        [10, 32, 96].into_iter().for_each(|head_dim| heads_of(head_dim, device, label));
    }

    fn heads_of<D: Probe>(head_dim: usize, device: &mut D, label: &str) {
        let shape = HeadShape { head_dim, ..SHAPE };
        let layout = KvLayout { layers: 2, kv_heads: 2, head_dim, block_tokens: 4, dtype: D::DTYPE };
        let pool = KvPool::new(KvMemory::allocate(&layout, 5), layout, 5);
        let tables = [[BlockId(2), BlockId(0)], [BlockId(4), BlockId(1)]];
        let mut batch = Batch::default();
        batch.push(&[0; 5], 0, &tables[0], 0);
        batch.push(&[0; 3], 3, &tables[1], 0);
        let rows = batch.rows();
        let places: Vec<_> = batch.sequence_of.iter().copied().zip(batch.positions.clone()).collect();
        let step = device.plan(batch, shape);
        let values = random(rows * shape.qkv_width(), 1);
        let angles = random(rows * shape.head_dim, 2);
        for norms in [true, false] {
            let (q_norm, k_norm) = (random(head_dim, 3), random(head_dim, 4));
            let (q, k) = (device.vector(&q_norm), device.vector(&k_norm));
            let norms_on_device = norms.then_some((&q, &k));
            let mut qkv = device.floats(&values, shape.qkv_width());
            let rope = device.floats(&angles, shape.head_dim);
            let mut queries = D::Operands::default();
            let place = Place { step: &step, pool: &pool, layer: 1 };
            let rules = HeadRules { norms: norms_on_device, eps: 1e-6, rope: &rope };
            device.split_heads(&place, &rules, &mut qkv, &mut queries);
            let queries = device.operand_values(&queries);
            let none: &[f32] = &[];
            let (q_norm, k_norm) = if norms { (&q_norm[..], &k_norm[..]) } else { (none, none) };
            let params = HeadParams { shape, q_norm, k_norm, eps: 1e-6 };
            for (row, (sequence, position)) in places.iter().enumerate() {
                let qkv = &values[row * shape.qkv_width()..][..shape.qkv_width()];
                let want = reference(&params, qkv, &angles[row * head_dim..][..head_dim]);
                let cache = SequenceLayer { pool: &pool, layer: 1, block_table: &tables[*sequence] };
                let mut got = queries[row * shape.q_width()..][..shape.q_width()].to_vec();
                got.extend((0..2).flat_map(|head| cache.read_key::<D::Element>(head, *position)));
                got.extend((0..2).flat_map(|head| cache.read_value::<D::Element>(head, *position)));
                close(label, &got, &want, D::ROUNDING + 2e-6);
            }
        }
    }

    /// Adapters come between the two; rows without one must not see whether they were made together.
    fn fused_is_the_same_to_the_last_bit<D: Probe>(device: &mut D, label: &str) {
        let k = 34;
        for (rows, head_dim) in [(5, 10), (70, 10), (70, 16), (211, 48)] {
            let shape = HeadShape { head_dim, ..SHAPE };
            let x = device.operands(&random(rows * k, 1), k);
            let w = device.weights(&random(shape.qkv_width() * k, 2), k);
            let bias = device.vector(&random(shape.qkv_width(), 3));
            let norm = device.vector(&random(head_dim, 4));
            let rope = device.floats(&random(rows * head_dim, 5), head_dim);
            let rules = HeadRules { norms: Some((&norm, &norm)), eps: 1e-6, rope: &rope };
            let layout = KvLayout { layers: 1, kv_heads: 2, head_dim, block_tokens: 4, dtype: D::DTYPE };
            let table: Vec<_> = (0..rows as u32).rev().map(BlockId).collect();
            let [apart, together] = [false, true].map(|fused| {
                let pool = KvPool::new(KvMemory::allocate(&layout, rows), layout, rows);
                let mut batch = Batch::default();
                batch.push(&vec![0; rows], 3, &table, 0);
                let step = device.plan(batch, shape);
                let place = Place { step: &step, pool: &pool, layer: 0 };
                let (mut qkv, mut queries) = Default::default();
                if fused {
                    device.linear_heads(&place, &x, (&w, Some(&bias)), &rules, &mut qkv, &mut queries);
                } else {
                    device.linear(&x, &w, Some(&bias), &mut qkv);
                    device.split_heads(&place, &rules, &mut qkv, &mut queries);
                }
                let cache = SequenceLayer { pool: &pool, layer: 0, block_table: &table };
                let mut all = device.operand_values(&queries);
                for (head, token) in (0..2).flat_map(|head| (3..3 + rows).map(move |token| (head, token))) {
                    all.extend(cache.read_key::<D::Element>(head, token));
                    all.extend(cache.read_value::<D::Element>(head, token));
                }
                all
            });
            assert!(apart == together, "{label}: {rows} rows, heads of {head_dim}");
        }
    }

    #[test]
    fn heads_agree_with_the_formula_and_land_in_their_blocks() {
        on_each_device!(agrees, fused_is_the_same_to_the_last_bit);
    }
}
