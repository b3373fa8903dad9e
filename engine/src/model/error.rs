//! Why a model folder could not be loaded. All of these are the folder's fault (or the path's): retrying does not help.

use std::{io, path::PathBuf};

use crate::kv::KvLayout;

/// A model folder was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder does not exist or is not a folder.
    #[error("model folder {} does not exist", .0.display())]
    FolderMissing(PathBuf),
    /// A file that every model folder has is not there.
    #[error("{} is missing from model folder {}", .file, .folder.display())]
    FileMissing {
        /// The folder.
        folder: PathBuf,
        /// Name of the file.
        file: String,
    },
    /// A file could not be opened, read or mapped.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A JSON file does not parse.
    #[error("{} is not valid JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A setting is missing from `config.json`, or is no sensible value.
    #[error("config.json: {field} {problem}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No model code for this architecture.
    #[error("architecture {found} is not supported (supported: {supported})")]
    UnsupportedArchitecture {
        /// From `config.json`.
        found: String,
        /// All that are.
        supported: String,
    },
    /// The architecture is supported, this variation of it is not.
    #[error("config.json: {field} = {found} is not supported (supported: {supported})")]
    UnsupportedSetting {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// Values that are.
        supported: &'static str,
    },
    /// The header of a weight file is damaged.
    #[error("{} has a damaged header: {problem}", .path.display())]
    DamagedHeader {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        problem: String,
    },
    /// A weight file is shorter than its header says: usually a download that was cut.
    #[error(
        "{} is truncated: its header describes {expected_bytes} bytes, the file has {found_bytes}; download it again",
        .path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Size by its own header.
        expected_bytes: u64,
        /// Size on disk.
        found_bytes: u64,
    },
    /// A weight that the architecture needs is in no file.
    #[error("tensor {0} is missing from the weight files")]
    MissingTensor(String),
    /// A weight has another shape than `config.json` implies.
    #[error("tensor {name} has shape {found:?}, config.json implies {expected:?}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// By `config.json`.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A weight is stored in a type that cannot be read.
    #[error("tensor {name} is stored as {found} (supported: {supported})")]
    UnsupportedTensorType {
        /// The tensor.
        name: String,
        /// Its stored type.
        found: String,
        /// Types in which it may be stored.
        supported: &'static str,
    },
    /// The system has no memory for a matrix.
    #[error("no memory for a matrix of {bytes} bytes")]
    OutOfMemory {
        /// Size of the matrix.
        bytes: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This CPU lacks the instructions that were asked for.
    #[error("this CPU has no {wanted} instructions (it has {best})")]
    IsaMissing {
        /// Forced by option.
        wanted: crate::Isa,
        /// Best level of this CPU.
        best: crate::Isa,
    },
}

/// A model and a KV pool do not fit each other; the caller's mistake.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The pool has another shape than the model's.
    #[error("the KV pool has layout {found:?}, the model needs {expected:?}")]
    Layout {
        /// Of the model.
        expected: KvLayout,
        /// Of the pool.
        found: KvLayout,
    },
    /// The pool's memory is too small for its blocks.
    #[error("the KV pool has {found_bytes} bytes, {blocks} blocks need {needed_bytes}")]
    TooSmall {
        /// Blocks asked for.
        blocks: usize,
        /// Their size.
        needed_bytes: usize,
        /// Size of the memory.
        found_bytes: usize,
    },
}
