//! From the joint projection to attention's inputs: bias, per-head norm, rope; queries out, keys and values into the pool.

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
    /// `[qkv_width]`, or empty.
    pub(crate) bias: &'a [f32],
    /// `[head_dim]`, or empty.
    pub(crate) q_norm: &'a [f32],
    /// `[head_dim]`, or empty.
    pub(crate) k_norm: &'a [f32],
    pub(crate) eps: f32,
}

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
    for (x, bias) in qkv.iter_mut().zip(params.bias) {
        *x += bias;
    }
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

/// Cosines, then sines, of a position's angles: `out` is twice as long as `frequencies`.
///
/// The angle is rounded to f32 as in transformers; its cosine is taken in double precision, so that it does not depend on
/// which C library the machine has.
pub(crate) fn rope_row(frequencies: &[f32], position: usize, out: &mut [f32]) {
    let (cos, sin) = out.split_at_mut(frequencies.len());
    for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
        let angle = f64::from(position as f32 * frequency);
        (*cos, *sin) = (angle.cos() as f32, angle.sin() as f32);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::{
        kernels::{Isa, KvPool, testing::random},
        kv::{BlockId, Dtype, KvLayout, KvMemory},
    };

    const SHAPE: HeadShape = HeadShape { heads: 4, kv_heads: 2, head_dim: 10 };

    /// Query heads, key heads, value heads of a token in double precision.
    fn reference(params: &HeadParams<'_>, qkv: &[f32], frequencies: &[f32], position: usize) -> Vec<f64> {
        let dim = SHAPE.head_dim;
        let mut out = Vec::new();
        for head in 0..SHAPE.heads + 2 * SHAPE.kv_heads {
            let mut x: Vec<f64> =
                (0..dim).map(|i| f64::from(qkv[head * dim + i] + params.bias[head * dim + i])).collect();
            if head < SHAPE.heads + SHAPE.kv_heads {
                let norm = if head < SHAPE.heads { params.q_norm } else { params.k_norm };
                let rms = (x.iter().map(|x| x * x).sum::<f64>() / dim as f64 + f64::from(params.eps)).sqrt();
                x.iter_mut().zip(norm).for_each(|(x, w)| *x *= f64::from(*w) / rms);
                let old = x.clone();
                for i in 0..dim {
                    let angle = position as f64 * f64::from(frequencies[i % (dim / 2)]);
                    let other = if i < dim / 2 { -old[i + dim / 2] } else { old[i - dim / 2] };
                    x[i] = old[i] * angle.cos() + other * angle.sin();
                }
            }
            out.extend(x);
        }
        out
    }

    fn check<T: Element>(dtype: Dtype, tolerance: f64) {
        let layout = KvLayout { layers: 2, kv_heads: 2, head_dim: 10, block_tokens: 4, dtype };
        let pool = KvPool::new(KvMemory::allocate(&layout, 3), layout, 3);
        let block_table = [BlockId(2), BlockId(0)];
        let cache = SequenceLayer { pool: &pool, layer: 1, block_table: &block_table };
        let (qkv, bias) = (random(SHAPE.qkv_width(), 1), random(SHAPE.qkv_width(), 2));
        let (q_norm, k_norm) = (random(10, 3), random(10, 4));
        let params = HeadParams { shape: SHAPE, bias: &bias, q_norm: &q_norm, k_norm: &k_norm, eps: 1e-6 };
        let frequencies = [1.0, 0.3, 0.1, 0.03, 0.01];
        let mut rope = [0.0; 10];
        for (isa, token) in Isa::available().into_iter().flat_map(|isa| (0..8).map(move |t| (isa, t))) {
            rope_row(&frequencies, token, &mut rope);
            let mut q = vec![T::default(); SHAPE.q_width()];
            split_heads(isa, &params, &mut qkv.clone(), &rope, token, cache, &mut q);
            // SAFETY: rows of the test's own pool, written above.
            let read = |from: *mut T| (0..10).map(move |i| unsafe { *from.add(i) }.to_f32());
            let keys = (0..2).flat_map(|head| read(cache.key(head, token)));
            let values = (0..2).flat_map(|head| read(cache.value(head, token)));
            let got: Vec<f32> = q.iter().map(|q| q.to_f32()).chain(keys).chain(values).collect();
            for (got, want) in got.iter().zip(reference(&params, &qkv, &frequencies, token)) {
                assert!(
                    (f64::from(*got) - want).abs() < tolerance * want.abs().max(1.0),
                    "{isa}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn heads_agree_with_the_formula_and_land_in_their_blocks() {
        check::<f32>(Dtype::F32, 1e-6);
        check::<bf16>(Dtype::Bf16, 1.0 / 256.0);
    }
}
