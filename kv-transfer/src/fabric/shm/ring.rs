//! A ring of immediates between one initiator and one target process.
//!
//! Layout: `head: u32` at 0, `tail: u32` at 64 (each alone in its cache line), entries from 128.
//!
//! Why the order is right: the producer copies the payload, stores the entry, then stores `head` with Release. The
//! consumer loads `head` with Acquire, so it sees the entry *and* the payload, as the copy is sequenced before the store.
//! The consumer reads the entry, then stores `tail` with Release; the producer loads `tail` with Acquire before it
//! overwrites an entry, so it never does before it was read.
//!
//! Whom to trust: nobody. Each side keeps its own counter privately, reads only the other's from the shared page, and
//! checks that the two are at most a ring apart; a peer that scribbles can only harm its own ring.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::memory::{Mapping, create_sealed, verify_sealed};

/// Immediates that a target may be behind; a power of two. Full means "try again", never "lost".
pub(crate) const ENTRIES: u32 = 16 << 10;
const HEAD: usize = 0;
const TAIL: usize = 64;
const FIRST_ENTRY: usize = 128;
const RING_BYTES: usize = FIRST_ENTRY + ENTRIES as usize * 4;

/// The other side's counter is impossible.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's ring counter is {theirs} where ours is {ours}: more than {ENTRIES} apart")]
pub(crate) struct RingCorrupt {
    ours: u32,
    theirs: u32,
}

/// The initiator's end.
#[derive(Debug)]
pub(crate) struct Producer {
    memory: Mapping,
    head: u32,
    /// The consumer's counter when last looked at; refreshed only when the ring seems full.
    tail_seen: u32,
}

/// The target's end, which made the ring.
#[derive(Debug)]
pub(crate) struct Consumer {
    memory: Mapping,
    tail: u32,
}

fn entry(position: u32) -> usize {
    FIRST_ENTRY + (position % ENTRIES) as usize * 4
}

impl Producer {
    pub(crate) fn open(fd: &OwnedFd) -> std::io::Result<Self> {
        verify_sealed(fd.as_fd(), RING_BYTES as u64)?;
        Ok(Self { memory: Mapping::shared(fd.as_fd(), RING_BYTES)?, head: 0, tail_seen: 0 })
    }

    /// Whether one more immediate fits.
    pub(crate) fn has_room(&mut self) -> Result<bool, RingCorrupt> {
        if self.head.wrapping_sub(self.tail_seen) < ENTRIES {
            return Ok(true);
        }
        let tail = self.memory.atomic(TAIL).load(Ordering::Acquire);
        let unread = self.head.wrapping_sub(tail);
        if unread > ENTRIES {
            return Err(RingCorrupt { ours: self.head, theirs: tail });
        }
        self.tail_seen = tail;
        Ok(unread < ENTRIES)
    }

    /// Publishes an immediate, and with it everything this thread wrote before. Only after `has_room`.
    pub(crate) fn push(&mut self, immediate: u32) {
        debug_assert!(self.head.wrapping_sub(self.tail_seen) < ENTRIES, "push without room");
        self.memory.atomic(entry(self.head)).store(immediate, Ordering::Relaxed);
        self.head = self.head.wrapping_add(1);
        self.memory.atomic(HEAD).store(self.head, Ordering::Release);
    }
}

impl Consumer {
    pub(crate) fn create() -> std::io::Result<(Self, OwnedFd)> {
        let fd = create_sealed("baton-kv-ring", RING_BYTES as u64)?;
        let memory = Mapping::shared(fd.as_fd(), RING_BYTES)?;
        Ok((Self { memory, tail: 0 }, fd))
    }

    /// Whether something is there, without taking it.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.atomic(HEAD).load(Ordering::Acquire) == self.tail
    }

    /// Takes what is there, at most a ring full.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(u32)) -> Result<(), RingCorrupt> {
        let head = self.memory.atomic(HEAD).load(Ordering::Acquire);
        let unread = head.wrapping_sub(self.tail);
        if unread > ENTRIES {
            return Err(RingCorrupt { ours: self.tail, theirs: head });
        }
        if unread == 0 {
            return Ok(());
        }
        for _ in 0..unread {
            take(self.memory.atomic(entry(self.tail)).load(Ordering::Relaxed));
            self.tail = self.tail.wrapping_add(1);
        }
        self.memory.atomic(TAIL).store(self.tail, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Producer, Consumer) {
        let (consumer, fd) = Consumer::create().unwrap();
        (Producer::open(&fd).unwrap(), consumer)
    }

    #[test]
    fn a_full_ring_says_so_and_loses_nothing() {
        let (mut producer, mut consumer) = pair();
        for i in 0..ENTRIES {
            assert_eq!(producer.has_room(), Ok(true));
            producer.push(i);
        }
        assert_eq!(producer.has_room(), Ok(false));
        let mut taken = Vec::new();
        consumer.drain(|i| taken.push(i)).unwrap();
        assert_eq!(taken, (0..ENTRIES).collect::<Vec<_>>());
        assert!(consumer.is_empty());
        assert_eq!(producer.has_room(), Ok(true));
    }

    #[test]
    fn impossible_counters_are_named_not_followed() {
        let (mut producer, mut consumer) = pair();
        producer.memory.atomic(HEAD).store(ENTRIES + 1, Ordering::Relaxed);
        assert_eq!(
            consumer.drain(|_| panic!("nothing to take")),
            Err(RingCorrupt { ours: 0, theirs: ENTRIES + 1 })
        );
        producer.head = ENTRIES;
        consumer.memory.atomic(TAIL).store(5_000_000, Ordering::Relaxed);
        assert!(producer.has_room().is_err());
    }

    /// Two threads, a payload word per entry written before the push: the consumer must see each payload whole, in
    /// order, across many wraps.
    #[test]
    fn payloads_are_visible_once_their_immediate_is() {
        const ROUNDS: u32 = ENTRIES * 40;
        let (mut producer, mut consumer) = pair();
        let payload: Vec<_> = (0..ENTRIES).map(|_| std::sync::atomic::AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..ROUNDS {
                    while !producer.has_room().unwrap() {
                        std::thread::yield_now();
                    }
                    payload[(i % ENTRIES) as usize].store(i, Ordering::Relaxed);
                    producer.push(i);
                }
            });
            let mut next = 0;
            while next < ROUNDS {
                consumer
                    .drain(|i| {
                        assert_eq!(i, next);
                        assert_eq!(payload[(i % ENTRIES) as usize].load(Ordering::Relaxed), i);
                        next += 1;
                    })
                    .unwrap();
                std::hint::spin_loop();
            }
        });
    }
}
