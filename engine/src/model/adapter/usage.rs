//! Who uses an adapter now: for metrics.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::LoraAdapter;

/// Sequences with an adapter. All orderings are relaxed: the counts guard no other memory.
#[derive(Default)]
pub(super) struct Counts {
    waiting: AtomicUsize,
    running: AtomicUsize,
}

/// How many sequences use an adapter at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterUses {
    /// Those that wait for room.
    pub waiting: usize,
    /// Those being computed.
    pub running: usize,
}

/// One sequence's use of an adapter; it waits at first. Dropping it ends the use.
pub(crate) struct AdapterUse {
    adapter: LoraAdapter,
    is_running: bool,
}

impl LoraAdapter {
    /// Who uses it now.
    pub fn uses(&self) -> AdapterUses {
        let Counts { waiting, running } = &self.inner.counts;
        AdapterUses { waiting: waiting.load(Ordering::Relaxed), running: running.load(Ordering::Relaxed) }
    }
}

impl AdapterUse {
    pub(crate) fn new(adapter: LoraAdapter) -> Self {
        let this = Self { adapter, is_running: false };
        this.count().fetch_add(1, Ordering::Relaxed);
        this
    }

    pub(crate) fn adapter(&self) -> &LoraAdapter {
        &self.adapter
    }

    /// Notes that the sequence is computed now, or waits again.
    pub(crate) fn set_running(&mut self, is_running: bool) {
        self.count().fetch_sub(1, Ordering::Relaxed);
        self.is_running = is_running;
        self.count().fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> &AtomicUsize {
        let Counts { waiting, running } = &self.adapter.inner.counts;
        if self.is_running { running } else { waiting }
    }
}

impl Drop for AdapterUse {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}
