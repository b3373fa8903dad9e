//! A KV pool as the kernels see it: where the keys and values of a token lie.

use super::Element;
use crate::kv::{BlockId, KvLayout, KvMemory};

/// Memory and shape of a KV pool. Only raw reads and writes: other blocks may be written by a peer meanwhile.
pub(crate) struct KvPool {
    memory: KvMemory,
    layout: KvLayout,
    blocks: usize,
}

/// One layer of one sequence in a pool.
#[derive(Clone, Copy)]
pub(crate) struct SequenceLayer<'a> {
    pub(crate) pool: &'a KvPool,
    pub(crate) layer: usize,
    /// Every id is below the pool's number of blocks.
    pub(crate) block_table: &'a [BlockId],
}

impl KvPool {
    /// `memory` holds `blocks` blocks of `layout`; checked by the caller.
    pub(crate) fn new(memory: KvMemory, layout: KvLayout, blocks: usize) -> Self {
        debug_assert!(memory.len() >= layout.pool_bytes(blocks), "checked by `Model::bind`");
        Self { memory, layout, blocks }
    }

    pub(crate) fn layout(&self) -> &KvLayout {
        &self.layout
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }
}

impl SequenceLayer<'_> {
    /// Key of `token` (a position in the sequence) in `head`, `[head_dim]`. `T` is the pool's element, or what the caller
    /// reads its bytes as.
    pub(crate) fn key<T>(&self, head: usize, token: usize) -> *mut T {
        self.at(head, token)
    }

    /// Keys of the tokens from `first` on.
    pub(crate) fn keys<T>(&self, head: usize, first: usize, out: &mut [*const T]) {
        let layout = &self.pool.layout;
        let row_bytes = layout.head_dim * layout.dtype.bytes();
        let (mut token, mut out) = (first, out);
        while !out.is_empty() {
            // A block's tokens lie one after the other.
            let (run, rest) =
                out.split_at_mut(out.len().min(layout.block_tokens - token % layout.block_tokens));
            let key = self.key::<T>(head, token).cast_const();
            run.iter_mut().enumerate().for_each(|(i, out)| *out = key.wrapping_byte_add(i * row_bytes));
            token += run.len();
            out = rest;
        }
    }

    /// Value of `token` in `head`, `[head_dim]`.
    pub(crate) fn value<T>(&self, head: usize, token: usize) -> *mut T {
        self.at(self.pool.layout.kv_heads + head, token)
    }

    /// A token's key; for what does not care about speed.
    pub(crate) fn read_key<T: Element>(&self, head: usize, token: usize) -> Vec<f32> {
        self.read(self.key::<T>(head, token))
    }

    /// A token's value.
    pub(crate) fn read_value<T: Element>(&self, head: usize, token: usize) -> Vec<f32> {
        self.read(self.value::<T>(head, token))
    }

    /// Writes a token's key.
    pub(crate) fn write_key<T: Element>(&self, head: usize, token: usize, row: &[f32]) {
        self.write(self.key::<T>(head, token), row);
    }

    /// Writes a token's value.
    pub(crate) fn write_value<T: Element>(&self, head: usize, token: usize, row: &[f32]) {
        self.write(self.value::<T>(head, token), row);
    }

    fn read<T: Element>(&self, from: *mut T) -> Vec<f32> {
        let dim = 0..self.pool.layout.head_dim;
        // SAFETY: `from` is a token's row of `head_dim` elements in a block that the sequence owns, aligned to an element
        // and written in this step or before. The pool is shared with peers, so no reference to it is made.
        dim.map(|i| unsafe { from.add(i).read() }.to_f32()).collect()
    }

    fn write<T: Element>(&self, to: *mut T, row: &[f32]) {
        for (i, x) in row.iter().enumerate().take(self.pool.layout.head_dim) {
            // SAFETY: as for reading; nobody else writes a row of this sequence meanwhile.
            unsafe { to.add(i).write(T::from_f32(*x)) };
        }
    }

    /// From a token's key to its value in the same head.
    pub(crate) fn value_bytes(&self) -> usize {
        self.pool.layout.piece_bytes() / 2
    }

    fn at<T>(&self, plane: usize, token: usize) -> *mut T {
        let layout = &self.pool.layout;
        let block = self.block_table[token / layout.block_tokens].0 as usize;
        let row = plane * layout.block_tokens + token % layout.block_tokens;
        let row_bytes = layout.head_dim * layout.dtype.bytes();
        let bytes = (self.layer * self.pool.blocks + block) * layout.piece_bytes() + row * row_bytes;
        debug_assert!(bytes + row_bytes <= self.pool.memory.len(), "a row of the pool");
        self.pool.memory.base().as_ptr().wrapping_add(bytes).cast()
    }
}
