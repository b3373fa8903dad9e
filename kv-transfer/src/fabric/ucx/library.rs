//! `libucp.so.0`, opened at run time: the binary runs without it.
//!
//! UCX's structures carry masks of the fields that count and grow only at their end, so an older library reads a newer
//! caller's structures; what this crate needs of it is there since 1.17.

use std::ffi::CStr;
use std::path::Path;

use libloading::os::unix::Library as Loaded;

use super::{guest, sys};
use crate::{FabricError, StartError};

/// Tried in turn when no path is configured.
const NAMES: [&str; 2] = ["libucp.so.0", "libucp.so"];
pub(super) const OLDEST: (u32, u32) = (1, 17);

/// The opened library. It stays loaded for the process's life: its threads and exit handlers do not survive unloading.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) api: &'static sys::Ucp,
    version: (u32, u32, u32),
}

impl Library {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, StartError> {
        let missing = |reason: String| StartError::UcxMissing { reason };
        let kept_out = guest::keep_hooks_out(path);
        let loaded = match path {
            Some(path) => load(path).map_err(|error| missing(format!("{}: {error}", path.display())))?,
            None => NAMES
                .iter()
                .find_map(|name| load(Path::new(name)).ok())
                .ok_or_else(|| missing(format!("the loader finds none of {}", NAMES.join(", "))))?,
        };
        if let Err(error) = kept_out {
            tracing::warn!(%error, "UCX may rewrite memory functions of the C library");
        }
        let version = version(&loaded).ok_or_else(|| missing("it exports no ucp_get_version".to_owned()))?;
        let (major, minor, _) = version;
        // Another major version may lay its structures out otherwise.
        if major != OLDEST.0 || minor < OLDEST.1 {
            let (oldest, next) = (OLDEST, OLDEST.0 + 1);
            let needed = format!("{}.{} or newer, before {next}.0, is needed", oldest.0, oldest.1);
            return Err(missing(format!("the one found is {major}.{minor}, {needed}")));
        }
        guest::give_signals_back(&loaded);
        // SAFETY: the functions of these names have the signatures of the headers, which no 1.x changes.
        let api = unsafe { sys::Ucp::from_library(loaded) };
        let api = api.map_err(|error| missing(format!("it lacks a function: {error}")))?;
        Ok(Self { api: Box::leak(Box::new(api)), version })
    }

    pub(super) fn version(&self) -> String {
        let (major, minor, release) = self.version;
        format!("{major}.{minor}.{release}")
    }

    /// The text of a status.
    pub(super) fn text(&self, status: sys::ucs_status_t) -> String {
        // SAFETY: it takes any number and returns a string that is static, or this thread's until the next call.
        let text = unsafe { (self.api.ucs_status_string)(status) };
        if text.is_null() {
            return format!("status {status}");
        }
        // SAFETY: non-null, NUL-terminated, and not written before it is copied.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    pub(super) fn check(
        &self,
        operation: &'static str,
        status: sys::ucs_status_t,
    ) -> Result<(), FabricError> {
        if status == sys::UCS_OK { Ok(()) } else { Err(self.failure(operation, status)) }
    }

    pub(super) fn failure(&self, operation: &'static str, status: sys::ucs_status_t) -> FabricError {
        fault(operation, &self.text(status))
    }
}

pub(super) fn fault(operation: &'static str, reason: &dyn std::fmt::Display) -> FabricError {
    FabricError { fabric: "ucx", operation, reason: reason.to_string() }
}

fn load(path: &Path) -> Result<Loaded, libloading::Error> {
    // SAFETY: loading runs the library's initialisers; it is the UCX that the operator pointed to or installed.
    unsafe { Loaded::new(path) }
}

fn version(library: &Loaded) -> Option<(u32, u32, u32)> {
    // SAFETY: every UCP of every version exports this function with this signature.
    let get_version = unsafe { library.get::<sys::GetVersion>(b"ucp_get_version\0") }.ok()?;
    let (mut major, mut minor, mut release) = (0, 0, 0);
    // SAFETY: it writes three numbers.
    unsafe { get_version(&mut major, &mut minor, &mut release) };
    Some((major, minor, release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_none_is_named() {
        let error = Library::open(Some(Path::new("/nonexistent/libucp.so.0"))).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/libucp.so.0") && error.contains("install UCX"), "{error}");
        let error = Library::open(Some(Path::new("libc.so.6"))).err().unwrap().to_string();
        assert!(error.contains("ucp_get_version"), "{error}");
    }
}
