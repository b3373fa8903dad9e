//! An engine in slow motion: as on a processor that is so much slower.
//!
//! Several workers on one small machine are each given a part of it, so that splits of many workers can be compared there. A step that took `t` of processor time
//! ends `t / share` after it began: what it had to wait for a processor meanwhile is part of the pause, and steps take the same each time,
//! which groups of processes with quotas (that stop and go by the clock tick) do not give.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Of one step.
pub(super) struct Throttle {
    share: f64,
    begun: Instant,
    /// Of this thread until then. Others that compute with it take about as long.
    cpu: Duration,
}

impl Throttle {
    /// A step begins that may use so many percent of its processors; `None` for all.
    pub(super) fn begin(percent: u8) -> Option<Self> {
        let share = f64::from(percent) / 100.0;
        (percent < 100).then(|| Self { share, begun: Instant::now(), cpu: thread_cpu() })
    }

    /// Returns when the step would have ended.
    pub(super) fn end(self) {
        let used = thread_cpu().saturating_sub(self.cpu);
        let ends = self.begun + used.div_f64(self.share);
        thread::sleep(ends.saturating_duration_since(Instant::now()));
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(cpu: Duration) {
        let begun = thread_cpu();
        while thread_cpu().saturating_sub(begun) < cpu {}
    }

    #[test]
    fn a_step_takes_so_many_times_as_long() {
        let begun = Instant::now();
        let throttle = Throttle::begin(25).unwrap();
        work(Duration::from_millis(5));
        throttle.end();
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
        assert!(Throttle::begin(100).is_none());
    }

    #[test]
    fn waiting_for_a_processor_is_part_of_the_pause() {
        let begun = Instant::now();
        let throttle = Throttle::begin(1).unwrap();
        thread::sleep(Duration::from_millis(200));
        let paused = Instant::now();
        throttle.end();
        // A hundred times the little that a sleep costs, of which more than it has passed already.
        assert!(paused.elapsed() < begun.elapsed() / 2, "{:?} of {:?}", paused.elapsed(), begun.elapsed());
    }
}
