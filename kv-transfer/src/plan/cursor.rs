//! The walk over a plan: layers x tiles, as writes that the fabric takes.

use std::ops::Range;
use std::sync::Arc;

use super::{Plan, Tile};

/// A position in a plan; it allocates nothing.
#[derive(Debug)]
pub(crate) struct Cursor {
    layers: Range<u32>,
    plan: Arc<Plan>,
    tile: usize,
    row: u64,
    /// Bytes of the row that are done.
    done: u64,
}

/// What one write may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteRules {
    /// Bytes of a contiguous one.
    pub(crate) max_bytes: u64,
    /// It may be a tile of several rows.
    pub(crate) strided: bool,
}

impl Cursor {
    pub(crate) fn new(layers: Range<u32>, plan: Arc<Plan>) -> Self {
        Self { layers, plan, tile: 0, row: 0, done: 0 }
    }

    /// The next write, without moving on: posting it may have to be tried again.
    pub(crate) fn peek(&self, rules: WriteRules) -> Option<Tile> {
        if self.layers.is_empty() {
            return None;
        }
        let tile = self.plan.tiles.get(self.tile)?;
        let layer = u64::from(self.layers.start);
        let (from, to) = (layer * self.plan.source_layer, layer * self.plan.destination_layer);
        if rules.strided && tile.rows() > 1 {
            return Some(Tile { source: tile.source + from, destination: tile.destination + to, ..*tile });
        }
        let (source, destination) = tile.row(self.row);
        let len = (tile.len - self.done).min(rules.max_bytes);
        Some(Tile::contiguous(source + from + self.done, destination + to + self.done, len))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.layers.is_empty() || self.plan.tiles.is_empty()
    }

    /// Moves past a write that `peek` returned and that was posted.
    pub(crate) fn advance(&mut self, written: &Tile) {
        let tile = &self.plan.tiles[self.tile];
        self.done += written.len;
        if self.done < tile.len {
            return;
        }
        self.done = 0;
        self.row += written.rows();
        if self.row < tile.rows() {
            return;
        }
        self.row = 0;
        self.tile += 1;
        if self.tile == self.plan.tiles.len() {
            self.tile = 0;
            self.layers.start += 1;
        }
    }
}
