//! The memory that holds the KV cache: allocated by the engine itself, or handed to it by whoever shares it with a network card.

use std::{any::Any, ptr::NonNull, sync::Arc};

use super::KvLayout;
use crate::kernels::Buffer;

/// Memory for a KV pool that somebody else allocated, such as a region that a network card may write.
///
/// The engine reads and writes through raw pointers only and never forms a reference to it: a peer may write blocks that no
/// sequence owns yet at any time.
#[derive(Clone)]
pub struct KvMemory {
    base: NonNull<u8>,
    len: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the pointer is to memory that `_owner` keeps mapped; who may touch which block when is settled by the block
// allocator (one owner a block), not by this handle.
unsafe impl Send for KvMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for KvMemory {}

impl KvMemory {
    /// Wraps `len` bytes at `base`, which stay valid and writable while `owner` lives.
    ///
    /// # Safety
    /// `base` must be valid for reads and writes of `len` bytes, 64-byte aligned, initialised, and not be moved or unmapped before `owner` is dropped.
    pub unsafe fn new(base: NonNull<u8>, len: usize, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { base, len, _owner: owner }
    }

    /// Zeroed memory of the engine's own for `blocks` blocks.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub fn allocate(layout: &KvLayout, blocks: usize) -> Self {
        let len = layout.pool_bytes(blocks);
        let owner = Buffer::<u8>::zeroed(len.max(1))
            .unwrap_or_else(|error| panic!("no memory for a KV pool of {len} bytes: {error}"));
        let base = NonNull::from(&owner[..]).cast();
        Self { base, len, _owner: Arc::new(owner) }
    }

    /// First byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
