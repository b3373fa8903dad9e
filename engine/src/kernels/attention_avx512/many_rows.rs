//! Both products for more rows than one tile of registers holds (prefill): the context tile is brought into the order of the dot
//! products once, in memory, and each tile of rows passes over it.

use std::arch::x86_64::*;

use super::{Context, LANES, Line, Scratch, Sizes, WIDE, get, pairs, put, share};
use crate::kernels::row_tiles::row_tiles;

/// Rows of a tile at most.
const MAX_TILE_ROWS: usize = 6;

/// Scores of all rows against the context tile.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn scores(context: &Context, next: &Context, s: Sizes, scratch: &mut Scratch) {
    load_keys(context, next, s, &mut scratch.keys);
    for (first, rows) in row_tiles(s.rows, MAX_TILE_ROWS) {
        scores_of(rows, first, s, scratch);
    }
}

/// Adds the tile's weighted values to the sums of all rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn sums(context: &Context, next: &Context, s: Sizes, scratch: &mut Scratch) {
    load_values(context, next, s, &mut scratch.values);
    for (first, rows) in row_tiles(s.rows, MAX_TILE_ROWS) {
        let mut line = 0;
        while line + WIDE <= s.dim_lines {
            sums_of::<WIDE>(rows, first, line, context.tokens, s, scratch);
            line += WIDE;
        }
        if line < s.dim_lines {
            sums_of::<2>(rows, first, line, context.tokens, s, scratch);
        }
    }
}

/// `[pairs][64]`.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_keys(context: &Context, next: &Context, s: Sizes, keys: &mut [Line]) {
    for wide in 0..WIDE {
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

#[target_feature(enable = "avx512f,avx512bf16")]
fn scores_of(rows: usize, first: usize, s: Sizes, scratch: &mut Scratch) {
    match rows {
        1 => scores_tile::<1>(first, s, scratch),
        2 => scores_tile::<2>(first, s, scratch),
        3 => scores_tile::<3>(first, s, scratch),
        4 => scores_tile::<4>(first, s, scratch),
        5 => scores_tile::<5>(first, s, scratch),
        _ => scores_tile::<6>(first, s, scratch),
    }
}

/// Scores of `MR` rows against the whole context tile.
#[target_feature(enable = "avx512f,avx512bf16")]
fn scores_tile<const MR: usize>(first: usize, s: Sizes, scratch: &mut Scratch) {
    let queries = &scratch.queries[first * s.pairs..][..MR * s.pairs];
    let mut acc = [[_mm512_setzero_ps(); WIDE]; MR];
    for (pair, keys) in scratch.keys.as_chunks::<WIDE>().0.iter().enumerate().take(s.pairs) {
        for (m, acc) in acc.iter_mut().enumerate() {
            let q = _mm512_set1_epi32(queries[m * s.pairs + pair].cast_signed());
            for (acc, keys) in acc.iter_mut().zip(keys) {
                *acc = _mm512_dpbf16_ps(*acc, pairs(q), pairs(get(keys)));
            }
        }
    }
    // As in the matrix kernel, so that the loop above keeps its accumulators in registers.
    for (m, acc) in std::hint::black_box(acc).into_iter().enumerate() {
        for (n, acc) in acc.into_iter().enumerate() {
            put(&mut scratch.scores[(first + m) * WIDE + n], _mm512_castps_si512(acc));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn sums_of<const NR: usize>(
    rows: usize,
    first: usize,
    line: usize,
    tokens: usize,
    s: Sizes,
    scratch: &mut Scratch,
) {
    match rows {
        1 => sums_tile::<1, NR>(first, line, tokens, s, scratch),
        2 => sums_tile::<2, NR>(first, line, tokens, s, scratch),
        3 => sums_tile::<3, NR>(first, line, tokens, s, scratch),
        4 => sums_tile::<4, NR>(first, line, tokens, s, scratch),
        5 => sums_tile::<5, NR>(first, line, tokens, s, scratch),
        _ => sums_tile::<6, NR>(first, line, tokens, s, scratch),
    }
}

/// Adds the tile's weighted values to the sums of `MR` rows, `NR` registers of dimensions from `line` on.
#[target_feature(enable = "avx512f,avx512bf16")]
fn sums_tile<const MR: usize, const NR: usize>(
    first: usize,
    line: usize,
    tokens: usize,
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
    let rows_of_values = scratch.values.chunks_exact(s.dim_lines).take(tokens.div_ceil(2));
    for (pair, values) in rows_of_values.enumerate() {
        let values = &values[line..][..NR];
        for (m, acc) in acc.iter_mut().enumerate() {
            let weights = scratch.weights[(first + m) * WIDE / 2 + pair / LANES].0[pair % LANES];
            let weights = _mm512_set1_epi32(weights.cast_signed());
            for (acc, values) in acc.iter_mut().zip(values) {
                *acc = _mm512_dpbf16_ps(*acc, pairs(weights), pairs(get(values)));
            }
        }
    }
    // As in the matrix kernel, so that the loop above keeps its accumulators in registers.
    for (m, acc) in std::hint::black_box(acc).into_iter().enumerate() {
        for (n, acc) in acc.into_iter().enumerate() {
            put(&mut scratch.sums[(first + m) * s.dim_lines + line + n], _mm512_castps_si512(acc));
        }
    }
}
