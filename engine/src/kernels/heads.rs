//! From the joint projection to attention's inputs: per-head norm, rope; queries out, keys and values into the pool.

use super::{
    Element, SequenceLayer,
    arith::{Arith, multiversion},
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

/// A compiled kernel; see [`split_heads`].
pub(crate) type Kernel<T> = fn(&HeadParams<'_>, &mut [f32], &[f32], usize, SequenceLayer<'_>, &mut [T]);

multiversion! {
    /// One token: `qkv` is its row of the joint projection, `rope` the cosines and then the sines of its position
    /// (`head_dim / 2` each), `q` its row of queries.
    pub(crate) fn split_heads<T: Element>(
        params: &HeadParams<'_>, qkv: &mut [f32], rope: &[f32], token: usize, cache: SequenceLayer<'_>, q: &mut [T],
    ) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(
    params: &HeadParams<'_>,
    qkv: &mut [f32],
    rope: &[f32],
    token: usize,
    cache: SequenceLayer<'_>,
    q: &mut [T],
) {
    let HeadShape { heads, kv_heads, head_dim } = params.shape;
    for (head, x) in qkv.chunks_exact_mut(head_dim).enumerate() {
        if head < heads {
            prepare::<A>(x, params.q_norm, params.eps, rope);
            for (q, x) in q[head * head_dim..].iter_mut().zip(x) {
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
            Place,
            testing::{Probe, close, on_each_device, random},
        },
        kernels::{Batch, KvPool},
        kv::{BlockId, KvLayout, KvMemory},
    };

    const SHAPE: HeadShape = HeadShape { heads: 4, kv_heads: 2, head_dim: 10 };

    /// Two sequences in a batch, the second from a position in the middle of a block on.
    fn agrees<D: Probe>(device: &mut D, label: &str) {
        let layout = KvLayout { layers: 2, kv_heads: 2, head_dim: 10, block_tokens: 4, dtype: D::DTYPE };
        let pool = KvPool::new(KvMemory::allocate(&layout, 5), layout, 5);
        let tables = [[BlockId(2), BlockId(0)], [BlockId(4), BlockId(1)]];
        let mut batch = Batch::default();
        batch.push(&[0; 5], 0, &tables[0], 0);
        batch.push(&[0; 3], 3, &tables[1], 0);
        let rows = batch.rows();
        let places: Vec<_> = batch.sequence_of.iter().copied().zip(batch.positions.clone()).collect();
        let step = device.plan(batch, SHAPE);
        let values = random(rows * SHAPE.qkv_width(), 1);
        let angles = random(rows * SHAPE.head_dim, 2);
        for norms in [true, false] {
            let (q_norm, k_norm) = (random(10, 3), random(10, 4));
            let (q, k) = (device.vector(&q_norm), device.vector(&k_norm));
            let norms_on_device = norms.then_some((&q, &k));
            let mut qkv = device.floats(&values, SHAPE.qkv_width());
            let rope = device.floats(&angles, SHAPE.head_dim);
            let mut queries = D::Operands::default();
            let place = Place { step: &step, pool: &pool, layer: 1 };
            device.split_heads(&place, norms_on_device, 1e-6, &mut qkv, &rope, &mut queries);
            let queries = device.operand_values(&queries);
            let none: &[f32] = &[];
            let (q_norm, k_norm) = if norms { (&q_norm[..], &k_norm[..]) } else { (none, none) };
            let params = HeadParams { shape: SHAPE, q_norm, k_norm, eps: 1e-6 };
            for (row, (sequence, position)) in places.iter().enumerate() {
                let qkv = &values[row * SHAPE.qkv_width()..][..SHAPE.qkv_width()];
                let want = reference(&params, qkv, &angles[row * 10..][..10]);
                let cache = SequenceLayer { pool: &pool, layer: 1, block_table: &tables[*sequence] };
                let mut got = queries[row * SHAPE.q_width()..][..SHAPE.q_width()].to_vec();
                got.extend((0..2).flat_map(|head| cache.read_key::<D::Element>(head, *position)));
                got.extend((0..2).flat_map(|head| cache.read_value::<D::Element>(head, *position)));
                close(label, &got, &want, D::ROUNDING + 2e-6);
            }
        }
    }

    #[test]
    fn heads_agree_with_the_formula_and_land_in_their_blocks() {
        on_each_device!(agrees);
    }
}
