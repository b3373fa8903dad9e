//! Which pieces of a transfer were pushed: one bit for each layer and destination index.

use std::ops::Range;

use crate::PushError;

/// The pieces pushed so far.
#[derive(Debug)]
pub(crate) struct Coverage {
    layers: u32,
    blocks: u32,
    words: Box<[u64]>,
    pushed: u64,
}

impl Coverage {
    pub(crate) fn new(layers: u32, blocks: u32) -> Self {
        let pieces = layers as usize * blocks as usize;
        Self { layers, blocks, words: vec![0; pieces.div_ceil(64)].into_boxed_slice(), pushed: 0 }
    }

    /// Marks `layers` x `indices`, or marks nothing.
    pub(crate) fn mark(&mut self, layers: &Range<u32>, indices: &[u32]) -> Result<(), PushError> {
        if layers.start > layers.end || layers.end > self.layers {
            return Err(PushError::NoSuchLayer { start: layers.start, end: layers.end, layers: self.layers });
        }
        if let Some(&index) = indices.iter().find(|&&index| index >= self.blocks) {
            return Err(PushError::NoSuchIndex { index, blocks: self.blocks });
        }
        for (marked, piece) in pieces(layers, indices).enumerate() {
            if !self.set(piece) {
                pieces(layers, indices).take(marked).for_each(|piece| self.clear(piece));
                return Err(PushError::Duplicate { layer: piece.0, index: piece.1 });
            }
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.pushed == u64::from(self.layers) * u64::from(self.blocks)
    }

    /// The first `(layer, index)` not pushed.
    pub(crate) fn first_missing(&self) -> Option<(u32, u32)> {
        (0..self.layers)
            .flat_map(|layer| (0..self.blocks).map(move |index| (layer, index)))
            .find(|&p| !self.get(p))
    }

    fn bit(&self, (layer, index): (u32, u32)) -> (usize, u64) {
        let piece = layer as usize * self.blocks as usize + index as usize;
        (piece / 64, 1 << (piece % 64))
    }

    fn get(&self, piece: (u32, u32)) -> bool {
        let (word, mask) = self.bit(piece);
        self.words[word] & mask != 0
    }

    fn set(&mut self, piece: (u32, u32)) -> bool {
        let (word, mask) = self.bit(piece);
        let fresh = self.words[word] & mask == 0;
        self.words[word] |= mask;
        self.pushed += u64::from(fresh);
        fresh
    }

    fn clear(&mut self, piece: (u32, u32)) {
        let (word, mask) = self.bit(piece);
        self.words[word] &= !mask;
        self.pushed -= 1;
    }
}

fn pieces<'a>(layers: &Range<u32>, indices: &'a [u32]) -> impl Iterator<Item = (u32, u32)> + use<'a> {
    layers.clone().flat_map(move |layer| indices.iter().map(move |&index| (layer, index)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set_and_refuses_whole(pushes in prop::collection::vec((0u32..5, 0u32..6, prop::collection::vec(0u32..9, 0..6)), 0..20)) {
            let (layers, blocks) = (4, 8);
            let mut coverage = Coverage::new(layers, blocks);
            let mut model = BTreeSet::new();
            for (start, end, indices) in pushes {
                let wanted: Vec<_> = pieces(&(start..end), &indices).collect();
                let distinct: BTreeSet<_> = wanted.iter().copied().collect();
                let legal = start <= end && end <= layers && indices.iter().all(|&i| i < blocks)
                    && distinct.len() == wanted.len() && distinct.is_disjoint(&model);
                prop_assert_eq!(coverage.mark(&(start..end), &indices).is_ok(), legal);
                if legal { model.extend(distinct); }
                prop_assert_eq!(coverage.pushed as usize, model.len());
            }
            let missing = (0..layers).flat_map(|l| (0..blocks).map(move |b| (l, b))).find(|p| !model.contains(p));
            prop_assert_eq!(coverage.first_missing(), missing);
            prop_assert_eq!(coverage.is_complete(), missing.is_none());
        }
    }
}
