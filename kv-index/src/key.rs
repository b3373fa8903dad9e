//! Keys: one 64-bit number for each block of a prompt, which stands for all tokens up to the block's end.
//!
//! ```text
//!   tokens   [ block 0 ][ block 1 ][ block 2 ] …
//!   content      c0         c1         c2          each by itself, so several are computed at once
//!   key      seed ─► k0 ───────► k1 ───────► k2    one multiplication a block
//! ```
//! The upper half of a key changes only with every sixth block ([`GROUP_BLOCKS`]), so that what follows one another can be kept together; its
//! three lowest bits are the place among the six. The rest follows from all that came before.
//!
//! Blocks of 16 tokens take four multiplications for their content. The mixing step is that of wyhash: both halves of a 128-bit
//! product, one over the other.
//!
//! # Collisions
//! Among n indexed blocks, a prompt of m blocks meets a wrong one with a chance of m·n / 2⁶⁴: 3.4 in 10⁹ for 6,250 blocks among 10
//! million; and where it parts from s others within six blocks, with one of s / 2²⁹: 2 in 10⁶ for a thousand. A wrong hit sends a request to a worker that has less of it than was believed; it never reaches an answer, as
//! workers compare tokens themselves.

use twox_hash::XxHash3_64;

/// Odd numbers without structure: the fractional bits of the square roots of 2, 3, 5, 7, 11 and 13.
const MIX: [u64; 6] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
];
/// Blocks whose keys have the upper half in common.
pub(crate) const GROUP_BLOCKS: usize = 6;
/// Bits of the place among them.
const POSITION: u64 = 7;
const UPPER: u64 = u64::MAX << 32;

/// Tokens that the four lanes take in one round.
const ROUND: usize = 16;

/// Both halves of the product, one over the other.
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The tokens of one block, by themselves.
#[inline]
pub(crate) fn content(tokens: &[u32]) -> u64 {
    let mut lanes = [MIX[0], MIX[1], MIX[2], MIX[3]];
    let (rounds, rest) = tokens.as_chunks::<ROUND>();
    for round in rounds {
        mix(&mut lanes, round);
    }
    if !rest.is_empty() {
        let mut last = [0; ROUND];
        last[..rest.len()].copy_from_slice(rest);
        mix(&mut lanes, &last);
    }
    let [a, b, c, d] = lanes;
    fold(a ^ c.rotate_left(23) ^ tokens.len() as u64, b ^ d.rotate_left(41))
}

#[inline]
fn mix(lanes: &mut [u64; 4], round: &[u32; ROUND]) {
    for (lane, four) in lanes.iter_mut().zip(round.as_chunks::<4>().0) {
        let low = u64::from(four[0]) | u64::from(four[1]) << 32;
        let high = u64::from(four[2]) | u64::from(four[3]) << 32;
        *lane = fold(low ^ *lane, high ^ MIX[4]);
    }
}

/// The key of the block with this content after the block with the key `previous`; never 0.
#[inline]
pub(crate) fn next(previous: u64, content: u64) -> u64 {
    let mixed = fold(previous ^ MIX[4], content ^ MIX[5]) & !POSITION;
    let next = position(previous) + 1;
    let begins = next == GROUP_BLOCKS as u64;
    let upper = if begins { mixed } else { previous } & UPPER;
    (upper | mixed & !UPPER | if begins { 0 } else { next }).max(POSITION + 1)
}

/// Of a block among those whose keys have the upper half in common, the first being 0.
#[inline]
pub(crate) fn position(key: u64) -> u64 {
    key & POSITION
}

/// What the first block of a chain follows. Models, adapters and block sizes do not share keys.
pub(crate) fn seed(model: &str, adapter: Option<&str>, block_tokens: u32) -> u64 {
    let mut seed = fold(u64::from(block_tokens) ^ MIX[0], text(model.as_bytes()) ^ MIX[1]);
    if let Some(adapter) = adapter {
        seed = fold(seed ^ MIX[2], text(adapter.as_bytes()) ^ MIX[3]);
    }
    // So that the first block is the first of six.
    seed & !POSITION | (GROUP_BLOCKS as u64 - 1)
}

/// A content that depends on something besides its tokens, too; `extra` 0 is nothing.
#[inline]
pub(crate) fn with_extra(content: u64, extra: u64) -> u64 {
    if extra == 0 { content } else { fold(content ^ MIX[2], extra ^ MIX[0]) }
}

/// One more thing that a block depends on, after `extra`.
pub(crate) fn push_extra(extra: u64, item: &[u8]) -> u64 {
    fold(extra ^ MIX[1], text(item) ^ MIX[3]).max(1)
}

/// A number for some bytes.
pub(crate) fn text(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_token_counts_at_its_place() {
        for len in [1, 7, 15, 16, 17, 31, 32, 48, 64, 100, 256] {
            let tokens: Vec<u32> = (0..len).collect();
            let mut seen = HashSet::from([content(&tokens)]);
            for place in 0..tokens.len() {
                let mut changed = tokens.clone();
                changed[place] += 1000;
                assert!(seen.insert(content(&changed)), "{len} tokens, place {place}");
                changed.swap(place, (place + 1) % len as usize);
                assert!(len == 1 || seen.insert(content(&changed)), "{len} tokens, place {place} swapped");
            }
            assert!(seen.insert(content(&[tokens, vec![0]].concat())), "{len} tokens and a zero");
        }
    }

    #[test]
    fn keys_of_short_chains_over_few_tokens_are_all_different_and_spread() {
        let mut seen = HashSet::new();
        let (mut high, mut low) = ([0_u32; 64], [0_u32; 64]);
        for a in 0..300 {
            for b in 0..300 {
                let key = next(next(seed("m", None, 16), content(&[a; 16])), content(&[b; 16]));
                assert!(seen.insert(key));
                low[(key >> 26) as usize & 63] += 1;
                // The block before is the last of its six.
                let key = next(key & !POSITION | (GROUP_BLOCKS as u64 - 1), 1);
                assert!(seen.insert(key));
                high[(key >> 58) as usize] += 1;
            }
        }
        // 1,406 are expected in each part of the range, and 38 are one standard deviation.
        for counts in [high, low] {
            assert!(counts.iter().all(|count| (1200..1620).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn six_blocks_have_an_upper_half_in_common_and_their_places_are_told() {
        let mut key = seed("m", None, 16);
        let keys: Vec<u64> = (0..600)
            .map(|at| {
                key = next(key, content(&[at; 16]));
                key
            })
            .collect();
        let uppers: HashSet<u64> = keys.chunks(GROUP_BLOCKS).map(|group| group[0] >> 32).collect();
        assert_eq!(uppers.len(), 100);
        for group in keys.chunks(GROUP_BLOCKS) {
            assert!(group.iter().all(|key| key >> 32 == group[0] >> 32));
            assert!(group.iter().map(|key| position(*key)).eq(0..GROUP_BLOCKS as u64));
        }
        // What came before a group counts in it, too.
        assert_ne!(next(keys[4], 1) as u32, next(keys[10], 1) as u32);
    }

    #[test]
    fn what_differs_besides_tokens_makes_other_keys() {
        let seeds = [
            seed("m", None, 16),
            seed("n", None, 16),
            seed("m", None, 32),
            seed("m", Some(""), 16),
            seed("m", Some("a"), 16),
        ];
        assert_eq!(HashSet::from(seeds).len(), seeds.len());
        let plain = content(&[1; 16]);
        let (a, b) = (push_extra(0, b"a"), push_extra(0, b"b"));
        let contents =
            [0, a, b, push_extra(a, b"b"), push_extra(b, b"a")].map(|extra| with_extra(plain, extra));
        assert_eq!(HashSet::from(contents).len(), contents.len());
        assert_eq!(contents[0], plain);
    }
}
