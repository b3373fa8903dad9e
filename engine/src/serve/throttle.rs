//! An engine in slow motion: as on a slower processor, or as on a machine that one does not have.
//!
//! Several workers on one small machine are each given a part of it, so that splits of many workers can be compared there. At a [`Speed::Share`] a step that took `t`
//! of processor time ends `t / share` after it began: what it had to wait for a processor meanwhile is part of the pause, and steps take the same each
//! time, which groups of processes with quotas (that stop and go by the clock tick) do not give. By a [`Speed::Profile`] a step ends when that says; its layers become
//! final one after the other in that time, as if they were computed evenly.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use baton_profile::{Profile, StepShape};
use rustix::time::{ClockId, clock_gettime};

/// How long an engine's steps take.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Speed {
    /// As long as computing them does.
    #[default]
    Full,
    /// As on processors of which it has this part, in percent (1 to 100).
    Share(u8),
    /// As long as this says, whatever they compute; longer only where computing is. Steps with drafts as if they had none.
    Profile(Arc<Profile>),
}

/// What a timer or a message was late is made up for in the next steps, up to so much.
const MADE_UP: Duration = Duration::from_millis(1);
/// From so many steps on that took longer than their profile says, that is logged, at each doubling.
const MANY: u64 = 16;

/// Lets steps end when they should.
#[derive(Debug)]
pub(super) struct Throttle {
    speed: Speed,
    /// When the step before ended or should have, if the next one follows it at once.
    ended: Option<Instant>,
    late_steps: u64,
}

/// A step under way.
pub(super) struct Timed {
    begun: Instant,
    length: Length,
}

enum Length {
    Computed,
    /// Processor time of this thread when it began. Others that compute with it take about as long.
    Share {
        share: f64,
        cpu: Duration,
    },
    Given(Duration),
}

impl Throttle {
    pub(super) fn new(speed: Speed) -> Self {
        Self { speed, ended: None, late_steps: 0 }
    }

    /// There is nothing to compute.
    pub(super) fn rest(&mut self) {
        self.ended = None;
    }

    /// A step begins that computes this.
    pub(super) fn begin(&self, shape: &StepShape) -> Timed {
        let now = Instant::now();
        match &self.speed {
            Speed::Full => Timed { begun: now, length: Length::Computed },
            Speed::Share(percent) => {
                let share = f64::from(*percent) / 100.0;
                Timed { begun: now, length: Length::Share { share, cpu: thread_cpu() } }
            }
            Speed::Profile(profile) => {
                let length = Duration::try_from_secs_f64(profile.step_ms(shape) / 1e3).unwrap_or_default();
                Timed { begun: self.ended.unwrap_or(now), length: Length::Given(length) }
            }
        }
    }

    /// Returns when the step would have ended.
    pub(super) fn end(&mut self, step: &Timed) {
        step.wait(1.0);
        if let Length::Given(length) = step.length {
            let (now, ends) = (Instant::now(), step.begun + length);
            self.ended = Some(ends.max(now.checked_sub(MADE_UP).unwrap_or(now)));
            self.late_steps += u64::from(now > ends + MADE_UP);
            if now > ends + MADE_UP && self.late_steps >= MANY && self.late_steps.is_power_of_two() {
                let late_steps = self.late_steps;
                tracing::warn!(
                    late_steps,
                    "steps take longer than the profile says that paces them: computing them does, here"
                );
            }
        }
    }
}

impl Timed {
    /// Returns when this part (0 to 1) of the step, which is computed, would have been.
    pub(super) fn wait(&self, part: f64) {
        let ends = match self.length {
            Length::Computed => return,
            Length::Share { share, cpu } => self.begun + thread_cpu().saturating_sub(cpu).div_f64(share),
            Length::Given(length) => self.begun + length.mul_f64(part),
        };
        thread::sleep(ends.saturating_duration_since(Instant::now()));
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use baton_profile::Estimate;

    use super::*;

    fn work(cpu: Duration) {
        let begun = thread_cpu();
        while thread_cpu().saturating_sub(begun) < cpu {}
    }

    fn step() -> StepShape {
        StepShape { sequences: 1, ..StepShape::default() }
    }

    /// 16 GB of weights, over and over: steps of about 8 ms.
    fn slow() -> (Throttle, Duration) {
        let profile = Arc::new(Estimate::of("p5", "llama-3.1-8b").unwrap().profile().unwrap());
        let length = Duration::from_secs_f64(profile.step_ms(&step()) / 1e3);
        assert!(length > Duration::from_millis(5), "{length:?}");
        (Throttle::new(Speed::Profile(profile)), length)
    }

    #[test]
    fn a_step_takes_so_many_times_as_long() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(Speed::Share(25));
        let step = throttle.begin(&step());
        work(Duration::from_millis(5));
        throttle.end(&step);
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn waiting_for_a_processor_is_part_of_the_pause() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(Speed::Share(1));
        let step = throttle.begin(&step());
        thread::sleep(Duration::from_millis(200));
        let paused = Instant::now();
        throttle.end(&step);
        // A hundred times the little that a sleep costs, of which more than it has passed already.
        assert!(paused.elapsed() < begun.elapsed() / 2, "{:?} of {:?}", paused.elapsed(), begun.elapsed());
    }

    #[test]
    fn a_profile_says_when_each_part_of_a_step_ends() {
        let (mut throttle, length) = slow();
        let begun = Instant::now();
        let timed = throttle.begin(&step());
        timed.wait(0.5);
        assert!(begun.elapsed() >= length / 2, "{:?}", begun.elapsed());
        throttle.end(&timed);
        assert!(begun.elapsed() >= length, "{:?}", begun.elapsed());
    }

    /// Steps that follow each other are as far apart as they should be, not as timers make them.
    #[test]
    fn a_step_that_follows_begins_where_the_one_before_should_have_ended() {
        let (mut throttle, length) = slow();
        let first = throttle.begin(&step());
        throttle.end(&first);
        let second = throttle.begin(&step());
        let late = second.begun.saturating_duration_since(first.begun + length);
        // However late this thread was woken, only so much of that is made up for.
        assert!(second.begun >= first.begun + length && second.begun + MADE_UP + late >= Instant::now());
        throttle.rest();
        assert!(throttle.begin(&step()).begun >= second.begun);
        assert!(throttle.ended.is_none());
    }

    #[test]
    fn steps_that_take_too_long_are_counted_and_not_made_up_for() {
        let (mut throttle, length) = slow();
        let late = throttle.begin(&step());
        work(length + 4 * MADE_UP);
        throttle.end(&late);
        assert_eq!(throttle.late_steps, 1);
        let next = throttle.begin(&step());
        assert!(next.begun > late.begun + length);
    }
}
