//! When each token was given, and when it came.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How a stream is fed.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) each: Duration,
    pub(crate) tokens: usize,
}

/// Nanoseconds since the beginning, stream by stream; 0: not yet.
pub(crate) struct Times {
    began: Instant,
    tokens: usize,
    given: Vec<AtomicU64>,
    came: Vec<AtomicU64>,
}

impl Times {
    pub(crate) fn new(streams: usize, tokens: usize) -> Self {
        let zeroes = || (0..streams * tokens).map(|_| AtomicU64::new(0)).collect();
        Self { began: Instant::now(), tokens, given: zeroes(), came: zeroes() }
    }

    pub(crate) fn given(&self, stream: usize, token: usize) {
        self.given[stream * self.tokens + token].store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn came(&self, stream: usize, token: usize) {
        self.came[stream * self.tokens + token].store(self.now(), Ordering::Relaxed);
    }

    /// Tokens of each stream.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Prints how long tokens were under way, and by how much gaps grew. The first tenth, when streams begin, is left out.
    #[expect(clippy::print_stdout, reason = "a report for a terminal")]
    pub(crate) fn report(&self, name: &str) {
        let ns = |times: &[AtomicU64], at: usize| times[at].load(Ordering::Relaxed) as f64;
        let (mut under_way, mut added) = (Vec::new(), Vec::new());
        let mut missing = 0_usize;
        for at in (0..self.given.len()).filter(|at| at % self.tokens > self.tokens / 10) {
            if self.came[at].load(Ordering::Relaxed) == 0 {
                missing += 1;
                continue;
            }
            under_way.push((ns(&self.came, at) - ns(&self.given, at)) / 1e6);
            let gap = |times: &[AtomicU64]| ns(times, at) - ns(times, at - 1);
            added.push((gap(&self.came) - gap(&self.given)) / 1e6);
        }
        let at = |values: &mut Vec<f64>, q: f64| {
            values.sort_by(f64::total_cmp);
            values.get((values.len().saturating_sub(1) as f64 * q) as usize).copied().unwrap_or(f64::NAN)
        };
        println!(
            "{name}: under way p50 {:.3} p99 {:.3} ms; added between two tokens p50 {:.3} p99 {:.3} ms ({missing} of {} did not come)",
            at(&mut under_way, 0.5),
            at(&mut under_way, 0.99),
            at(&mut added, 0.5),
            at(&mut added, 0.99),
            added.len() + missing
        );
    }
}
