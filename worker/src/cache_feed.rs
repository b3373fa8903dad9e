//! What this worker has cached, for the schedulers that it has joined: all of it first, then each change, in order and without gaps.
//!
//! ```text
//!   engine's thread ── changed, all ──► CacheFeeds ──► CacheFeed (bounded) ──► Registration ──► scheduler
//!                   ◄───────────── tell_cache ────────────┘  at its beginning, and when it has overflowed
//! ```
//! A scheduler that is slow loses nothing for good: its feed drops what it has and begins again with all that is cached then.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use baton_kv_events::{Event, Format, encode_batch};
use baton_proto::v1::CacheReport;
use bytes::Bytes;
use tokio::sync::Notify;

/// Tokens in a feed's queue: more than a pool holds, seldom; some ten megabytes.
const MOST_TOKENS: usize = 4 << 20;
/// Tokens of one report, if its events can be divided: some hundred kilobytes.
const REPORT_TOKENS: usize = 64 << 10;

/// All feeds of a worker; clones share them.
#[derive(Clone, Default)]
pub(crate) struct CacheFeeds(Arc<Mutex<Vec<Weak<Inner>>>>);

/// One scheduler's.
pub(crate) struct CacheFeed(Arc<Inner>);

#[derive(Default)]
struct Inner {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    state: State,
    /// The next report is the first of all.
    begins: bool,
    batches: VecDeque<Vec<Event>>,
    tokens: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nobody has asked the engine for all yet.
    #[default]
    Unasked,
    /// What happens now will be part of all.
    Asked,
    Following,
}

impl CacheFeeds {
    /// A new one, which begins with all that is cached.
    pub(crate) fn subscribe(&self) -> CacheFeed {
        let inner = Arc::<Inner>::default();
        let mut feeds = self.lock();
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&inner));
        CacheFeed(inner)
    }

    /// Whether anybody listens.
    pub(crate) fn are_wanted(&self) -> bool {
        self.lock().iter().any(|feed| feed.strong_count() > 0)
    }

    /// Something happened.
    pub(crate) fn changed(&self, events: &[Event]) {
        self.each(|feed| feed.changed(events));
    }

    /// All that is cached, as somebody has asked.
    pub(crate) fn all(&self, stored: Vec<Event>) {
        self.each(|feed| feed.all(&stored));
    }

    fn each(&self, mut tell: impl FnMut(&Inner)) {
        self.lock().iter().filter_map(Weak::upgrade).for_each(|feed| tell(&feed));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Inner>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheFeed {
    /// The next report. `ask` has the engine tell all that is cached.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn next(&self, ask: impl Fn()) -> CacheReport {
        loop {
            let changed = self.0.changed.notified();
            let (is_unasked, taken) = self.0.take();
            if is_unasked {
                ask();
            }
            if let Some((begins, events)) = taken {
                let batch = Bytes::from(encode_batch(0.0, &events, Format::Array));
                return CacheReport { begins, batch };
            }
            changed.await;
        }
    }
}

impl Inner {
    fn changed(&self, events: &[Event]) {
        let mut queue = self.lock();
        if queue.state != State::Following {
            return;
        }
        queue.push(events.to_vec());
        if queue.tokens > MOST_TOKENS {
            *queue = Queue::default();
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn all(&self, stored: &[Event]) {
        let mut queue = self.lock();
        if queue.state != State::Asked {
            return;
        }
        *queue = Queue { state: State::Following, begins: true, ..Queue::default() };
        let mut rest = stored;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |event: &&Event| {
                tokens += tokens_of(event);
                tokens <= REPORT_TOKENS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (batch, later) = rest.split_at(count);
            queue.push(batch.to_vec());
            rest = later;
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Whether all has to be asked for, now; and what comes next, with a mark on the first.
    fn take(&self) -> (bool, Option<(bool, Vec<Event>)>) {
        let mut queue = self.lock();
        let is_unasked = queue.state == State::Unasked;
        if is_unasked {
            queue.state = State::Asked;
        }
        let begins = std::mem::take(&mut queue.begins);
        let Some(events) = queue.batches.pop_front() else {
            // Nothing is cached, which is news, too.
            return (is_unasked, begins.then(|| (true, Vec::new())));
        };
        queue.tokens -= events.iter().map(tokens_of).sum::<usize>();
        (is_unasked, Some((begins, events)))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, events: Vec<Event>) {
        self.tokens += events.iter().map(tokens_of).sum::<usize>();
        self.batches.push_back(events);
    }
}

/// What an event weighs; one that stores nothing has some bytes, too.
fn tokens_of(event: &Event) -> usize {
    match event {
        Event::Stored(stored) => stored.token_ids.len() + 8,
        Event::Removed { hashes } => 2 * hashes.len() + 8,
        Event::Cleared => 8,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt as _;

    use super::*;

    fn removed(hash: u64) -> Event {
        Event::Removed { hashes: vec![hash] }
    }

    fn large(tokens: usize) -> Event {
        Event::Removed { hashes: vec![1; tokens / 2] }
    }

    fn report(begins: bool, events: &[Event]) -> Option<CacheReport> {
        Some(CacheReport { begins, batch: encode_batch(0.0, events, Format::Array).into() })
    }

    struct Bed {
        feeds: CacheFeeds,
        feed: CacheFeed,
        asked: Cell<usize>,
    }

    impl Bed {
        fn new() -> Self {
            let feeds = CacheFeeds::default();
            Self { feed: feeds.subscribe(), feeds, asked: Cell::new(0) }
        }

        fn next(&self) -> Option<CacheReport> {
            self.feed.next(|| self.asked.set(self.asked.get() + 1)).now_or_never()
        }
    }

    #[test]
    fn all_comes_first_and_then_each_change_in_order() {
        let bed = Bed::new();
        bed.feeds.changed(&[removed(1)]);
        assert_eq!(bed.next(), None, "what was before is part of all");
        bed.feeds.changed(&[removed(2)]);
        bed.feeds.all(vec![removed(3)]);
        bed.feeds.changed(&[removed(4)]);
        bed.feeds.changed(&[removed(5)]);
        assert_eq!(bed.next(), report(true, &[removed(3)]));
        assert_eq!(bed.next(), report(false, &[removed(4)]));
        assert_eq!(bed.next(), report(false, &[removed(5)]));
        assert_eq!((bed.next(), bed.asked.get()), (None, 1));
        bed.feeds.all(vec![removed(6)]);
        assert_eq!(bed.next(), None, "another scheduler had asked");
    }

    #[test]
    fn an_empty_cache_is_told_and_a_large_one_in_pieces() {
        let bed = Bed::new();
        assert_eq!(bed.next(), None);
        bed.feeds.all(Vec::new());
        assert_eq!(bed.next(), report(true, &[]));

        let bed = Bed::new();
        assert_eq!(bed.next(), None);
        let huge = large(2 * REPORT_TOKENS);
        bed.feeds.all(vec![removed(1), removed(2), huge.clone(), removed(3)]);
        assert_eq!(bed.next(), report(true, &[removed(1), removed(2)]));
        assert_eq!(bed.next(), report(false, &[huge]));
        assert_eq!(bed.next(), report(false, &[removed(3)]));
    }

    #[test]
    fn a_feed_that_nobody_reads_begins_again() {
        let bed = Bed::new();
        assert_eq!(bed.next(), None);
        bed.feeds.all(vec![removed(1)]);
        bed.feeds.changed(&[large(MOST_TOKENS)]);
        bed.feeds.changed(&[removed(2)]);
        assert_eq!((bed.next(), bed.asked.get()), (None, 2), "it asks again");
        bed.feeds.all(vec![removed(3)]);
        assert_eq!(bed.next(), report(true, &[removed(3)]));
        assert!(bed.feeds.are_wanted());
        let Bed { feeds, feed, .. } = bed;
        drop(feed);
        assert!(!feeds.are_wanted());
    }
}
