//! Both products for as many rows as one tile of registers holds (decoding): keys and values go from the pool into registers and
//! are used there, once. Each sum runs in the same order as in [`super::many_rows`], so results are the same to the last bit.

use std::arch::x86_64::*;

use super::{Context, LANES, Scratch, Sizes, WIDE, get, pairs, put, share};

/// Rows at most.
pub(super) const MAX_ROWS: usize = 6;

/// Scores of all rows against the context tile.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn scores(context: &Context, next: &Context, s: Sizes, scratch: &mut Scratch) {
    match s.rows {
        1 => scores_of::<1>(context, next, s, scratch),
        2 => scores_of::<2>(context, next, s, scratch),
        3 => scores_of::<3>(context, next, s, scratch),
        4 => scores_of::<4>(context, next, s, scratch),
        5 => scores_of::<5>(context, next, s, scratch),
        _ => scores_of::<MAX_ROWS>(context, next, s, scratch),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn scores_of<const MR: usize>(context: &Context, next: &Context, s: Sizes, scratch: &mut Scratch) {
    let queries = &scratch.queries[..MR * s.pairs];
    for wide in 0..context.tokens.div_ceil(LANES) {
        let mut acc = [_mm512_setzero_ps(); MR];
        for pair in (0..s.pairs).step_by(LANES) {
            let keys = context.keys(wide, pair, s);
            next.fetch_keys(share(wide, pair, s), s);
            for (lane, keys) in keys.into_iter().enumerate() {
                for (m, acc) in acc.iter_mut().enumerate() {
                    let q = _mm512_set1_epi32(queries[m * s.pairs + pair + lane].cast_signed());
                    *acc = _mm512_dpbf16_ps(*acc, pairs(q), pairs(keys));
                }
            }
        }
        // As in the matrix kernel, so that the loop above keeps its accumulators in registers.
        for (m, acc) in std::hint::black_box(acc).into_iter().enumerate() {
            put(&mut scratch.scores[m * WIDE + wide], _mm512_castps_si512(acc));
        }
    }
}

/// Adds the tile's weighted values to the sums of all rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn sums(context: &Context, next: &Context, s: Sizes, scratch: &mut Scratch) {
    match s.rows {
        1 => sums_of::<1, 8>(context, next, s, scratch),
        2 => sums_of::<2, 8>(context, next, s, scratch),
        3 => sums_of::<3, 8>(context, next, s, scratch),
        4 => sums_of::<4, 4>(context, next, s, scratch),
        5 => sums_of::<5, 4>(context, next, s, scratch),
        _ => sums_of::<MAX_ROWS, 4>(context, next, s, scratch),
    }
}

/// `NR` registers of dimensions at a time, and two at a time where there are fewer.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums_of<const MR: usize, const NR: usize>(
    context: &Context,
    next: &Context,
    s: Sizes,
    scratch: &mut Scratch,
) {
    let mut line = 0;
    while line + NR <= s.dim_lines {
        sums_tile::<MR, NR>(context, next, line, s, scratch);
        line += NR;
    }
    for line in (line..s.dim_lines).step_by(2) {
        sums_tile::<MR, 2>(context, next, line, s, scratch);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums_tile<const MR: usize, const NR: usize>(
    context: &Context,
    next: &Context,
    line: usize,
    s: Sizes,
    scratch: &mut Scratch,
) {
    let mut acc = [[_mm512_setzero_ps(); NR]; MR];
    for (m, acc) in acc.iter_mut().enumerate() {
        let shrink = _mm512_set1_ps(scratch.rows[m].shrink);
        let sums = &scratch.sums[m * s.dim_lines + line..][..NR];
        for (acc, sum) in acc.iter_mut().zip(sums) {
            *acc = _mm512_mul_ps(_mm512_castsi512_ps(get(sum)), shrink);
        }
    }
    for pair in 0..context.tokens.div_ceil(2) {
        if line == 0 {
            next.fetch_values(pair, s);
        }
        let weights: [_; MR] = std::array::from_fn(|m| {
            scratch.weights[m * WIDE / 2 + pair / LANES].0[pair % LANES].cast_signed()
        });
        for n in (0..NR).step_by(2) {
            let values = context.values(pair, line + n, s);
            for (acc, weights) in acc.iter_mut().zip(weights) {
                let weights = pairs(_mm512_set1_epi32(weights));
                acc[n] = _mm512_dpbf16_ps(acc[n], weights, pairs(values[0]));
                acc[n + 1] = _mm512_dpbf16_ps(acc[n + 1], weights, pairs(values[1]));
            }
        }
    }
    // As above.
    for (m, acc) in std::hint::black_box(acc).into_iter().enumerate() {
        for (n, acc) in acc.into_iter().enumerate() {
            put(&mut scratch.sums[m * s.dim_lines + line + n], _mm512_castps_si512(acc));
        }
    }
}
