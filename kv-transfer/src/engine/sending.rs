//! One transfer that this node writes, or reads, as the data thread sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::TransferError;
use crate::control::Outbox;
use crate::engine::{Staged, UnitCursor};
use crate::ids::{Immediate, PeerId, Sequence};
use crate::plan::{Cursor, Tile};
use crate::send::{OutgoingCell, Sent};
use crate::tally::Tally;
use crate::wire::{Body, Manifest, Want, Withdrawn};

/// What a push asks for.
#[derive(Debug)]
pub(crate) enum Work {
    /// Writes straight into the receiver's blocks.
    Tiles(Cursor),
    /// Units, by way of chunks.
    Units(UnitCursor),
}

impl Work {
    fn is_done(&self) -> bool {
        match self {
            Self::Tiles(cursor) => cursor.is_done(),
            Self::Units(cursor) => cursor.is_done(),
        }
    }
}

/// State of an outgoing transfer.
///
/// `Open` → `Finishing` (its owner is done) → `Announced` (all posted, manifest sent) → settled when nothing is in flight.
/// Any of them → `Ending` on a failure or an abort → settled when nothing is in flight, after telling the receiver.
pub(crate) struct Sending {
    pub(crate) cell: Arc<OutgoingCell>,
    pub(crate) outbox: Outbox,
    /// Whether it stands in the thread's turn.
    pub(crate) in_turn: bool,
    pushes: VecDeque<Work>,
    /// Set when all of its writes are of chunks.
    pub(crate) staged: Option<Staged>,
    in_flight: u32,
    posted: u32,
    completed: Tally,
    /// Some write failed, or was given up: what of it has landed, or will, nobody here knows.
    uncertain: bool,
    bytes: u64,
    phase: Phase,
}

enum Phase {
    Open,
    Finishing(Option<Box<Manifest>>),
    Announced,
    Ending(TransferError),
}

impl Sending {
    pub(crate) fn new(cell: Arc<OutgoingCell>, outbox: Outbox, staged: Option<Staged>) -> Self {
        let (pushes, phase) = (VecDeque::new(), Phase::Open);
        Self {
            cell,
            outbox,
            in_turn: false,
            pushes,
            staged,
            in_flight: 0,
            posted: 0,
            completed: Tally::default(),
            uncertain: false,
            bytes: 0,
            phase,
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.cell.peer
    }

    /// Of the next write.
    pub(crate) fn sequence(&self) -> Sequence {
        Sequence::of(self.posted)
    }

    /// What the next write carries; `None` for a read.
    pub(crate) fn immediate(&self) -> Option<Immediate> {
        Some(Immediate { key: self.cell.arrivals()?, sequence: self.sequence() })
    }

    /// Takes a push; `false` if the transfer is past pushing and the push is dropped.
    pub(crate) fn push(&mut self, work: Work) -> bool {
        let open = matches!(self.phase, Phase::Open);
        if open {
            self.pushes.push_back(work);
        }
        open
    }

    /// What is to be posted next.
    pub(crate) fn next(&self) -> Option<&Work> {
        self.pushes.front()
    }

    /// The write that a cursor showed is posted; returns how many pushes that finished.
    pub(crate) fn write_posted(&mut self, write: &Tile) -> usize {
        self.posted(write.bytes(), |work| {
            if let Work::Tiles(cursor) = work {
                cursor.advance(write);
            }
        })
    }

    /// A chunk of so many units is posted; returns how many pushes that finished.
    pub(crate) fn chunk_posted(&mut self, units: u32, bytes: u64) -> usize {
        self.posted(bytes, |work| {
            if let Work::Units(cursor) = work {
                cursor.advance(units);
            }
        })
    }

    fn posted(&mut self, bytes: u64, advance: impl FnOnce(&mut Work)) -> usize {
        self.posted += 1;
        self.in_flight += 1;
        self.bytes += bytes;
        let Some(work) = self.pushes.front_mut() else { return 0 };
        advance(work);
        if !work.is_done() {
            return 0;
        }
        self.pushes.pop_front();
        1
    }

    /// Asks the receiver for chunks, as far as there is something to fill them with.
    pub(crate) fn ask_for_chunks(&mut self) {
        let (Some(staged), Some(key)) = (&mut self.staged, self.cell.key) else { return };
        let chunks = |work: &Work| match work {
            Work::Units(cursor) => cursor.chunks(staged.room),
            Work::Tiles(_) => 0,
        };
        let to_fill = self.pushes.iter().map(chunks).sum();
        let more = staged.ask(to_fill);
        if more > 0 {
            self.outbox.send(Body::Want(Want { key: key.into(), chunks: more }));
        }
    }

    /// A write came back; `delivered` names it unless it failed.
    pub(crate) fn write_done(&mut self, delivered: Option<Sequence>) {
        debug_assert!(self.in_flight > 0, "a completion without a write in flight");
        self.in_flight -= 1;
        self.uncertain |= delivered.is_none();
        delivered.into_iter().for_each(|sequence| self.completed.add(sequence));
    }

    pub(crate) fn finish(&mut self, manifest: Option<Box<Manifest>>) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Finishing(manifest);
        }
    }

    /// Stops it; returns how many pushes were dropped. The first reason stands.
    pub(crate) fn end(&mut self, error: TransferError) -> usize {
        if !matches!(self.phase, Phase::Ending(_)) {
            self.cell.fail(error.clone());
            self.phase = Phase::Ending(error);
        }
        let dropped = self.pushes.len();
        self.pushes.clear();
        dropped
    }

    /// Moves on as far as possible; the outcome once no write reads the source any more.
    pub(crate) fn advance(&mut self) -> Option<Result<Sent, TransferError>> {
        if matches!(self.phase, Phase::Finishing(_)) && self.pushes.is_empty() {
            self.announce();
        }
        if self.in_flight > 0 {
            return None;
        }
        match &self.phase {
            Phase::Announced => Some(Ok(Sent { bytes: self.bytes, writes: self.posted })),
            Phase::Ending(error) => {
                if let Some(key) = self.cell.key {
                    let (writes, reason) = ((!self.uncertain).then_some(self.completed), error.to_string());
                    self.outbox.send(Body::Withdrawn(Withdrawn { key: key.into(), writes, reason }));
                }
                Some(Err(error.clone()))
            }
            Phase::Open | Phase::Finishing(_) => None,
        }
    }

    fn announce(&mut self) {
        let Phase::Finishing(manifest) = std::mem::replace(&mut self.phase, Phase::Announced) else {
            unreachable!("only a finishing transfer is announced")
        };
        // Whoever is read from is told nothing.
        let Some(mut manifest) = manifest else { return };
        manifest.writes = self.posted;
        manifest.bytes = self.bytes;
        self.outbox.send(Body::Manifest(*manifest));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Only a thread that ended leaves a transfer unsettled; its fabric is gone, so nothing reads the source.
        let error = match &self.phase {
            Phase::Ending(error) => error.clone(),
            _ => TransferError::ShuttingDown,
        };
        self.cell.settle(Err(error));
    }
}
