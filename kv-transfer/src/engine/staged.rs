//! A transfer that is gathered into chunks: what is left of it, and where its chunks may go.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::layout::Conversion;
use crate::staging::{CHUNKS_AHEAD, HEADER_BYTES, Region, units_per_chunk};

/// Layers x units, as batches that fill a chunk.
#[derive(Debug)]
pub(crate) struct UnitCursor {
    layers: Range<u32>,
    /// Source block and unit.
    units: Arc<[(u32, u32)]>,
    at: usize,
}

impl UnitCursor {
    pub(crate) fn new(layers: Range<u32>, units: Arc<[(u32, u32)]>) -> Self {
        Self { layers, units, at: 0 }
    }

    /// The next layer and at most so many units of it.
    pub(crate) fn batch(&self, most: u32) -> (u32, &[(u32, u32)]) {
        let end = (self.at + most as usize).min(self.units.len());
        (self.layers.start, &self.units[self.at..end])
    }

    /// Moves past what a chunk took.
    pub(crate) fn advance(&mut self, units: u32) {
        self.at += units as usize;
        if self.at >= self.units.len() {
            self.at = 0;
            self.layers.start += 1;
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.layers.is_empty() || self.units.is_empty()
    }

    /// Chunks that it still fills.
    pub(crate) fn chunks(&self, most: u32) -> u32 {
        let layer = self.units.len().div_ceil(most as usize);
        let begun = self.at / most as usize;
        (self.layers.len() * layer).saturating_sub(begun) as u32
    }
}

/// What a staged transfer needs beyond others.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) conversion: Arc<Conversion>,
    /// From our blocks into a chunk.
    pub(crate) gather: Conversion,
    pub(crate) tokens: u32,
    /// Units in a chunk.
    pub(crate) room: u32,
    pub(crate) theirs: Region,
    /// Chunks of theirs that are ours to write, in the order of our writes.
    pub(crate) grants: VecDeque<u32>,
    /// Asked for, and not granted yet.
    asked: u32,
}

impl Staged {
    /// With chunks of which so many bytes can be written at once. `None` if not even one unit has room in one.
    pub(crate) fn new(
        conversion: Arc<Conversion>,
        tokens: u32,
        chunk_bytes: u64,
        theirs: Region,
    ) -> Option<Self> {
        let payload = chunk_bytes.saturating_sub(HEADER_BYTES);
        let (gather, _) = conversion.staged(payload)?;
        let room = units_per_chunk(gather.destination.blocks);
        Some(Self { conversion, gather, tokens, room, theirs, grants: VecDeque::new(), asked: 0 })
    }

    /// How many chunks to ask for, with so many to fill.
    pub(crate) fn ask(&mut self, chunks: u32) -> u32 {
        let have = self.grants.len() as u32 + self.asked;
        let more = chunks.min(CHUNKS_AHEAD).saturating_sub(have);
        self.asked += more;
        more
    }

    pub(crate) fn granted(&mut self, chunk: u32) {
        self.asked = self.asked.saturating_sub(1);
        self.grants.push_back(chunk);
    }

    /// Payload of the given units of one layer.
    pub(crate) fn bytes(&self, units: &[(u32, u32)]) -> u64 {
        units.iter().map(|&(_, unit)| self.conversion.unit_bytes(unit, self.tokens)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_each_unit_of_each_layer_once() {
        for (units, most, layers) in [(5, 2, 3), (4, 4, 1), (1, 9, 2), (6, 1, 2)] {
            let all: Arc<[(u32, u32)]> = (0..units).map(|unit| (unit + 10, unit)).collect();
            let mut cursor = UnitCursor::new(0..layers, all.clone());
            let mut seen = Vec::new();
            let mut left = cursor.chunks(most);
            while !cursor.is_done() {
                let (layer, batch) = cursor.batch(most);
                seen.extend(batch.iter().map(|&unit| (layer, unit)));
                let taken = batch.len() as u32;
                assert!(taken > 0 && taken <= most);
                cursor.advance(taken);
                left -= 1;
                assert!(cursor.is_done() || cursor.chunks(most) == left);
            }
            assert_eq!(left, 0);
            let wanted: Vec<_> =
                (0..layers).flat_map(|layer| all.iter().map(move |&unit| (layer, unit))).collect();
            assert_eq!(seen, wanted);
        }
    }
}
