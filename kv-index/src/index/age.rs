//! When a block was last stored, or expected, and how deep in its chain it is: 32 bits, which say who leaves first.

/// Seconds of one unit of age.
const UNIT_SECONDS: u64 = 4;
/// Bits of the time, which goes round after 48 days. What was not used for longer looks younger, and leaves later.
const TIME_BITS: u32 = 20;
/// Blocks further down are as deep as this one.
const DEEPEST: u32 = (1 << (32 - TIME_BITS)) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age(u32);

impl Age {
    pub(crate) fn new(now: u64, depth: u32) -> Self {
        Self(time(now) << (32 - TIME_BITS) | depth.min(DEEPEST))
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// Blocks before this one.
    pub(crate) fn depth(self) -> u32 {
        self.0 & DEEPEST
    }

    /// Of a block that is so many further down the chain.
    #[inline]
    pub(crate) fn deeper(self, blocks: u32) -> Self {
        Self(self.0 & !DEEPEST | (self.depth() + blocks).min(DEEPEST))
    }

    /// Of a block that is so many further up the chain.
    #[inline]
    pub(crate) fn less_deep(self, blocks: u32) -> Self {
        Self(self.0 & !DEEPEST | self.depth().saturating_sub(blocks))
    }

    /// Seconds since, in steps of [`UNIT_SECONDS`].
    pub(crate) fn seconds(self, now: u64) -> u32 {
        (time(now).wrapping_sub(self.0 >> (32 - TIME_BITS)) & ((1 << TIME_BITS) - 1)) * UNIT_SECONDS as u32
    }

    /// The larger, the sooner it leaves: the oldest first, and of those of the same age the deepest, so that a chain loses its
    /// end before its beginning.
    pub(crate) fn leaves(self, now: u64) -> u64 {
        u64::from(self.seconds(now)) << 32 | u64::from(self.depth())
    }
}

fn time(now: u64) -> u32 {
    (now / UNIT_SECONDS) as u32 & ((1 << TIME_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_first_then_the_deepest() {
        let now = (1 << TIME_BITS) * UNIT_SECONDS + 100;
        let by_turn = [(now - 90, 3), (now - 90, 2), (now - 12, 9999), (now - 12, 7), (now, 0)];
        // The first two are from before the time went round.
        let turns = by_turn.map(|(at, depth)| Age::new(at, depth).leaves(now));
        assert!(turns.is_sorted_by(|a, b| a > b), "{turns:?}");
        assert_eq!(Age::new(now - 90, 3).seconds(now), 92);
        assert_eq!(Age::new(now, 5).deeper(3), Age::new(now, 8));
        assert_eq!(Age::new(now, 5).deeper(9999).less_deep(2), Age::new(now, DEEPEST - 2));
        assert_eq!(Age::new(now, 5).less_deep(6), Age::new(now, 0));
        assert_eq!((Age::new(now, 5).depth(), Age::new(now, 5000).depth()), (5, DEEPEST));
    }
}
