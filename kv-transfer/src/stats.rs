//! Counters of a node. The worker exports them; this crate knows no metrics library.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a node has done so far, and what it holds now; see each field.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct TransferStats { $($(#[$doc])* pub $name: u64),* }

        /// The live counters behind [`TransferStats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter),* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> TransferStats {
                TransferStats { $($name: self.$name.get()),* }
            }
        }
    };
}

counters! {
    /// Payload bytes of writes that completed here as initiator.
    bytes_sent,
    /// Writes that completed here as initiator.
    writes_sent,
    /// Writes that failed here as initiator.
    writes_failed,
    /// Writes that a path to their peer failed to bring through, and that another one was given.
    writes_repeated,
    /// Writes and reads that did not come back within `TransferLimits::overdue`.
    overdue_writes,
    /// Payload bytes of transfers that completed here as receiver.
    bytes_received,
    /// Immediates that were counted for a live transfer.
    writes_received,
    /// Transfers expected here.
    incoming_started,
    /// Expected transfers that completed and passed every check.
    incoming_completed,
    /// Expected transfers that failed: sender lost or gave up, deadline, bad manifest, checksum.
    incoming_failed,
    /// Expected transfers that this side aborted.
    incoming_aborted,
    /// Transfers opened here as sender.
    outgoing_started,
    /// Opened transfers that were sent whole.
    outgoing_completed,
    /// Opened transfers that failed.
    outgoing_failed,
    /// Opened transfers that this side or the receiver aborted.
    outgoing_aborted,
    /// Immediates of no live transfer: late, of an old generation, or invented.
    late_writes,
    /// Fetches that completed, were confirmed and passed every check.
    fetches_completed,
    /// Fetches that failed.
    fetches_failed,
    /// Payload bytes of completed fetches.
    bytes_fetched,
    /// Pieces whose checksum differed.
    checksum_failures,
    /// Peers refused at the handshake or at attach.
    refusals,
    /// Gauge: offers that their owner holds.
    offers_live,
    /// Gauge: slots in use at this receiver, fenced ones included.
    incoming_live,
    /// Gauge: destination blocks that a peer may still write though their transfer is over.
    quarantined_blocks,
    /// Gauge: writes posted and not completed.
    in_flight_writes,
    /// Gauge: paths to connected peers that failed and are not used any more.
    lost_paths,
    /// Gauge: pushes queued and not wholly posted.
    queued_pushes,
    /// Gauge: peers connected, both directions.
    peers,
}

/// What went over one NIC or interface; see [`TransferNode::rails`](crate::TransferNode::rails).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailStats {
    /// The NIC, or the interface and its IP address.
    pub device: String,
    /// Bytes of writes and reads that completed here as initiator.
    pub bytes: u64,
    /// False once it was closed because it did not work any more.
    pub open: bool,
}

/// One counter or gauge; relaxed, as nothing is ordered by it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        let before = self.0.fetch_sub(n, Ordering::Relaxed);
        debug_assert!(before >= n, "a gauge fell below zero");
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
