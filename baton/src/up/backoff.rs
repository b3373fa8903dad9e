//! When to start a process again that died.

use std::time::Duration;

/// Bounds on starting again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartPolicy {
    /// Wait after the first death; it doubles with each one.
    pub(crate) first_wait: Duration,
    /// Longest wait.
    pub(crate) longest_wait: Duration,
    /// Deaths in a row before nobody believes in the process any more.
    pub(crate) deaths: u32,
    /// A process that ran this long was well: its death counts as the first.
    pub(crate) well_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
            deaths: 10,
            well_after: Duration::from_secs(60),
        }
    }
}

/// Remembers the deaths of one process.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// It died after `ran_for`: how long to wait before it is started again, or `None` to give up.
    pub(crate) fn after_death(&mut self, ran_for: Duration, policy: &RestartPolicy) -> Option<Duration> {
        self.deaths = if ran_for >= policy.well_after { 1 } else { self.deaths + 1 };
        let doubled = 2_u32.saturating_pow(self.deaths - 1);
        let wait = policy.first_wait.saturating_mul(doubled).min(policy.longest_wait);
        (self.deaths <= policy.deaths).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_end() {
        let (mut backoff, policy) = (Backoff::default(), RestartPolicy::default());
        let waits: Vec<_> = std::iter::from_fn(|| backoff.after_death(Duration::ZERO, &policy)).collect();
        assert_eq!(waits.len(), 10);
        assert_eq!(
            (waits[0], waits[1], waits[9]),
            (policy.first_wait, policy.first_wait * 2, policy.longest_wait)
        );
        assert!(waits.is_sorted());
    }

    #[test]
    fn a_process_that_ran_well_starts_afresh() {
        let (mut backoff, policy) = (Backoff::default(), RestartPolicy::default());
        for _ in 0..100 {
            assert_eq!(backoff.after_death(policy.well_after, &policy), Some(policy.first_wait));
        }
    }
}
