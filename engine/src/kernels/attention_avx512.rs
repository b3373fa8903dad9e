//! The attention tile for bf16 on AVX-512: both products by `VDPBF16PS`.
//!
//! ```text
//! a context tile of 64 tokens, unpacked once for up to 64 query rows:
//!   keys    [head_dim / 2][64]  pairs of neighbouring dimensions    scores[row][64] += q pair · keys
//!   values  [64 / 2][head_dim]  pairs of neighbouring tokens        sums[row][dim]  += weight pair · values
//! ```
//! Each score and each sum is one accumulator lane that runs over dimensions, or over tokens, in order. Tokens that a row
//! may not see have weight 0 (and tokens that do not exist have value 0), which adds nothing.

use std::{arch::x86_64::*, ops::Range};

use half::bf16;

use super::{
    SequenceLayer,
    attention::{self, Job, TILE, Tile},
    element::LANES,
    row_tiles::row_tiles,
};

/// Registers across a context tile.
const WIDE: usize = TILE / LANES;
/// Query rows computed together.
const MAX_TILE_ROWS: usize = 6;

/// A register's worth of memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LANES]);

const ZERO: Line = Line([0; LANES]);

/// Working memory of one thread; every vector is in whole registers.
#[derive(Default)]
pub(super) struct Scratch {
    keys: Vec<Line>,
    values: Vec<Line>,
    /// One query in pairs, `[rows][head_dim / 2]`, padded with zeros.
    queries: Vec<u32>,
    /// `[rows][64]` as f32.
    scores: Vec<Line>,
    /// `[rows][64]` as bf16.
    weights: Vec<Line>,
    /// `[rows][head_dim]` as f32.
    sums: Vec<Line>,
    rows: Vec<RowState>,
}

/// Online softmax of one query row; `shrink` is what the last tile did to older sums.
#[derive(Clone, Copy)]
struct RowState {
    max: f32,
    total: f32,
    shrink: f32,
}

/// Sizes of a tile.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    group: usize,
    head_dim: usize,
    /// Pairs of dimensions, padded to whole registers.
    pairs: usize,
    /// Registers of a row of values.
    dim_lines: usize,
}

/// Where the tokens of a context tile lie in the pool.
struct Rows {
    /// Keys in pairs of dimensions; null past `tokens`.
    keys: [*const i32; TILE],
    tokens: usize,
    /// From a token's key to its value.
    value_bytes: usize,
}

impl Rows {
    fn find(cache: SequenceLayer<'_>, head: usize, start: usize, tokens: usize) -> Self {
        let mut keys = [std::ptr::null(); TILE];
        for (token, key) in keys.iter_mut().enumerate().take(tokens) {
            *key = cache.key::<i32>(head, start + token).cast_const();
        }
        Self { keys, tokens, value_bytes: cache.value_bytes() }
    }
}

/// The kernel, for a CPU that has the instructions.
pub(super) fn kernel(job: &Job<'_, bf16>, tile: Tile, scratch: &mut attention::Scratch) {
    // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
    unsafe { compute(job, tile, &mut scratch.avx512) }
}

/// Computes the rows of `tile`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn compute(job: &Job<'_, bf16>, tile: Tile, scratch: &mut Scratch) {
    let shape = job.params.shape;
    let group = shape.heads / shape.kv_heads;
    let sizes = Sizes {
        rows: tile.tokens * group,
        group,
        head_dim: shape.head_dim,
        pairs: shape.head_dim.div_ceil(2 * LANES) * LANES,
        dim_lines: shape.head_dim.div_ceil(LANES),
    };
    scratch.reset(sizes);
    scratch.rows.extend((0..sizes.rows).map(|row| {
        let (max, total) = job.start(tile.kv_head * group + row % group);
        RowState { max, total, shrink: 0.0 }
    }));
    load_queries(job, &tile, sizes, &mut scratch.queries);
    let context = tile.position + tile.tokens;
    for start in (job.first_context_tile(&tile)..context).step_by(TILE) {
        let tokens = TILE.min(context - start);
        let found = Rows::find(job.cache(&tile), tile.kv_head, start, tokens);
        load_keys(&found, sizes, &mut scratch.keys);
        load_values(&found, sizes, &mut scratch.values);
        for (first, rows) in row_tiles(sizes.rows, MAX_TILE_ROWS) {
            scores_of(rows, first, sizes, scratch);
        }
        for row in 0..sizes.rows {
            let visible = job.visible(tile.position + row / group, start);
            soften(row, visible, 1.0 / (sizes.head_dim as f32).sqrt(), scratch);
        }
        for (first, rows) in row_tiles(sizes.rows, MAX_TILE_ROWS) {
            for line in (0..sizes.dim_lines).step_by(WIDE) {
                if line + WIDE <= sizes.dim_lines {
                    sums_of::<WIDE>(rows, first, line, tokens, sizes, scratch);
                } else {
                    (line..sizes.dim_lines)
                        .for_each(|line| sums_of::<1>(rows, first, line, tokens, sizes, scratch));
                }
            }
        }
    }
    store(job, &tile, sizes, scratch);
}

impl Scratch {
    fn reset(&mut self, s: Sizes) {
        self.keys.resize(s.pairs * WIDE, ZERO);
        self.values.resize(TILE / 2 * s.dim_lines, ZERO);
        self.queries.resize(s.rows * s.pairs, 0);
        self.scores.resize(s.rows * WIDE, ZERO);
        self.weights.resize(s.rows * WIDE / 2, ZERO);
        self.sums.clear();
        self.sums.resize(s.rows * s.dim_lines, ZERO);
        self.rows.clear();
    }
}

/// Element of `q` and `out` at which row `row` of the tile begins.
fn element_of_row(job: &Job<'_, bf16>, tile: &Tile, s: Sizes, row: usize) -> usize {
    let token = tile.first_row + row / s.group;
    (token * job.params.shape.heads + tile.kv_head * s.group + row % s.group) * s.head_dim
}

fn load_queries(job: &Job<'_, bf16>, tile: &Tile, s: Sizes, queries: &mut [u32]) {
    for (row, out) in queries.chunks_exact_mut(s.pairs).enumerate() {
        let q = &job.q[element_of_row(job, tile, s, row)..][..s.head_dim];
        for (out, pair) in out.iter_mut().zip(q.as_chunks::<2>().0) {
            *out = u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16;
        }
        out[s.head_dim / 2..].fill(0);
    }
}

/// Keys of a context tile, transposed in squares of 16 tokens by 16 pairs.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_keys(rows: &Rows, s: Sizes, keys: &mut [Line]) {
    for wide in 0..WIDE {
        let tokens = &rows.keys[wide * LANES..][..LANES];
        for pair in (0..s.pairs).step_by(LANES) {
            let mask = lane_mask(s.head_dim / 2 - pair);
            let mut square = [_mm512_setzero_si512(); LANES];
            for (row, key) in square.iter_mut().zip(tokens).take(rows.tokens.saturating_sub(wide * LANES)) {
                // SAFETY: a token's row of head_dim / 2 pairs in a block that the sequence owns, written in this step or
                // before; masked lanes are not read. The pool is shared with peers, so no reference to it is made.
                *row = unsafe { _mm512_maskz_loadu_epi32(mask, key.wrapping_add(pair)) };
            }
            transpose(&mut square);
            for (lane, column) in square.into_iter().enumerate() {
                put(&mut keys[(pair + lane) * WIDE + wide], column);
            }
        }
    }
}

/// Values of a context tile, tokens in pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_values(rows: &Rows, s: Sizes, values: &mut [Line]) {
    for (pair, out) in values.chunks_exact_mut(s.dim_lines).enumerate().take(rows.tokens.div_ceil(2)) {
        let value = [0, 1].map(|odd| rows.keys[2 * pair + odd].wrapping_byte_add(rows.value_bytes));
        let both = 2 * pair + 1 < rows.tokens;
        for (line, out) in out.iter_mut().enumerate() {
            let mask = lane_mask(s.head_dim - line * LANES);
            let at = value.map(|row| row.cast::<i16>().wrapping_add(line * LANES));
            // SAFETY: as for keys.
            let even = unsafe { _mm256_maskz_loadu_epi16(mask, at[0]) };
            // SAFETY: as for keys; a second token that does not exist is masked off as a whole.
            let odd = unsafe { _mm256_maskz_loadu_epi16(if both { mask } else { 0 }, at[1]) };
            let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
            put(out, _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd));
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

/// From a row's scores to its weights, of which those of `visible` tokens count.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn soften(row: usize, visible: Range<usize>, scale: f32, scratch: &mut Scratch) {
    let state = &mut scratch.rows[row];
    let weights = &mut scratch.weights[row * WIDE / 2..][..WIDE / 2];
    if visible.is_empty() {
        state.shrink = 1.0;
        weights.fill(ZERO);
        return;
    }
    let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut scores = [hidden; WIDE];
    for (n, score) in scores.iter_mut().enumerate() {
        let raw = _mm512_castsi512_ps(get(&scratch.scores[row * WIDE + n]));
        let lanes_below = |token: usize| lane_mask(token.saturating_sub(n * LANES));
        let mask = lanes_below(visible.end) & !lanes_below(visible.start);
        *score = _mm512_mask_mul_ps(hidden, mask, raw, _mm512_set1_ps(scale));
    }
    let highest = _mm512_max_ps(_mm512_max_ps(scores[0], scores[1]), _mm512_max_ps(scores[2], scores[3]));
    let max = state.max.max(_mm512_reduce_max_ps(highest));
    let mut weight = scores;
    for weight in &mut weight {
        *weight = exp(_mm512_sub_ps(*weight, _mm512_set1_ps(max)));
    }
    let total = _mm512_add_ps(_mm512_add_ps(weight[0], weight[1]), _mm512_add_ps(weight[2], weight[3]));
    let shrink = super::arith::exp::<super::arith::Fused>(state.max - max);
    *state = RowState { max, total: state.total.mul_add(shrink, _mm512_reduce_add_ps(total)), shrink };
    for (n, out) in weights.iter_mut().enumerate() {
        // The second argument becomes the lower half.
        let both = _mm512_cvtne2ps_pbh(weight[2 * n + 1], weight[2 * n]);
        // SAFETY: both are 64 bytes without invalid values; `core::arch` has no cast between them.
        put(out, unsafe { std::mem::transmute::<__m512bh, __m512i>(both) });
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

/// Divides by the total weight and writes the result.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn store(job: &Job<'_, bf16>, tile: &Tile, s: Sizes, scratch: &Scratch) {
    for (row, sums) in scratch.sums.chunks_exact(s.dim_lines).enumerate() {
        let inverse = _mm512_set1_ps(1.0 / scratch.rows[row].total);
        let out = job.out.at(element_of_row(job, tile, s, row));
        for (line, sum) in sums.iter().enumerate() {
            let mean = _mm512_mul_ps(_mm512_castsi512_ps(get(sum)), inverse);
            // SAFETY: both are 32 bytes without invalid values; `core::arch` has no cast between them.
            let mean = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(mean)) };
            let at = out.wrapping_add(line * LANES).cast();
            // SAFETY: within row `row` of `out`, which has the shape of `q`; lanes past head_dim are masked off; no
            // other task has this token and head.
            unsafe { _mm256_mask_storeu_epi16(at, lane_mask(s.head_dim - line * LANES), mean) };
        }
    }
}

/// The first `lanes` of sixteen lanes, all of them if there are more.
#[inline(always)]
fn lane_mask(lanes: usize) -> __mmask16 {
    if lanes >= LANES { u16::MAX } else { (1 << lanes) - 1 }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn get(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes on a 64-byte border.
    unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn put(line: &mut Line, x: __m512i) {
    // SAFETY: as for `get`.
    unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), x) }
}

/// The same bits as pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values; `core::arch` has no cast between them.
    unsafe { std::mem::transmute(x) }
}

/// [`super::arith::exp`] on sixteen lanes, with the same constants.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let lowest = _mm512_set1_ps(-87.0);
    let clamped = _mm512_max_ps(x, lowest);
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(clamped, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693_359_4), clamped);
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    let e = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0)));
    let seen = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, lowest);
    _mm512_maskz_scalef_ps(seen, e, n)
}

/// Transposes 16 rows of 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(square: &mut [__m512i; 16]) {
    let r = *square;
    let mut a = r;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..4 {
        b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    // b[4 i + c] holds, in its four quarters, columns c, 4 + c, 8 + c, 12 + c of rows 4 i..4 i + 4.
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(b[c], b[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(b[c], b[4 + c]);
        let even2 = _mm512_shuffle_i32x4::<0x88>(b[8 + c], b[12 + c]);
        let odd2 = _mm512_shuffle_i32x4::<0xdd>(b[8 + c], b[12 + c]);
        square[c] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        square[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
        square[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        square[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        if Isa::detect() < Isa::Avx512Bf16 {
            return;
        }
        #[target_feature(enable = "avx512f")]
        fn run(lines: &mut [Line; 16]) {
            let mut square = [_mm512_setzero_si512(); 16];
            for (row, line) in square.iter_mut().zip(lines.iter()) {
                *row = get(line);
            }
            transpose(&mut square);
            for (row, line) in square.into_iter().zip(lines) {
                put(line, row);
            }
        }
        let mut lines: [Line; 16] =
            std::array::from_fn(|i| Line(std::array::from_fn(|j| (16 * i + j) as u32)));
        // SAFETY: the CPU has the instructions, by the check above.
        unsafe { run(&mut lines) };
        assert!((0..16).all(|i| (0..16).all(|j| lines[i].0[j] == (16 * j + i) as u32)));
    }
}
