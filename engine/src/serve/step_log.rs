//! What the last steps computed, and what that took.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use baton_profile::StepShape;

/// Steps that are kept.
const KEPT: usize = 256;

/// A step, with all that an engine does for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSample {
    /// What it computed.
    pub shape: StepShape,
    /// From choosing what it computes to its tokens' having been sent.
    pub took: Duration,
}

/// The last steps. Those that put drafts to the test are not among them: what they take is another matter.
#[derive(Debug, Default)]
pub(super) struct StepLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// All that there ever were.
    seen: u64,
    last: VecDeque<StepSample>,
}

impl StepLog {
    pub(super) fn note(&self, shape: StepShape, took: Duration) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(StepSample { shape, took });
        kept.seen += 1;
    }

    /// Those after the first `seen`, as far as they are kept, and how many there ever were.
    pub(super) fn since(&self, seen: u64) -> (Vec<StepSample>, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = usize::try_from(kept.seen.saturating_sub(seen)).unwrap_or(KEPT).min(kept.last.len());
        (kept.last.range(kept.last.len() - new..).copied().collect(), kept.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_gets_what_is_new_to_it() {
        let log = StepLog::default();
        let note = |tokens| {
            let shape = StepShape { prompt_tokens: tokens, ..StepShape::default() };
            log.note(shape, Duration::from_micros(tokens));
        };
        let tokens = |(samples, seen): (Vec<StepSample>, u64)| {
            (samples.iter().map(|sample| sample.shape.prompt_tokens).collect::<Vec<_>>(), seen)
        };
        assert_eq!(tokens(log.since(0)), (vec![], 0));
        (1..=3).for_each(note);
        assert_eq!(tokens(log.since(0)), (vec![1, 2, 3], 3));
        assert_eq!(tokens(log.since(2)), (vec![3], 3));
        assert_eq!(tokens(log.since(9)), (vec![], 3), "of another engine");
        (4..=1_000).for_each(note);
        let (last, seen) = tokens(log.since(3));
        assert_eq!((last.len(), last[0], last[KEPT - 1], seen), (KEPT, 745, 1_000, 1_000));
    }
}
