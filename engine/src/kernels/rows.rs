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

#[cfg(test)]
mod tests {
    use crate::device::testing::{Probe, on_each_device, random};

    fn are_taken<D: Probe>(device: &mut D, label: &str) {
        let (values, width) = (D::rounded(&random(9 * 33, 1)), 33);
        let rows = [8, 0, 3, 3];
        let want: Vec<f32> = rows.iter().flat_map(|row| values[row * width..][..width].to_vec()).collect();
        let x = device.floats(&values, width);
        let mut taken = D::Floats::default();
        device.take_rows(&rows, &x, &mut taken);
        assert_eq!(device.float_values(&taken), want, "{label}");
        let x = device.operands(&values, width);
        let mut taken = D::Operands::default();
        device.take_operand_rows(&rows, &x, &mut taken);
        assert_eq!(device.operand_values(&taken), want, "{label}");
    }

    #[test]
    fn rows_are_taken_by_number() {
        on_each_device!(are_taken);
    }
}
