//! Inputs of matrix products: rows of equal width, so placed in memory that many can be read side by side.

use super::{Buffer, Element, Threads};

/// A tile of rows is read column by column. Rows that lie a multiple of this many bytes apart fall into a few sets of the
/// first cache and drive each other out.
const ALIASING_BYTES: usize = 1024;
/// What such rows are moved apart by: a cache line.
const SKEW_BYTES: usize = 64;

/// `[rows, width]`, of which row `i` begins at `i * stride`. Whoever writes it gives it its shape; memory only grows.
pub(crate) struct Operands<T> {
    buffer: Buffer<T>,
    rows: usize,
    width: usize,
    stride: usize,
}

impl<T> Default for Operands<T> {
    fn default() -> Self {
        Self { buffer: Buffer::new(), rows: 0, width: 0, stride: 0 }
    }
}

impl<T: Element> Operands<T> {
    /// Takes the shape `[rows, width]`; what the elements hold is of no meaning.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub(crate) fn shape(&mut self, rows: usize, width: usize) {
        let aliases = (width * size_of::<T>()).is_multiple_of(ALIASING_BYTES);
        let skew = if aliases { SKEW_BYTES / size_of::<T>() } else { 0 };
        (self.rows, self.width, self.stride) = (rows, width, width + skew);
        self.buffer.at_least(rows * self.stride);
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Elements from a row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of all elements.
    pub(crate) fn bytes(&self) -> usize {
        self.rows * self.width * size_of::<T>()
    }

    /// Row `row`.
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.buffer[row * self.stride..][..self.width]
    }

    /// `rows` rows from `first` on, as they lie in memory.
    pub(crate) fn storage(&self, first: usize, rows: usize) -> &[T] {
        &self.buffer[first * self.stride..][..rows * self.stride]
    }

    /// All rows, as they lie in memory.
    pub(crate) fn storage_mut(&mut self) -> &mut [T] {
        &mut self.buffer[..self.rows * self.stride]
    }

    /// Takes the shape `[rows, width]` and fills each row: `fill(row, out)`.
    pub(crate) fn fill(
        &mut self,
        threads: &mut Threads,
        (rows, width): (usize, usize),
        fill: impl Fn(usize, &mut [T]) + Sync,
    ) {
        self.shape(rows, width);
        let (stride, per_task) = (self.stride, rows.div_ceil(4 * threads.count()).max(1));
        threads.for_chunks(self.storage_mut(), per_task * stride, |task, chunk| {
            for (row, out) in chunk.chunks_exact_mut(stride).enumerate() {
                fill(task * per_task + row, &mut out[..width]);
            }
        });
    }
}
