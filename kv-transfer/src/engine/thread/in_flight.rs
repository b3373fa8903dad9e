//! The writes in flight, by context.

use std::time::Duration;

use super::SendId;
use crate::ids::{PeerId, Sequence};
use crate::plan::Tile;

/// Contexts are indices; they are small, and unique while in flight.
#[derive(Default)]
pub(super) struct InFlight {
    pub(super) entries: Vec<Option<Flying>>,
    free: Vec<u32>,
    pub(super) count: usize,
}

/// One write under way.
#[derive(Clone, Copy)]
pub(super) struct Flying {
    pub(super) send: SendId,
    pub(super) peer: PeerId,
    pub(super) tile: Tile,
    /// Without what a chunk says of itself.
    pub(super) payload: u64,
    pub(super) sequence: Sequence,
    /// When, in the data thread's own time.
    pub(super) posted: Duration,
    /// The chunk of ours that it is of.
    pub(super) chunk: Option<u32>,
    /// Its peer died and it never came back; its context stays taken, its credit does not.
    pub(super) given_up: bool,
}

impl Flying {
    pub(super) fn bytes(&self) -> u64 {
        self.tile.bytes()
    }
}

impl InFlight {
    pub(super) fn take_off(&mut self, flying: Flying) -> u32 {
        self.count += 1;
        match self.free.pop() {
            Some(context) => {
                self.entries[context as usize] = Some(flying);
                context
            }
            None => {
                self.entries.push(Some(flying));
                (self.entries.len() - 1) as u32
            }
        }
    }

    pub(super) fn land(&mut self, context: u32) -> Option<Flying> {
        let flying = self.entries.get_mut(context as usize)?.take()?;
        self.free.push(context);
        self.count -= usize::from(!flying.given_up);
        Some(flying)
    }

    pub(super) fn give_up(&mut self, context: u32) -> Option<Flying> {
        let flying = self.entries.get_mut(context as usize)?.as_mut()?;
        flying.given_up = true;
        self.count -= 1;
        Some(*flying)
    }
}
