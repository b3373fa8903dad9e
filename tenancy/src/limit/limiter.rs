//! The three limits of one key, decided together: a request that one of them refuses takes nothing of the others.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::bucket::{Bucket, Rate, Short};

/// When a place will be free is not known; this is when to ask again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a key may do; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) requests_per_minute: Option<u64>,
    /// Of prompts and answers.
    pub(crate) tokens_per_minute: Option<u64>,
    /// Requests at a time.
    pub(crate) max_concurrent: Option<u32>,
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limited {
    /// Requests a minute.
    #[error("the limit of {per_minute} requests a minute is reached; try again in {}", seconds(*.after))]
    Requests {
        /// The limit.
        per_minute: u64,
        /// When the next one would be served.
        after: Duration,
    },
    /// Tokens a minute.
    #[error("the limit of {per_minute} tokens a minute is reached by {asked} more; try again in {}", seconds(*.after))]
    Tokens {
        /// The limit.
        per_minute: u64,
        /// Tokens of the prompt.
        asked: u64,
        /// When it would be served.
        after: Duration,
    },
    /// A prompt with more tokens than a minute allows.
    #[error(
        "the prompt has {asked} tokens, more than the limit of {per_minute} a minute; send a shorter one, or ask for a higher limit"
    )]
    PromptTooLong {
        /// The limit.
        per_minute: u64,
        /// Tokens of the prompt.
        asked: u64,
    },
    /// Requests at a time.
    #[error("{limit} requests at a time are allowed, and so many are being served; wait for one to end")]
    Concurrent {
        /// The limit.
        limit: u32,
    },
}

impl Limited {
    /// When to try again; `None`: never, as it is.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Requests { after, .. } | Self::Tokens { after, .. } => Some(*after),
            Self::Concurrent { .. } => Some(ASK_AGAIN),
            Self::PromptTooLong { .. } => None,
        }
    }
}

/// What is left, for those that have such limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) requests: Option<Rate>,
    pub(crate) tokens: Option<Rate>,
}

/// Keeps one key's limits.
#[derive(Debug)]
pub(crate) struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    max_concurrent: Option<u32>,
    concurrent: u32,
}

impl Limiter {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let full = |limit: Option<u64>| limit.map(|limit| Bucket::new(limit, now));
        let Limits { requests_per_minute, tokens_per_minute, max_concurrent } = limits;
        let (requests, tokens) = (full(requests_per_minute), full(tokens_per_minute));
        Self { state: Mutex::new(State { requests, tokens, max_concurrent, concurrent: 0 }) }
    }

    /// Other limits from now on; what was used stays used.
    pub(crate) fn set(&self, limits: Limits, now: Instant) {
        let mut state = self.lock();
        set_limit(&mut state.requests, limits.requests_per_minute, now);
        set_limit(&mut state.tokens, limits.tokens_per_minute, now);
        state.max_concurrent = limits.max_concurrent;
    }

    /// Takes a place and one request. [`Limiter::end`] gives the place back.
    pub(crate) fn begin(&self, now: Instant) -> Result<(), Limited> {
        let state = &mut *self.lock();
        if let Some(limit) = state.max_concurrent.filter(|limit| state.concurrent >= *limit) {
            return Err(Limited::Concurrent { limit });
        }
        // Debts of former answers refuse it now, not when its prompt has been read.
        check_tokens(state.tokens.as_mut(), 1, now)?;
        if let Some(requests) = &mut state.requests {
            let per_minute = requests.rate(now).limit;
            match requests.check(1, now) {
                Ok(()) => requests.take(1, now),
                Err(Short::For(after)) => return Err(Limited::Requests { per_minute, after }),
                Err(Short::Forever) => return Err(Limited::Requests { per_minute, after: ASK_AGAIN }),
            }
        }
        state.concurrent += 1;
        Ok(())
    }

    /// Takes the tokens of a prompt.
    pub(crate) fn prompt(&self, tokens: u64, now: Instant) -> Result<(), Limited> {
        let state = &mut *self.lock();
        check_tokens(state.tokens.as_mut(), tokens, now)?;
        if let Some(bucket) = &mut state.tokens {
            bucket.take(tokens, now);
        }
        Ok(())
    }

    /// Takes tokens that were generated: they exist already, so what is not there is owed.
    pub(crate) fn generated(&self, tokens: u64, now: Instant) {
        if let Some(bucket) = &mut self.lock().tokens {
            bucket.take(tokens, now);
        }
    }

    /// Gives back tokens of a prompt that nobody computed.
    pub(crate) fn put_back(&self, tokens: u64, now: Instant) {
        if let Some(bucket) = &mut self.lock().tokens {
            bucket.put_back(tokens, now);
        }
    }

    /// Gives the place back.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        debug_assert!(state.concurrent > 0, "a place is given back once");
        state.concurrent = state.concurrent.saturating_sub(1);
    }

    pub(crate) fn rates(&self, now: Instant) -> Rates {
        let state = &mut *self.lock();
        Rates {
            requests: state.requests.as_mut().map(|bucket| bucket.rate(now)),
            tokens: state.tokens.as_mut().map(|bucket| bucket.rate(now)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_limit(bucket: &mut Option<Bucket>, limit: Option<u64>, now: Instant) {
    match (bucket.as_mut(), limit) {
        (Some(bucket), Some(limit)) => bucket.set_limit(limit, now),
        (_, limit) => *bucket = limit.map(|limit| Bucket::new(limit, now)),
    }
}

fn check_tokens(bucket: Option<&mut Bucket>, asked: u64, now: Instant) -> Result<(), Limited> {
    let Some(bucket) = bucket else { return Ok(()) };
    let per_minute = bucket.rate(now).limit;
    bucket.check(asked, now).map_err(|short| match short {
        Short::For(after) => Limited::Tokens { per_minute, asked, after },
        Short::Forever => Limited::PromptTooLong { per_minute, asked },
    })
}

/// As people say it.
fn seconds(duration: Duration) -> String {
    format!("{} s", super::headers::whole_seconds(duration))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    };

    use proptest::prelude::*;

    use super::*;

    fn limits(requests: u64, tokens: u64, concurrent: u32) -> Limits {
        Limits {
            requests_per_minute: Some(requests),
            tokens_per_minute: Some(tokens),
            max_concurrent: Some(concurrent),
        }
    }

    #[test]
    fn a_refused_request_takes_nothing_of_the_other_limits() {
        let now = Instant::now();
        let limiter = Limiter::new(limits(10, 100, 1), now);
        limiter.begin(now).unwrap();
        assert_eq!(limiter.begin(now), Err(Limited::Concurrent { limit: 1 }));
        assert_eq!(limiter.rates(now).requests.unwrap().remaining, 9);
        limiter.prompt(40, now).unwrap();
        limiter.generated(80, now);
        limiter.end();
        let after = Duration::from_millis(12_600);
        assert_eq!(limiter.begin(now), Err(Limited::Tokens { per_minute: 100, asked: 1, after }));
        assert_eq!(limiter.rates(now).requests.unwrap().remaining, 9);
        limiter.begin(now + after).unwrap();
    }

    #[test]
    fn a_prompt_that_no_minute_allows_is_told_so_at_once() {
        let now = Instant::now();
        let limiter = Limiter::new(limits(10, 100, 1), now);
        let refused = limiter.prompt(101, now).unwrap_err();
        assert_eq!(refused, Limited::PromptTooLong { per_minute: 100, asked: 101 });
        assert_eq!(refused.retry_after(), None);
        assert_eq!(limiter.rates(now).tokens.unwrap().remaining, 100);
    }

    #[test]
    fn prompts_that_nobody_computed_are_given_back_up_to_the_limit() {
        let now = Instant::now();
        let limiter = Limiter::new(limits(10, 100, 1), now);
        limiter.prompt(70, now).unwrap();
        limiter.put_back(70, now + Duration::from_secs(30));
        assert_eq!(limiter.rates(now + Duration::from_secs(30)).tokens.unwrap().remaining, 100);
    }

    #[test]
    fn threads_that_ask_at_once_get_exactly_the_limit() {
        const THREADS: usize = 8;
        let now = Instant::now();
        let limiter = Limiter::new(limits(1000, 3000, 4000), now);
        let (requests, tokens) = (AtomicU64::new(0), AtomicU64::new(0));
        let together = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    for _ in 0..500 {
                        requests.fetch_add(u64::from(limiter.begin(now).is_ok()), Ordering::Relaxed);
                        tokens.fetch_add(u64::from(limiter.prompt(1, now).is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((requests.into_inner(), tokens.into_inner()), (1000, 3000));
    }

    proptest! {
        /// Answers are owed, so over any run: what was admitted and generated is at most the limit for that time, a minute's
        /// worth, and what was generated after the last admission.
        #[test]
        fn debts_are_paid_before_the_next_request(
            tokens in 10..2_000_u64,
            steps in prop::collection::vec((0..30_000_u64, 1..500_u64, 0..500_u64), 1..50),
        ) {
            let start = Instant::now();
            let limiter = Limiter::new(Limits { tokens_per_minute: Some(tokens), ..Limits::default() }, start);
            let (mut now, mut used) = (start, 0_u128);
            for (wait_ms, prompt, answer) in steps {
                now += Duration::from_millis(wait_ms);
                if limiter.begin(now).is_err() {
                    continue;
                }
                if limiter.prompt(prompt, now).is_ok() {
                    used += u128::from(prompt);
                    let allowed = u128::from(tokens) * (60_000 + (now - start).as_millis()) / 60_000;
                    prop_assert!(used <= allowed, "{used} of {allowed}");
                    limiter.generated(answer, now);
                    used += u128::from(answer);
                }
                limiter.end();
            }
        }
    }
}
