//! NIXL's C objects as owned values, and what its status codes mean.

use std::ptr::{self, NonNull};

use super::library::Library;
use super::sys;
use crate::FabricError;

/// An object that one function makes and another destroys.
pub(super) struct Object<T> {
    library: Library,
    raw: NonNull<T>,
    destroy: unsafe fn(&sys::NixlApi, *mut T) -> sys::nixl_capi_status_t,
}

// SAFETY: NIXL's objects belong to no thread; calls must not overlap, and all of a node's objects are used by its data
// thread alone once it runs.
unsafe impl<T> Send for Object<T> {}
// SAFETY: as for `Send`; `&Object` gives nothing but the pointer.
unsafe impl<T> Sync for Object<T> {}

impl<T> Object<T> {
    /// `make` writes the new object's address, and returns the status.
    pub(super) fn make(
        library: Library,
        operation: &'static str,
        make: impl FnOnce(&sys::NixlApi, *mut *mut T) -> sys::nixl_capi_status_t,
        destroy: unsafe fn(&sys::NixlApi, *mut T) -> sys::nixl_capi_status_t,
    ) -> Result<Self, FabricError> {
        let mut raw = ptr::null_mut();
        check(operation, make(library, &mut raw))?;
        let raw = NonNull::new(raw).ok_or_else(|| fault(operation, &"it made nothing"))?;
        Ok(Self { library, raw, destroy })
    }

    pub(super) fn as_ptr(&self) -> *mut T {
        self.raw.as_ptr()
    }

    pub(super) fn library(&self) -> Library {
        self.library
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: the object is alive and destroyed once; what was made from it holds it, and is gone.
        let status = unsafe { (self.destroy)(self.library, self.raw.as_ptr()) };
        if status != sys::NIXL_CAPI_SUCCESS {
            tracing::debug!(status, "a NIXL object was not destroyed");
        }
    }
}

pub(super) fn check(operation: &'static str, status: sys::nixl_capi_status_t) -> Result<(), FabricError> {
    match status {
        sys::NIXL_CAPI_SUCCESS => Ok(()),
        status => Err(fault(operation, &status_text(status))),
    }
}

pub(super) fn status_text(status: sys::nixl_capi_status_t) -> String {
    let meaning = match status {
        sys::NIXL_CAPI_ERROR_INVALID_PARAM => "an invalid parameter",
        sys::NIXL_CAPI_ERROR_BACKEND => "the backend failed, or the peer is gone",
        sys::NIXL_CAPI_ERROR_INVALID_STATE => "not in this state",
        sys::NIXL_CAPI_ERROR_EXCEPTION => "an exception",
        sys::NIXL_CAPI_ERROR_NOT_FOUND => "the agent or its memory is not known any more",
        _ => "an unknown status",
    };
    format!("{meaning} (NIXL's status {status}; its log on standard error may say more)")
}

pub(super) fn fault(operation: &'static str, reason: &dyn std::fmt::Display) -> FabricError {
    FabricError { fabric: "nixl", operation, reason: reason.to_string() }
}
