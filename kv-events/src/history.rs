//! The last batches, for subscribers that missed some.

use std::collections::VecDeque;

use bytes::Bytes;

/// Most bytes of all batches together.
const MOST_BYTES: usize = 64 << 20;

/// Bounded by number and by bytes; the oldest leave first.
pub(crate) struct History {
    batches: VecDeque<(u64, Bytes)>,
    bytes: usize,
    most_batches: usize,
}

impl History {
    pub(crate) fn of(most_batches: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, most_batches }
    }

    pub(crate) fn push(&mut self, number: u64, payload: Bytes) {
        self.bytes += payload.len();
        self.batches.push_back((number, payload));
        while self.batches.len() > self.most_batches || self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.batches.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// All that is left from `first` on.
    pub(crate) fn from(&self, first: u64) -> Vec<(u64, Bytes)> {
        let start = self.batches.partition_point(|(number, _)| *number < first);
        self.batches.range(start..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(history: &History, first: u64) -> Vec<u64> {
        history.from(first).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn it_begins_where_asked_and_keeps_the_last_ones() {
        let mut history = History::of(3);
        assert!(history.from(0).is_empty());
        // The batch with number 2 was dropped.
        for number in [0, 1, 3, 4] {
            history.push(number, Bytes::from_static(b"x"));
        }
        assert_eq!(numbers(&history, 0), [1, 3, 4]);
        assert_eq!(numbers(&history, 2), [3, 4]);
        assert_eq!(numbers(&history, 5), [0_u64; 0]);
    }

    #[test]
    fn it_is_bounded_in_bytes() {
        let mut history = History::of(1000);
        let large = Bytes::from(vec![0; MOST_BYTES / 4]);
        for number in 0..9 {
            history.push(number, large.clone());
        }
        assert_eq!(numbers(&history, 0), [5, 6, 7, 8]);
    }
}
