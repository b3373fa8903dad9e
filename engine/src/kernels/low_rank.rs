//! Products of low rank, added to some rows and columns of a projection: what adapters (LoRA) are at run time.
//!
//! ```text
//!            x [rows, k] ──► · aᵀ ──► h [rows, rank] ──► · bᵀ ──► added to columns first_column.. of y [rows, width]
//! rows of     ▒▒▒▒▒▒▒▒ adapter 1      ▒▒                 ▒▒▒▒▒▒
//! one step    ░░░░░░░░ none                              not touched
//!             ▓▓▓▓▓▓▓▓ adapter 2      ▓▓▓                ▓▓▓▓▓▓
//! ```
//! `h` is rounded to the type of activations, like every operand of a matrix product. Both products are made by the matrix
//! kernel of [`super::gemm`], so a row gets the same bits whoever its neighbours are, and a row without an adapter keeps its own.

use std::ops::Range;

use super::{
    Buffer, Element, Operands, PackedMatrix, Rows, Threads,
    element::LANES,
    gemm::{self, Job, Sink},
    threads::Pointer,
};

/// Rows of a task at most: small enough that their results stay on the stack.
const TASK_ROWS: usize = 48;
/// Panels of `b` of a task at most.
const TASK_PANELS: usize = 32;

/// What is added to some rows of a projection. `M` is a device's matrix.
#[derive(Clone)]
pub(crate) struct LowRankRows<'a, M> {
    /// Rows of the step.
    pub(crate) rows: Range<usize>,
    /// `[rank, k]`; the rank is even.
    pub(crate) a: &'a M,
    /// `[n, rank]`.
    pub(crate) b: &'a M,
    /// Where its `n` columns begin.
    pub(crate) first_column: usize,
}

/// Adds each change's product to its rows and columns of `y`; those of two changes have no place in common. `inner` is scratch.
pub(crate) fn add<T: Element>(
    kernel: gemm::Kernel<T>,
    threads: &mut Threads,
    x: &Operands<T>,
    changes: &[LowRankRows<'_, PackedMatrix<T>>],
    inner: &mut Buffer<T>,
    y: &mut Rows<f32>,
) {
    for LowRankRows { rows, a, b, first_column } in changes {
        assert!(a.k() == x.width() && b.k() == a.n(), "shapes of a product of low rank");
        assert!(rows.end <= x.rows() && rows.end <= y.rows(), "its rows are the step's");
        assert!(first_column + b.n() <= y.width(), "its columns are the projection's");
    }
    let starts: Vec<usize> = changes
        .iter()
        .scan(0, |end, change| Some(std::mem::replace(end, *end + change.rows.len() * change.a.n())))
        .collect();
    let all = changes.iter().map(|change| change.rows.len() * change.a.n()).sum();
    let inner = inner.at_least(all);
    let h = Pointer(inner.as_mut_ptr());
    let down = tasks(changes, |change| change.a.panels(), 1);
    threads.run(down.len(), &|_, task| {
        let Task { change, rows, panels } = &down[task];
        shrink(kernel, x, &changes[*change], (rows, panels.start), h.at(starts[*change]));
    });
    let inner = &*inner;
    let width = y.width();
    let y = Pointer(y.as_mut_ptr());
    let up = tasks(changes, |change| change.b.panels(), TASK_PANELS);
    threads.run(up.len(), &|_, task| {
        let Task { change, rows, panels } = &up[task];
        let LowRankRows { rows: of, b, first_column, .. } = &changes[*change];
        let k = b.k();
        let x = &inner[starts[*change] + rows.start * k..][..rows.len() * k];
        let y = Pointer(y.at((of.start + rows.start) * width + first_column));
        let sink = Sink { n: b.n(), bias: &[], y, stride: width, add: true };
        kernel(
            &Job { x, x_stride: k, rows: rows.len(), k, weights: b.all_panels(), first_panel: 0, sink },
            panels.clone(),
        );
    });
}

/// Some rows (counted within the change) by some panels.
struct Task {
    change: usize,
    rows: Range<usize>,
    panels: Range<usize>,
}

fn tasks<M>(
    changes: &[LowRankRows<'_, M>],
    panels: impl Fn(&LowRankRows<'_, M>) -> usize,
    panels_per_task: usize,
) -> Vec<Task> {
    let cut = |len: usize, most: usize| (0..len).step_by(most).map(move |at| at..len.min(at + most));
    let of_change = |(change, low_rank): (usize, &LowRankRows<'_, M>)| {
        let (rows, panels) = (low_rank.rows.len(), panels(low_rank));
        cut(rows, TASK_ROWS)
            .flat_map(move |rows| {
                cut(panels, panels_per_task).map(move |panels| Task { change, rows: rows.clone(), panels })
            })
            .collect::<Vec<_>>()
    };
    changes.iter().enumerate().flat_map(of_change).collect()
}

/// One panel of `a` for some rows; the results go to their places in `h`, `[rows, rank]`.
fn shrink<T: Element>(
    kernel: gemm::Kernel<T>,
    x: &Operands<T>,
    change: &LowRankRows<'_, PackedMatrix<T>>,
    (rows, panel): (&Range<usize>, usize),
    h: *mut T,
) {
    let (rank, k, first) = (change.a.n(), change.a.k(), panel * LANES);
    let mut sums = [0.0; TASK_ROWS * LANES];
    let sink = Sink { n: LANES, bias: &[], y: Pointer(sums.as_mut_ptr()), stride: LANES, add: false };
    let (x, x_stride) = (x.storage(change.rows.start + rows.start, rows.len()), x.stride());
    let weights = change.a.panel(panel);
    kernel(&Job { x, x_stride, rows: rows.len(), k, weights, first_panel: 0, sink }, 0..1);
    let h = Pointer(h);
    for (row, sums) in rows.clone().zip(sums.chunks_exact(LANES)) {
        for (lane, sum) in sums.iter().take(rank - first).enumerate() {
            // SAFETY: row and column are within the change's part of the scratch, and no other task has both; columns of a
            // row-major matrix that threads share cannot be borrowed apart.
            unsafe { *h.at(row * rank + first + lane) = T::from_f32(*sum) };
        }
    }
}

/// The plainest form: `b · (a · x)` for one row, with the inner values as f32.
pub(crate) fn reference(x: &[f32], a: &[f32], b: &[f32]) -> Vec<f32> {
    let inner = gemm::reference(x, a, x.len(), &[]);
    gemm::reference(&inner, b, inner.len(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Probe, close, on_each_device, random};

    /// A change of the test: rows, rank, outputs, first column.
    type Shape = (Range<usize>, usize, usize, usize);

    const K: usize = 66;
    const WIDTH: usize = 100;
    const ROWS: usize = 130;

    /// Two adapters with neighbours that have none; one changes two parts of the projection; ranks of less than a panel,
    /// more than one, and exactly one.
    fn shapes() -> Vec<Shape> {
        vec![
            (3..4, 8, 33, 0),
            (3..4, 2, 17, 83),
            (10..75, 18, 100, 0),
            (75..77, 16, 40, 60),
            (100..127, 34, 16, 1),
        ]
    }

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        let (x, before) = (random(ROWS * K, 1), random(ROWS * WIDTH, 2));
        let shapes = shapes();
        let matrices: Vec<_> = (0..)
            .zip(&shapes)
            .map(|(at, (_, rank, n, _))| {
                let (a, b) = (random(rank * K, 10 + at), random(n * rank, 20 + at));
                (device.weights(&a, K), device.weights(&b, *rank), D::rounded(&a), D::rounded(&b))
            })
            .collect();
        let change = |(shape, of): (&Shape, Range<usize>)| {
            let (_, _, _, first_column) = *shape;
            let at = shapes.iter().position(|other| other == shape).unwrap();
            LowRankRows { rows: of, a: &matrices[at].0, b: &matrices[at].1, first_column }
        };
        let operands = device.operands(&x, K);
        let x = device.operand_values(&operands);
        let mut y = device.floats(&before, WIDTH);
        let changes: Vec<_> = shapes.iter().map(|shape| change((shape, shape.0.clone()))).collect();
        device.add_low_rank(&operands, &changes, &mut y);
        let got = device.float_values(&y);

        let mut want = before.clone();
        for ((rows, _, n, first_column), (_, _, a, b)) in shapes.iter().zip(&matrices) {
            for row in rows.clone() {
                let added = reference(&x[row * K..][..K], a, b);
                let columns = &mut want[row * WIDTH + first_column..][..*n];
                columns.iter_mut().zip(added).for_each(|(y, added)| *y += added);
            }
        }
        // Sums of `rank` products of inner values of size about 5, each rounded to the device's type.
        close(label, &got, &want, 16.0 * D::ROUNDING + 1e-4);
        for row in 0..ROWS {
            let of_row: Vec<&Shape> = shapes.iter().filter(|(rows, ..)| rows.contains(&row)).collect();
            let (got, before) = (&got[row * WIDTH..][..WIDTH], &before[row * WIDTH..][..WIDTH]);
            assert_eq!(got == before, of_row.is_empty(), "{label}: row {row}");
            let mut alone = device.floats(before, WIDTH);
            let one = device.operands(&x[row * K..][..K], K);
            let changes: Vec<_> = of_row.into_iter().map(|shape| change((shape, 0..1))).collect();
            device.add_low_rank(&one, &changes, &mut alone);
            assert!(device.float_values(&alone) == got, "{label}: row {row} alone differs");
        }
    }

    #[test]
    fn changed_rows_agree_with_the_reference_and_others_keep_every_bit() {
        on_each_device!(agrees);
    }
}
