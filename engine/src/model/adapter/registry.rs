//! The adapters that requests may select by name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{AdapterError, LoraAdapter};
use crate::model::Model;

/// Names are labels and parts of addresses, and metrics list them with commas.
pub(super) const MOST_NAME_BYTES: usize = 256;

/// The adapters of a model that are loaded, at most so many. Loading and unloading disturb nobody: a sequence keeps the adapter that
/// it began with.
pub struct LoraAdapters {
    model: Model,
    most: usize,
    threads: usize,
    loaded: Mutex<BTreeMap<String, LoadedAdapter>>,
}

/// An adapter and where it came from.
#[derive(Clone, Debug)]
pub struct LoadedAdapter {
    /// The adapter.
    pub adapter: LoraAdapter,
    /// Its folder.
    pub folder: PathBuf,
}

impl LoraAdapters {
    /// None yet, of `model`. `threads` pack an adapter's weights, beside those that serve.
    pub fn new(model: Model, most: usize, threads: usize) -> Self {
        Self { model, most, threads, loaded: Mutex::default() }
    }

    /// Adapters at most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Loads the adapter in `folder` as `name`. Takes as long as reading it; others are served meanwhile.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub fn load(&self, name: &str, folder: &Path) -> Result<LoraAdapter, AdapterError> {
        self.check_room(&self.lock(), name)?;
        let adapter = self.model.load_adapter(name, folder, self.threads)?;
        let mut loaded = self.lock();
        // Somebody may have been quicker.
        self.check_room(&loaded, name)?;
        loaded.insert(name.to_owned(), LoadedAdapter { adapter: adapter.clone(), folder: folder.to_owned() });
        Ok(adapter)
    }

    /// Takes an adapter away from new requests; false if there is none of that name. Sequences that have it go on with it, and its
    /// memory comes back when the last of them ends.
    pub fn unload(&self, name: &str) -> bool {
        self.lock().remove(name).is_some()
    }

    /// The adapter of that name.
    pub fn get(&self, name: &str) -> Option<LoraAdapter> {
        self.lock().get(name).map(|loaded| loaded.adapter.clone())
    }

    /// All, in the order of their names.
    pub fn all(&self) -> Vec<LoadedAdapter> {
        self.lock().values().cloned().collect()
    }

    fn check_room(&self, loaded: &BTreeMap<String, LoadedAdapter>, name: &str) -> Result<(), AdapterError> {
        let is_odd = |letter: char| letter == ',' || letter.is_control();
        if name.is_empty() || name.len() > MOST_NAME_BYTES || name.chars().any(is_odd) {
            return Err(AdapterError::BadName { name: name.to_owned() });
        }
        if loaded.contains_key(name) {
            return Err(AdapterError::AlreadyLoaded { name: name.to_owned() });
        }
        if loaded.len() >= self.most {
            return Err(AdapterError::TooMany { loaded: loaded.len() });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LoadedAdapter>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
