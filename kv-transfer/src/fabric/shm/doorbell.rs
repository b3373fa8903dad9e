//! How a target sleeps and is woken: a futex word in a page that all its initiators map.
//!
//! The target announces its sleep (`word = ASLEEP`), fences, looks at its rings once more, and only then sleeps. An
//! initiator publishes, fences, then looks at the word. With a sequentially consistent fence on both sides at least one
//! sees the other's store: either the target finds the entry, or the initiator finds it asleep and wakes it.
//!
//! Peers can scribble over the word. The worst they can do is to end our sleep early or to fail to end it; so wake-ups
//! of this process go by a private flag as well.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::thread::futex;

use crate::fabric::Wake;
use crate::memory::{Mapping, create_sealed, verify_sealed};

const PAGE_BYTES: usize = 4096;
const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// The target's own doorbell.
#[derive(Debug)]
pub(crate) struct Doorbell {
    memory: Mapping,
    /// Set by a waker of this process, taken by the sleeper.
    rung_here: AtomicBool,
}

/// An initiator's view of a target's doorbell.
#[derive(Debug)]
pub(crate) struct PeerDoorbell(Mapping);

impl Doorbell {
    pub(crate) fn create() -> std::io::Result<(Arc<Self>, OwnedFd)> {
        let fd = create_sealed("baton-kv-doorbell", PAGE_BYTES as u64)?;
        let memory = Mapping::shared(fd.as_fd(), PAGE_BYTES)?;
        Ok((Arc::new(Self { memory, rung_here: AtomicBool::new(false) }), fd))
    }

    /// Sleeps unless `has_work` after the announcement, or a waker of this process came first.
    pub(crate) fn sleep_unless(
        &self,
        has_work: impl FnOnce() -> bool,
        timeout: Option<Duration>,
    ) -> std::io::Result<()> {
        let word = self.memory.atomic(0);
        word.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = if self.rung_here.swap(false, Ordering::SeqCst) || has_work() {
            Ok(())
        } else {
            let timeout = timeout.and_then(|timeout| rustix::time::Timespec::try_from(timeout).ok());
            futex::wait(word, futex::Flags::empty(), ASLEEP, timeout.as_ref())
        };
        word.store(AWAKE, Ordering::Relaxed);
        self.rung_here.store(false, Ordering::SeqCst);
        match slept {
            Ok(())
            | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::TIMEDOUT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Wake for Doorbell {
    fn wake(&self) {
        // The flag first: a sleeper that has not yet looked at it will; one that has is in the futex, or sees the word.
        self.rung_here.store(true, Ordering::SeqCst);
        let word = self.memory.atomic(0);
        word.store(AWAKE, Ordering::SeqCst);
        let _ = futex::wake(word, futex::Flags::empty(), u32::MAX);
    }
}

impl PeerDoorbell {
    pub(crate) fn open(fd: &OwnedFd) -> std::io::Result<Self> {
        verify_sealed(fd.as_fd(), PAGE_BYTES as u64)?;
        Ok(Self(Mapping::shared(fd.as_fd(), PAGE_BYTES)?))
    }

    /// Wakes the target if it sleeps; a load and a fence if it does not.
    pub(crate) fn ring(&self) {
        let word = self.0.atomic(0);
        fence(Ordering::SeqCst);
        if word.load(Ordering::Relaxed) != AWAKE && word.swap(AWAKE, Ordering::SeqCst) != AWAKE {
            let _ = futex::wake(word, futex::Flags::empty(), u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// A lost wake-up would hang here: each round sleeps without time-out until the other thread published.
    #[test]
    fn no_wakeup_is_lost() {
        const ROUNDS: u32 = 50_000;
        let (doorbell, fd) = Doorbell::create().unwrap();
        let peer = PeerDoorbell::open(&fd).unwrap();
        let (published, seen) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    published.store(round, Ordering::Release);
                    if round % 2 == 0 {
                        peer.ring()
                    } else {
                        doorbell.wake()
                    }
                    while seen.load(Ordering::Acquire) != round {
                        std::hint::spin_loop();
                    }
                }
            });
            for round in 1..=ROUNDS {
                while published.load(Ordering::Acquire) < round {
                    doorbell.sleep_unless(|| published.load(Ordering::Acquire) >= round, None).unwrap();
                }
                seen.store(round, Ordering::Release);
            }
        });
    }
}
