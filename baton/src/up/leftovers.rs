//! Shared-memory files of a process that was killed.
//!
//! Baton's own shared memory has no name and goes with the process. libfabric's `shm` provider names a file after its
//! process, `PID:…`, and removes it at an orderly end only.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const SHARED_MEMORY: &str = "/dev/shm";

/// What one process may leave behind.
#[derive(Debug)]
pub(crate) struct Leftovers {
    folder: PathBuf,
    prefix: String,
    /// Same names that are not this process's: of a process elsewhere that had this id.
    not_its: BTreeSet<PathBuf>,
}

impl Leftovers {
    /// Of a process that was started just now.
    pub(crate) fn of(pid: u32) -> Self {
        Self::inside(Path::new(SHARED_MEMORY), pid)
    }

    fn inside(folder: &Path, pid: u32) -> Self {
        let prefix = format!("{pid}:");
        let not_its = files(folder, &prefix).collect();
        Self { folder: folder.to_owned(), prefix, not_its }
    }

    /// Removes them; the process has ended.
    pub(crate) fn remove(self) {
        for file in files(&self.folder, &self.prefix).filter(|file| !self.not_its.contains(file)) {
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "a shared-memory file stays behind");
            }
        }
    }
}

fn files(folder: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_named = move |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    entries.filter(is_named).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_files_of_the_process_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::write(folder.path().join(name), "").unwrap();
        make("12:0:0");
        let leftovers = Leftovers::inside(folder.path(), 12);
        for name in ["12:0:1", "123:0:0", "other"] {
            make(name);
        }
        leftovers.remove();
        let left: BTreeSet<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["12:0:0", "123:0:0", "other"].map(Into::into).into());
    }
}
