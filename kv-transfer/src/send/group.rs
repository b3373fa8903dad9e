//! How many layers go to the data thread at once.
//!
//! Waking it and posting cost the same for few bytes and for many; waiting for more layers delays those that are computed. So
//! layers are held back until they are worth about [`GROUP_TIME`] of the link, as it was measured so far: a short prompt goes
//! in one piece, at its end, and a long one layer by layer.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time on the link that makes a group worth its cost: some wake-ups.
const GROUP_TIME: Duration = Duration::from_micros(200);
/// What a group is at least and at most, whatever was measured.
const GROUP_BYTES: Range<u64> = 64 << 10..8 << 20;
/// Where nothing was measured yet: a slow network card.
const FIRST_GUESS_BYTES_PER_SECOND: u64 = 2_500_000_000;
/// The weight of what was known, beside one new measurement.
const INERTIA: u64 = 7;

/// How fast a link is, as its data thread sees it.
#[derive(Debug)]
pub(crate) struct LinkSpeed(AtomicU64);

impl Default for LinkSpeed {
    fn default() -> Self {
        Self(AtomicU64::new(FIRST_GUESS_BYTES_PER_SECOND))
    }
}

impl LinkSpeed {
    /// So many bytes were done in that time, and the link was never without work.
    pub(crate) fn measured(&self, bytes: u64, took: Duration) {
        let nanoseconds = took.as_nanos().max(1);
        let now = u64::try_from(u128::from(bytes) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX);
        let known = self.0.load(Ordering::Relaxed);
        let mixed = (u128::from(known) * u128::from(INERTIA) + u128::from(now)) / u128::from(INERTIA + 1);
        self.0.store(u64::try_from(mixed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What is known.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Bytes that a group should have.
    pub(crate) fn group_bytes(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second()) * GROUP_TIME.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).clamp(GROUP_BYTES.start, GROUP_BYTES.end)
    }
}

/// Layers of the same blocks that are held back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) layers: Range<u32>,
    /// Source block and position in the sequence.
    pub(crate) blocks: Vec<(u32, u32)>,
}

impl Group {
    pub(crate) fn new(layers: Range<u32>, blocks: &[(u32, u32)]) -> Self {
        Self { layers, blocks: blocks.to_vec() }
    }

    /// Takes the next layers of the same blocks; `false` when they are others.
    pub(crate) fn extend(&mut self, layers: &Range<u32>, blocks: &[(u32, u32)]) -> bool {
        let follows = self.layers.end == layers.start && self.blocks == blocks;
        if follows {
            self.layers.end = layers.end;
        }
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_as_large_as_the_link_is_fast() {
        let speed = LinkSpeed::default();
        assert_eq!(speed.group_bytes(), 500_000);
        (0..100).for_each(|_| speed.measured(1 << 20, Duration::from_micros(100)));
        assert!((2_000_000..2_200_000).contains(&speed.group_bytes()), "{}", speed.group_bytes());
        (0..100).for_each(|_| speed.measured(1000, Duration::from_secs(1)));
        assert_eq!(speed.group_bytes(), GROUP_BYTES.start);
        (0..100).for_each(|_| speed.measured(u64::MAX, Duration::ZERO));
        assert_eq!(speed.group_bytes(), GROUP_BYTES.end);
    }

    #[test]
    fn only_the_next_layers_of_the_same_blocks_join() {
        let mut group = Group::new(0..2, &[(5, 0)]);
        assert!(group.extend(&(2..3), &[(5, 0)]));
        assert!(!group.extend(&(4..5), &[(5, 0)]) && !group.extend(&(3..4), &[(5, 1)]));
        assert_eq!(group.layers, 0..3);
    }
}
