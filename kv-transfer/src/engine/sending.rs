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
use crate::wire::{Amend, Body, Manifest, Recall, Stray, Want, Withdrawn};

/// What a push asks for.
#[derive(Debug)]
pub(crate) enum Work {
    /// Writes straight into the receiver's blocks.
    Tiles(Cursor),
    /// Units, by way of chunks.
    Units(UnitCursor),
}

/// A write that failed on its way and is to be posted once more, as another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    pub(crate) tile: Tile,
    /// The chunk of ours that it is of, and the payload.
    pub(crate) chunk: Option<(u32, u64)>,
}

/// What is to be posted next.
pub(crate) enum Next<'a> {
    Again(&'a Again),
    Work(&'a Work),
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
/// `Announced` → `Recalling` (a write failed on its way after all) → `Amending` (the receiver waits) → `Announced`.
/// Any of them → `Ending` on a failure or an abort → settled when nothing is in flight, after telling the receiver.
pub(crate) struct Sending {
    pub(crate) cell: Arc<OutgoingCell>,
    pub(crate) outbox: Outbox,
    /// Whether it stands in the thread's turn.
    pub(crate) in_turn: bool,
    pushes: VecDeque<Work>,
    again: VecDeque<Again>,
    /// Chunks of ours that are not needed any more.
    pub(crate) freed: Vec<u32>,
    /// Set when all of its writes are of chunks.
    pub(crate) staged: Option<Staged>,
    in_flight: u32,
    posted: u32,
    completed: Tally,
    /// Writes that were posted again and may still land.
    doubtful: Tally,
    /// Some write failed, or was given up: what of it has landed, or will, nobody here knows.
    uncertain: bool,
    bytes: u64,
    phase: Phase,
}

enum Phase {
    Open,
    Finishing(Option<Box<Manifest>>),
    Announced,
    Recalling,
    Amending,
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
            again: VecDeque::new(),
            freed: Vec::new(),
            staged,
            in_flight: 0,
            posted: 0,
            completed: Tally::default(),
            doubtful: Tally::default(),
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

    pub(crate) fn next(&self) -> Option<Next<'_>> {
        // What would be written may be somebody else's, unless the receiver said that it waits.
        let again = self.again.front().filter(|_| !matches!(self.phase, Phase::Recalling)).map(Next::Again);
        again.or_else(|| self.pushes.front().map(Next::Work))
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

    /// The first of the writes that failed on their way is posted again.
    pub(crate) fn again_posted(&mut self) {
        self.again.pop_front();
        self.posted += 1;
        self.in_flight += 1;
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
        let to_fill: u32 = self.pushes.iter().map(chunks).sum();
        let more = staged.ask(to_fill + self.again.len() as u32);
        if more > 0 {
            self.outbox.send(Body::Want(Want { key: key.into(), chunks: more }));
        }
    }

    /// A write came back; `delivered` names it unless it failed.
    pub(crate) fn write_done(&mut self, delivered: Option<Sequence>) {
        debug_assert!(self.in_flight > 0, "a completion without a write in flight");
        self.in_flight -= 1;
        match delivered {
            Some(sequence) => self.completed.add(sequence),
            None => self.uncertain = true,
        }
    }

    /// A write failed on its way, and may be posted again, unless the transfer ends anyhow: then it is given back.
    pub(crate) fn write_doubtful(&mut self, sequence: Sequence, again: Again) -> Result<(), Again> {
        match self.phase {
            Phase::Ending(_) => return Err(again),
            Phase::Announced => self.recall(),
            Phase::Open | Phase::Finishing(_) | Phase::Recalling | Phase::Amending => {}
        }
        if let (Some(_), Some(key)) = (again.chunk, self.cell.key) {
            self.outbox.send(Body::Stray(Stray { key: key.into(), sequence: sequence.number() }));
        }
        self.in_flight -= 1;
        self.uncertain = true;
        self.doubtful.add(sequence);
        self.again.push_back(again);
        Ok(())
    }

    fn recall(&mut self) {
        let Some(key) = self.cell.key else { return };
        self.outbox.send(Body::Recall(Recall { key: key.into() }));
        self.phase = Phase::Recalling;
    }

    /// The receiver waits for the writes that failed on their way, or it needs nothing more.
    pub(crate) fn recalled(&mut self, waits: bool) {
        if !matches!(self.phase, Phase::Recalling) {
            return;
        }
        self.phase = if waits { Phase::Amending } else { Phase::Announced };
        if !waits {
            self.drop_again();
        }
    }

    fn drop_again(&mut self) {
        self.freed.extend(self.again.drain(..).filter_map(|again| again.chunk.map(|(chunk, _)| chunk)));
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
        self.drop_again();
        let dropped = self.pushes.len();
        self.pushes.clear();
        dropped
    }

    /// Moves on as far as possible; the outcome once no write reads the source any more.
    pub(crate) fn advance(&mut self) -> Option<Result<Sent, TransferError>> {
        let all_posted = self.pushes.is_empty() && self.again.is_empty();
        // Where some writes may land or not, the others must be known to be there.
        let all_known = self.doubtful.writes == 0 || self.in_flight == 0;
        match self.phase {
            Phase::Finishing(_) if all_posted && all_known => self.announce(),
            Phase::Amending if all_posted && all_known => self.amend(),
            _ => {}
        }
        if self.in_flight > 0 {
            return None;
        }
        match &self.phase {
            Phase::Announced => Some(Ok(self.cell.sent(self.bytes, self.posted))),
            Phase::Ending(error) => {
                if let Some(key) = self.cell.key {
                    let (writes, reason) = ((!self.uncertain).then_some(self.completed), error.to_string());
                    self.outbox.send(Body::Withdrawn(Withdrawn { key: key.into(), writes, reason }));
                }
                Some(Err(error.clone()))
            }
            Phase::Open | Phase::Finishing(_) | Phase::Recalling | Phase::Amending => None,
        }
    }

    fn amend(&mut self) {
        let Some(key) = self.cell.key else { return };
        let (key, writes, doubtful) = (key.into(), self.posted, self.doubtful);
        self.outbox.send(Body::Amend(Amend { key, writes, doubtful }));
        self.phase = Phase::Announced;
    }

    fn announce(&mut self) {
        let Phase::Finishing(manifest) = std::mem::replace(&mut self.phase, Phase::Announced) else {
            unreachable!("only a finishing transfer is announced")
        };
        // Whoever is read from is told nothing.
        let Some(mut manifest) = manifest else { return };
        manifest.writes = self.posted;
        manifest.bytes = self.bytes;
        manifest.doubtful = (self.doubtful.writes > 0).then_some(self.doubtful);
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
