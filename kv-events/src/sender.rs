//! The side that must not wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

use crate::Event;

/// Batches between a sender and its publisher. A publisher that runs at all empties it at once.
const QUEUE: usize = 4096;

/// Hands events to a publisher.
pub struct EventSender {
    queue: mpsc::Sender<Batch>,
    next_number: u64,
    stats: EventStats,
}

/// Events that happened together.
pub(crate) struct Batch {
    pub(crate) number: u64,
    /// Seconds since 1970.
    pub(crate) timestamp: f64,
    pub(crate) events: Vec<Event>,
}

/// What a publisher has done since its start; clones share the counts. They guard no other memory: all orderings are relaxed.
#[derive(Clone, Debug, Default)]
pub struct EventStats {
    pub(crate) counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) replays: AtomicU64,
}

impl EventSender {
    pub(crate) fn new(stats: EventStats) -> (Self, mpsc::Receiver<Batch>) {
        let (queue, batches) = mpsc::channel(QUEUE);
        (Self { queue, next_number: 0, stats }, batches)
    }

    /// Publishes `events` as one batch, or drops it when the publisher lags that far behind or has ended.
    pub fn send(&mut self, events: Vec<Event>) {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let number = self.next_number;
        self.next_number += 1;
        if self.queue.try_send(Batch { number, timestamp, events }).is_err() {
            self.stats.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl EventStats {
    /// Batches handed to the subscribers there were.
    pub fn published(&self) -> u64 {
        self.counts.published.load(Ordering::Relaxed)
    }

    /// Batches that nobody will ever see.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Replays that were asked for.
    pub fn replays(&self) -> u64 {
        self.counts.replays.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_leaves_a_gap_in_the_numbers() {
        let stats = EventStats::default();
        let (mut sender, mut batches) = EventSender::new(stats.clone());
        (0..QUEUE + 2).for_each(|_| sender.send(vec![Event::Cleared]));
        assert_eq!(stats.dropped(), 2);
        let mut numbers: Vec<u64> = (0..QUEUE).map(|_| batches.try_recv().unwrap().number).collect();
        sender.send(vec![Event::Cleared]);
        numbers.push(batches.try_recv().unwrap().number);
        assert_eq!(numbers[QUEUE - 1..], [QUEUE as u64 - 1, QUEUE as u64 + 2]);
    }
}
