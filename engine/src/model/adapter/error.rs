//! Why an adapter was not loaded. All but the last are the folder's fault, or the caller's: retrying does not help.

use std::path::PathBuf;

use crate::model::LoadError;

/// An adapter was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The folder does not exist or is not a folder.
    #[error("adapter folder {} does not exist", .0.display())]
    FolderMissing(PathBuf),
    /// A file that every adapter has is not there.
    #[error("{file} is missing from adapter folder {}; {hint}", .folder.display())]
    FileMissing {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A file cannot be read.
    #[error("the adapter's files cannot be used: {0}")]
    Files(#[from] LoadError),
    /// A setting is missing from `adapter_config.json`, or is no sensible value.
    #[error("adapter_config.json: {field} {problem}")]
    Config {
        /// The setting.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting that would change the arithmetic in a way that there is no code for.
    #[error("adapter_config.json: {field} = {found} is not supported; {hint}")]
    Unsupported {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// A tensor of the file has no place in this model.
    #[error("tensor {name} of the adapter cannot be used: {problem}")]
    UnusedTensor {
        /// The tensor.
        name: String,
        /// Why.
        problem: String,
    },
    /// One of a pair of matrices is there, or a module that the configuration names has none at all.
    #[error("tensor {name} is missing from the adapter")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor fits neither the model nor the adapter's configuration.
    #[error(
        "tensor {name} of the adapter has shape {found:?}; the model and the adapter's rank make it {expected:?}"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// By model and configuration.
        expected: [usize; 2],
        /// In the file.
        found: Vec<usize>,
    },
    /// There is one of this name already.
    #[error("the lora adapter '{name}' has already been loaded")]
    AlreadyLoaded {
        /// The name.
        name: String,
    },
    /// The bound on loaded adapters is reached.
    #[error("{loaded} adapters are loaded, which is the limit (--max-loras): unload one first")]
    TooMany {
        /// The bound.
        loaded: usize,
    },
    /// Names go into logs, metrics and addresses.
    #[error("an adapter's name is 1 to {most} printable bytes without commas, not {name:?}", most = super::registry::MOST_NAME_BYTES)]
    BadName {
        /// The name.
        name: String,
    },
    /// The system has no memory for its matrices.
    #[error("no memory for the adapter")]
    OutOfMemory(#[source] std::io::Error),
}
