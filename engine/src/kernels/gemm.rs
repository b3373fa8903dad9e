//! Matrix product `y[m, n] = Σ_k x[m, k] · w[n, k] + b[n]` with packed weights.
//!
//! Batch-invariant: each output is one accumulator that adds its products in the order of k, whatever the number of
//! rows, the tile it falls into, or the thread that computes it. Work is split over n only.

use std::ops::Range;

use super::{
    Element, PackedMatrix,
    arith::{Arith, multiversion},
    element::LANES,
    threads::{Pointer, Threads},
};

/// Panels that a task takes at least: the widest tile of the AVX-512 kernel.
pub(super) const TASK_PANELS: usize = 4;
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
    pub(super) n: usize,
    pub(super) k: usize,
    /// Packed panels of the matrix from `first_panel` on.
    pub(super) weights: &'a [T],
    pub(super) first_panel: usize,
    /// `[n]`, or empty.
    pub(super) bias: &'a [f32],
    /// `[rows, n]`; tasks write disjoint columns.
    pub(super) y: Pointer<f32>,
    pub(super) add: bool,
}

/// A compiled kernel: computes the columns of some panels, which the job holds.
pub(crate) type Kernel<T> = fn(&Job<'_, T>, Range<usize>);

/// `y = x · wᵀ + bias`; `bias` is `[n]` or empty.
pub(crate) fn linear<T: Element>(
    kernel: Kernel<T>,
    threads: &mut Threads,
    x: &[T],
    w: &PackedMatrix<T>,
    bias: &[f32],
    output: Output<'_>,
) {
    let (n, k) = (w.n(), w.k());
    let rows = x.len() / k;
    let (y, add) = match output {
        Output::Store(y) => (y, false),
        Output::Add(y) => (y, true),
    };
    assert!(x.len() == rows * k && y.len() == rows * n, "shapes of a matrix product");
    assert!(bias.is_empty() || bias.len() == n, "a bias for each output");
    let y = Pointer(y.as_mut_ptr());
    let job = Job { x, rows, n, k, weights: w.all_panels(), first_panel: 0, bias, y, add };
    let panels = w.panels();
    let per_task = panels_per_task(panels, threads);
    threads.run(panels.div_ceil(per_task), &|_, task| {
        let start = task * per_task;
        kernel(&job, start..panels.min(start + per_task));
    });
}

/// How finely `panels` panels of work are cut.
pub(super) fn panels_per_task(panels: usize, threads: &Threads) -> usize {
    (panels / (threads.count() * TASKS_PER_THREAD)).next_multiple_of(TASK_PANELS).max(TASK_PANELS)
}

impl<T: Element> Job<'_, T> {
    /// The weights of panel `panel`.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> &[T] {
        &self.weights[(panel - self.first_panel) * LANES * self.k..][..LANES * self.k]
    }

    /// Puts one accumulator into its place: lanes of `panel` of row `row`.
    #[inline(always)]
    fn put(&self, row: usize, panel: usize, acc: &[f32; LANES]) {
        let first = panel * LANES;
        for (lane, value) in acc.iter().take(self.n - first).enumerate() {
            let value = if self.bias.is_empty() { *value } else { value + self.bias[first + lane] };
            let y = self.y.at(row * self.n + first + lane);
            // SAFETY: row < rows and first + lane < n, so it is within `y`; no other task has this panel. Columns of a
            // row-major matrix that threads share cannot be borrowed apart.
            unsafe { *y = if self.add { *y + value } else { value } };
        }
    }
}

multiversion! {
    /// The kernel for any element type.
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
    let k = job.k;
    let x: [&[T]; MR] = std::array::from_fn(|m| &job.x[(row + m) * k..][..k]);
    let mut acc = [[0.0f32; LANES]; MR];
    for (step, w) in job.panel(panel).chunks_exact(LANES * T::GROUP).enumerate() {
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

/// The plainest form, summed in double precision; `w` is `[n, k]`.
pub(crate) fn reference(x: &[f32], w: &[f32], k: usize, bias: &[f32]) -> Vec<f32> {
    let dot =
        |x: &[f32], w: &[f32]| -> f64 { x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum() };
    let row = |x: &[f32]| -> Vec<f32> {
        let bias = bias.iter().copied().chain(std::iter::repeat(0.0));
        w.chunks_exact(k).zip(bias).map(|(w, bias)| (dot(x, w) + f64::from(bias)) as f32).collect()
    };
    x.chunks_exact(k).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Probe, close, on_each_device, random};

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for rows in [1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 14, 25, 40] {
            for (n, k) in [(1, 2), (16, 32), (17, 34), (70, 66), (128, 130)] {
                check(device, &format!("{label} {rows}x{n}x{k}"), rows, n, k);
            }
        }
    }

    fn check<D: Probe>(device: &mut D, label: &str, rows: usize, n: usize, k: usize) {
        let (x, w, bias) = (random(rows * k, 1), random(n * k, 2), random(n, 3));
        let (matrix, bias_there) = (device.weights(&w, k), device.vector(&bias));
        let operands = device.operands(&x, k);
        // Operands and weights as the device rounded them, so that only sums differ.
        let (x, w) = (device.operand_values(&operands), D::rounded(&w));
        // A sum of k products of size about 1/3 with k roundings.
        let tolerance = 1e-6 * k as f64;
        let mut y = D::Floats::default();
        device.linear(&operands, &matrix, None, &mut y);
        let plain = device.float_values(&y);
        close(label, &plain, &reference(&x, &w, k, &[]), tolerance);
        for row in 0..rows {
            let one = device.operands(&x[row * k..][..k], k);
            let mut alone = D::Floats::default();
            device.linear(&one, &matrix, None, &mut alone);
            assert!(device.float_values(&alone) == plain[row * n..][..n], "{label}: row {row} alone differs");
        }
        device.linear_add(&operands, &matrix, None, &mut y);
        let twice = device.float_values(&y);
        assert!(twice.iter().zip(&plain).all(|(y, before)| *y == before + before), "{label} adding");
        device.linear(&operands, &matrix, Some(&bias_there), &mut y);
        close(label, &device.float_values(&y), &reference(&x, &w, k, &bias), tolerance);
    }

    #[test]
    fn products_agree_with_the_reference_and_rows_do_not_depend_on_each_other() {
        on_each_device!(agrees);
    }
}
