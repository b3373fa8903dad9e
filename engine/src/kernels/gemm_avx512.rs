//! The bf16 matrix kernel for AVX-512 with `VDPBF16PS`: 16 outputs by 2 inputs an instruction.
//!
//! A tile of `MR` rows by `NR` panels lives in registers while k runs; each output is one accumulator lane, so the order
//! of its sum is that of k for every tile shape.
//!
//! ```text
//! few rows (decode)    MR ≤ 6, NR = 4: four streams of weights, enough chains to hide the latency of a dot product
//! many rows (prefill)  MR ≤ 12, NR = 2: 24 accumulators; a pair of panels stays in L2 while the rows pass by
//! ```

use std::{arch::x86_64::*, ops::Range};

use half::bf16;

use super::{element::LANES, gemm::Job};

/// Rows up to which four panels are taken at a time.
const FEW_ROWS: usize = 6;
/// Rows of a tile at most.
const MAX_TILE_ROWS: usize = 12;
/// How far ahead weights are fetched: they stream from memory once a step, and the hardware's prefetcher alone stops at page borders.
const PREFETCH_BYTES: usize = 1024;

/// The kernel, for a CPU that has the instructions.
pub(super) fn kernel(job: &Job<'_, bf16>, range: Range<usize>) {
    // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
    unsafe { panels(job, range) }
}

/// Computes the columns of `panels`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn panels(job: &Job<'_, bf16>, panels: Range<usize>) {
    let wide = if job.rows <= FEW_ROWS { 4 } else { 2 };
    let mut panel = panels.start;
    while panel < panels.end {
        let take = if panel + wide <= panels.end { wide } else { 1 };
        match take {
            4 => rows::<4>(job, panel),
            2 => rows::<2>(job, panel),
            _ => rows::<1>(job, panel),
        }
        panel += take;
    }
}

/// All rows, in tiles of nearly the same height.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn rows<const NR: usize>(job: &Job<'_, bf16>, panel: usize) {
    let mut tiles = job.rows.div_ceil(MAX_TILE_ROWS);
    let mut row = 0;
    while tiles > 0 {
        let height = (job.rows - row).div_ceil(tiles);
        if NR == 4 {
            few_rows(job, row, height, panel)
        } else {
            many_rows::<NR>(job, row, height, panel)
        }
        row += height;
        tiles -= 1;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn few_rows(job: &Job<'_, bf16>, row: usize, height: usize, panel: usize) {
    match height {
        1 => tile::<1, 4>(job, row, panel),
        2 => tile::<2, 4>(job, row, panel),
        3 => tile::<3, 4>(job, row, panel),
        4 => tile::<4, 4>(job, row, panel),
        5 => tile::<5, 4>(job, row, panel),
        _ => tile::<FEW_ROWS, 4>(job, row, panel),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn many_rows<const NR: usize>(job: &Job<'_, bf16>, row: usize, height: usize, panel: usize) {
    match height {
        1 => tile::<1, NR>(job, row, panel),
        2 => tile::<2, NR>(job, row, panel),
        3 => tile::<3, NR>(job, row, panel),
        4 => tile::<4, NR>(job, row, panel),
        5 => tile::<5, NR>(job, row, panel),
        6 => tile::<6, NR>(job, row, panel),
        7 => tile::<7, NR>(job, row, panel),
        8 => tile::<8, NR>(job, row, panel),
        9 => tile::<9, NR>(job, row, panel),
        10 => tile::<10, NR>(job, row, panel),
        11 => tile::<11, NR>(job, row, panel),
        _ => tile::<MAX_TILE_ROWS, NR>(job, row, panel),
    }
}

/// `MR` rows from `row` on by `NR` panels from `panel` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn tile<const MR: usize, const NR: usize>(job: &Job<'_, bf16>, row: usize, panel: usize) {
    let k = job.k;
    let steps = k / 2;
    let x = job.x[row * k..][..MR * k].as_ptr().cast::<i32>();
    let mut w = [std::ptr::null::<i32>(); NR];
    for (n, w) in w.iter_mut().enumerate() {
        *w = job.panel(panel + n).as_ptr().cast();
    }
    let mut acc = [[_mm512_setzero_ps(); NR]; MR];
    for step in 0..steps {
        let mut weights = [_mm512_setzero_si512(); NR];
        for (weights, w) in weights.iter_mut().zip(w) {
            let at = w.wrapping_add(step * LANES);
            if MR <= FEW_ROWS {
                // A prefetch of any address is harmless.
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_byte_add(PREFETCH_BYTES).cast());
            }
            // SAFETY: step < k / 2, and a panel holds k / 2 steps of 16 pairs, which are 64 bytes on a 64-byte border.
            *weights = unsafe { _mm512_load_si512(at.cast()) };
        }
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: m < MR rows of k / 2 pairs each; a row may lie on any 2-byte border.
            let pair = _mm512_set1_epi32(unsafe { x.wrapping_add(m * steps + step).read_unaligned() });
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm512_dpbf16_ps(*acc, bits(pair), bits(weights));
            }
        }
    }
    // Through memory once: an array with a variable index lives in memory, and without the barrier so would the
    // accumulators of the loop above, each step.
    for (m, acc) in std::hint::black_box(acc).iter().enumerate() {
        for (n, acc) in acc.iter().enumerate() {
            put(job, row + m, panel + n, *acc);
        }
    }
}

/// Puts one accumulator into its place; lanes past the last output are dropped.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn put(job: &Job<'_, bf16>, row: usize, panel: usize, acc: __m512) {
    let first = panel * LANES;
    let lanes = (job.n - first).min(LANES);
    let mask = (u32::MAX >> (32 - lanes)) as __mmask16;
    let y = job.y.at(row * job.n + first);
    let acc = match job.bias.get(first..).filter(|bias| !bias.is_empty()) {
        // SAFETY: a bias has n elements, of which `lanes` are left; masked lanes are not read.
        Some(bias) => _mm512_add_ps(acc, unsafe { _mm512_maskz_loadu_ps(mask, bias.as_ptr()) }),
        None => acc,
    };
    let sum = if job.add {
        // SAFETY: `lanes` elements of row `row` of `y`; masked lanes are not touched. No other task has this panel.
        _mm512_add_ps(unsafe { _mm512_maskz_loadu_ps(mask, y) }, acc)
    } else {
        acc
    };
    // SAFETY: as above.
    unsafe { _mm512_mask_storeu_ps(y, mask, sum) };
}

/// The same bits as pairs of bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
fn bits(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values; `core::arch` has no cast between them.
    unsafe { std::mem::transmute(x) }
}
