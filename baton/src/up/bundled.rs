//! Where the model is that comes with the repository.

use std::path::{Path, PathBuf};

const FOLDER: &str = "models/baton-courier";

/// There is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "the bundled model ({FOLDER}) is not in this folder, nor in one above it, nor above the program; \
     start baton in its repository, or name a model with --model DIR|HUB_ID"
)]
pub(crate) struct NoBundledModel;

/// Looks above the current folder, above the program, and in the folder that the program was built from.
pub(crate) fn find() -> Result<PathBuf, NoBundledModel> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok(), built_from.canonicalize().ok()];
    starts.iter().flatten().find_map(|start| above(start)).ok_or(NoBundledModel)
}

fn above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(FOLDER)).find(|folder| folder.join("config.json").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_from_a_folder_below() {
        let root = tempfile::tempdir().unwrap();
        let (model, below) = (root.path().join(FOLDER), root.path().join("target/release"));
        std::fs::create_dir_all(&below).unwrap();
        assert_eq!(above(&below), None);
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
        assert_eq!(above(&below), Some(model));
    }
}
