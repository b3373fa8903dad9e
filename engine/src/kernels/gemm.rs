//! Matrix product `y[m, n] = Σ_k x[m, k] · w[n, k] + b[n]` with packed weights.
//!
//! Batch-invariant: each output is one accumulator that adds its products in the order of k, whatever the number of
//! rows, the tile it falls into, or the thread that computes it. Work is split over n only.

use std::{cell::Cell, ops::Range};

use super::{
    Element, Operands, PackedMatrix,
    arith::{Arith, multiversion},
    element::LANES,
    row_tiles::row_tiles,
    threads::{Pointer, Threads},
};

/// Panels that a task takes at least: the widest tile of the AVX-512 kernel.
pub(super) const TASK_PANELS: usize = 8;
/// Small tasks for each thread, after its large one: enough that a thread that lost its core for a while does not hold up the
/// others.
const SMALL_TASKS: usize = 4;
/// Rows whose sums fit into AVX2's registers beside a panel's weights.
const MAX_TILE_ROWS: usize = 6;

thread_local! {
    /// Rows of a tile as f32.
    static WIDE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// What becomes of the products, `[rows, n]`.
pub(crate) enum Output<'a> {
    /// Written.
    Store(&'a mut [f32]),
    /// Added to what is there.
    Add(&'a mut [f32]),
}

/// One product, as the kernels see it.
pub(crate) struct Job<'a, T> {
    /// Rows of `k` elements, `x_stride` apart.
    pub(super) x: &'a [T],
    pub(super) x_stride: usize,
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Packed panels of the matrix from `first_panel` on.
    pub(super) weights: &'a [T],
    pub(super) first_panel: usize,
    pub(super) sink: Sink<'a>,
}

/// Where a product's results go.
pub(crate) struct Sink<'a> {
    pub(super) n: usize,
    /// `[n]`, or empty.
    pub(super) bias: &'a [f32],
    /// `[rows, n]`; tasks write disjoint columns.
    pub(super) y: Pointer<f32>,
    /// From one row of `y` to the next: `n`, or more where the product is some columns of something wider.
    pub(super) stride: usize,
    pub(super) add: bool,
}

/// A compiled kernel: computes the columns of some panels, which the job holds.
pub(crate) type Kernel<T> = fn(&Job<'_, T>, Range<usize>);

/// `y = x · wᵀ + bias`; `bias` is `[n]` or empty.
pub(crate) fn linear<T: Element>(
    kernel: Kernel<T>,
    threads: &mut Threads,
    x: &Operands<T>,
    w: &PackedMatrix<T>,
    bias: &[f32],
    output: Output<'_>,
) {
    let (n, k) = (w.n(), w.k());
    let (rows, x_stride) = (x.rows(), x.stride());
    assert_eq!(x.width(), k, "shape of the operand");
    let sink = Sink::new(rows, n, bias, output);
    let x = x.storage(0, rows);
    let job = Job { x, x_stride, rows, k, weights: w.all_panels(), first_panel: 0, sink };
    let cut = Cut::of(w.panels(), threads.count());
    threads.run(cut.tasks(), &|_, task| kernel(&job, cut.range(task)));
}

/// A product's panels as tasks: a large one for each thread, three quarters in all, so that weights stream in long runs; then
/// small ones for whoever comes first.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    panels: usize,
    threads: usize,
    large: usize,
    small: usize,
}

impl Cut {
    pub(super) fn of(panels: usize, threads: usize) -> Self {
        let large = panels * 3 / 4 / threads / TASK_PANELS * TASK_PANELS;
        let rest = panels - large * threads;
        let small = (rest / (threads * SMALL_TASKS)).next_multiple_of(TASK_PANELS).max(TASK_PANELS);
        Self { panels, threads, large, small }
    }

    pub(super) fn tasks(&self) -> usize {
        let large = if self.large > 0 { self.threads } else { 0 };
        large + (self.panels - large * self.large).div_ceil(self.small)
    }

    /// The panels of a task.
    pub(super) fn range(&self, task: usize) -> Range<usize> {
        let large = if self.large > 0 { self.threads } else { 0 };
        if task < large {
            return task * self.large..(task + 1) * self.large;
        }
        let start = large * self.large + (task - large) * self.small;
        start..self.panels.min(start + self.small)
    }
}

impl<T: Element> Job<'_, T> {
    /// The weights of panel `panel`.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> &[T] {
        &self.weights[(panel - self.first_panel) * LANES * self.k..][..LANES * self.k]
    }
}

impl<'a> Sink<'a> {
    /// For `rows` rows of `n` outputs.
    pub(super) fn new(rows: usize, n: usize, bias: &'a [f32], output: Output<'_>) -> Self {
        let (y, add) = match output {
            Output::Store(y) => (y, false),
            Output::Add(y) => (y, true),
        };
        assert_eq!(y.len(), rows * n, "shape of the result");
        assert!(bias.is_empty() || bias.len() == n, "a bias for each output");
        Self { n, bias, y: Pointer(y.as_mut_ptr()), stride: n, add }
    }

    /// Puts one accumulator into its place: lanes of `panel` of row `row`.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, panel: usize, acc: &[f32; LANES]) {
        let first = panel * LANES;
        for (lane, value) in acc.iter().take(self.n - first).enumerate() {
            let value = if self.bias.is_empty() { *value } else { value + self.bias[first + lane] };
            let y = self.y.at(row * self.stride + first + lane);
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
    let mut wide = WIDE.take();
    for first in panels.clone().step_by(TASK_PANELS) {
        let few = first..panels.end.min(first + TASK_PANELS);
        for (row, height) in row_tiles(job.rows, MAX_TILE_ROWS) {
            widen(job, row, height, &mut wide);
            for panel in few.clone() {
                match height {
                    1 => tile::<T, A, 1>(job, &wide, row, panel),
                    2 => tile::<T, A, 2>(job, &wide, row, panel),
                    3 => tile::<T, A, 3>(job, &wide, row, panel),
                    4 => tile::<T, A, 4>(job, &wide, row, panel),
                    5 => tile::<T, A, 5>(job, &wide, row, panel),
                    _ => tile::<T, A, MAX_TILE_ROWS>(job, &wide, row, panel),
                }
            }
        }
    }
    WIDE.set(wide);
}

/// `height` rows as f32, once for some panels: to widen an element beside each product would take longer than the product.
#[inline(always)]
fn widen<T: Element>(job: &Job<'_, T>, row: usize, height: usize, wide: &mut Vec<f32>) {
    wide.clear();
    for row in row..row + height {
        wide.extend(job.x[row * job.x_stride..][..job.k].iter().map(|x| x.to_f32()));
    }
}

/// `MR` rows, widened, by one panel.
#[inline(always)]
fn tile<T: Element, A: Arith, const MR: usize>(job: &Job<'_, T>, wide: &[f32], row: usize, panel: usize) {
    let k = job.k;
    let x: [&[f32]; MR] = std::array::from_fn(|m| &wide[m * k..][..k]);
    let mut acc = [[0.0f32; LANES]; MR];
    for (step, w) in job.panel(panel).chunks_exact(LANES * T::GROUP).enumerate() {
        for within in 0..T::GROUP {
            let w = T::lanes(w, within);
            for m in 0..MR {
                let x = x[m][step * T::GROUP + within];
                for lane in 0..LANES {
                    acc[m][lane] = A::mul_add(x, w[lane], acc[m][lane]);
                }
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        job.sink.put(row + m, panel, acc);
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
            for (n, k) in [(1, 2), (16, 32), (17, 34), (70, 66), (128, 130), (33, 512)] {
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
    fn tasks_cover_every_panel_once() {
        for threads in 1..9 {
            for panels in (1..70).chain([192, 384, 9496, 10_001]) {
                let cut = Cut::of(panels, threads);
                let all: Vec<usize> = (0..cut.tasks()).flat_map(|task| cut.range(task)).collect();
                assert!(all.iter().copied().eq(0..panels), "{panels} panels on {threads} threads");
            }
        }
    }

    #[test]
    fn products_agree_with_the_reference_and_rows_do_not_depend_on_each_other() {
        on_each_device!(agrees);
    }
}
