//! The decode worker that has joined, if one has.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::Channel;

/// Where requests of this sidecar decode.
#[derive(Clone, Debug)]
pub(crate) struct DecodeWorker {
    pub(crate) worker_id: String,
    pub(crate) channel: Channel,
}

/// The decode worker's place; the last join has it.
#[derive(Clone, Default)]
pub(crate) struct DecodeLink {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    worker: Option<DecodeWorker>,
    joins: u64,
}

/// The place is this join's until it is dropped or another join takes it.
pub(crate) struct Joined {
    link: DecodeLink,
    join: u64,
}

impl DecodeLink {
    pub(crate) fn join(&self, worker: DecodeWorker) -> Joined {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.joins += 1;
        state.worker = Some(worker);
        Joined { link: self.clone(), join: state.joins }
    }

    pub(crate) fn worker(&self) -> Option<DecodeWorker> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).worker.clone()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut state = self.link.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.joins == self.join {
            state.worker = None;
        }
    }
}
