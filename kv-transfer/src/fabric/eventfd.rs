//! The sleep of fabrics over a library: its descriptor, if it has one to wait on, and an eventfd for wake-ups of this process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::Wake;

/// Wakes one sleeper.
pub(super) struct Eventfd(OwnedFd);

impl Wake for Eventfd {
    fn wake(&self) {
        // Only a counter at its maximum refuses, and then the sleeper wakes anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Eventfd {
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Sleeps until a wake-up, one of at most `N - 1` descriptors is readable, a signal, or the time-out. Takes the wake-ups that
    /// were there.
    pub(super) fn sleep<'a, const N: usize>(
        &'a self,
        others: impl Iterator<Item = BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let own = || PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN);
        // Those that no descriptor is for wait for the wake-up, too.
        let mut polled: [PollFd<'a>; N] = std::array::from_fn(|_| own());
        for (place, other) in polled.iter_mut().skip(1).zip(others) {
            *place = PollFd::from_borrowed_fd(other, PollFlags::IN);
        }
        let timeout = timeout.and_then(|timeout| rustix::time::Timespec::try_from(timeout).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
        Ok(())
    }
}
