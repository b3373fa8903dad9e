//! The last requests, as many as there is room for.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{Arrived, Held, cut};

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at_ms: f64,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    /// Tokens of a block of its keys.
    pub(super) block_tokens: u32,
    /// At each end of a piece: a key of all tokens up to there.
    pub(super) keys: Arc<[u64]>,
}

/// Holds a bounded number of bytes; the oldest leaves first.
pub(super) struct Ring {
    most_bytes: usize,
    bytes: usize,
    /// The number of the oldest.
    first: u64,
    since_ms: f64,
    entries: VecDeque<Entry>,
}

/// What an allocation takes beside its bytes, and the counters of an `Arc`.
const ALLOCATION_BYTES: usize = 32;

impl Entry {
    pub(super) fn new(arrived: &Arrived<'_>) -> Self {
        let prompt_tokens = narrow(arrived.prompt_tokens);
        let (block_tokens, keys) =
            arrived.keys.map_or((1, &[][..]), |keys| (keys.block_tokens(), keys.keys()));
        let at = |end: u32| keys.get((end / block_tokens) as usize - 1).copied();
        Self {
            at_ms: arrived.at_ms,
            prompt_tokens,
            output_tokens: arrived.expected_tokens.round().max(1.0) as u32,
            block_tokens,
            keys: cut::ends(block_tokens, prompt_tokens).map_while(at).collect(),
        }
    }

    /// Ends of its pieces, each with its key.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u32, u64)> {
        cut::ends(self.block_tokens, self.prompt_tokens).zip(self.keys.iter().copied())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.keys) + ALLOCATION_BYTES
    }
}

impl Ring {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, bytes: 0, first: 0, since_ms: 0.0, entries: VecDeque::new() }
    }

    /// Takes one in, and says by what number it is known.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        let number = self.first + self.entries.len() as u64 - 1;
        while self.bytes > self.most_bytes
            && let Some(left) = self.entries.pop_front()
        {
            self.bytes -= left.bytes();
            self.first += 1;
            // One that came at the same moment may still be here; to be on the safe side, that moment is not told.
            self.since_ms = left.at_ms.next_up();
        }
        number
    }

    /// One that has left is passed over.
    pub(super) fn answer(&mut self, number: u64, tokens: u64) {
        let entry = number.checked_sub(self.first).and_then(|place| self.entries.get_mut(place as usize));
        if let Some(entry) = entry {
            entry.output_tokens = narrow(tokens).max(1);
        }
    }

    /// Numbers of those that have come since then.
    pub(super) fn since(&self, since_ms: f64) -> Range<u64> {
        let begin = self.entries.partition_point(|entry| entry.at_ms < since_ms) as u64;
        self.first + begin..self.first + self.entries.len() as u64
    }

    /// Those of `numbers` that are still here, at most `most`; afterwards `numbers` are the others.
    pub(super) fn take(&self, numbers: &mut Range<u64>, most: usize) -> Vec<Entry> {
        let begin = numbers.start.max(self.first).min(numbers.end);
        numbers.start = numbers.end.min(begin + most as u64);
        let places = (begin - self.first.min(begin)) as usize
            ..(numbers.start - self.first.min(numbers.start)) as usize;
        self.entries.range(places).cloned().collect()
    }

    pub(super) fn held(&self) -> Held {
        Held { requests: self.entries.len(), bytes: self.bytes, since_ms: self.since_ms }
    }
}

fn narrow(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
