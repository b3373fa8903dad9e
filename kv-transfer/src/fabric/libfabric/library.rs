//! `libfabric.so.1`, opened at run time: the binary runs without it, and on whichever 2.x is found.
//!
//! Struct layouts differ between symbol versions, so the symbols are asked for under the version whose layout the
//! bindings have (`FABRIC_1.8`, libfabric 2.0 and later keep it), never under the library's newest.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use super::sys;
use crate::StartError;

/// Tried in turn when no path is configured.
const NAMES: [&str; 2] = ["libfabric.so.1", "libfabric.so"];
const OLDEST: (u32, u32) = (2, 0);

/// The opened library. It stays loaded for the process's life: its threads and exit handlers do not survive unloading.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) get_info: sys::GetInfo,
    pub(super) dup_info: sys::DupInfo,
    pub(super) free_info: sys::FreeInfo,
    pub(super) open_fabric: sys::OpenFabric,
    str_error: sys::StrError,
    version: (u32, u32),
}

unsafe extern "C" {
    /// glibc's `dlsym` for one version of a symbol.
    fn dlvsym(handle: *mut c_void, symbol: *const c_char, version: *const c_char) -> *mut c_void;
}

impl Library {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, StartError> {
        let missing = |reason: String| StartError::LibfabricMissing { reason };
        let handle = match path {
            Some(path) => load(path).map_err(|error| missing(format!("{}: {error}", path.display())))?,
            None => NAMES
                .iter()
                .find_map(|name| load(Path::new(name)).ok())
                .ok_or_else(|| missing(format!("the loader finds none of {}", NAMES.join(", "))))?,
        };
        let version = version(handle).ok_or_else(|| missing("it exports no fi_version".to_owned()))?;
        if version < OLDEST {
            let (major, minor) = version;
            return Err(missing(format!(
                "the one found is {major}.{minor}, {}.{} or newer is needed",
                OLDEST.0, OLDEST.1
            )));
        }
        Self::link(handle, version)
            .ok_or_else(|| missing("it lacks symbols of version FABRIC_1.8".to_owned()))
    }

    fn link(handle: *mut c_void, version: (u32, u32)) -> Option<Self> {
        let get_info = symbol(handle, c"fi_getinfo", c"FABRIC_1.8")?;
        let dup_info = symbol(handle, c"fi_dupinfo", c"FABRIC_1.8")?;
        let free_info = symbol(handle, c"fi_freeinfo", c"FABRIC_1.8")?;
        let open_fabric = symbol(handle, c"fi_fabric", c"FABRIC_1.1")?;
        let str_error = symbol(handle, c"fi_strerror", c"FABRIC_1.0")?;
        Some(Self {
            // SAFETY: the symbol of this name and version has this signature (rdma/fabric.h, libfabric.map).
            get_info: unsafe { std::mem::transmute::<*mut c_void, sys::GetInfo>(get_info) },
            // SAFETY: as above.
            dup_info: unsafe { std::mem::transmute::<*mut c_void, sys::DupInfo>(dup_info) },
            // SAFETY: as above.
            free_info: unsafe { std::mem::transmute::<*mut c_void, sys::FreeInfo>(free_info) },
            // SAFETY: as above.
            open_fabric: unsafe { std::mem::transmute::<*mut c_void, sys::OpenFabric>(open_fabric) },
            // SAFETY: as above.
            str_error: unsafe { std::mem::transmute::<*mut c_void, sys::StrError>(str_error) },
            version,
        })
    }

    pub(super) fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// The text of a (positive or negative) libfabric error number.
    pub(super) fn error_text(&self, code: i64) -> String {
        let code = c_int::try_from(code.unsigned_abs()).unwrap_or(c_int::MAX);
        // SAFETY: fi_strerror takes any number and returns a static string.
        let text = unsafe { (self.str_error)(code) };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: non-null, NUL-terminated, and static (fi_errno.3).
        let text = unsafe { CStr::from_ptr(text) };
        format!("{} ({code})", text.to_string_lossy())
    }
}

fn load(path: &Path) -> Result<*mut c_void, libloading::Error> {
    // SAFETY: loading runs the library's initialisers; it is the libfabric that the operator pointed to or installed.
    let library = unsafe { libloading::os::unix::Library::new(path) }?;
    Ok(library.into_raw())
}

fn symbol(handle: *mut c_void, name: &CStr, version: &CStr) -> Option<*mut c_void> {
    // SAFETY: the handle is of a library that is never closed; both strings end with NUL.
    let address = unsafe { dlvsym(handle, name.as_ptr(), version.as_ptr()) };
    (!address.is_null()).then_some(address)
}

fn version(handle: *mut c_void) -> Option<(u32, u32)> {
    let address = symbol(handle, c"fi_version", c"FABRIC_1.0")?;
    // SAFETY: fi_version has this signature since FABRIC_1.0.
    let fi_version = unsafe { std::mem::transmute::<*mut c_void, sys::Version>(address) };
    // SAFETY: it takes nothing and only returns a constant.
    let packed = unsafe { fi_version() };
    Some((packed >> 16, packed & 0xffff))
}
