//! Matrix product `y[m, n] = Σ_k x[m, k] · w[n, k]` with packed weights.
//!
//! Batch-invariant: each output is one accumulator that adds its products in the order of k, whatever the number of
//! rows, the tile it falls into, or the thread that computes it. Work is split over n only.

use std::ops::Range;

use super::{
    Element, Isa, PackedMatrix,
    arith::{Arith, multiversion},
    element::LANES,
    threads::{Pointer, Threads},
};

/// Panels that a task takes at least: the widest tile of the AVX-512 kernel.
const TASK_PANELS: usize = 4;
/// Tasks for each thread: enough that a thread that lost its core for a while does not hold up the others.
const TASKS_PER_THREAD: usize = 8;

/// What becomes of the products, `[rows, n]`.
pub(crate) enum Output<'a> {
    /// Written.
    Store(&'a mut [f32]),
    /// Added to what is there.
    Add(&'a mut [f32]),
}

/// One product, as the kernels see it.
pub(crate) struct Job<'a, T> {
    /// `[rows, k]`.
    pub(super) x: &'a [T],
    pub(super) rows: usize,
    pub(super) w: &'a PackedMatrix<T>,
    /// `[rows, n]`; tasks write disjoint columns.
    pub(super) y: Pointer<f32>,
    pub(super) add: bool,
}

/// `y = x · wᵀ`.
pub(crate) fn linear<T: Element>(
    isa: Isa,
    threads: &mut Threads,
    x: &[T],
    w: &PackedMatrix<T>,
    output: Output<'_>,
) {
    let rows = x.len() / w.k();
    let (y, add) = match output {
        Output::Store(y) => (y, false),
        Output::Add(y) => (y, true),
    };
    assert!(x.len() == rows * w.k() && y.len() == rows * w.n(), "shapes of a matrix product");
    let job = Job { x, rows, w, y: Pointer(y.as_mut_ptr()), add };
    let panels = w.panels();
    let per_task =
        (panels / (threads.count() * TASKS_PER_THREAD)).next_multiple_of(TASK_PANELS).max(TASK_PANELS);
    threads.run(panels.div_ceil(per_task), &|_, task| {
        let start = task * per_task;
        T::gemm_panels(isa, &job, start..panels.min(start + per_task));
    });
}

impl<T: Element> Job<'_, T> {
    /// Puts one accumulator into its place: lanes of `panel` of row `row`.
    #[inline(always)]
    fn put(&self, row: usize, panel: usize, acc: &[f32; LANES]) {
        let first = panel * LANES;
        for (lane, value) in acc.iter().take(self.w.n() - first).enumerate() {
            let y = self.y.at(row * self.w.n() + first + lane);
            // SAFETY: row < rows and first + lane < n, so it is within `y`; no other task has this panel. Columns of a
            // row-major matrix that threads share cannot be borrowed apart.
            unsafe { *y = if self.add { *y + value } else { *value } };
        }
    }
}

multiversion! {
    /// Computes the columns of `panels`.
    pub(crate) fn panels<T: Element>(job: &Job<'_, T>, panels: Range<usize>) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(job: &Job<'_, T>, panels: Range<usize>) {
    for panel in panels {
        let mut row = 0;
        while row + 4 <= job.rows {
            tile::<T, A, 4>(job, row, panel);
            row += 4;
        }
        while row < job.rows {
            tile::<T, A, 1>(job, row, panel);
            row += 1;
        }
    }
}

/// `MR` rows by one panel.
#[inline(always)]
fn tile<T: Element, A: Arith, const MR: usize>(job: &Job<'_, T>, row: usize, panel: usize) {
    let k = job.w.k();
    let x: [&[T]; MR] = std::array::from_fn(|m| &job.x[(row + m) * k..][..k]);
    let mut acc = [[0.0f32; LANES]; MR];
    for (step, w) in job.w.panel(panel).chunks_exact(LANES * T::GROUP).enumerate() {
        for within in 0..T::GROUP {
            let w = T::lanes(w, within);
            for m in 0..MR {
                let x = x[m][step * T::GROUP + within].to_f32();
                for lane in 0..LANES {
                    acc[m][lane] = A::mul_add(x, w[lane], acc[m][lane]);
                }
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        job.put(row + m, panel, acc);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::testing::random;

    /// The plainest form of the product, in double precision.
    fn reference<T: Element>(x: &[T], w: &[T], k: usize) -> Vec<f64> {
        let dot = |x: &[T], w: &[T]| -> f64 {
            x.iter().zip(w).map(|(x, w)| f64::from(x.to_f32()) * f64::from(w.to_f32())).sum()
        };
        x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect()
    }

    pub(crate) fn pack<T: Element>(w: &[T], n: usize, k: usize) -> PackedMatrix<T> {
        let mut packed = PackedMatrix::zeroed(n, k).unwrap();
        let (panels, len) = packed.panels_mut();
        for (row, w) in w.chunks(k).enumerate() {
            PackedMatrix::pack_row(&mut panels[row / LANES * len..][..len], row % LANES, w);
        }
        packed
    }

    fn check<T: Element>(rows: usize, n: usize, k: usize) {
        let x: Vec<T> = random(rows * k, 1).into_iter().map(T::from_f32).collect();
        let w: Vec<T> = random(n * k, 2).into_iter().map(T::from_f32).collect();
        let packed = pack(&w, n, k);
        let want = reference(&x, &w, k);
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; rows * n];
            linear(isa, &mut Threads::new(3), &x, &packed, Output::Store(&mut y));
            // A sum of k products of size about 1/3 with k roundings.
            let tolerance = 1e-6 * k as f64;
            for (at, (y, want)) in y.iter().zip(&want).enumerate() {
                assert!((f64::from(*y) - want).abs() < tolerance, "{isa} {rows}x{n}x{k} at {at}: {y} {want}");
            }
            for row in 0..rows {
                let mut alone = vec![1.0; n];
                let x = &x[row * k..][..k];
                linear(isa, &mut Threads::new(1), x, &packed, Output::Store(&mut alone));
                assert!(alone == y[row * n..][..n], "{isa} {rows}x{n}x{k}: row {row} alone differs");
            }
            let before = y.clone();
            linear(isa, &mut Threads::new(2), &x, &packed, Output::Add(&mut y));
            assert!(y.iter().zip(before).all(|(y, before)| *y == before + before), "{isa} adding");
        }
    }

    #[test]
    fn products_agree_with_the_reference_and_rows_do_not_depend_on_each_other() {
        for rows in [1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 14, 25, 40] {
            for (n, k) in [(1, 2), (16, 32), (17, 34), (70, 66), (128, 130)] {
                check::<bf16>(rows, n, k);
                check::<f32>(rows, n, k);
            }
        }
    }
}
