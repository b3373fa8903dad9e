//! The slot table: the policy of receiving. It has no I/O and no clock; callers hand it `now` and carry out [`Effect`]s
//! after releasing its lock.
//!
//! ```text
//!            expect                   all parts: writes + manifest
//!   Free ──────────────► Live ─────────────────────────────► Free   (blocks belong to the receiver)
//!     ▲                   │ abort, deadline, lies, death
//!     │   nobody attached │
//!     ├───────────────────┤
//!     │                   ▼ a sender is attached
//!     └──────────────── Fenced   (blocks are quarantined: someone may still write them)
//!        each part: whole, withdrawn, or dead and drained
//! ```
//! What is drained, only the data thread can know: when it has polled for the time that bytes may take, the dead sender's
//! address is gone from the fabric, and a last poll brought nothing. It says so ([`ReceiveTable::peer_drained`],
//! [`ReceiveTable::part_drained`]); the table has no time of its own for it. A data thread that is stopped makes a fence stand
//! longer, never shorter.
//!
//! A transfer has a *part* for each sender: one, or several where the senders' tensor-parallel ranks each hold some of the
//! heads that this receiver needs. How many there must be is known with the first. Each part's writes are counted under a
//! slot of their own (the first under the transfer's), as fabrics do not tell whose a write was.

mod inputs;
mod parts;
mod staging;
mod transitions;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::parts::Part;
use self::staging::Chunks;
use super::IncomingCell;
use crate::ids::{Generation, PeerId, Sequence, Slot, TransferKey};
use crate::layout::Conversion;
use crate::stats::Counters;
use crate::{ChecksumMode, DataPlaneFailed, ExpectError, KvGeometry, TransferError};

/// What the table goes by.
#[derive(Clone, Debug)]
pub(crate) struct TableRules {
    pub(crate) geometry: KvGeometry,
    pub(crate) checksums: ChecksumMode,
    pub(crate) slots: usize,
    pub(crate) blocks_per_transfer: usize,
    /// Chunks that senders can be granted.
    pub(crate) chunks: u32,
}

/// What the caller does once the lock is released.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Tell an attached sender to stop.
    TellAbort { peer: PeerId, key: TransferKey, reason: String },
    /// Nobody will write these blocks again: open the latch.
    Quiet(Arc<IncomingCell>),
    /// Tell an attached sender where its next staged write goes.
    Grant { peer: PeerId, key: TransferKey, chunk: u32 },
    /// A sender writes no more, and not all that it wrote is here: have the data thread drain it. `stray`: that one write of it.
    Drain { key: TransferKey, sender: PeerId, stray: Option<u32> },
    /// Bring a chunk that has landed to its blocks, then say so.
    Scatter(Scatter),
}

/// A chunk that has landed.
#[derive(Debug)]
pub(crate) struct Scatter {
    pub(crate) key: TransferKey,
    pub(crate) sender: PeerId,
    pub(crate) sequence: Sequence,
    pub(crate) chunk: u32,
    pub(crate) cell: Arc<IncomingCell>,
    pub(crate) tokens: u32,
    pub(crate) conversion: Arc<Conversion>,
}

/// Why a sender is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttachError {
    /// No slot is free to count its writes under, of so many.
    Full { slots: u32 },
    /// It never will be.
    Revoked(&'static str),
}

impl From<&'static str> for AttachError {
    fn from(reason: &'static str) -> Self {
        Self::Revoked(reason)
    }
}

/// A transfer to expect.
pub(crate) struct Expected<'a> {
    pub(crate) blocks: &'a [u32],
    pub(crate) tokens: u32,
    pub(crate) secret: u64,
    pub(crate) expires_in: Duration,
}

#[derive(Debug)]
pub(crate) struct ReceiveTable {
    rules: TableRules,
    slots: Vec<Entry>,
    free: VecDeque<Slot>,
    busy: Box<[bool]>,
    deadlines: BTreeSet<(Instant, TransferKey)>,
    counters: Arc<Counters>,
    chunks: Chunks,
    closed: bool,
    /// Why it is closed, if the data plane failed.
    failure: Option<DataPlaneFailed>,
}

#[derive(Debug)]
struct Entry {
    generation: Generation,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// Counts the writes of a further part of that transfer.
    PartOf(TransferKey),
    Live(Live),
    Fenced(Fenced),
}

#[derive(Debug)]
struct Live {
    cell: Arc<IncomingCell>,
    secret: u64,
    tokens: u32,
    started: Instant,
    expires_in: Duration,
    deadline: Instant,
    parts: Vec<Part>,
    /// Parts that it takes; known with the first.
    needed: usize,
    /// Set when a sender died with everything announced: what is in the pipe may still complete its part, until it is drained.
    lost: Option<TransferError>,
}

#[derive(Debug)]
struct Fenced {
    cell: Arc<IncomingCell>,
    parts: Vec<Part>,
}

/// Why a transfer fails, and what is known of the sender that made it fail.
struct Failure {
    error: TransferError,
    /// What the senders that are still attached are told.
    reason: &'static str,
    /// A sender that said itself that it writes no more, or died.
    ended: Option<PeerId>,
}

impl ReceiveTable {
    pub(crate) fn new(rules: TableRules, counters: Arc<Counters>) -> Self {
        let fresh = || Entry { generation: Generation::random(), state: State::Free };
        Self {
            slots: (0..rules.slots).map(|_| fresh()).collect(),
            free: (0..rules.slots as u32).filter_map(Slot::try_new).collect(),
            busy: vec![false; rules.geometry.blocks as usize].into_boxed_slice(),
            deadlines: BTreeSet::new(),
            chunks: Chunks::new(rules.chunks),
            rules,
            counters,
            closed: false,
            failure: None,
        }
    }

    pub(crate) fn expect(
        &mut self,
        expected: &Expected<'_>,
        now: Instant,
    ) -> Result<Arc<IncomingCell>, ExpectError> {
        if self.closed {
            return Err(ExpectError::ended(self.failure.clone()));
        }
        if self.free.is_empty() {
            return Err(ExpectError::Full { limit: self.rules.slots });
        }
        self.claim(expected.blocks, expected.tokens)?;
        let key = self.take_slot().expect("one is free");
        let cell = Arc::new(IncomingCell::new(key, expected.blocks));
        let deadline = now + expected.expires_in;
        self.slots[key.slot.index()].state = State::Live(Live {
            cell: cell.clone(),
            secret: expected.secret,
            tokens: expected.tokens,
            started: now,
            expires_in: expected.expires_in,
            deadline,
            parts: Vec::new(),
            needed: 1,
            lost: None,
        });
        self.deadlines.insert((deadline, key));
        self.counters.incoming_started.add(1);
        Ok(cell)
    }

    /// Whether every slot is free.
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Takes a free slot under its next generation; its state is the caller's to set.
    fn take_slot(&mut self) -> Option<TransferKey> {
        let slot = self.free.pop_front()?;
        let entry = &mut self.slots[slot.index()];
        debug_assert!(matches!(entry.state, State::Free), "a free slot is free");
        entry.generation = entry.generation.next();
        self.counters.incoming_live.add(1);
        Some(TransferKey { slot, generation: entry.generation })
    }

    fn give_back_slot(&mut self, slot: Slot) -> State {
        self.free.push_back(slot);
        self.counters.incoming_live.sub(1);
        std::mem::replace(&mut self.slots[slot.index()].state, State::Free)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
