//! What a step computes, in the form that whole-batch kernels want: flat arrays, made once a step.

use std::ops::Range;

use crate::kv::BlockId;

/// Rows of a step and where each belongs. A row is one token of one sequence.
#[derive(Default)]
pub(crate) struct Batch {
    /// `[rows]`.
    pub(crate) tokens: Vec<u32>,
    /// Position of each row in its sequence, `[rows]`.
    pub(crate) positions: Vec<usize>,
    /// Index into `sequences`, `[rows]`.
    pub(crate) sequence_of: Vec<usize>,
    pub(crate) sequences: Vec<BatchSequence>,
    /// The block tables of all sequences, one after the other.
    pub(crate) block_tables: Vec<BlockId>,
    /// Rows whose logits are wanted, in order.
    pub(crate) wanted: Vec<usize>,
}

/// One sequence's share of a step: rows that follow each other.
#[derive(Clone)]
pub(crate) struct BatchSequence {
    /// Its first row.
    pub(crate) first_row: usize,
    /// Its rows.
    pub(crate) rows: usize,
    /// Position of the first.
    pub(crate) position: usize,
    /// Its part of [`Batch::block_tables`].
    pub(crate) table: Range<usize>,
}

impl Batch {
    /// Rows of the step.
    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Adds the tokens of a sequence from `position` on; `block_table` covers them and all before. After the last
    /// `wanted_logits` of them logits are wanted.
    pub(crate) fn push(
        &mut self,
        tokens: &[u32],
        position: usize,
        block_table: &[BlockId],
        wanted_logits: usize,
    ) {
        let (first_row, first_block) = (self.rows(), self.block_tables.len());
        self.tokens.extend(tokens);
        self.positions.extend(position..position + tokens.len());
        self.sequence_of.extend(tokens.iter().map(|_| self.sequences.len()));
        self.block_tables.extend(block_table);
        self.sequences.push(BatchSequence {
            first_row,
            rows: tokens.len(),
            position,
            table: first_block..self.block_tables.len(),
        });
        self.wanted.extend(self.rows() - wanted_logits..self.rows());
    }

    /// Blocks of sequence `sequence`, in order.
    pub(crate) fn block_table(&self, sequence: usize) -> &[BlockId] {
        &self.block_tables[self.sequences[sequence].table.clone()]
    }
}
