//! A matrix product whose results are used at once: piece by piece, while they are in the first cache.
//!
//! What a prompt's projections make is megabytes of f32 that the next operation only turns into half as much bf16. Written to
//! memory and read again that costs more than the operation does.
//!
//! ```text
//!            part 0 of the columns       part 1
//!            group 0  group 1  …         group 0  group 1  …
//! 48 rows    ▒▒▒▒▒▒▒▒                    ▒▒▒▒▒▒▒▒                 a piece: [rows, parts, panels · 16], for `finish`
//! 48 rows
//! ```
//! Each sum is made by the matrix kernel, as in [`super::gemm`], so a piece has the bits that the whole product would have.

use super::{
    Element, Operands, PackedMatrix, Scratches, Threads,
    element::LANES,
    gemm::{Job, Kernel, Sink},
    threads::Pointer,
};

/// Fewer rows than these are few bytes.
pub(super) const LEAST_ROWS: usize = 64;
/// Rows of a piece at most: whole tiles of the AVX-512 kernel.
const PIECE_ROWS: usize = 48;
/// Pieces of a task: they share the weights of a group.
const TASK_PIECES: usize = 4;

/// Which columns of a product come together in a piece.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    /// Equal parts of the columns, of each of which a piece has as many.
    pub(super) parts: usize,
    /// Panels that a piece has of each part.
    pub(super) panels: usize,
}

impl Groups {
    /// Whether groups of a product with `n` outputs are whole panels.
    pub(super) fn divide(self, n: usize) -> bool {
        n.is_multiple_of(self.parts * LANES)
    }
}

/// Takes a row of a piece, `[parts, columns]`, the number of its first column within a part, and the elements of the result
/// that it gives: those of the same numbers, as many as there are.
pub(super) type Finish<'a, T> = dyn Fn(usize, usize, &mut [f32], &mut [T]) + Sync + 'a;

/// The product `x · wᵀ + bias`; `finish(row, first column, values, out)` makes `out` of it, which has its shape already.
pub(super) fn linear<T: Element>(
    kernel: Kernel<T>,
    (threads, scratch): (&mut Threads, &Scratches<f32>),
    x: &Operands<T>,
    (w, bias): (&PackedMatrix<T>, &[f32]),
    groups: Groups,
    out: &mut Operands<T>,
    finish: &Finish<'_, T>,
) {
    let Groups { parts, panels } = groups;
    assert!(groups.divide(w.n()), "groups are whole panels");
    assert!(x.width() == w.k() && out.rows() == x.rows(), "shapes of the operands");
    let (rows, part_panels, width) = (x.rows(), w.panels() / parts, panels * LANES);
    let (out_width, out_stride) = (out.width(), out.stride());
    let out = Pointer(out.storage_mut().as_mut_ptr());
    let spans = rows.div_ceil(PIECE_ROWS * TASK_PIECES);
    threads.run(part_panels.div_ceil(panels) * spans, &|thread, task| {
        let (group, span) = (task / spans, task % spans);
        let panels = panels.min(part_panels - group * panels);
        let stride = parts * panels * LANES;
        let mut scratch = scratch[thread].lock().expect("no task panics while it holds its thread's scratch");
        let values = scratch.at_least(PIECE_ROWS * stride);
        let first_column = group * width;
        let columns = (panels * LANES).min(out_width.saturating_sub(first_column));
        let end = rows.min((span + 1) * PIECE_ROWS * TASK_PIECES);
        for first in (span * PIECE_ROWS * TASK_PIECES..end).step_by(PIECE_ROWS) {
            let height = PIECE_ROWS.min(end - first);
            for part in 0..parts {
                let panel = part * part_panels + group * groups.panels;
                let bias = bias.get(panel * LANES..).map_or(&[][..], |b| &b[..b.len().min(panels * LANES)]);
                let y = Pointer(values[part * panels * LANES..].as_mut_ptr());
                let sink = Sink { n: panels * LANES, bias, y, stride, add: false };
                let (x_stride, k) = (x.stride(), w.k());
                let (x, weights) = (x.storage(first, height), &w.all_panels()[panel * w.panel_len()..]);
                kernel(&Job { x, x_stride, rows: height, k, weights, first_panel: 0, sink }, 0..panels);
            }
            for (row, values) in values[..height * stride].chunks_exact_mut(stride).enumerate() {
                let row = first + row;
                let at = out.at(row * out_stride + first_column);
                // SAFETY: `columns` elements of row `row` of `out`, which is borrowed for the whole call; no other task
                // has this row and group. Rectangles of a row-major matrix cannot be borrowed apart.
                let out = unsafe { std::slice::from_raw_parts_mut(at, columns) };
                finish(row, first_column, values, out);
            }
        }
    });
}
