//! Fetching what some changes are going to touch, for all of them together, before the first is made.
//!
//! Events are short: a few dozen blocks each. One after the other, each would wait for memory several times: for its names, for where the search
//! goes on, for its blocks. Nothing here has any effect but on time.

use super::{Index, WorkerId, name};
use crate::key;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coming<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) hashes: &'a [u64],
    /// Of blocks that are stored.
    pub(crate) contents: &'a [u64],
    /// Hash of the block before them.
    pub(crate) parent: Option<u64>,
}

/// Memory for lists, to be used again.
#[derive(Default)]
pub(super) struct Scratch {
    names: Vec<u64>,
    keys: Vec<u64>,
}

impl Index {
    /// Fetches, in two rounds, what is known by a hash, then in two more the blocks themselves.
    pub(crate) fn warm<'a>(&mut self, coming: impl Iterator<Item = Coming<'a>> + Clone) {
        let Scratch { mut names, mut keys } = std::mem::take(&mut self.scratch);
        names.clear();
        keys.clear();
        for Coming { worker, hashes, parent, .. } in coming.clone() {
            let Some(owner) = self.workers.get(&worker).map(|entry| entry.owner) else { continue };
            let from = names.len();
            names.extend(parent.iter().chain(hashes).map(|hash| name(*hash, owner)));
            self.names.fetch(&names[from..]);
        }
        self.names.fetch_further(&names, true);
        let mut rest = names.as_slice();
        for Coming { worker, hashes, contents, parent } in coming {
            if !self.workers.contains_key(&worker) {
                continue;
            }
            let from = keys.len();
            let (parent_name, others) = rest.split_at(usize::from(parent.is_some()));
            let (here, after) = others.split_at(hashes.len());
            rest = after;
            if contents.is_empty() {
                keys.extend(here.iter().filter_map(|name| self.names.get(*name)));
            } else if let Some(mut key) = parent_name.first().and_then(|name| self.names.get(*name)) {
                keys.extend(contents.iter().map(|content| {
                    key = key::next(key, *content);
                    key
                }));
            }
            self.blocks.fetch(&keys[from..]);
        }
        self.blocks.fetch_further(&keys, true);
        self.scratch = Scratch { names, keys };
    }
}
