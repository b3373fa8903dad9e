//! Which pieces of a transfer are hashed, and how.
//!
//! The sender hashes a piece when it is pushed, not when it is posted: what compute produced is what is vouched for, so
//! a source block that is overwritten before its write went out shows at the receiver.

use std::ops::Range;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::ChecksumMode;
use crate::layout::{Conversion, Side};
use crate::memory::PoolMemory;

/// Pieces hashed in one transfer by [`ChecksumMode::Sampled`].
pub(crate) const SAMPLES: u64 = 8;
/// Bytes copied at a time out of shared memory to be hashed; fits the first-level cache.
const CHUNK_BYTES: usize = 16 << 10;

/// The units `(layer, unit)` to hash: the same list at both ends for the same arguments, sorted, without doubles.
///
/// Samples are spread evenly over the layers; which block of the layer is drawn from `seed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    None,
    Sampled(Vec<(u32, u32)>),
    Full { layers: u32, blocks: u32 },
}

impl Selection {
    pub(crate) fn new(mode: ChecksumMode, seed: u64, layers: u32, blocks: u32) -> Self {
        match mode {
            ChecksumMode::Off => Self::None,
            ChecksumMode::Full => Self::Full { layers, blocks },
            ChecksumMode::Sampled => {
                let count = SAMPLES.min(u64::from(layers) * u64::from(blocks));
                let draw = |i: u64| {
                    let layer = (i * u64::from(layers) / count) as u32;
                    let block = XxHash3_64::oneshot_with_seed(seed, &i.to_le_bytes()) % u64::from(blocks);
                    (layer, block as u32)
                };
                let mut pieces: Vec<_> = (0..count).map(draw).collect();
                pieces.sort_unstable();
                pieces.dedup();
                Self::Sampled(pieces)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Sampled(pieces) => pieces.len(),
            Self::Full { layers, blocks } => *layers as usize * *blocks as usize,
        }
    }

    /// Position of a piece in the list of hashes.
    pub(crate) fn position(&self, layer: u32, index: u32) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Sampled(pieces) => pieces.binary_search(&(layer, index)).ok(),
            Self::Full { blocks, .. } => Some(layer as usize * *blocks as usize + index as usize),
        }
    }

    /// All selected pieces in the order of their hashes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.len()).map(|i| match self {
            Self::Sampled(pieces) => pieces[i],
            Self::Full { blocks, .. } => (i as u32 / *blocks, i as u32 % *blocks),
            Self::None => unreachable!("an empty selection has no positions"),
        })
    }
}

/// xxh3 of the bytes of all ranges in turn, however they are cut into ranges: chained over chunks that are copied out of
/// the shared memory first.
pub(crate) fn hash_ranges(pool: &PoolMemory, ranges: impl Iterator<Item = Range<usize>>) -> u64 {
    let mut scratch = [0u8; CHUNK_BYTES];
    let (mut filled, mut hash) = (0, 0);
    for mut range in ranges {
        while !range.is_empty() {
            let len = range.len().min(CHUNK_BYTES - filled);
            pool.copy_out(range.start, &mut scratch[filled..filled + len]);
            range.start += len;
            filled += len;
            if filled == CHUNK_BYTES {
                hash = XxHash3_64::oneshot_with_seed(hash, &scratch);
                filled = 0;
            }
        }
    }
    XxHash3_64::oneshot_with_seed(hash, &scratch[..filled])
}

/// What a sender vouches for.
#[derive(Clone, Debug)]
pub(crate) struct Hashed {
    /// How its bytes become ours.
    pub(crate) conversion: Arc<Conversion>,
    pub(crate) selection: Selection,
    pub(crate) hashes: Vec<u64>,
}

/// Layer and first token of the first unit, in these blocks of ours, whose bytes are not those that the sender hashed.
pub(crate) fn first_difference(
    pool: &PoolMemory,
    blocks: &[u32],
    tokens: u32,
    hashed: &Hashed,
) -> Option<(u32, u32)> {
    let Hashed { conversion, selection, hashes } = hashed;
    let block = |index: u32| blocks[index as usize];
    selection.iter().zip(hashes).find_map(|((layer, unit), &hash)| {
        let ranges = conversion.ranges(Side::Destination, (layer, unit), tokens, block);
        (hash_ranges(pool, ranges) != hash).then(|| (layer, conversion.tokens(unit, tokens).start))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::Mapping;

    proptest! {
        #[test]
        fn positions_and_pieces_agree(seed: u64, layers in 1u32..70, blocks in 1u32..200, full: bool) {
            let mode = if full { ChecksumMode::Full } else { ChecksumMode::Sampled };
            let selection = Selection::new(mode, seed, layers, blocks);
            prop_assert!(selection.len() > 0);
            for (i, (layer, index)) in selection.iter().enumerate() {
                prop_assert!(layer < layers && index < blocks);
                prop_assert_eq!(selection.position(layer, index), Some(i));
            }
        }
    }

    #[test]
    fn every_byte_of_a_piece_counts() {
        let pool = PoolMemory::new(Arc::new(Mapping::anonymous(1 << 16).unwrap()), 1 << 16);
        let len = CHUNK_BYTES + 100;
        let hash = || hash_ranges(&pool, std::iter::once(64..64 + len));
        let clean = hash();
        let cut = [64..65, 65..65, 65..2 * CHUNK_BYTES, 2 * CHUNK_BYTES..64 + len];
        let cut = cut.map(|range| range.start.min(64 + len)..range.end.min(64 + len));
        assert_eq!(hash_ranges(&pool, cut.into_iter()), clean, "the cuts do not matter");
        for byte in [64, 64 + CHUNK_BYTES - 1, 64 + CHUNK_BYTES, 64 + len - 1] {
            pool.copy_in(byte, &[1]);
            assert_ne!(hash(), clean);
            pool.copy_in(byte, &[0]);
        }
        pool.copy_in(63, &[1]);
        pool.copy_in(64 + len, &[1]);
        assert_eq!(hash(), clean, "bytes outside do not");
    }
}
