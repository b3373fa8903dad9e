//! What ends the data thread's sleep. NIXL itself wakes nobody.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::object::fault;
use crate::FabricError;
use crate::fabric::Wake;

pub(super) struct Eventfd(OwnedFd);

impl Eventfd {
    pub(super) fn open() -> Result<Self, FabricError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        eventfd(0, flags).map(Self).map_err(|error| fault("eventfd", &error))
    }

    /// Returns when woken, or after the time-out.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> Result<(), FabricError> {
        let mut fds = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        let timeout = timeout.and_then(|timeout| rustix::time::Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(fault("poll", &error)),
        }
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
        Ok(())
    }
}

impl Wake for Eventfd {
    fn wake(&self) {
        // Only a counter at its maximum refuses, and then the sleeper wakes anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}
