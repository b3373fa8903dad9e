//! Which writes of a transfer happened, in a few bytes and in any order.
//!
//! A count alone is fooled by a fabric that delivers one immediate twice and loses another: the numbers agree and bytes
//! are missing. So each write carries its number, and beside the count stands a sum of the mixed numbers: two tallies that
//! agree hold the same writes.

use crate::ids::Sequence;

/// A count of writes, and a sum that tells which ones.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Tally {
    #[prost(uint32, tag = "1")]
    pub(crate) writes: u32,
    #[prost(fixed64, tag = "2")]
    pub(crate) sum: u64,
}

impl Tally {
    /// The first `writes` of a transfer, each once.
    pub(crate) fn first(writes: u32) -> Self {
        let (rounds, rest) = (u64::from(writes / Sequence::COUNT), writes % Sequence::COUNT);
        let sum_below = |end| (0..end).map(mix).fold(0, u64::wrapping_add);
        let round = if rounds > 0 { sum_below(Sequence::COUNT) } else { 0 };
        Self { writes, sum: round.wrapping_mul(rounds).wrapping_add(sum_below(rest)) }
    }

    /// These writes but for some of them.
    pub(crate) fn without(self, some: Self) -> Self {
        Self { writes: self.writes.saturating_sub(some.writes), sum: self.sum.wrapping_sub(some.sum) }
    }

    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.writes = self.writes.saturating_add(1);
        self.sum = self.sum.wrapping_add(mix(sequence.number()));
    }
}

/// Spreads a number over 64 bits, so that sums of different sets differ. The finaliser of SplitMix64
/// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(number: u32) -> u64 {
    let mut mixed = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(numbers: impl IntoIterator<Item = u32>) -> Tally {
        let mut tally = Tally::default();
        numbers.into_iter().for_each(|number| tally.add(Sequence::of(number)));
        tally
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_a_repeated_write_does_not_stand_for_a_lost_one(
            writes in 2u32..2000, lost: prop::sample::Index, repeated: prop::sample::Index,
        ) {
            prop_assert_eq!(tally((0..writes).rev()), Tally::first(writes));
            let (lost, repeated) = (lost.index(writes as usize) as u32, repeated.index(writes as usize) as u32);
            let others = (0..writes).filter(|&number| number != lost);
            let same = Sequence::of(lost) == Sequence::of(repeated);
            prop_assert_eq!(tally(others.chain([repeated])) == Tally::first(writes), same);
        }
    }
}
