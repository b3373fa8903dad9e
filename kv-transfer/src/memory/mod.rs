//! Memory that other processes or a NIC may write: mapped once, reached through raw pointers, never through references.

mod mapping;
mod memfd;
mod stream;

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

pub(crate) use mapping::Mapping;
pub(crate) use memfd::{create_sealed, create_sealed_huge, verify_sealed};

/// The KV pool of a node. Clones share it; it is unmapped when the last clone and the fabric are gone.
///
/// Peers write into blocks named in a live ticket, and only there. Whoever reads a block must own it (its transfer is
/// complete, or never was), and goes through the raw pointer: a `&[u8]` over memory that another process writes is
/// undefined behaviour.
#[derive(Clone)]
pub struct PoolMemory {
    mapping: Arc<Mapping>,
    /// Bytes of the pool; what follows is not its owner's.
    bytes: usize,
}

impl PoolMemory {
    /// The first `bytes` of the mapping.
    pub(crate) fn new(mapping: Arc<Mapping>, bytes: u64) -> Self {
        assert!(bytes as usize <= mapping.len(), "the pool lies in its mapping");
        Self { mapping, bytes: bytes as usize }
    }

    /// The pool and what follows it.
    pub(crate) fn region(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Start of the pool, aligned to a page.
    #[must_use]
    pub fn ptr(&self) -> NonNull<u8> {
        self.mapping.ptr()
    }

    /// Bytes of the pool.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never true: an empty pool is refused at start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out of the pool.
    ///
    /// # Panics
    /// When the range leaves the pool.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.bytes, "the range leaves the pool");
        self.mapping.copy_out(offset, into);
    }

    /// Copies bytes into the pool. The caller owns the blocks it writes.
    ///
    /// # Panics
    /// When the range leaves the pool.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.bytes, "the range leaves the pool");
        self.mapping.copy_in(offset, from);
    }
}

impl fmt::Debug for PoolMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolMemory").field("ptr", &self.ptr()).field("len", &self.len()).finish()
    }
}
