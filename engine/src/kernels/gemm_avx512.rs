//! The bf16 matrix kernel for AVX-512 with `VDPBF16PS`: 16 outputs by 2 inputs an instruction.
//!
//! A tile of `MR` rows by `NR` panels lives in registers while k runs; each output is one accumulator lane, so the order
//! of its sum is that of k for every tile shape.
//!
//! ```text
//! rows ≤ 2 (decode)    NR = 8: eight streams of weights, enough chains to hide the latency of a dot product
//! rows ≤ 6             NR = 4
//! more rows (prefill)  MR ≤ 12, NR = 2: 24 accumulators; a pair of panels stays in L2 while the rows pass by
//! ```
//! Weights stream from memory once a step. While the rows pass by one block of panels, the next block is fetched into L2, each
//! tile of rows fetching its part: so the reading of weights overlaps with computing however many rows there are.

use std::{arch::x86_64::*, ops::Range};

use half::bf16;

use super::{
    element::LANES,
    gemm::{Job, Sink},
    row_tiles::row_tiles,
};

/// Rows of a tile at most.
const MAX_TILE_ROWS: usize = 12;

/// A part of the next block of panels, to be fetched while a tile is computed: one of `parts` of its steps.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    pub(super) part: usize,
    pub(super) parts: usize,
}

/// The kernel, for a CPU that has the instructions.
pub(super) fn kernel(job: &Job<'_, bf16>, range: Range<usize>) {
    // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
    unsafe { panels(job, range) }
}

/// Computes the columns of `panels`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn panels(job: &Job<'_, bf16>, panels: Range<usize>) {
    let wide = match job.rows {
        0..=2 => 8,
        3..=6 => 4,
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
                8 if height == 1 => tile::<1, 8>(job, row, panel, fetch),
                8 => tile::<2, 8>(job, row, panel, fetch),
                4 => few_rows(job, row, height, panel, fetch),
                2 => many_rows::<2>(job, row, height, panel, fetch),
                _ => many_rows::<1>(job, row, height, panel, fetch),
            }
        }
        panel += take;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn few_rows(job: &Job<'_, bf16>, row: usize, height: usize, panel: usize, fetch: Fetch) {
    match height {
        3 => tile::<3, 4>(job, row, panel, fetch),
        4 => tile::<4, 4>(job, row, panel, fetch),
        5 => tile::<5, 4>(job, row, panel, fetch),
        _ => tile::<6, 4>(job, row, panel, fetch),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn many_rows<const NR: usize>(job: &Job<'_, bf16>, row: usize, height: usize, panel: usize, fetch: Fetch) {
    match height {
        1 => tile::<1, NR>(job, row, panel, fetch),
        2 => tile::<2, NR>(job, row, panel, fetch),
        3 => tile::<3, NR>(job, row, panel, fetch),
        4 => tile::<4, NR>(job, row, panel, fetch),
        5 => tile::<5, NR>(job, row, panel, fetch),
        6 => tile::<6, NR>(job, row, panel, fetch),
        7 => tile::<7, NR>(job, row, panel, fetch),
        8 => tile::<8, NR>(job, row, panel, fetch),
        9 => tile::<9, NR>(job, row, panel, fetch),
        10 => tile::<10, NR>(job, row, panel, fetch),
        11 => tile::<11, NR>(job, row, panel, fetch),
        _ => tile::<MAX_TILE_ROWS, NR>(job, row, panel, fetch),
    }
}

/// `MR` rows from `row` on by `NR` panels from `panel` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn tile<const MR: usize, const NR: usize>(job: &Job<'_, bf16>, row: usize, panel: usize, fetch: Fetch) {
    let k = job.k;
    let steps = k / 2;
    let x = job.x[row * job.x_stride..][..(MR - 1) * job.x_stride + k].as_ptr();
    let mut w = [std::ptr::null::<i32>(); NR];
    for (n, w) in w.iter_mut().enumerate() {
        *w = job.panel(panel + n).as_ptr().cast();
    }
    let mut acc = [[_mm512_setzero_ps(); NR]; MR];
    let mut fetched = fetch.part;
    for step in 0..steps {
        if step == fetched {
            fetched += fetch.parts;
            for w in w {
                // Panels lie one after the other. A prefetch of any address is harmless.
                let next = w.wrapping_add((NR * steps + step) * LANES);
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
            }
        }
        let mut weights = [_mm512_setzero_si512(); NR];
        for (weights, w) in weights.iter_mut().zip(w) {
            // SAFETY: step < k / 2, and a panel holds k / 2 steps of 16 pairs, which are 64 bytes on a 64-byte border.
            *weights = unsafe { _mm512_load_si512(w.wrapping_add(step * LANES).cast()) };
        }
        for (m, acc) in acc.iter_mut().enumerate() {
            let pair = x.wrapping_add(m * job.x_stride).cast::<i32>().wrapping_add(step);
            // SAFETY: m < MR rows of k / 2 pairs each; a row may lie on any 2-byte border.
            let pair = _mm512_set1_epi32(unsafe { pair.read_unaligned() });
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm512_dpbf16_ps(*acc, bits(pair), bits(weights));
            }
        }
    }
    let sink = &job.sink;
    let is_whole = (panel + NR) * LANES <= sink.n && sink.bias.is_empty();
    let place = |m: usize, n: usize| sink.y.at((row + m) * sink.stride + (panel + n) * LANES);
    match (is_whole, sink.add) {
        // Little enough that the loops are unrolled and the accumulators never leave their registers.
        (true, false) => {
            for (m, acc) in acc.iter().enumerate() {
                for (n, acc) in acc.iter().enumerate() {
                    // SAFETY: sixteen elements of row `row + m`, by the check above; no other task has this panel.
                    unsafe { _mm512_storeu_ps(place(m, n), *acc) };
                }
            }
        }
        (true, true) => {
            for (m, acc) in acc.iter().enumerate() {
                for (n, acc) in acc.iter().enumerate() {
                    // SAFETY: as above.
                    let sum = _mm512_add_ps(unsafe { _mm512_loadu_ps(place(m, n)) }, *acc);
                    // SAFETY: as above.
                    unsafe { _mm512_storeu_ps(place(m, n), sum) };
                }
            }
        }
        // Through memory once: an array with a variable index lives in memory, and without the barrier so would the
        // accumulators of the loop above, each step.
        (false, _) => {
            for (m, acc) in std::hint::black_box(acc).iter().enumerate() {
                for (n, acc) in acc.iter().enumerate() {
                    put(sink, row + m, panel + n, *acc);
                }
            }
        }
    }
}

/// Puts one accumulator into its place; lanes past the last output are dropped.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn put(sink: &Sink<'_>, row: usize, panel: usize, acc: __m512) {
    let first = panel * LANES;
    let lanes = (sink.n - first).min(LANES);
    let mask = (u32::MAX >> (32 - lanes)) as __mmask16;
    let y = sink.y.at(row * sink.stride + first);
    let acc = match sink.bias.get(first..).filter(|bias| !bias.is_empty()) {
        // SAFETY: a bias has n elements, of which `lanes` are left; masked lanes are not read.
        Some(bias) => _mm512_add_ps(acc, unsafe { _mm512_maskz_loadu_ps(mask, bias.as_ptr()) }),
        None => acc,
    };
    let sum = if sink.add {
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
