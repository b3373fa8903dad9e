//! Lines that wait to be written: bounded, and full when it is full.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::metrics::LogMetrics;

/// Prompts can make lines long.
const MOST_BYTES: usize = 64 << 20;

/// Between those who serve and the thread that writes.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    news: Condvar,
    room: usize,
    metrics: LogMetrics,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Places kept for lines to come.
    kept: usize,
    is_failing: bool,
    is_closed: bool,
}

/// A place for one line, kept from before its request is served.
#[derive(Debug)]
pub struct Slot(Option<Arc<Queue>>);

/// What the writer finds.
pub(crate) enum Next {
    Line(Vec<u8>),
    /// Nothing came.
    Idle,
    /// Nothing will come.
    Closed,
}

impl Queue {
    pub(crate) fn new(room: usize, metrics: LogMetrics) -> Self {
        Self { state: Mutex::default(), news: Condvar::new(), room, metrics }
    }

    /// Keeps a place; none, while lines can't be written or there is no room.
    pub fn keep_place(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        let has_room = state.lines.len() + state.kept < self.room && state.bytes < MOST_BYTES;
        if !has_room || state.is_failing || state.is_closed {
            return None;
        }
        state.kept += 1;
        Some(Slot(Some(self.clone())))
    }

    /// Puts a line where there is room; else it is lost.
    pub fn push(&self, line: Vec<u8>) {
        let state = self.lock();
        if state.lines.len() + state.kept < self.room && state.bytes + line.len() <= MOST_BYTES {
            self.put(state, line);
        } else {
            drop(state);
            self.lose("queue_full", 1);
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State>, line: Vec<u8>) {
        if state.is_closed {
            drop(state);
            return self.lose("closed", 1);
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        self.metrics.queued.inc();
        drop(state);
        self.news.notify_one();
    }

    /// Lines that are not in the log and never will be.
    pub(crate) fn lose(&self, reason: &'static str, lines: usize) {
        self.metrics.lose(reason, lines as u64);
    }

    /// Waits for a line for up to `patience`.
    pub(crate) fn next(&self, patience: Duration) -> Next {
        let is_quiet = |state: &mut State| state.lines.is_empty() && !state.is_closed;
        let waited = self.news.wait_timeout_while(self.lock(), patience, is_quiet);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.lines.pop_front() {
            Some(line) => {
                state.bytes -= line.len();
                self.metrics.queued.dec();
                Next::Line(line)
            }
            None if state.is_closed => Next::Closed,
            None => Next::Idle,
        }
    }

    /// Waits for the end for up to `patience`; true when it has come.
    pub(crate) fn is_closed_within(&self, patience: Duration) -> bool {
        let waited = self.news.wait_timeout_while(self.lock(), patience, |state| !state.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.lock().is_failing = is_failing;
    }

    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Puts the line in its place.
    pub fn push(mut self, line: Vec<u8>) {
        if let Some(queue) = self.0.take() {
            let mut state = queue.lock();
            state.kept -= 1;
            queue.put(state, line);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.lock().kept -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ReasonLabels;

    fn queue(room: usize) -> Arc<Queue> {
        Arc::new(Queue::new(room, LogMetrics::default()))
    }

    fn lost(queue: &Queue) -> u64 {
        queue.metrics.lost.get_or_create(&ReasonLabels { reason: "queue_full" }).get()
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them() {
        let queue = queue(2);
        for _ in 0..5 {
            queue.push(b"x".to_vec());
        }
        assert_eq!((lost(&queue), queue.metrics.queued.get()), (3, 2));
        assert!(matches!(queue.next(Duration::ZERO), Next::Line(_)));
        queue.push(b"x".to_vec());
        assert_eq!(lost(&queue), 3);
    }

    #[test]
    fn a_kept_place_is_taken_from_nobody_and_given_back() {
        let queue = queue(2);
        let slots = [queue.keep_place().unwrap(), queue.keep_place().unwrap()];
        assert!(queue.keep_place().is_none());
        queue.push(b"x".to_vec());
        assert_eq!(lost(&queue), 1, "the places are kept");
        let [one, other] = slots;
        one.push(b"y".to_vec());
        assert!(queue.keep_place().is_none());
        drop(other);
        assert!(queue.keep_place().is_some());
    }

    #[test]
    fn no_place_is_promised_while_lines_cannot_be_written_or_after_the_end() {
        let queue = queue(2);
        queue.set_failing(true);
        assert!(queue.keep_place().is_none());
        queue.set_failing(false);
        assert!(queue.keep_place().is_some());
        queue.close();
        assert!(queue.keep_place().is_none());
        assert!(matches!(queue.next(Duration::MAX), Next::Closed));
    }
}
