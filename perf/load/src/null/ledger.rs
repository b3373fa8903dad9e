//! What was really sent, and when.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// When the events of one answer were handed to the kernel, in nanoseconds of the machine's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The request's `x-request-id`.
    pub request_id: String,
    /// When its last byte was read.
    pub arrived_ns: u64,
    /// Each event with tokens: when, and how many.
    pub events: Vec<(u64, u32)>,
}

/// The newest answers. Holds a bounded number of events: the oldest answers leave first.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    answers: VecDeque<Sent>,
    events: usize,
}

/// 64 MB.
const MOST_EVENTS: usize = 4 << 20;

impl Ledger {
    pub(crate) fn push(&mut self, sent: Sent) {
        // An answer without events counts, too.
        self.events += sent.events.len() + 1;
        self.answers.push_back(sent);
        while self.events > MOST_EVENTS {
            let Some(oldest) = self.answers.pop_front() else { return };
            self.events -= oldest.events.len() + 1;
        }
    }

    pub(crate) fn get(&self, request_id: &str) -> Option<&Sent> {
        self.answers.iter().rev().find(|sent| sent.request_id == request_id)
    }

    /// All, oldest first; none is left.
    pub(crate) fn take(&mut self) -> Vec<Sent> {
        self.events = 0;
        std::mem::take(&mut self.answers).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(request_id: &str, events: usize) -> Sent {
        Sent { request_id: request_id.to_owned(), arrived_ns: 0, events: vec![(1, 1); events] }
    }

    #[test]
    fn the_oldest_answers_leave_when_there_are_too_many_events() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c"] {
            ledger.push(sent(id, MOST_EVENTS / 2 - 1));
        }
        assert!(ledger.get("a").is_none() && ledger.get("b").is_some());
        assert_eq!(ledger.take().len(), 2);
        assert!(ledger.take().is_empty());
    }
}
