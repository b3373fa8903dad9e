//! The cache's layout, and whether a snapshot in it is whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{HubConfig, HubError, HubId};

/// The folder of one model in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    root: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub(crate) fn new(config: &HubConfig, id: &HubId) -> Self {
        let folder = id.cache_folder();
        Self { root: config.cache.join(&folder), locks: config.cache.join(".locks").join(folder) }
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    pub(crate) fn partial(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// The whole snapshot of `id`'s revision, if the cache has one.
    pub(crate) fn find(&self, id: &HubId) -> Option<PathBuf> {
        let commit = if id.is_pinned() {
            id.revision().to_owned()
        } else {
            fs::read_to_string(self.reference(id.revision())).ok()?.trim().to_owned()
        };
        // What a file says becomes part of a path.
        if !crate::id::is_commit(&commit) {
            return None;
        }
        let snapshot = self.snapshot(&commit);
        missing_file(&snapshot).is_none().then_some(snapshot)
    }

    /// Makes the folders.
    pub(crate) fn prepare(&self, commit: &str) -> Result<(), HubError> {
        for folder in [self.root.join("blobs"), self.snapshot(commit), self.locks.clone()] {
            fs::create_dir_all(&folder).map_err(HubError::io(folder))?;
        }
        Ok(())
    }

    /// Shows blob `etag` as `file` in the snapshot.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let link = self.snapshot(commit).join(file);
        let target = Path::new("../../blobs").join(etag);
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            return Ok(());
        }
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).map_err(HubError::io(&link))?;
        }
        std::os::unix::fs::symlink(target, &link).map_err(HubError::io(link))
    }

    /// Notes the commit that a branch or tag points at.
    pub(crate) fn set_reference(&self, id: &HubId, commit: &str) -> Result<(), HubError> {
        if id.is_pinned() {
            return Ok(());
        }
        let path = self.reference(id.revision());
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        fs::write(&path, commit).map_err(HubError::io(path))
    }
}

/// The first thing that a model folder lacks, if any.
pub(crate) fn missing_file(folder: &Path) -> Option<&'static str> {
    for name in ["config.json", "tokenizer.json"] {
        if !folder.join(name).is_file() {
            return Some(name);
        }
    }
    match shards(folder) {
        Some(shards) => {
            shards.iter().any(|shard| !folder.join(shard).is_file()).then_some("complete set of shards")
        }
        None => (!has_weights(folder)).then_some("*.safetensors"),
    }
}

/// Names of the weight files that the index lists.
fn shards(folder: &Path) -> Option<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read_to_string(folder.join("model.safetensors.index.json")).ok()?;
    Some(serde_json::from_str::<Index>(&text).ok()?.weight_map.into_values().collect())
}

fn has_weights(folder: &Path) -> bool {
    let is_weights = |entry: fs::DirEntry| {
        entry.path().extension().is_some_and(|extension| extension == "safetensors") && entry.path().is_file()
    };
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(is_weights))
}
