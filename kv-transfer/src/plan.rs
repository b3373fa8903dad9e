//! Merging block pairs into few large writes. Pure: numbers in, numbers out.

use std::ops::Range;
use std::sync::Arc;

use crate::KvGeometry;

/// `len` blocks that are neighbours at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) source: u32,
    pub(crate) destination: u32,
    pub(crate) len: u32,
}

/// Merges `(source block, destination block)` pairs into runs; the order of the pairs does not matter.
///
/// One plan serves every layer, as a block has the same neighbours in each.
pub(crate) fn merge_runs(mut pairs: Vec<(u32, u32)>) -> Vec<Run> {
    pairs.sort_unstable();
    let mut runs: Vec<Run> = Vec::with_capacity(pairs.len().min(64));
    for (source, destination) in pairs {
        match runs.last_mut() {
            Some(run) if run.source + run.len == source && run.destination + run.len == destination => {
                run.len += 1
            }
            _ => runs.push(Run { source, destination, len: 1 }),
        }
    }
    runs
}

/// One write: offsets into the two pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedWrite {
    pub(crate) source: u64,
    pub(crate) destination: u64,
    pub(crate) len: u64,
}

/// Walks layers x runs, and cuts each run into writes of at most `max_write` bytes. Holds a position, allocates nothing.
#[derive(Debug)]
pub(crate) struct Cursor {
    layers: Range<u32>,
    runs: Arc<[Run]>,
    run: usize,
    done_bytes: u64,
}

impl Cursor {
    pub(crate) fn new(layers: Range<u32>, runs: Arc<[Run]>) -> Self {
        Self { layers, runs, run: 0, done_bytes: 0 }
    }

    /// The next write, without moving on: posting it may have to be tried again.
    pub(crate) fn peek(
        &self,
        source: &KvGeometry,
        destination: &KvGeometry,
        max_write: u64,
    ) -> Option<PlannedWrite> {
        if self.layers.is_empty() {
            return None;
        }
        let run = self.runs.get(self.run)?;
        let run_bytes = u64::from(run.len) * source.block_bytes;
        Some(PlannedWrite {
            source: source.offset(self.layers.start, run.source) + self.done_bytes,
            destination: destination.offset(self.layers.start, run.destination) + self.done_bytes,
            len: (run_bytes - self.done_bytes).min(max_write),
        })
    }

    /// Moves past a write that `peek` returned and that was posted.
    pub(crate) fn advance(&mut self, written: &PlannedWrite, block_bytes: u64) {
        self.done_bytes += written.len;
        if self.done_bytes < u64::from(self.runs[self.run].len) * block_bytes {
            return;
        }
        self.done_bytes = 0;
        self.run += 1;
        if self.run == self.runs.len() {
            self.run = 0;
            self.layers.start += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LAYERS: u32 = 3;
    const BLOCKS: u32 = 40;

    fn pairs() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let ids = || Just((0..BLOCKS).collect::<Vec<_>>()).prop_shuffle();
        // Rotations keep neighbours together, shuffles tear them apart: mix both.
        (ids(), ids(), any::<bool>(), 0..BLOCKS, 1..=BLOCKS as usize).prop_map(
            |(a, b, contiguous, turn, n)| {
                let turned = |i: u32| (i + turn) % BLOCKS;
                let pairs = if contiguous {
                    (0..BLOCKS).map(|i| (i, turned(i))).collect()
                } else {
                    a.into_iter().zip(b).collect::<Vec<_>>()
                };
                pairs.into_iter().take(n).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn runs_cover_each_pair_once_and_are_maximal(pairs in pairs()) {
            let runs = merge_runs(pairs.clone());
            let mut covered: Vec<_> = runs.iter().flat_map(|r| (0..r.len).map(|i| (r.source + i, r.destination + i))).collect();
            let mut wanted = pairs;
            covered.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(covered, wanted);
            for pair in runs.windows(2) {
                let mergeable = pair[0].source + pair[0].len == pair[1].source
                    && pair[0].destination + pair[0].len == pair[1].destination;
                prop_assert!(!mergeable, "{pair:?} should be one run");
            }
        }

        #[test]
        fn the_cursor_moves_every_byte_of_every_layer_once(pairs in pairs(), block_bytes in 1u64..200, max_write in 1u64..1000) {
            let ours = KvGeometry { layers: LAYERS, blocks: BLOCKS, block_bytes };
            let theirs = KvGeometry { blocks: BLOCKS + 7, ..ours };
            let mut moved = BTreeMap::new();
            let mut cursor = Cursor::new(0..LAYERS, merge_runs(pairs.clone()).into());
            while let Some(write) = cursor.peek(&ours, &theirs, max_write) {
                prop_assert!(write.len > 0 && write.len <= max_write);
                for i in 0..write.len {
                    prop_assert_eq!(moved.insert(write.destination + i, write.source + i), None, "written twice");
                }
                cursor.advance(&write, block_bytes);
            }
            let mut wanted = BTreeMap::new();
            for layer in 0..LAYERS {
                for &(source, destination) in &pairs {
                    for i in 0..block_bytes {
                        wanted.insert(theirs.offset(layer, destination) + i, ours.offset(layer, source) + i);
                    }
                }
            }
            prop_assert_eq!(moved, wanted);
        }
    }
}
