//! Rows at regular distances: what a push is, where layouts differ and where they do not.

use super::runs::merge_runs;
use crate::layout::{Conversion, KvGeometry, KvOrder};

/// From one to the next, so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) count: u32,
    /// Bytes at the source.
    pub(crate) source: u64,
    /// Bytes at the destination.
    pub(crate) destination: u64,
}

impl Step {
    pub(crate) const ONE: Self = Self { count: 1, source: 0, destination: 0 };
}

/// `outer.count` times `inner.count` rows of `len` bytes. A contiguous range is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) source: u64,
    pub(crate) destination: u64,
    pub(crate) len: u64,
    pub(crate) inner: Step,
    pub(crate) outer: Step,
}

impl Tile {
    pub(crate) fn contiguous(source: u64, destination: u64, len: u64) -> Self {
        Self { source, destination, len, inner: Step::ONE, outer: Step::ONE }
    }

    pub(crate) fn rows(&self) -> u64 {
        u64::from(self.inner.count) * u64::from(self.outer.count)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows() * self.len
    }

    /// Source and destination of a row.
    pub(crate) fn row(&self, row: u64) -> (u64, u64) {
        let (outer, inner) = (row / u64::from(self.inner.count), row % u64::from(self.inner.count));
        (
            self.source + outer * self.outer.source + inner * self.inner.source,
            self.destination + outer * self.outer.destination + inner * self.inner.destination,
        )
    }

    /// Source and destination of each row, in order.
    pub(crate) fn places(self) -> impl Iterator<Item = (u64, u64)> {
        let steps =
            |step: Step| (0..u64::from(step.count)).map(move |n| (n * step.source, n * step.destination));
        steps(self.outer).flat_map(move |(outer_from, outer_to)| {
            steps(self.inner)
                .map(move |(from, to)| (self.source + outer_from + from, self.destination + outer_to + to))
        })
    }

    /// Rows that touch at both ends become one.
    fn joined(mut self) -> Self {
        for _ in 0..2 {
            let touches = |step: &Step| (step.source, step.destination) == (self.len, self.len);
            if self.inner.count == 1 || touches(&self.inner) {
                self.len *= u64::from(self.inner.count);
                self.inner = std::mem::replace(&mut self.outer, Step::ONE);
            }
        }
        self
    }
}

/// The tiles of one push, as they lie in layer 0, and how far apart layers are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) tiles: Box<[Tile]>,
    pub(super) source_layer: u64,
    pub(super) destination_layer: u64,
}

impl Plan {
    /// One contiguous range, of no layout.
    pub(crate) fn of(tile: Tile) -> Self {
        Self { tiles: [tile].into(), source_layer: 0, destination_layer: 0 }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// Of the given units, as pairs of source block and unit, into the `blocks` of a sequence of `tokens`.
    pub(crate) fn new(conversion: &Conversion, pairs: &[(u32, u32)], blocks: &[u32], tokens: u32) -> Self {
        let tiles = if conversion.keeps_blocks() {
            whole_blocks(conversion, pairs, blocks)
        } else {
            let block_at = |index: u32| blocks[index as usize];
            let tiles = pairs.iter().flat_map(|&pair| unit_tiles(conversion, pair, block_at, tokens));
            merge(tiles.collect())
        };
        Self {
            tiles: tiles.into(),
            source_layer: conversion.source.layer_bytes(),
            destination_layer: conversion.destination.layer_bytes(),
        }
    }
}

/// The length of a contiguous write, on average, if the `blocks` of a sequence are written from blocks that are neighbours.
pub(crate) fn mean_write_bytes(conversion: &Conversion, blocks: &[u32], tokens: u32) -> u64 {
    let pairs: Vec<(u32, u32)> = (0..conversion.units(tokens)).map(|unit| (unit, unit)).collect();
    if conversion.keeps_blocks() {
        let tiles = whole_blocks(conversion, &pairs, blocks);
        return tiles.iter().map(Tile::bytes).sum::<u64>() / tiles.len().max(1) as u64;
    }
    let block_at = |index: u32| blocks[index as usize];
    unit_tiles(conversion, (0, 0), block_at, tokens).next().map_or(0, |tile| tile.len)
}

fn whole_blocks(conversion: &Conversion, pairs: &[(u32, u32)], blocks: &[u32]) -> Vec<Tile> {
    let pairs = pairs.iter().map(|&(source, unit)| (source, blocks[unit as usize])).collect();
    let start = |geometry: &KvGeometry, block| geometry.pieces(0, block).map(|piece| piece.start as u64);
    let (source, destination) = (&conversion.source, &conversion.destination);
    let mut tiles = Vec::new();
    for run in merge_runs(pairs) {
        let starts = start(source, run.source).zip(start(destination, run.destination));
        let piece = source.pieces(0, run.source).next().map_or(0, |piece| piece.len() as u64);
        tiles.extend(starts.map(|(from, to)| Tile::contiguous(from, to, u64::from(run.len) * piece)));
    }
    tiles
}

/// One unit, as pair of source block and unit: a tile for K and for V of each destination block that it touches.
pub(crate) fn unit_tiles<'a>(
    conversion: &'a Conversion,
    (block, unit): (u32, u32),
    block_at: impl Fn(u32) -> u32 + Copy + 'a,
    tokens: u32,
) -> impl Iterator<Item = Tile> + 'a {
    let tokens = conversion.tokens(unit, tokens);
    let each = conversion.destination.layout.block_tokens;
    let touched = tokens.start / each..tokens.end.div_ceil(each);
    touched.flat_map(move |index| {
        let part = tokens.start.max(index * each)..tokens.end.min((index + 1) * each);
        let offsets = (part.start - tokens.start, part.start - index * each);
        let tensors = 0..conversion.source.layout.placement.tensors();
        tensors.map(move |tensor| {
            let tile = Part { tensor, source: block, destination: block_at(index), offsets };
            tile.tile(conversion, part.len() as u32)
        })
    })
}

/// Tokens of one source block that go to one destination block.
struct Part {
    tensor: u32,
    source: u32,
    destination: u32,
    /// Of the first token within the two blocks.
    offsets: (u32, u32),
}

impl Part {
    fn tile(&self, conversion: &Conversion, tokens: u32) -> Tile {
        let Conversion { source, destination, heads, .. } = conversion;
        let (from_token, from_head) = source.strides();
        let (to_token, to_head) = destination.strides();
        let first_heads = conversion.first_heads;
        let from = source.tensor_offset(0, self.tensor, self.source)
            + u64::from(self.offsets.0) * from_token
            + u64::from(first_heads.0) * from_head;
        let to = destination.tensor_offset(0, self.tensor, self.destination)
            + u64::from(self.offsets.1) * to_token
            + u64::from(first_heads.1) * to_head;
        let by_token = Step { count: tokens, source: from_token, destination: to_token };
        let by_head = Step { count: heads.len() as u32, source: from_head, destination: to_head };
        // Along the destination's order, so that it is written front to back.
        let (inner, outer) = match destination.layout.order {
            KvOrder::Nhd => (by_head, by_token),
            KvOrder::Hnd => (by_token, by_head),
        };
        Tile { source: from, destination: to, len: source.layout.row_bytes(), inner, outer }.joined()
    }
}

/// Contiguous tiles that touch at both ends become one.
fn merge(mut tiles: Vec<Tile>) -> Vec<Tile> {
    tiles.sort_unstable_by_key(|tile| tile.source);
    let mut merged: Vec<Tile> = Vec::with_capacity(tiles.len());
    for tile in tiles {
        match merged.last_mut() {
            Some(last)
                if last.rows() == 1
                    && tile.rows() == 1
                    && last.source + last.len == tile.source
                    && last.destination + last.len == tile.destination =>
            {
                last.len += tile.len;
            }
            _ => merged.push(tile),
        }
    }
    merged
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
