//! Why there is no model folder, and what to do about it.

use std::{io, path::PathBuf};

/// A model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a folder nor a hub id.
    #[error("{model}: no such folder, and not a hub id either (org/name, as in Qwen/Qwen3-0.6B)")]
    NotAModel {
        /// What was asked for.
        model: String,
    },
    /// A folder without a model in it.
    #[error("{}: not a model folder: it has no {missing}", path.display())]
    NotAModelFolder {
        /// The folder.
        path: PathBuf,
        /// The file it lacks.
        missing: &'static str,
    },
    /// The hub does not know the id, or does not show it to this user.
    #[error("{id}: no such model on {endpoint}; check the spelling (a private model needs HF_TOKEN)")]
    NotFound {
        /// Model asked for.
        id: String,
        /// Hub asked.
        endpoint: String,
    },
    /// The model is there, the revision is not.
    #[error("{id}: the model has no revision {revision:?}")]
    NoRevision {
        /// Model asked for.
        id: String,
        /// Branch, tag or commit asked for.
        revision: String,
    },
    /// The hub wants to know who asks.
    #[error("{id}: {endpoint} refuses access: {advice}")]
    Refused {
        /// Model asked for.
        id: String,
        /// Hub asked.
        endpoint: String,
        /// What the user can do.
        advice: &'static str,
    },
    /// Not in the cache, and the network must not be used.
    #[error("{id}: not downloaded yet (looked in {}), and offline mode is on (HF_HUB_OFFLINE)", cache.display())]
    Offline {
        /// Model asked for.
        id: String,
        /// Cache looked at.
        cache: PathBuf,
    },
    /// The repository lacks something that serving needs.
    #[error("{id}: the model has no {missing}, which Baton needs")]
    Incomplete {
        /// Model asked for.
        id: String,
        /// The file or kind of file.
        missing: &'static str,
    },
    /// The hub did not answer.
    #[error("cannot reach {endpoint}; check the network, or name a mirror (HF_ENDPOINT) or a local folder")]
    Unreachable {
        /// Hub asked.
        endpoint: String,
        /// The client's word.
        #[source]
        source: reqwest::Error,
    },
    /// The transfer kept breaking.
    #[error(
        "{file}: the download broke off {attempts} times without progress, at byte {have} of {size}; the same command continues there"
    )]
    Interrupted {
        /// File of the model.
        file: String,
        /// Attempts in a row that brought nothing.
        attempts: u32,
        /// Bytes on disk.
        have: u64,
        /// Bytes in all.
        size: u64,
    },
    /// The hub said something unexpected.
    #[error("{url}: unexpected answer from the hub: {what}")]
    Unexpected {
        /// What was asked for.
        url: String,
        /// What was odd.
        what: String,
    },
    /// What arrived is not what the hub announced.
    #[error("{file}: damaged in transfer (hash {actual}, expected {expected}); it was removed, try again")]
    Damaged {
        /// File of the model.
        file: String,
        /// Hash that the hub named.
        expected: String,
        /// Hash of what arrived.
        actual: String,
    },
    /// No room.
    #[error("{}: not enough disk space: {needed_mib} MiB are missing still, {free_mib} MiB are free; free some, or set HF_HUB_CACHE", path.display())]
    DiskFull {
        /// The cache.
        path: PathBuf,
        /// MiB to write.
        needed_mib: u64,
        /// MiB there are.
        free_mib: u64,
    },
    /// The cache could not be read or written.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}
