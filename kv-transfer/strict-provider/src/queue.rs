//! The completion queue: of fixed size, in no order, and broken for good once it overran.

use std::collections::VecDeque;

use rand::Rng;

/// One completion, of an operation of ours or of a peer's write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The operation's context; zero for a peer's.
    pub(crate) context: usize,
    pub(crate) flags: u64,
    pub(crate) data: u64,
    /// libfabric's error and EFA's status.
    pub(crate) error: Option<(u32, u32)>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) size: usize,
    entries: VecDeque<Entry>,
    pub(crate) overran: bool,
}

impl Queue {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, entries: VecDeque::new(), overran: false }
    }

    /// Adds an entry among those unread, wherever chance has it. `false`: there is no room, the queue is broken.
    pub(crate) fn add(&mut self, entry: Entry, random: &mut impl Rng) -> bool {
        if self.entries.len() >= self.size {
            self.overran = true;
            return false;
        }
        let at = random.random_range(0..=self.entries.len());
        self.entries.insert(at, entry);
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an error is next.
    pub(crate) fn error_waits(&self) -> bool {
        self.entries.front().is_some_and(|entry| entry.error.is_some())
    }

    /// The next entry if it is an error (or not), as asked for.
    pub(crate) fn take(&mut self, error: bool) -> Option<Entry> {
        self.entries.pop_front_if(|entry| entry.error.is_some() == error)
    }
}
