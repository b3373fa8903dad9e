//! Which batches were heard, and what the next one's number means.

use std::cmp::Ordering;

/// What to do with a batch that was published just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Live {
    /// It is the next one.
    Next,
    /// It was replayed already.
    Known,
    /// Others before it are missing.
    Gap,
    /// Numbers began again: the worker has restarted.
    Restart,
}

/// What to do with a batch that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// It is the next one.
    Next,
    /// It is the last one that was heard, and proves that the worker has not restarted.
    Proof,
    /// It has that one's number, but is another: the worker has restarted.
    Restart,
    /// Others before it are gone for good.
    Hole,
}

/// Numbers of one worker's batches.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Number of the next batch; `None` before anything is known.
    next: Option<u64>,
    /// Digest of the one before it.
    last: Option<u64>,
    /// The last number that was published while it was listened to. Within one life of a worker they only rise.
    last_live: Option<u64>,
}

impl Track {
    pub(super) fn live(&mut self, number: u64) -> Live {
        if self.last_live.is_some_and(|last| number <= last) {
            return Live::Restart;
        }
        self.last_live = Some(number);
        self.after_replay(number)
    }

    /// The same for one that was heard already, before a replay.
    pub(super) fn after_replay(&self, number: u64) -> Live {
        match number.cmp(&self.next.unwrap_or(0)) {
            Ordering::Less => Live::Known,
            Ordering::Equal => Live::Next,
            Ordering::Greater => Live::Gap,
        }
    }

    /// The first number to ask for: the last batch that is known, too, as a proof.
    pub(super) fn ask_from(&self) -> u64 {
        let next = self.next.unwrap_or(0);
        if self.needs_proof() { next.saturating_sub(1) } else { next }
    }

    /// Whether a replay has to begin with a proof.
    pub(super) fn needs_proof(&self) -> bool {
        self.last.is_some()
    }

    /// `is_first` of those of one replay.
    pub(super) fn replayed(&self, number: u64, digest: u64, is_first: bool) -> Replayed {
        let next = self.next.unwrap_or(0);
        if let Some(last) = self.last
            && is_first
        {
            return match number {
                _ if number + 1 != next => Replayed::Hole,
                _ if digest == last => Replayed::Proof,
                _ => Replayed::Restart,
            };
        }
        if number == next { Replayed::Next } else { Replayed::Hole }
    }

    /// The batch was applied.
    pub(super) fn applied(&mut self, number: u64, digest: u64) {
        self.next = number.checked_add(1);
        self.last = Some(digest);
    }

    /// All before `number` is given up.
    pub(super) fn give_up_before(&mut self, number: u64) {
        self.next = Some(number);
        self.last = None;
    }

    /// The worker has restarted.
    pub(super) fn restarted(&mut self) {
        *self = Self::default();
    }

    /// The connection was lost; what was heard stays known.
    pub(super) fn disconnected(&mut self) {
        self.last_live = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_fall_are_a_restart_and_those_that_jump_a_gap() {
        let mut track = Track::default();
        assert_eq!(track.live(0), Live::Next);
        track.applied(0, 100);
        assert_eq!(track.live(1), Live::Next);
        track.applied(1, 101);
        assert_eq!(track.live(4), Live::Gap);
        // A replay brought 2 to 6 before 5 and 6 were read.
        track.applied(6, 106);
        assert_eq!((track.live(5), track.live(6), track.live(7)), (Live::Known, Live::Known, Live::Next));
        assert_eq!(track.live(0), Live::Restart);
        track.restarted();
        assert_eq!(track.live(3), Live::Gap, "it began without us");
    }

    #[test]
    fn a_replay_proves_whose_numbers_they_are() {
        let mut track = Track::default();
        assert_eq!((track.ask_from(), track.needs_proof()), (0, false));
        assert_eq!(track.replayed(0, 7, true), Replayed::Next);
        assert_eq!(track.replayed(2, 7, true), Replayed::Hole);
        track.applied(9, 109);
        assert_eq!((track.ask_from(), track.needs_proof()), (9, true));
        assert_eq!(track.replayed(9, 109, true), Replayed::Proof);
        assert_eq!(track.replayed(9, 999, true), Replayed::Restart);
        assert_eq!(track.replayed(10, 109, true), Replayed::Hole, "without a proof it may be another life");
        assert_eq!(track.replayed(10, 110, false), Replayed::Next);
        assert_eq!(track.replayed(11, 110, false), Replayed::Hole);
        track.give_up_before(11);
        assert_eq!((track.ask_from(), track.needs_proof()), (11, false));
    }
}
