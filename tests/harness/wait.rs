//! Waiting for a condition that another process brings about.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for anything that should happen soon: generous, because it is only ever spent by a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition of another process.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Returns what `look` finds as soon as it finds it; fails with `what` and the last reason when it never does.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// [`eventually`] with a deadline of the caller's.
pub(crate) fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if start.elapsed() > deadline => panic!("not within {deadline:?}: {what}: {reason}"),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}
