//! Workers, and the lives of their caches.

use super::{Index, WorkerId};
use crate::{holders::Life, key};

/// What an index has to know of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Model, by the name that queries use.
    pub model: String,
    /// Tokens of a block, until its events say otherwise.
    pub block_tokens: u32,
    /// Workers with the same name here give blocks the same hashes, as Baton's do; they take less memory. `None` for a worker whose
    /// hashes are its own, such as vLLM's with a random seed.
    pub same_hashes: Option<String>,
}

/// A worker could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// By this number.
    #[error("worker {0:?} is there already: remove it first")]
    Known(WorkerId),
    /// 65,535 lives and domains at a time; ended ones count until they are swept out.
    #[error(
        "worker {0:?} cannot be indexed: all 65,535 numbers are in use; those of workers that left come back within seconds"
    )]
    Full(WorkerId),
}

pub(super) struct Worker {
    pub(super) model: String,
    pub(super) block_tokens: u32,
    pub(super) life: Life,
    pub(super) domain: Option<String>,
    /// Whose its hashes are: the life, or the domain.
    pub(super) owner: Life,
    /// Of several groups of layers with their own blocks, the one that is indexed.
    pub(super) group: Option<u64>,
}

/// Workers whose hashes mean the same.
pub(super) struct Domain {
    owner: Life,
    workers: usize,
}

impl Index {
    /// From now on `worker` counts, with nothing cached.
    ///
    /// # Errors
    /// It is there already, or there are too many.
    pub fn add(&mut self, worker: WorkerId, spec: &WorkerSpec) -> Result<(), AddError> {
        if self.workers.contains_key(&worker) {
            return Err(AddError::Known(worker));
        }
        let life = self.lives.begin(worker).ok_or(AddError::Full(worker))?;
        let owner = match &spec.same_hashes {
            None => life,
            Some(name) => {
                let known = self.domains.get_mut(name).map(|domain| {
                    domain.workers += 1;
                    domain.owner
                });
                match known.or_else(|| self.begin_domain(worker, name)) {
                    Some(owner) => owner,
                    None => {
                        self.lives.end(life);
                        return Err(AddError::Full(worker));
                    }
                }
            }
        };
        let block_tokens = spec.block_tokens.max(1);
        *self.block_sizes.entry(block_tokens).or_default() += 1;
        let domain = spec.same_hashes.clone();
        let model = spec.model.clone();
        self.workers.insert(worker, Worker { model, block_tokens, life, domain, owner, group: None });
        Ok(())
    }

    fn begin_domain(&mut self, worker: WorkerId, name: &str) -> Option<Life> {
        let owner = self.lives.begin(worker)?;
        self.domains.insert(name.to_owned(), Domain { owner, workers: 1 });
        Some(owner)
    }

    /// `worker` counts no more. This takes no longer the more it held; [`Self::maintain`] takes it out later.
    pub fn remove(&mut self, worker: WorkerId) {
        let Some(gone) = self.workers.remove(&worker) else { return };
        self.lives.end(gone.life);
        self.leave_size(gone.block_tokens);
        if let Some(name) = gone.domain
            && let Some(domain) = self.domains.get_mut(&name)
        {
            domain.workers -= 1;
            if domain.workers == 0 {
                self.lives.end(domain.owner);
                self.domains.remove(&name);
            }
        }
    }

    /// `worker` has nothing cached any more: it restarted, said so, or what it has is not known. As quick as [`Self::remove`].
    pub fn clear(&mut self, worker: WorkerId) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.group = None;
        if self.lives.blocks(entry.life) == 0 {
            return;
        }
        let Some(life) = self.lives.begin(worker) else {
            // All numbers are waiting to be swept out, so this sweep gives some back.
            self.settle();
            return self.clear(worker);
        };
        self.lives.end(entry.life);
        if entry.domain.is_none() {
            entry.owner = life;
        }
        entry.life = life;
    }

    /// Blocks that `worker` holds or is expected to hold.
    pub fn blocks_of(&self, worker: WorkerId) -> u32 {
        self.workers.get(&worker).map_or(0, |entry| self.lives.blocks(entry.life))
    }

    /// What the first block of a chain on `worker` follows, and a note of the worker's block size.
    pub(super) fn root(&mut self, worker: WorkerId, adapter: Option<&str>, block_tokens: u32) -> Option<u64> {
        let entry = self.workers.get_mut(&worker)?;
        let before = std::mem::replace(&mut entry.block_tokens, block_tokens);
        let root = key::seed(&entry.model, adapter, block_tokens);
        if before != block_tokens {
            *self.block_sizes.entry(block_tokens).or_default() += 1;
            self.leave_size(before);
        }
        Some(root)
    }

    fn leave_size(&mut self, block_tokens: u32) {
        if let Some(workers) = self.block_sizes.get_mut(&block_tokens) {
            *workers -= 1;
            if *workers == 0 {
                self.block_sizes.remove(&block_tokens);
            }
        }
    }
}
