//! What will happen, in order of time.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::flight::NEVER;

/// Something at a time of its own; engines wake by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A request is sent.
    Sent(u32),
    /// Whoever computes the prompt of a request has been called.
    Called(u32),
    /// All blocks of a request have arrived.
    Landed(u32),
    /// The client of a request gives it up.
    GivenUp(u32),
    /// A request has taken too long.
    Late(u32),
    /// Workers tell their load.
    Report,
    /// The scheduler looks after its queue.
    Tick,
    /// A worker is told to change: the index into the list of changes.
    Change(u32),
    /// A worker has started anew.
    Started(u32),
}

/// By time, then by when they were added.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    added: u64,
}

impl Agenda {
    /// Times are not negative, so their bits have their order.
    pub(crate) fn add(&mut self, at: f64, event: Event) {
        debug_assert!(at >= 0.0 && at.is_finite());
        self.added += 1;
        self.heap.push(Reverse(((at + 0.0).to_bits(), self.added, event)));
    }

    pub(crate) fn next_at(&self) -> f64 {
        self.heap.peek().map_or(NEVER, |Reverse((at, _, _))| f64::from_bits(*at))
    }

    pub(crate) fn pop(&mut self) -> Option<(f64, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (f64::from_bits(at), event))
    }
}

/// The engine that wakes first: a tournament among all.
#[derive(Clone, Debug)]
pub(crate) struct Wakes {
    leaves: usize,
    at: Vec<f64>,
    // [inner node]: the winner below it; the root is 1.
    winners: Vec<u32>,
}

impl Wakes {
    pub(crate) fn new(engines: usize) -> Self {
        let leaves = engines.next_power_of_two().max(2);
        let mut winners = vec![0; leaves];
        for node in (1..leaves).rev() {
            winners[node] = if node >= leaves / 2 { (2 * node - leaves) as u32 } else { winners[2 * node] };
        }
        Self { leaves, at: vec![NEVER; leaves], winners }
    }

    pub(crate) fn set(&mut self, engine: usize, at: f64) {
        self.at[engine] = at;
        let mut node = (engine + self.leaves) / 2;
        let (a, b) = (engine & !1, engine | 1);
        let mut winner = if self.at[b] < self.at[a] { b } else { a };
        while node > 1 {
            self.winners[node] = winner as u32;
            let sibling = self.winners[node ^ 1] as usize;
            // Of equals, the first.
            let is_sibling = match self.at[sibling].total_cmp(&self.at[winner]) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => sibling < winner,
                std::cmp::Ordering::Greater => false,
            };
            if is_sibling {
                winner = sibling;
            }
            node /= 2;
        }
        self.winners[1] = winner as u32;
    }

    pub(crate) fn first(&self) -> (f64, usize) {
        let winner = self.winners[1] as usize;
        (self.at[winner], winner)
    }
}
