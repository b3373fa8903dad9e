//! Fetching what some changes are going to touch, for all of them together, before the first is made.
//!
//! Events are short: a few dozen blocks each. One after the other, each would wait for memory several times: for its names, for where the search
//! goes on, for its blocks. Nothing here has any effect but on time.

use super::{Index, WorkerId, name, store::ChainEnd};
use crate::key;

/// A change that is about to be made.
#[derive(Clone, Debug)]
pub(crate) struct Coming<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) hashes: &'a [u64],
    pub(crate) news: News<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum News<'a> {
    /// The content of each block, and what the first one follows.
    Stored(&'a [u64], After),
    Removed,
}

/// What a block follows.
#[derive(Clone, Debug)]
pub(crate) enum After {
    /// Nothing.
    Nothing { adapter: Option<String>, block_tokens: u32 },
    /// The block with this hash.
    Block(u64),
    /// What was stored last.
    Chain(ChainEnd),
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
        for Coming { worker, hashes, news } in coming.clone() {
            let Some(owner) = self.workers.get(&worker).map(|entry| entry.owner) else { continue };
            if let News::Stored(_, After::Block(parent)) = news {
                names.push(name(parent, owner));
            }
            names.extend(hashes.iter().map(|hash| name(*hash, owner)));
        }
        self.names.fetch(&names);
        self.names.fetch_further(&names, true);
        let mut rest = names.iter();
        for Coming { worker, hashes, news } in coming {
            let Some(model) = self.workers.get(&worker).map(|entry| &entry.model) else { continue };
            let from = keys.len();
            match news {
                News::Removed => {
                    keys.extend(rest.by_ref().take(hashes.len()).filter_map(|name| self.names.get(*name)));
                }
                News::Stored(contents, after) => {
                    let previous = match after {
                        After::Nothing { adapter, block_tokens } => {
                            Some(key::seed(model, adapter.as_deref(), block_tokens))
                        }
                        After::Block(_) => rest.next().and_then(|name| self.names.get(*name)),
                        After::Chain(end) => Some(end.key),
                    };
                    rest.by_ref().take(hashes.len()).for_each(drop);
                    if let Some(mut key) = previous {
                        keys.extend(contents.iter().map(|content| {
                            key = key::next(key, *content);
                            key
                        }));
                    }
                }
            }
            self.blocks.fetch(&keys[from..]);
        }
        self.blocks.fetch_further(&keys);
        self.scratch = Scratch { names, keys };
    }
}
