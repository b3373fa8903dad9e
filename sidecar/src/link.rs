//! The decode worker that has joined, if one has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use baton_proto::v1::{AdapterReport, LoadedAdapter, WorkerInfo};
use tonic::transport::Channel;

/// Where requests of this sidecar decode.
#[derive(Clone, Debug)]
pub(crate) struct DecodeWorker {
    pub(crate) worker_id: String,
    pub(crate) channel: Channel,
    pub(crate) facts: Arc<Facts>,
}

/// What a decode worker says of itself.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) info: WorkerInfo,
    adapters: Mutex<BTreeMap<String, LoadedAdapter>>,
}

impl Facts {
    pub(crate) fn new(mut info: WorkerInfo) -> Self {
        // They come and go in one life.
        let adapters = info.adapters.take().unwrap_or_default();
        let facts = Self { info, ..Self::default() };
        facts.set_adapters(adapters);
        facts
    }

    pub(crate) fn set_adapters(&self, report: AdapterReport) {
        let by_name = report.loaded.into_iter().map(|loaded| (loaded.name.clone(), loaded)).collect();
        *self.adapters.lock().unwrap_or_else(PoisonError::into_inner) = by_name;
    }

    /// Its adapters by name.
    pub(crate) fn adapters(&self) -> BTreeMap<String, LoadedAdapter> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tokens that its KV cache holds when empty.
    pub(crate) fn capacity_tokens(&self) -> Option<u64> {
        let kv = self.info.kv_cache.as_ref()?;
        Some(u64::from(kv.num_blocks) * u64::from(kv.block_tokens))
    }
}

/// The decode worker's place. The last that the scheduler accepted has it; before any was, the last that asked: the
/// scheduler may send requests before its word has come here.
#[derive(Clone, Default)]
pub(crate) struct DecodeLink {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    joins: Vec<Join>,
    last_number: u64,
}

/// A registration under way or accepted; oldest first.
struct Join {
    number: u64,
    worker: DecodeWorker,
    is_accepted: bool,
}

/// A share in the place, until it is dropped.
pub(crate) struct Joined {
    link: DecodeLink,
    number: u64,
}

impl DecodeLink {
    pub(crate) fn join(&self, worker: DecodeWorker) -> Joined {
        let mut state = self.lock();
        state.last_number += 1;
        let number = state.last_number;
        state.joins.push(Join { number, worker, is_accepted: false });
        Joined { link: self.clone(), number }
    }

    /// Who decodes now.
    pub(crate) fn worker(&self) -> Option<DecodeWorker> {
        self.accepted().or_else(|| self.lock().joins.last().map(|join| join.worker.clone()))
    }

    /// Who was accepted last.
    pub(crate) fn accepted(&self) -> Option<DecodeWorker> {
        self.lock().joins.iter().rev().find(|join| join.is_accepted).map(|join| join.worker.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined {
    /// The scheduler has accepted the worker.
    pub(crate) fn accept(&self) {
        if let Some(join) = self.link.lock().joins.iter_mut().find(|join| join.number == self.number) {
            join.is_accepted = true;
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.link.lock().joins.retain(|join| join.number != self.number);
    }
}
