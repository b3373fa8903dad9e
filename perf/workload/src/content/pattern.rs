//! Which tokens (or words) a piece consists of, as places in a vocabulary.

use crate::random::{Purpose, Stream};

/// The places of the first ones tell the id, as the digits of a number; the others are random.
const DIGITS: u64 = 3;

/// The content of one piece. `first` and `rest` are how many there are to choose from at the beginning and after it.
pub(super) struct Pattern {
    stream: Stream,
    // What is left of the id, and which digit comes next.
    id: u64,
    digit: u64,
    offset: u64,
    first: u64,
    rest: u64,
    spare: Option<u32>,
}

/// Of another round of content; round 0 keeps `seed`.
pub(super) fn seed_of_round(seed: u64, round: u64) -> u64 {
    if round == 0 { seed } else { Stream::new(seed, Purpose::ContentRound, round).next_u64() }
}

impl Pattern {
    pub(super) fn new(seed: u64, id: u64, first: usize, rest: usize) -> Self {
        debug_assert!(first > 0 && rest > 0 && first <= u32::MAX as usize && rest <= u32::MAX as usize);
        // The same for all pieces, so that digits that differ stay different.
        let offset = Stream::new(seed, Purpose::ContentOffset, 0).next_u64() >> 1;
        let stream = Stream::new(seed, Purpose::Content, id);
        Self { stream, id, digit: 0, offset, first: first as u64, rest: rest as u64, spare: None }
    }

    /// The next place; of the first one there are `first`, of each later one `rest`.
    pub(super) fn next(&mut self) -> usize {
        if self.digit < DIGITS {
            let base = if self.digit == 0 { self.first } else { self.rest };
            let place = (self.id % base + self.offset % base) % base;
            self.id /= base;
            self.digit += 1;
            self.offset = self.offset.rotate_right(17) >> 1;
            return place as usize;
        }
        let half = match self.spare.take() {
            Some(half) => half,
            None => {
                let both = self.stream.next_u64();
                self.spare = Some(both as u32);
                (both >> 32) as u32
            }
        };
        ((u64::from(half) * self.rest) >> 32) as usize
    }
}
