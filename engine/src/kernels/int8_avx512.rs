//! The eight-bit matrix kernel for AVX-512 with `VPDPBUSD`: 16 outputs by 4 inputs an instruction.
//!
//! A tile's whole-number sums live in registers for a group, its f32 sums for all of k.
//!
//! ```text
//! one row (decode)     NR = 8
//! rows ≤ 3             NR = 4
//! more rows (prefill)  MR ≤ 6, NR = 2: 12 sums of each kind; a pair of panels stays in the cache while the rows pass by
//! ```
//! The next block of panels is fetched meanwhile, as in [`super::gemm_avx512`].

use std::{arch::x86_64::*, ops::Range};

use super::{
    element::LANES,
    gemm_avx512::{Fetch, put},
    int8::{GROUP, Job, OFFSET, QUAD},
    row_tiles::row_tiles,
};

/// Rows of a tile at most.
const MAX_TILE_ROWS: usize = 6;

/// The kernel, for a CPU that has the instructions.
pub(super) fn kernel(job: &Job<'_>, range: Range<usize>) {
    // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
    unsafe { panels(job, range) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn panels(job: &Job<'_>, panels: Range<usize>) {
    let wide = match job.rows {
        0..=1 => 8,
        2..=3 => 4,
        _ => 2,
    };
    let mut panel = panels.start;
    while panel < panels.end {
        let take = if panel + wide <= panels.end { wide } else { 1 };
        let tiles = row_tiles(job.rows, MAX_TILE_ROWS);
        let parts = tiles.len();
        for (part, (row, height)) in tiles.enumerate() {
            let fetch = Fetch { part, parts };
            match take {
                8 => tile::<1, 8>(job, row, panel, fetch),
                4 if height == 2 => tile::<2, 4>(job, row, panel, fetch),
                4 => tile::<3, 4>(job, row, panel, fetch),
                2 => many_rows::<2>(job, row, height, panel, fetch),
                _ => many_rows::<1>(job, row, height, panel, fetch),
            }
        }
        panel += take;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn many_rows<const NR: usize>(job: &Job<'_>, row: usize, height: usize, panel: usize, fetch: Fetch) {
    match height {
        1 => tile::<1, NR>(job, row, panel, fetch),
        2 => tile::<2, NR>(job, row, panel, fetch),
        3 => tile::<3, NR>(job, row, panel, fetch),
        4 => tile::<4, NR>(job, row, panel, fetch),
        5 => tile::<5, NR>(job, row, panel, fetch),
        _ => tile::<MAX_TILE_ROWS, NR>(job, row, panel, fetch),
    }
}

/// `MR` rows from `row` on by `NR` panels from `panel` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const MR: usize, const NR: usize>(job: &Job<'_>, row: usize, panel: usize, fetch: Fetch) {
    let (quads, groups) = (job.w.quads(), job.w.groups());
    let x = job.x[row * quads * QUAD..][..MR * quads * QUAD].as_ptr().cast::<i32>();
    let x_groups = &job.x_groups[row * groups..][..MR * groups];
    let panels: [_; NR] = std::array::from_fn(|n| job.w.panel(panel + n));
    let w = panels.map(|(values, _)| values.as_ptr().cast::<i32>());
    let mut sums = [[_mm512_setzero_ps(); NR]; MR];
    let mut fetched = fetch.part;
    for group in 0..groups {
        let mut acc = [[_mm512_setzero_si512(); NR]; MR];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm512_set1_epi32(-OFFSET * x_groups[m * groups + group].sum); NR];
        }
        for quad in group * GROUP / QUAD..quads.min((group + 1) * GROUP / QUAD) {
            if quad == fetched {
                fetched += fetch.parts;
                for w in w {
                    // A prefetch of any address is harmless.
                    _mm_prefetch::<_MM_HINT_T1>(w.wrapping_add((NR * quads + quad) * LANES).cast());
                }
            }
            let mut weights = [_mm512_setzero_si512(); NR];
            for (weights, w) in weights.iter_mut().zip(w) {
                // SAFETY: a panel holds `quads` steps of 16 quads, which are 64 bytes on a 64-byte border.
                *weights = unsafe { _mm512_load_si512(w.wrapping_add(quad * LANES).cast()) };
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                // SAFETY: m < MR rows of `quads` quads each; a row begins on a 4-byte border.
                let four = _mm512_set1_epi32(unsafe { x.wrapping_add(m * quads + quad).read() });
                for (acc, weights) in acc.iter_mut().zip(weights) {
                    *acc = _mm512_dpbusd_epi32(*acc, weights, four);
                }
            }
        }
        for (n, (_, scales)) in panels.iter().enumerate() {
            let scales = &scales[group * LANES..][..LANES];
            // SAFETY: 16 scales of two bytes.
            let scales = unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) };
            let scales = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(scales)));
            for m in 0..MR {
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x_groups[m * groups + group].scale));
                sums[m][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[m][n]), scale, sums[m][n]);
            }
        }
    }
    // As for bf16: without the barrier the sums would live in memory in the loop above.
    for (m, sums) in std::hint::black_box(sums).iter().enumerate() {
        for (n, sums) in sums.iter().enumerate() {
            put(&job.sink, row + m, panel + n, *sums);
        }
    }
}
