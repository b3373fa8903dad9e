//! `libnixl_capi.so`, opened at run time: the binary builds and runs without it.

use std::path::{Path, PathBuf};

use super::sys;
use crate::StartError;

const NAME: &str = "libnixl_capi.so";
/// Where the Python packages keep it, below their `site-packages`.
const IN_PACKAGES: [&str; 2] = [".nixl_cu13.mesonpy.libs", ".nixl_cu12.mesonpy.libs"];

/// The opened library. It stays loaded for the process's life: its plugins and their exit handlers do not survive unloading.
pub(super) type Library = &'static sys::NixlApi;

/// Opens the file at `path`, or the one in the folder at `path`, or the one that the loader finds.
pub(super) fn open(path: Option<&Path>) -> Result<Library, StartError> {
    let missing = |reason: String| StartError::NixlMissing { reason };
    let file = match path {
        None => PathBuf::from(NAME),
        Some(path) => locate(path).ok_or_else(|| {
            missing(format!("{} is neither {NAME} nor a folder that has it", path.display()))
        })?,
    };
    // SAFETY: loading runs the library's initialisers; it is the NIXL that the operator pointed to or installed. The symbols
    // have the signatures of the header that the bindings were made from (NIXL keeps its C API compatible within 1.x).
    let api = unsafe { sys::NixlApi::new(&file) };
    api.map(|api| &*Box::leak(Box::new(api))).map_err(|error| missing(format!("{}: {error}", file.display())))
}

fn locate(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let folders = std::iter::once(path.to_owned()).chain(IN_PACKAGES.map(|folder| path.join(folder)));
    folders.map(|folder| folder.join(NAME)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_and_the_way_to_get_it_too() {
        for path in [Some(Path::new("/nonexistent")), Some(Path::new("/etc/passwd"))] {
            let error = open(path).err().expect("there is none").to_string();
            assert!(error.contains(&path.unwrap().display().to_string()), "{error}");
            assert!(error.contains("nixl-cu13") && error.contains("BATON_NIXL"), "{error}");
        }
    }
}
