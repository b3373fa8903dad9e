//! Activations: rows of equal width in a buffer that is kept from step to step.

use std::ops;

use super::{Buffer, Element};

/// `[rows, width]`. Whoever writes it gives it its shape; memory only grows.
pub(crate) struct Rows<T> {
    buffer: Buffer<T>,
    rows: usize,
    width: usize,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { buffer: Buffer::new(), rows: 0, width: 0 }
    }
}

impl<T: Element> Rows<T> {
    /// Takes the shape `[rows, width]`; what the elements hold is of no meaning.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub(crate) fn shape(&mut self, rows: usize, width: usize) -> &mut [T] {
        (self.rows, self.width) = (rows, width);
        self.buffer.at_least(rows * width)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Row `row`.
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self[row * self.width..][..self.width]
    }
}

impl<T: Element> ops::Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[..self.rows * self.width]
    }
}

impl<T: Element> ops::DerefMut for Rows<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[..self.rows * self.width]
    }
}
