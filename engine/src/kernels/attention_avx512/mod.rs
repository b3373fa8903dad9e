//! The attention tile for bf16 on AVX-512: both products by `VDPBF16PS`.
//!
//! ```text
//! a context tile of 64 tokens, for up to 64 query rows:
//!   keys    [head_dim / 2][64]  pairs of neighbouring dimensions    scores[row][64] += q pair · keys
//!   values  [64 / 2][head_dim]  pairs of neighbouring tokens        sums[row][dim]  += weight pair · values
//!
//! few_rows    (decoding)  that order in registers, used at once
//! many_rows   (prefill)   that order in memory, for all rows
//! ```
//! Each score and each sum is one accumulator lane that runs over dimensions, or over tokens, in order. Tokens that a row
//! may not see have weight 0 (and tokens that do not exist have value 0), which adds nothing.

mod context;
mod few_rows;
mod many_rows;

use std::{arch::x86_64::*, f32::consts::LOG2_E, ops::Range};

use half::bf16;

use super::{
    HeadShape,
    attention::{self, Job, TILE, Tile},
    element::LANES,
};
use context::Context;

/// Registers across a context tile.
const WIDE: usize = TILE / LANES;

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
    /// Weights so far, `[rows]` of sixteen sums that are added up at the end.
    totals: Vec<Line>,
    rows: Vec<RowState>,
}

/// Online softmax of one query row, in powers of two; `shrink` is what the last tile did to older sums.
#[derive(Clone, Copy)]
struct RowState {
    max: f32,
    shrink: f32,
}

/// Below every score. (An infinity would have no difference from itself.)
const LOWEST: f32 = -1e30;

/// Sizes of a tile.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    group: usize,
    head_dim: usize,
    /// Pairs of dimensions, padded to whole registers.
    pairs: usize,
    /// Registers of a row of values, two and two.
    dim_lines: usize,
    /// From a product of query and key to a power of two.
    scale: f32,
}

/// The kernel, for a CPU that has the instructions.
pub(super) fn kernel(job: &Job<'_, bf16>, tiles: &[Tile], scratch: &mut attention::Scratch) {
    // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
    unsafe { compute(job, tiles, &mut scratch.avx512) }
}

/// Computes the rows of `tiles`, one after the other; while it computes with a context tile, the next one is fetched.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn compute(job: &Job<'_, bf16>, tiles: &[Tile], scratch: &mut Scratch) {
    let Some(first) = tiles.first() else { return };
    let mut context = find(job, first, job.first_context_tile(first));
    for (index, tile) in tiles.iter().enumerate() {
        let sizes = Sizes::of(job, tile);
        scratch.start(job, tile, sizes);
        let end = tile.position + tile.tokens;
        for start in (job.first_context_tile(tile)..end).step_by(TILE) {
            let next = match tiles.get(index + 1) {
                _ if start + TILE < end => find(job, tile, start + TILE),
                Some(tile) => find(job, tile, job.first_context_tile(tile)),
                None => context,
            };
            take(job, tile, start, (&context, &next), sizes, scratch);
            context = next;
        }
        store(job, tile, sizes, scratch);
    }
}

fn find(job: &Job<'_, bf16>, tile: &Tile, start: usize) -> Context {
    let tokens = TILE.min(tile.position + tile.tokens - start);
    Context::find(job.cache(tile), tile.kv_head, start, tokens)
}

/// The tokens of the next context tile that are fetched while the keys of a square are read: all of them, over all squares.
fn share(wide: usize, pair: usize, s: Sizes) -> Range<usize> {
    let at = |pair| wide * LANES + pair * LANES / s.pairs;
    at(pair)..at(pair + LANES)
}

/// Takes the context tile at `start` into all rows of `tile`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn take(
    job: &Job<'_, bf16>,
    tile: &Tile,
    start: usize,
    (context, next): (&Context, &Context),
    s: Sizes,
    scratch: &mut Scratch,
) {
    // The next one is fetched bit by bit while this one is read; what a tile that is not whole leaves is fetched first.
    next.fetch_keys(context.tokens.next_multiple_of(LANES)..TILE, s);
    (context.tokens.div_ceil(2)..TILE / 2).for_each(|pair| next.fetch_values(pair, s));
    let visible = |row: usize| job.visible(tile.position + row / s.group, start);
    if s.rows > few_rows::MAX_ROWS {
        return many_rows::take(context, next, s, visible, scratch);
    }
    few_rows::scores(context, next, s, scratch);
    for row in 0..s.rows {
        soften(row, visible(row), s, scratch);
    }
    few_rows::sums(context, next, s, scratch);
}

impl Sizes {
    fn of(job: &Job<'_, bf16>, tile: &Tile) -> Self {
        let HeadShape { heads, kv_heads, head_dim } = job.params.shape;
        let group = heads / kv_heads;
        Self {
            rows: tile.tokens * group,
            group,
            head_dim,
            pairs: head_dim.div_ceil(2 * LANES) * LANES,
            dim_lines: head_dim.div_ceil(2 * LANES) * 2,
            scale: LOG2_E / (head_dim as f32).sqrt(),
        }
    }
}

impl Scratch {
    /// For the rows of `tile`, before their first context tile.
    fn start(&mut self, job: &Job<'_, bf16>, tile: &Tile, s: Sizes) {
        self.keys.resize(s.pairs * WIDE, ZERO);
        self.values.resize(TILE / 2 * s.dim_lines, ZERO);
        self.queries.resize(s.rows * s.pairs, 0);
        self.scores.resize(s.rows * WIDE, ZERO);
        self.weights.resize(s.rows * WIDE / 2, ZERO);
        self.sums.clear();
        self.sums.resize(s.rows * s.dim_lines, ZERO);
        self.totals.clear();
        self.totals.resize(s.rows, ZERO);
        self.rows.clear();
        self.rows.extend((0..s.rows).map(|row| {
            let (max, total) = job.start(tile.kv_head * s.group + row % s.group);
            self.totals[row].0[0] = total.to_bits();
            RowState { max: (max * LOG2_E).max(LOWEST), shrink: 0.0 }
        }));
        load_queries(job, tile, s, &mut self.queries);
    }
}

fn load_queries(job: &Job<'_, bf16>, tile: &Tile, s: Sizes, queries: &mut [u32]) {
    for (row, out) in queries.chunks_exact_mut(s.pairs).enumerate() {
        let q = &job.q[job.element_of(tile, row)..][..s.head_dim];
        for (out, pair) in out.iter_mut().zip(q.as_chunks::<2>().0) {
            *out = u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16;
        }
        out[s.head_dim / 2..].fill(0);
    }
}

/// From a row's scores to its weights, of which those of `visible` tokens count.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn soften(row: usize, visible: Range<usize>, s: Sizes, scratch: &mut Scratch) {
    if visible.is_empty() {
        scratch.rows[row].shrink = 1.0;
        scratch.weights[row * WIDE / 2..][..WIDE / 2].fill(ZERO);
        return;
    }
    let lanes_below = |wide: usize, token: usize| lane_mask(token.saturating_sub(wide * LANES));
    let masks =
        std::array::from_fn(|wide| lanes_below(wide, visible.end) & !lanes_below(wide, visible.start));
    let mut seen = [_mm512_set1_ps(LOWEST); WIDE];
    for ((seen, mask), raw) in seen.iter_mut().zip(masks).zip(&scratch.scores[row * WIDE..][..WIDE]) {
        *seen = _mm512_mask_mov_ps(*seen, mask, _mm512_castsi512_ps(get(raw)));
    }
    let [highest] = highest_lane([highest(&seen)]);
    weigh(row, highest, masks, s, scratch);
}

/// The highest of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn highest(x: &[__m512; WIDE]) -> __m512 {
    _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]))
}

/// Of each row the highest lane, in all lanes; rows side by side, as one waits for its own steps most of the time.
#[inline]
#[target_feature(enable = "avx512f")]
fn highest_lane<const MR: usize>(mut x: [__m512; MR]) -> [__m512; MR] {
    x.iter_mut().for_each(|x| *x = _mm512_max_ps(*x, _mm512_shuffle_f32x4::<0x4e>(*x, *x)));
    x.iter_mut().for_each(|x| *x = _mm512_max_ps(*x, _mm512_shuffle_f32x4::<0xb1>(*x, *x)));
    x.iter_mut().for_each(|x| *x = _mm512_max_ps(*x, _mm512_permute_ps::<0x4e>(*x)));
    x.iter_mut().for_each(|x| *x = _mm512_max_ps(*x, _mm512_permute_ps::<0xb1>(*x)));
    x
}

/// A row's weights, from its scores and the `highest` of them; those without a bit in `masks` are 0.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn weigh(row: usize, highest: __m512, masks: [__mmask16; WIDE], s: Sizes, scratch: &mut Scratch) {
    let (scale, state) = (_mm512_set1_ps(s.scale), &mut scratch.rows[row]);
    let before = _mm512_set1_ps(state.max);
    let max = _mm512_max_ps(before, _mm512_mul_ps(highest, scale));
    let shrink = exp2(_mm512_sub_ps(before, max));
    *state = RowState { max: _mm512_cvtss_f32(max), shrink: _mm512_cvtss_f32(shrink) };
    let mut weight = [_mm512_setzero_ps(); WIDE];
    let scores = &scratch.scores[row * WIDE..][..WIDE];
    for ((weight, mask), raw) in weight.iter_mut().zip(masks).zip(scores) {
        let power = exp2(_mm512_fmsub_ps(_mm512_castsi512_ps(get(raw)), scale, max));
        *weight = _mm512_maskz_mov_ps(mask, power);
    }
    let total = _mm512_add_ps(_mm512_add_ps(weight[0], weight[1]), _mm512_add_ps(weight[2], weight[3]));
    let totals = &mut scratch.totals[row];
    let before = _mm512_castsi512_ps(get(totals));
    put(totals, _mm512_castps_si512(_mm512_fmadd_ps(before, shrink, total)));
    for (n, out) in scratch.weights[row * WIDE / 2..][..WIDE / 2].iter_mut().enumerate() {
        // The second argument becomes the lower half.
        let both = _mm512_cvtne2ps_pbh(weight[2 * n + 1], weight[2 * n]);
        // SAFETY: both are 64 bytes without invalid values; `core::arch` has no cast between them.
        put(out, unsafe { std::mem::transmute::<__m512bh, __m512i>(both) });
    }
}

/// Divides by the total weight and writes the result.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn store(job: &Job<'_, bf16>, tile: &Tile, s: Sizes, scratch: &Scratch) {
    for (row, sums) in scratch.sums.chunks_exact(s.dim_lines).enumerate() {
        let total = _mm512_reduce_add_ps(_mm512_castsi512_ps(get(&scratch.totals[row])));
        let inverse = _mm512_set1_ps(1.0 / total);
        let out = job.out.at(job.element_of(tile, row));
        for (line, sum) in sums.iter().enumerate() {
            let mean = _mm512_mul_ps(_mm512_castsi512_ps(get(sum)), inverse);
            // SAFETY: both are 32 bytes without invalid values; `core::arch` has no cast between them.
            let mean = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(mean)) };
            let at = out.wrapping_add(line * LANES).cast();
            // SAFETY: within row `row` of `out`, which has the shape of `q`; lanes past head_dim are masked off; no
            // other task has this token and head.
            unsafe { _mm256_mask_storeu_epi16(at, lane_mask(s.head_dim.saturating_sub(line * LANES)), mean) };
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

/// 2^x, error under 3 units in the last place, 0 far below 0; exactly 1 at 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2(x: __m512) -> __m512 {
    let n = _mm512_roundscale_ps::<0>(x);
    let r = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(POWERS[0]);
    for c in &POWERS[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    _mm512_scalef_ps(p, n)
}

/// 2^r for |r| <= 1/2, highest power first: the polynomial whose largest relative error is least, 1.1e-7.
#[expect(clippy::approx_constant, reason = "near ln 2, but not it")]
const POWERS: [f32; 6] = [1.326_472_6e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0];
