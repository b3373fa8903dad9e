//! What libfabric is handed with each operation and hands back. Between the two it belongs to the provider.

use std::ptr::{self, NonNull};

use super::sys;

/// The provider scribbles in the first part (FI_CONTEXT2 says that it may, and how much).
#[repr(C)]
pub(super) struct OpContext {
    scratch: sys::fi_context2,
    index: u32,
}

/// One context for each write in flight, made on first use, at an address that stays.
#[derive(Default)]
pub(super) struct Contexts(Vec<NonNull<OpContext>>);

impl Contexts {
    pub(super) fn get(&mut self, index: u32) -> NonNull<OpContext> {
        while self.0.len() <= index as usize {
            let scratch = sys::fi_context2 { internal: [ptr::null_mut(); 8] };
            let context = Box::new(OpContext { scratch, index: self.0.len() as u32 });
            self.0.push(NonNull::from(Box::leak(context)));
        }
        self.0[index as usize]
    }

    pub(super) fn index(context: NonNull<OpContext>) -> u32 {
        // SAFETY: libfabric hands back only contexts that it was given, and those live as long as its endpoint; the
        // provider writes to `scratch` alone.
        unsafe { (*context.as_ptr()).index }
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        for context in self.0.drain(..) {
            // SAFETY: leaked from a box in `get`; the endpoint, the only one to know it, was closed before.
            drop(unsafe { Box::from_raw(context.as_ptr()) });
        }
    }
}
