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
        let wakers = loop {
            let mut state = self.lock();
            if state.guards.is_empty() {
                state.open = true;
                break std::mem::take(&mut state.wakers);
            }
            // Outside the lock, as guards run foreign code; and gone before anyone is told, or comes and looks.
            let guards = std::mem::take(&mut state.guards);
            drop(state);
            drop(guards);
        };
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
    use std::sync::mpsc;

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

    /// A guard whose end takes a while.
    struct Slow(mpsc::Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    #[test]
    fn nobody_is_told_while_a_guard_is_still_going() {
        let latch = Arc::new(Latch::default());
        let (go, wait) = mpsc::channel();
        latch.hold(Box::new(Slow(wait)));
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| latch.open());
            while !latch.lock().guards.is_empty() {
                std::thread::yield_now();
            }
            let mut quiesced = Quiesced(latch.clone());
            let told = |quiesced: &mut Quiesced| {
                Pin::new(quiesced).poll(&mut Context::from_waker(Waker::noop())).is_ready()
            };
            let early = told(&mut quiesced) || quiesced.is_quiet();
            // Held in the middle of opening: it goes with the others.
            let late = Arc::new(());
            latch.hold(Box::new(late.clone()));
            drop(go);
            opener.join().unwrap();
            assert!(!early, "told before the guard was gone");
            assert!(told(&mut quiesced));
            assert_eq!(Arc::strong_count(&late), 1);
        });
    }
}
