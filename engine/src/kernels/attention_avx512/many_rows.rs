//! Both products for more rows than one tile of registers holds (prefill): the context tile is brought into the order of the dot
//! products once, in memory, and each tile of rows passes over it.

use std::{arch::x86_64::*, ops::Range};

use super::{
    Context, LANES, Line, Scratch, Sizes, TILE, WIDE, get, highest, highest_lane, pairs, put, share, soften,
    weigh,
};
use crate::kernels::row_tiles::row_tiles;

/// Rows of a tile at most.
const MAX_TILE_ROWS: usize = 6;

/// Takes the context tile into all rows; a row sees `visible` tokens of it.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn take(
    context: &Context,
    next: &Context,
    s: Sizes,
    visible: impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    load_keys(context, next, s, &mut scratch.keys);
    load_values(context, next, s, &mut scratch.values);
    for (first, rows) in row_tiles(s.rows, MAX_TILE_ROWS) {
        // A row sees all of the tile, or its beginning, or, with a window, some part of it.
        let (seen, last) = (visible(first), visible(first + rows - 1));
        let seen_by_all = seen.len() == TILE && last.len() == TILE;
        let seen = last.end;
        if seen_by_all {
            weights_of(rows, first, s, scratch);
        } else {
            scores_of(rows, first, seen, s, scratch);
            for row in first..first + rows {
                soften(row, visible(row), s, scratch);
            }
        }
        let mut line = 0;
        while line + WIDE <= s.dim_lines {
            sums_of::<WIDE>(rows, first, line, seen, s, scratch);
            line += WIDE;
        }
        if line < s.dim_lines {
            sums_of::<2>(rows, first, line, seen, s, scratch);
        }
    }
}

/// `[pairs][64]`.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_keys(context: &Context, next: &Context, s: Sizes, keys: &mut [Line]) {
    for wide in 0..context.tokens.div_ceil(LANES) {
        for pair in (0..s.pairs).step_by(LANES) {
            next.fetch_keys(share(wide, pair, s), s);
            for (lane, column) in context.keys(wide, pair, s).into_iter().enumerate() {
                put(&mut keys[(pair + lane) * WIDE + wide], column);
            }
        }
    }
}

/// `[pairs of tokens][dim]`.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_values(context: &Context, next: &Context, s: Sizes, values: &mut [Line]) {
    let rows = values.chunks_exact_mut(s.dim_lines).take(context.tokens.div_ceil(2));
    for (pair, out) in rows.enumerate() {
        next.fetch_values(pair, s);
        for (couple, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let values = context.values(pair, 2 * couple, s);
            out.iter_mut().zip(values).for_each(|(out, values)| put(out, values));
        }
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn weights_of(rows: usize, first: usize, s: Sizes, scratch: &mut Scratch) {
    match rows {
        1 => weights_tile::<1>(first, s, scratch),
        2 => weights_tile::<2>(first, s, scratch),
        3 => weights_tile::<3>(first, s, scratch),
        4 => weights_tile::<4>(first, s, scratch),
        5 => weights_tile::<5>(first, s, scratch),
        _ => weights_tile::<6>(first, s, scratch),
    }
}

/// Weights of `MR` rows that see the whole context tile.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn weights_tile<const MR: usize>(first: usize, s: Sizes, scratch: &mut Scratch) {
    let scores = scores_tile::<MR, WIDE>(first, 0, s, scratch);
    let mut highest_of = [_mm512_setzero_ps(); MR];
    for (out, scores) in highest_of.iter_mut().zip(&scores) {
        *out = highest(scores);
    }
    for (row, highest) in (first..).zip(highest_lane(highest_of)) {
        weigh(row, highest, [u16::MAX; WIDE], s, scratch);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn scores_of(rows: usize, first: usize, seen: usize, s: Sizes, scratch: &mut Scratch) {
    match rows {
        1 => scores_tiles::<1>(first, seen, s, scratch),
        2 => scores_tiles::<2>(first, seen, s, scratch),
        3 => scores_tiles::<3>(first, seen, s, scratch),
        4 => scores_tiles::<4>(first, seen, s, scratch),
        5 => scores_tiles::<5>(first, seen, s, scratch),
        _ => scores_tiles::<6>(first, seen, s, scratch),
    }
}

/// Scores of `MR` rows against the first `seen` tokens of the context tile.
#[target_feature(enable = "avx512f,avx512bf16")]
fn scores_tiles<const MR: usize>(first: usize, seen: usize, s: Sizes, scratch: &mut Scratch) {
    for wide in 0..seen.div_ceil(LANES) {
        scores_tile::<MR, 1>(first, wide, s, scratch);
    }
}

/// Scores of `MR` rows against `NR` registers of tokens from `wide` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn scores_tile<const MR: usize, const NR: usize>(
    first: usize,
    wide: usize,
    s: Sizes,
    scratch: &mut Scratch,
) -> [[__m512; NR]; MR] {
    let queries: [_; MR] = std::array::from_fn(|m| &scratch.queries[(first + m) * s.pairs..][..s.pairs]);
    let keys = &scratch.keys.as_chunks::<WIDE>().0[..s.pairs];
    let mut acc = [[_mm512_setzero_ps(); NR]; MR];
    for pair in 0..s.pairs {
        let keys = &keys[pair][wide..][..NR];
        for (acc, queries) in acc.iter_mut().zip(queries) {
            let q = _mm512_set1_epi32(queries[pair].cast_signed());
            for (acc, keys) in acc.iter_mut().zip(keys) {
                *acc = _mm512_dpbf16_ps(*acc, pairs(q), pairs(get(keys)));
            }
        }
    }
    let scores = &mut scratch.scores.as_chunks_mut::<WIDE>().0[first..][..MR];
    for (acc, scores) in acc.iter().zip(scores) {
        for (acc, score) in acc.iter().zip(&mut scores[wide..]) {
            put(score, _mm512_castps_si512(*acc));
        }
    }
    acc
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn sums_of<const NR: usize>(
    rows: usize,
    first: usize,
    line: usize,
    seen: usize,
    s: Sizes,
    scratch: &mut Scratch,
) {
    match rows {
        1 => sums_tile::<1, NR>(first, line, seen, s, scratch),
        2 => sums_tile::<2, NR>(first, line, seen, s, scratch),
        3 => sums_tile::<3, NR>(first, line, seen, s, scratch),
        4 => sums_tile::<4, NR>(first, line, seen, s, scratch),
        5 => sums_tile::<5, NR>(first, line, seen, s, scratch),
        _ => sums_tile::<6, NR>(first, line, seen, s, scratch),
    }
}

/// Adds the tile's weighted values to the sums of `MR` rows, `NR` registers of dimensions from `line` on.
#[target_feature(enable = "avx512f,avx512bf16")]
fn sums_tile<const MR: usize, const NR: usize>(
    first: usize,
    line: usize,
    seen: usize,
    s: Sizes,
    scratch: &mut Scratch,
) {
    let mut acc = [[_mm512_setzero_ps(); NR]; MR];
    for (m, acc) in acc.iter_mut().enumerate() {
        let shrink = _mm512_set1_ps(scratch.rows[first + m].shrink);
        let sums = &scratch.sums[(first + m) * s.dim_lines + line..][..NR];
        for (acc, sum) in acc.iter_mut().zip(sums) {
            *acc = _mm512_mul_ps(_mm512_castsi512_ps(get(sum)), shrink);
        }
    }
    let weights: &[[Line; WIDE / 2]; MR] =
        scratch.weights.as_chunks().0[first..].first_chunk().expect("weights of each row");
    let of_halves = scratch.values[..seen.div_ceil(2) * s.dim_lines].chunks(LANES * s.dim_lines);
    for (half, values) in of_halves.enumerate() {
        let weights: [_; MR] = std::array::from_fn(|m| &weights[m][half].0);
        for pair in 0..(values.len() / s.dim_lines).min(LANES) {
            let values = &values[pair * s.dim_lines + line..][..NR];
            for (acc, weights) in acc.iter_mut().zip(weights) {
                let weights = _mm512_set1_epi32(weights[pair].cast_signed());
                for (acc, values) in acc.iter_mut().zip(values) {
                    *acc = _mm512_dpbf16_ps(*acc, pairs(weights), pairs(get(values)));
                }
            }
        }
    }
    for (acc, sums) in acc.into_iter().zip(scratch.sums[first * s.dim_lines..].chunks_exact_mut(s.dim_lines))
    {
        for (acc, sum) in acc.into_iter().zip(&mut sums[line..][..NR]) {
            put(sum, _mm512_castps_si512(acc));
        }
    }
}
