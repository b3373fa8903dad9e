//! The way into the data thread. Pushes are bounded; everything else is bounded by what it is about (peers, transfers).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Command;
use crate::DataPlaneFailed;
use crate::fabric::Wake;
use crate::stats::Counters;

/// Commands on their way to the data thread.
pub(crate) struct CommandQueue {
    state: Mutex<State>,
    room: Condvar,
    waker: Arc<dyn Wake>,
    counters: Arc<Counters>,
    push_limit: usize,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    /// Pushes queued here or not wholly posted by the thread.
    pushes: usize,
    closed: bool,
    /// Why it is closed, if the data thread did not end in good order.
    failure: Option<DataPlaneFailed>,
}

/// Why a push was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Full for the whole patience.
    Full { limit: usize },
    /// The data thread has ended.
    Closed,
}

impl CommandQueue {
    pub(crate) fn new(waker: Arc<dyn Wake>, counters: Arc<Counters>, push_limit: usize) -> Self {
        Self { state: Mutex::default(), room: Condvar::new(), waker, counters, push_limit }
    }

    /// Queues a command; on a closed queue it is dropped, and with it its reply channel.
    pub(crate) fn send(&self, command: Command) {
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.commands.push_back(command);
        }
        self.waker.wake();
    }

    /// Makes the thread look around: something it polls for may be due.
    pub(crate) fn nudge(&self) {
        self.waker.wake();
    }

    /// Queues a push, waiting up to `patience` for room.
    pub(crate) fn push(&self, command: Command, patience: Duration) -> Result<(), NoRoom> {
        let give_up = Instant::now() + patience;
        let mut state = self.lock();
        while !state.closed && state.pushes >= self.push_limit {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoRoom::Full { limit: self.push_limit });
            }
            (state, _) = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(NoRoom::Closed);
        }
        self.queue_push(state, command);
        Ok(())
    }

    /// Queues a push beyond the bound; on a closed queue it is dropped.
    pub(crate) fn push_at_once(&self, command: Command) {
        let state = self.lock();
        if !state.closed {
            self.queue_push(state, command);
        }
    }

    fn queue_push(&self, mut state: MutexGuard<'_, State>, command: Command) {
        state.pushes += 1;
        state.commands.push_back(command);
        // Under the lock, or the data thread could be done with the push and count it off before.
        self.counters.queued_pushes.add(1);
        drop(state);
        self.waker.wake();
    }

    /// Swaps what is queued with the thread's empty deque.
    pub(crate) fn take(&self, into: &mut VecDeque<Command>) {
        debug_assert!(into.is_empty(), "taken commands were carried out");
        std::mem::swap(&mut self.lock().commands, into);
    }

    /// `n` pushes are wholly posted or dropped.
    pub(crate) fn pushes_done(&self, n: usize) {
        if n > 0 {
            self.lock().pushes -= n;
            self.counters.queued_pushes.sub(n as u64);
            self.room.notify_all();
        }
    }

    /// Ends the queue; drops what is in it. The first end stands.
    pub(crate) fn close(&self, failure: Option<DataPlaneFailed>) {
        let dropped = {
            let mut state = self.lock();
            if !std::mem::replace(&mut state.closed, true) {
                state.failure = failure;
            }
            std::mem::take(&mut state.commands)
        };
        self.room.notify_all();
        drop(dropped);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Why the data plane ended, if it was not told to.
    pub(crate) fn failure(&self) -> Option<DataPlaneFailed> {
        self.lock().failure.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CommandQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandQueue").field("pushes", &self.lock().pushes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Still;

    impl Wake for Still {
        fn wake(&self) {}
    }

    fn queue(limit: usize) -> CommandQueue {
        CommandQueue::new(Arc::new(Still), Arc::default(), limit)
    }

    #[test]
    fn a_full_queue_waits_then_refuses_and_room_lets_the_waiter_in() {
        let queue = queue(1);
        let push = |patience| queue.push(Command::Stop, patience);
        push(Duration::ZERO).unwrap();
        assert_eq!(push(Duration::from_millis(1)), Err(NoRoom::Full { limit: 1 }));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| push(Duration::from_secs(60)));
            queue.pushes_done(1);
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
        assert_eq!(queue.counters.queued_pushes.get(), 1);
    }

    #[test]
    fn closing_lets_everyone_go() {
        let queue = queue(1);
        queue.push(Command::Stop, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.push(Command::Stop, Duration::from_secs(60)));
            queue.close(None);
            assert_eq!(waiter.join().unwrap(), Err(NoRoom::Closed));
        });
    }
}
