//! The heads of a row for bf16 on AVX-512: a head stays in registers from the projection to where it goes.

use std::arch::x86_64::*;

use half::bf16;

use super::{HeadParams, HeadShape, SequenceLayer, element::LANES, heads};

/// The kernel, for a CPU that has the instructions; see [`heads::one_row`].
pub(super) fn kernel(
    params: &HeadParams<'_>,
    first: usize,
    qkv: &mut [f32],
    rope: &[f32],
    token: usize,
    cache: SequenceLayer<'_>,
    q: &mut [bf16],
) {
    let head_dim = params.shape.head_dim;
    if !head_dim.is_multiple_of(2 * LANES) {
        return heads::one_row(super::Isa::Avx512Bf16)(params, first, qkv, rope, token, cache, q);
    }
    assert!(rope.len() == head_dim && qkv.len().is_multiple_of(head_dim), "a row's heads and its angles");
    assert!([params.q_norm, params.k_norm].iter().all(|norm| norm.is_empty() || norm.len() == head_dim));
    // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
    unsafe { row(params, first, qkv, rope, token, cache, q) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn row(
    params: &HeadParams<'_>,
    first: usize,
    qkv: &[f32],
    rope: &[f32],
    token: usize,
    cache: SequenceLayer<'_>,
    q: &mut [bf16],
) {
    let HeadShape { heads, kv_heads, head_dim } = params.shape;
    for (index, x) in qkv.chunks_exact(head_dim).enumerate() {
        let head = first + index;
        if head < heads {
            prepare(x, params.q_norm, params.eps, rope, q[index * head_dim..][..head_dim].as_mut_ptr());
        } else if head < heads + kv_heads {
            prepare(x, params.k_norm, params.eps, rope, cache.key(head - heads, token));
        } else {
            let to = cache.value(head - heads - kv_heads, token);
            for (line, x) in x.as_chunks().0.iter().enumerate() {
                put(get(x), to, line);
            }
        }
    }
}

/// Normalises a head if `norm` has weights, rotates element `i` with element `i + head_dim / 2`, and writes it to `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn prepare(x: &[f32], norm: &[f32], eps: f32, rope: &[f32], to: *mut bf16) {
    let (x, norm, rope) = (x.as_chunks().0, norm.as_chunks().0, rope.as_chunks().0);
    let half = x.len() / 2;
    let scale = if norm.is_empty() { _mm512_set1_ps(1.0) } else { inverse_rms(x, eps) };
    let normed = |line: usize| match norm.get(line) {
        Some(weights) => _mm512_mul_ps(_mm512_mul_ps(get(&x[line]), scale), get(weights)),
        None => get(&x[line]),
    };
    for line in 0..half {
        let (a, b) = (normed(line), normed(half + line));
        let (cos, sin) = (get(&rope[line]), get(&rope[half + line]));
        put(_mm512_fmsub_ps(a, cos, _mm512_mul_ps(b, sin)), to, line);
        put(_mm512_fmadd_ps(b, cos, _mm512_mul_ps(a, sin)), to, half + line);
    }
}

/// `1 / sqrt(mean(x²) + eps)`, in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn inverse_rms(x: &[[f32; LANES]], eps: f32) -> __m512 {
    let mut sums = _mm512_setzero_ps();
    for x in x {
        let x = get(x);
        sums = _mm512_fmadd_ps(x, x, sums);
    }
    let mean = _mm512_reduce_add_ps(sums) / (x.len() * LANES) as f32;
    _mm512_set1_ps(1.0 / (mean + eps).sqrt())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn get(x: &[f32; LANES]) -> __m512 {
    // SAFETY: sixteen floats, on any border.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Rounds sixteen elements and writes them as register `line` of a head.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
fn put(x: __m512, to: *mut bf16, line: usize) {
    // SAFETY: both are 32 bytes without invalid values; `core::arch` has no cast between them.
    let x = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) };
    // SAFETY: within a token's row of `head_dim` elements: of queries, which are borrowed, or in the pool, where the sequence owns
    // its block and each token of a step is written by one task. The pool is shared with peers, so no reference.
    unsafe { _mm256_storeu_si256(to.wrapping_add(line * LANES).cast(), x) }
}
