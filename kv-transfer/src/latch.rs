//! The moment after which nobody touches a transfer's blocks any more, and what waits for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Opens once, for good; drops what it holds when it opens.
#[derive(Default)]
pub(crate) struct Latch(Mutex<LatchState>);

#[derive(Default)]
struct LatchState {
    open: bool,
    wakers: Vec<Waker>,
    guards: Vec<Box<dyn Send>>,
}

impl Latch {
    pub(crate) fn open(&self) {
        let taken = {
            let mut state = self.lock();
            state.open = true;
            (std::mem::take(&mut state.wakers), std::mem::take(&mut state.guards))
        };
        // Outside the lock: guards run foreign code, and must be gone before anyone is told.
        let (wakers, guards) = taken;
        drop(guards);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().open
    }

    pub(crate) fn hold(&self, guard: Box<dyn Send>) {
        let mut state = self.lock();
        if state.open {
            drop(state);
            drop(guard);
        } else {
            state.guards.push(guard);
        }
    }

    fn poll_open(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.open {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Latch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latch").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

/// Resolves once no peer and no fabric can touch the blocks of an ended transfer.
///
/// Until then those blocks must not be given to anyone else. Whoever would rather not wait hands over what owns them
/// with [`hold`](Self::hold).
///
/// # Cancel safety
/// Dropping it loses nothing but the news: the fence stays until quiescence.
#[derive(Clone, Debug)]
#[must_use = "the blocks may be reused only once this resolved; `hold` their lease if nobody waits"]
pub struct Quiesced(pub(crate) Arc<Latch>);

impl Quiesced {
    /// Keeps `guard` (the lease of the blocks) until quiescence and drops it then, on whichever thread learns of it;
    /// its `Drop` must be quick.
    pub fn hold(self, guard: impl Send + 'static) {
        self.0.hold(Box::new(guard));
    }

    /// Whether quiescence was reached.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.is_open()
    }
}

impl Future for Quiesced {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_open(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn guards_go_when_it_opens_and_not_before() {
        let latch = Arc::new(Latch::default());
        let lease = Arc::new(());
        Quiesced(latch.clone()).hold(lease.clone());
        let waiter = tokio::spawn(Quiesced(latch.clone()));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&lease), 2);
        latch.open();
        waiter.await.unwrap();
        assert_eq!(Arc::strong_count(&lease), 1);
        Quiesced(latch).hold(lease.clone());
        assert_eq!(Arc::strong_count(&lease), 1, "an open latch keeps nothing");
    }
}
