//! A token bucket: filled evenly, holds a minute's worth, and may be in debt.
//!
//! Whole numbers only, so that nothing is lost or won by rounding: the level counts sixty-billionths of a thing, of which a
//! nanosecond brings as many as the limit allows a minute.

use std::time::{Duration, Instant};

/// Parts of one thing; nanoseconds of a minute.
const PARTS: i128 = 60_000_000_000;

/// How much of a limit is left. It knows no clock: it is told what time it is.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_minute: u64,
    /// In parts; below 0: taken in advance.
    level: i128,
    at: Instant,
}

/// Not enough in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// There will be, after this time, if nobody else takes it.
    For(Duration),
    /// More than it ever holds.
    Forever,
}

/// What clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Until it is full again.
    pub(crate) reset: Duration,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(per_minute: u64, now: Instant) -> Self {
        Self { per_minute, level: capacity(per_minute), at: now }
    }

    /// Another limit from now on. What was used stays used.
    pub(crate) fn set_limit(&mut self, per_minute: u64, now: Instant) {
        self.refill(now);
        let used = capacity(self.per_minute) - self.level;
        self.per_minute = per_minute;
        self.level = capacity(per_minute) - used;
    }

    /// Whether so much can be taken.
    pub(crate) fn check(&mut self, amount: u64, now: Instant) -> Result<(), Short> {
        self.refill(now);
        let missing = parts(amount) - self.level;
        if missing <= 0 {
            Ok(())
        } else if amount > self.per_minute {
            Err(Short::Forever)
        } else {
            Err(Short::For(self.time_for(missing)))
        }
    }

    /// Takes so much, even if it is not there.
    pub(crate) fn take(&mut self, amount: u64, now: Instant) {
        self.refill(now);
        self.level = self.level.saturating_sub(parts(amount));
    }

    /// Puts back what was taken and not used.
    pub(crate) fn put_back(&mut self, amount: u64, now: Instant) {
        self.refill(now);
        self.level = self.level.saturating_add(parts(amount)).min(capacity(self.per_minute));
    }

    pub(crate) fn rate(&mut self, now: Instant) -> Rate {
        self.refill(now);
        Rate {
            limit: self.per_minute,
            remaining: u64::try_from(self.level.max(0) / PARTS).unwrap_or(u64::MAX),
            reset: self.time_for(capacity(self.per_minute) - self.level),
        }
    }

    fn refill(&mut self, now: Instant) {
        // Callers read the clock before they wait for their turn, so one may be late; time does not go back for it.
        let elapsed = now.saturating_duration_since(self.at);
        self.at += elapsed;
        let brought = i128::try_from(elapsed.as_nanos())
            .unwrap_or(i128::MAX)
            .saturating_mul(i128::from(self.per_minute));
        self.level = self.level.saturating_add(brought).min(capacity(self.per_minute));
    }

    /// Rounded up: who comes back then is served.
    fn time_for(&self, parts: i128) -> Duration {
        let per_nanosecond = i128::from(self.per_minute).max(1);
        let nanoseconds = (parts.max(0) + per_nanosecond - 1) / per_nanosecond;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

fn capacity(per_minute: u64) -> i128 {
    parts(per_minute)
}

fn parts(amount: u64) -> i128 {
    i128::from(amount) * PARTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_full_at_first_is_emptied_and_fills_evenly() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        bucket.take(60, start);
        assert_eq!(bucket.check(1, start), Err(Short::For(Duration::from_secs(1))));
        assert_eq!(bucket.check(61, start), Err(Short::Forever));
        let later = start + Duration::from_millis(2500);
        assert_eq!(bucket.check(2, later), Ok(()));
        assert_eq!(
            bucket.rate(later),
            Rate { limit: 60, remaining: 2, reset: Duration::from_millis(57_500) }
        );
        let much_later = start + Duration::from_secs(1 << 40);
        assert_eq!(bucket.rate(much_later), Rate { limit: 60, remaining: 60, reset: Duration::ZERO });
    }

    #[test]
    fn debts_are_paid_first_and_time_does_not_go_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        bucket.take(90, start);
        assert_eq!(bucket.rate(start).remaining, 0);
        assert_eq!(bucket.check(1, start), Err(Short::For(Duration::from_secs(31))));
        let later = start + Duration::from_secs(31);
        assert_eq!(bucket.check(1, later), Ok(()));
        assert_eq!(bucket.check(1, start), Ok(()));
        assert_eq!(bucket.check(2, later), Err(Short::For(Duration::from_secs(1))));
    }

    #[test]
    fn another_limit_forgives_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        bucket.take(50, start);
        bucket.set_limit(100, start);
        assert_eq!(bucket.rate(start).remaining, 50);
        bucket.set_limit(20, start);
        assert_eq!(bucket.rate(start).remaining, 0);
        assert_eq!(
            bucket.check(1, start),
            Err(Short::For(Duration::from_secs(93))),
            "30 owed at 20 a minute"
        );
    }

    proptest! {
        /// Whatever is asked when: over each stretch of time, no more than a minute's worth and what the stretch brings.
        #[test]
        fn no_schedule_gets_more_than_the_limit_and_one_burst(
            per_minute in 1..5_000_u64,
            steps in prop::collection::vec((0..20_000_u64, 1..3_000_u64), 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(per_minute, start);
            let (mut now, mut admitted) = (start, Vec::new());
            for (wait_ms, amount) in steps {
                now += Duration::from_millis(wait_ms);
                match bucket.check(amount, now) {
                    Ok(()) => {
                        bucket.take(amount, now);
                        admitted.push((now, amount));
                    }
                    Err(Short::Forever) => prop_assert!(amount > per_minute),
                    Err(Short::For(wait)) => {
                        prop_assert_eq!(bucket.clone().check(amount, now + wait), Ok(()), "the wait is long enough");
                        let early = wait.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(bucket.clone().check(amount, now + early).is_err(), "and not too long");
                    }
                }
            }
            for (first, (since, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (until, amount) in &admitted[first..] {
                    sum += amount;
                    let window = i128::try_from((*until - *since).as_nanos()).unwrap();
                    prop_assert!(parts(sum) <= capacity(per_minute) + window * i128::from(per_minute));
                }
            }
        }
    }
}
