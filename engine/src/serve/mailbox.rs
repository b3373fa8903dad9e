//! What others want of the engine's thread, and how it sleeps while they want nothing.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Shutdown, waiting::Waiting};

/// Position in the order of arrival; the engine's order for everything. Kept when a sequence is preempted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Arrival(pub(super) u64);

/// Bounded by the requests that exist: each is enqueued at most twice (reservation, sequence) and cancelled at most as often.
/// What is said of the whole engine comes from its operator.
pub(super) enum Command {
    /// Wait for room, then run.
    Enqueue(Arrival, Waiting),
    /// Nobody wants the result any more.
    Cancel(Arrival),
    /// Forget all cached prefixes.
    ClearCache,
    /// Tell the observer all that is cached.
    TellCache,
    /// End.
    Shutdown(Shutdown),
}

/// How long the engine's thread waits for something to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    Until(Instant),
    Unlimited,
}

/// The command queue of the engine's thread.
#[derive(Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    commands: VecDeque<Command>,
    room: bool,
    closed: bool,
}

impl Mailbox {
    /// Hands over a command; gives it back when the engine has ended.
    pub(super) fn post(&self, command: Command) -> Result<(), Box<Command>> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Box::new(command));
        }
        inner.commands.push_back(command);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Says that there may be more room than there was.
    pub(super) fn notify_room(&self) {
        self.lock().room = true;
        self.changed.notify_one();
    }

    /// Waits for a command or for room, as long as `patience` lasts, and takes all commands there are.
    pub(super) fn take(&self, patience: Patience) -> VecDeque<Command> {
        let mut inner = self.lock();
        while inner.commands.is_empty() && !inner.room {
            inner = match patience {
                Patience::None => break,
                Patience::Unlimited => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Patience::Until(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        break;
                    }
                    self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        inner.room = false;
        std::mem::take(&mut inner.commands)
    }

    /// Refuses commands from here on and returns those not taken yet, to be dropped or answered without the lock.
    pub(super) fn close(&self) -> VecDeque<Command> {
        let mut inner = self.lock();
        inner.closed = true;
        std::mem::take(&mut inner.commands)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
