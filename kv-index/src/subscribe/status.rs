//! How far the index knows what a worker has.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::BatchReport;

/// State of the knowledge of a worker's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Its publisher was not reached yet, or is lost; what it had when it was heard last counts.
    Connecting,
    /// What was missed is being asked for.
    CatchingUp,
    /// All that it has is known.
    Live,
    /// It has more than is known: events were lost for good. What is known is right. It is all known again when the worker restarts or
    /// clears its cache.
    Stale,
}

const ALL: [Health; 4] = [Health::Connecting, Health::CatchingUp, Health::Live, Health::Stale];

/// State and history of a subscription. The counts guard no other memory: all orderings are relaxed.
#[derive(Debug, Default)]
pub struct WorkerStatus {
    health: AtomicU8,
    pub(super) counts: Counts,
    batches: AtomicU64,
    blocks: AtomicU64,
    skipped: AtomicU64,
    unreadable: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) gaps: AtomicU64,
    pub(super) restarts: AtomicU64,
    pub(super) resyncs: AtomicU64,
}

/// History of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// Batches applied.
    pub batches: u64,
    /// Blocks stored or removed in them.
    pub blocks: u64,
    /// Events that said nothing to the index.
    pub skipped: u64,
    /// Batches that could not be read.
    pub unreadable: u64,
    /// Times that batches were missing, and asked for.
    pub gaps: u64,
    /// Restarts of the worker.
    pub restarts: u64,
    /// Times that what was missing could not be had, so that the worker's cache counted as empty.
    pub resyncs: u64,
}

impl WorkerStatus {
    /// The state.
    pub fn health(&self) -> Health {
        ALL[usize::from(self.health.load(Ordering::Relaxed))]
    }

    /// The history.
    pub fn stats(&self) -> SubscriptionStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SubscriptionStats {
            batches: read(&self.batches),
            blocks: read(&self.blocks),
            skipped: read(&self.skipped),
            unreadable: read(&self.unreadable),
            gaps: read(&self.counts.gaps),
            restarts: read(&self.counts.restarts),
            resyncs: read(&self.counts.resyncs),
        }
    }

    pub(crate) fn set(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// A batch was applied.
    pub(crate) fn applied(&self, report: &BatchReport) {
        add(&self.batches, 1);
        add(&self.blocks, report.blocks as u64);
        add(&self.skipped, report.skipped as u64);
        if report.is_cleared && self.health() == Health::Stale {
            self.set(Health::Live);
        }
    }

    /// One was not, and the worker's cache counts as empty.
    pub(crate) fn unreadable(&self) {
        add(&self.unreadable, 1);
        self.set(Health::Stale);
    }
}

pub(super) fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}
