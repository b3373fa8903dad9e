//! The seam to whatever moves the bytes. A fabric lives on the data thread and is called by it alone.

mod eventfd;
pub(crate) mod libfabric;
pub(crate) mod nixl;
pub(crate) mod shm;
pub(crate) mod ucx;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::FabricError;
use crate::ids::PeerId;
use crate::plan::{Step, Tile};
use crate::stats::Counter;

/// Polls until one brings nothing, at most: more than the largest completion queue needs.
pub(crate) const LAST_POLLS: usize = 256;

/// One-sided writes with a 4-byte immediate, and one-sided reads, in no particular order.
pub(crate) trait Fabric: Send {
    fn capabilities(&self) -> Capabilities;

    /// What a peer's fabric is told of this one when this node dials it.
    fn address(&self) -> Vec<u8>;

    /// A peer that will write here: makes what it needs to do so.
    fn accept(&mut self, address: &[u8]) -> Result<(PeerId, Offer), FabricError>;

    /// A peer to write to, from the offer it made: so many bytes of its registered memory, from the pool's first on. The offer is
    /// not to be trusted.
    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError>;

    /// Ends the data path to a peer that is not to be heard of any more. What is under way comes back as failed, each when the
    /// fabric knows that nothing touches its memory any more: a UCX endpoint can be closed by force. Where it cannot know, as
    /// with libfabric (only closing the endpoint, which all peers share, is certain) and NIXL (a request that is released may
    /// still be looked at by its backend), nothing is done, and what is under way comes back when it does, or never.
    fn sever(&mut self, _peer: PeerId) {}

    /// Forgets a peer; no event of it follows. Only when none of its writes is in flight, or its process is gone.
    fn disconnect(&mut self, peer: PeerId);

    /// Starts one write. The bytes at `source` stay untouched until its completion. `false`: no room now, poll and try again.
    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError>;

    /// Starts one read. The bytes at `destination` are anything until its completion; the peer is not told of it. `false`: no
    /// room now, poll and try again.
    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError>;

    /// Ends a batch of posts: tells peers that may sleep.
    fn flush(&mut self);

    /// Appends what happened since; returns without waiting.
    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError>;

    /// Sleeps until an event, the waker, or the time-out.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError>;

    /// Ends a present or the next `wait`, from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// The NICs or interfaces over which bytes go, where the fabric knows them.
    fn rails(&self) -> Arc<[Rail]> {
        Arc::default()
    }

    /// Ways to peers that are not used any more, as they failed while others did not.
    fn lost_paths(&self) -> u64 {
        0
    }
}

/// NICs or interfaces of one node.
pub(crate) const MAX_RAILS: usize = 32;

/// A NIC or interface, and what it did.
#[derive(Debug)]
pub(crate) struct Rail {
    pub(crate) device: String,
    /// Of writes and reads that were done.
    pub(crate) bytes: Counter,
    /// 1 while it is used.
    pub(crate) open: Counter,
}

impl Rail {
    pub(crate) fn open(device: String) -> Self {
        let rail = Self { device, bytes: Counter::default(), open: Counter::default() };
        rail.open.set(1);
        rail
    }
}

/// Ends the data thread's sleep.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

/// What a fabric can do, read from it rather than assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// `shm`, `libfabric`, `ucx` or `nixl`.
    pub(crate) name: &'static str,
    /// Which implementation of it was chosen.
    pub(crate) provider: String,
    /// Largest contiguous write or read.
    pub(crate) max_write_bytes: u64,
    /// A write may be rows at regular distances, at the cost of one: the fabric copies them itself.
    pub(crate) strided_writes: bool,
    /// Contiguous writes that are shorter on average are gathered into chunks first: what the fabric needs to be near its
    /// best. 0: never.
    pub(crate) stage_below_bytes: u64,
    /// Writes and reads that may be in flight at once, over all peers.
    pub(crate) max_in_flight: usize,
    /// Bytes of a dead peer may still be on their way to us.
    pub(crate) buffers_bytes: bool,
    /// `wait` returns when a peer wrote; otherwise the data thread polls while one may.
    pub(crate) wakes_on_arrival: bool,
}

/// How to write into a node's pool; goes to the peer over the control connection.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// One write from our pool into a peer's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) peer: PeerId,
    pub(crate) source: u64,
    pub(crate) destination: u64,
    /// Bytes of a row; all of the write, unless the fabric takes [strided](Capabilities::strided_writes) ones.
    pub(crate) len: u64,
    /// Rows, as a [`Tile`] has them.
    pub(crate) inner: Step,
    pub(crate) outer: Step,
    pub(crate) immediate: u32,
    /// Comes back with the completion; unique among the writes in flight, small.
    pub(crate) context: u32,
}

impl Write {
    /// One row, with the immediate 1.
    pub(crate) fn contiguous(peer: PeerId, source: u64, destination: u64, len: u64, context: u32) -> Self {
        let (inner, outer) = (Step::ONE, Step::ONE);
        Self { peer, source, destination, len, inner, outer, immediate: 1, context }
    }

    /// Source and destination of each row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let Self { source, destination, len, inner, outer, .. } = *self;
        Tile { source, destination, len, inner, outer }.places()
    }
}

/// One read from a peer's pool into ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// A peer that [`Fabric::connect`] named.
    pub(crate) peer: PeerId,
    /// Offset into the peer's pool.
    pub(crate) source: u64,
    /// Offset into our pool.
    pub(crate) destination: u64,
    pub(crate) len: u64,
    /// As for a [`Write`]; the two share one space.
    pub(crate) context: u32,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The write or read with this context is done; its source may be reused, its destination holds the bytes.
    Done(u32),
    /// The write or read with this context failed; its memory may be reused.
    Failed(u32, String),
    /// The write with this context failed on its way, and another way is left: post it again. It may still land, until the
    /// fabric is drained; only fabrics whose completions mean delivery say this.
    Again(u32, String),
    /// A peer wrote here. `from` where the fabric knows.
    Landed { from: Option<PeerId>, immediate: u32 },
    /// A peer broke the rules of the fabric; it is not listened to any more.
    Fault { peer: PeerId, reason: String },
}
