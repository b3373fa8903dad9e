//! Weight matrices where they lie in the checkpoint: what a device reads when it packs them.

use super::checkpoint::Tensor;
use crate::kernels::{Element, mxfp4};

/// A matrix whose rows are rows of stored tensors, in any order.
pub(crate) struct StoredMatrix<'a> {
    columns: usize,
    rows: Vec<(Tensor<'a>, usize)>,
}

/// A matrix for each expert.
pub(crate) enum StoredExperts<'a> {
    Plain(Vec<StoredMatrix<'a>>),
    Mxfp4(StoredMxfp4<'a>),
}

/// Experts' matrices `[rows, columns]` in four bits with a scale for 32 elements; see [`mxfp4`].
pub(crate) struct StoredMxfp4<'a> {
    pub(crate) experts: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// `[experts, rows, columns / 32, 16]`.
    pub(crate) blocks: &'a [u8],
    /// `[experts, rows, columns / 32]`.
    pub(crate) scales: &'a [u8],
    /// Gate and up rows are stored in turn; they are read as all gates, then all ups.
    pub(crate) interleaved: bool,
}

impl<'a> StoredMatrix<'a> {
    /// `parts` (tensor, rows), one below the other.
    pub(super) fn new(columns: usize, parts: &[(Tensor<'a>, usize)]) -> Self {
        let rows = parts.iter().flat_map(|(tensor, rows)| (0..*rows).map(move |row| (*tensor, row)));
        Self { columns, rows: rows.collect() }
    }

    /// `[rows, columns]` of f32, as a weight file holds them.
    pub(crate) fn of_values(bytes: &'a [u8], rows: usize, columns: usize) -> Self {
        Self::new(columns, &[(Tensor::of_f32(bytes), rows)])
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Row `row`, rounded where it is stored wider.
    pub(crate) fn read<T: Element>(&self, row: usize, out: &mut [T]) {
        let (tensor, row) = &self.rows[row];
        T::read(tensor, row * self.columns, out);
    }
}

impl StoredExperts<'_> {
    /// Elements of all.
    pub(super) fn elements(&self) -> usize {
        match self {
            Self::Plain(experts) => experts.iter().map(|e| e.rows() * e.columns()).sum(),
            Self::Mxfp4(stored) => stored.experts * stored.rows * stored.columns,
        }
    }
}

impl StoredMxfp4<'_> {
    /// Bytes (two elements each, the earlier in the low half) and scales of a row.
    pub(crate) fn row(&self, expert: usize, row: usize) -> (&[u8], &[u8]) {
        let at = expert * self.rows + self.stored_row(row);
        let (bytes, scales) = (self.columns / 2, self.columns / mxfp4::BLOCK);
        (&self.blocks[at * bytes..][..bytes], &self.scales[at * scales..][..scales])
    }

    /// Elements of a row.
    pub(crate) fn values(&self, expert: usize, row: usize) -> Vec<f32> {
        let (bytes, scales) = self.row(expert, row);
        mxfp4::reference(bytes, scales)
    }

    fn stored_row(&self, row: usize) -> usize {
        if self.interleaved { deinterleaved(row, self.rows) } else { row }
    }
}

/// Where row `row` of gates and then ups lies among `rows` that are stored in turn.
pub(super) fn deinterleaved(row: usize, rows: usize) -> usize {
    let half = rows / 2;
    if row < half { 2 * row } else { 2 * (row - half) + 1 }
}
