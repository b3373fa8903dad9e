//! One outgoing transfer as the data thread sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::TransferError;
use crate::control::Outbox;
use crate::ids::{Immediate, PeerId, Sequence};
use crate::plan::{Cursor, PlannedWrite, WriteRules};
use crate::send::{OutgoingCell, Sent};
use crate::tally::Tally;
use crate::wire::{Body, Manifest, Withdrawn};

/// State of an outgoing transfer.
///
/// `Open` → `Finishing` (its owner is done) → `Announced` (all posted, manifest sent) → settled when nothing is in flight.
/// Any of them → `Ending` on a failure or an abort → settled when nothing is in flight, after telling the receiver.
pub(crate) struct Sending {
    pub(crate) cell: Arc<OutgoingCell>,
    pub(crate) outbox: Outbox,
    /// Whether it stands in the thread's turn.
    pub(crate) in_turn: bool,
    pushes: VecDeque<Cursor>,
    in_flight: u32,
    posted: u32,
    completed: Tally,
    bytes: u64,
    phase: Phase,
}

enum Phase {
    Open,
    Finishing(Box<Manifest>),
    Announced,
    Ending(TransferError),
}

impl Sending {
    pub(crate) fn new(cell: Arc<OutgoingCell>, outbox: Outbox) -> Self {
        let (pushes, phase) = (VecDeque::new(), Phase::Open);
        Self {
            cell,
            outbox,
            in_turn: false,
            pushes,
            in_flight: 0,
            posted: 0,
            completed: Tally::default(),
            bytes: 0,
            phase,
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.cell.peer
    }

    /// Of the next write.
    pub(crate) fn immediate(&self) -> Immediate {
        Immediate { key: self.cell.arrivals(), sequence: Sequence::of(self.posted) }
    }

    /// Takes a push; `false` if the transfer is past pushing and the push is dropped.
    pub(crate) fn push(&mut self, cursor: Cursor) -> bool {
        let open = matches!(self.phase, Phase::Open);
        if open {
            self.pushes.push_back(cursor);
        }
        open
    }

    pub(crate) fn next_write(&self, rules: WriteRules) -> Option<PlannedWrite> {
        self.pushes.front()?.peek(rules)
    }

    /// The write that `next_write` returned is posted; returns how many pushes that finished.
    pub(crate) fn write_posted(&mut self, write: &PlannedWrite) -> usize {
        self.posted += 1;
        self.in_flight += 1;
        self.bytes += write.bytes();
        let Some(cursor) = self.pushes.front_mut() else { return 0 };
        cursor.advance(write);
        if !cursor.is_done() {
            return 0;
        }
        self.pushes.pop_front();
        1
    }

    /// A write came back; `delivered` names it unless it failed.
    pub(crate) fn write_done(&mut self, delivered: Option<Sequence>) {
        debug_assert!(self.in_flight > 0, "a completion without a write in flight");
        self.in_flight -= 1;
        delivered.into_iter().for_each(|sequence| self.completed.add(sequence));
    }

    pub(crate) fn finish(&mut self, manifest: Box<Manifest>) {
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
                let withdrawn = Withdrawn {
                    key: self.cell.key.into(),
                    writes: Some(self.completed),
                    reason: error.to_string(),
                };
                self.outbox.send(Body::Withdrawn(withdrawn));
                Some(Err(error.clone()))
            }
            Phase::Open | Phase::Finishing(_) => None,
        }
    }

    fn announce(&mut self) {
        let Phase::Finishing(mut manifest) = std::mem::replace(&mut self.phase, Phase::Announced) else {
            unreachable!("only a finishing transfer is announced")
        };
        manifest.writes = self.posted;
        manifest.bytes = self.bytes;
        self.outbox.send(Body::Manifest(*manifest));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Only a thread that ended leaves a transfer unsettled; its fabric is gone, so nothing reads the source.
        self.cell.settle(Err(TransferError::ShuttingDown));
    }
}
