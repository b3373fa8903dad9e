//! How many prompt tokens a step takes beside those who generate, as all of them wait for it.
//!
//! A chunk of a prompt costs next to nothing while a step is bound by reading weights, and its full share once arithmetic bounds it.
//! Where that turns depends on model, device and batch, so it is not configured but seen: by what steps without prompts took of
//! late, and what each prompt token added to them.

use std::time::Duration;

/// A step with prompts is to take so many times as long as without: under 2, with room for what is not foreseen.
const STRETCH: f64 = 1.6;
/// Prompt tokens of a step at least, so that every prompt ends.
const LEAST: usize = 4;
/// Chunks grow so fast at most: a few tokens may add nothing, and some more a lot.
const GROWTH: f64 = 1.25;
/// Of so many steps in which some generate, one is without prompts, to see what that takes.
const QUIET_EVERY: u32 = 32;
/// Least share of a new observation in the averages.
const SHARE: f64 = 1.0 / 5.0;
/// Observations before one is suspected to be a disturbance of the machine.
const KNOWN: u32 = 8;
/// A new observation counts as so many times the average at most.
const OUTLIER: f64 = 1.5;

/// What steps took of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// A step of those who generate, in seconds.
    quiet: Average,
    /// What a prompt token added to it in the last steps, in seconds.
    added: f64,
    /// What a prompt token takes in steps of nothing else: the first guess.
    alone: Average,
    /// Prompt tokens of the next step, once some were computed beside others.
    chunk: Option<f64>,
    mixed_in_a_row: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Average {
    seen: u32,
    value: f64,
}

impl Pace {
    /// A step took so long for `generating` sequences, one token or more each, and so many tokens of prompts.
    pub(super) fn observe(&mut self, generating: usize, prompt_tokens: usize, took: Duration) {
        let took = took.as_secs_f64();
        match (generating, prompt_tokens) {
            (0, 0) => {}
            (0, tokens) => self.alone.observe(took / tokens as f64),
            (_, 0) => {
                self.quiet.observe(took);
                self.mixed_in_a_row = 0;
            }
            (_, tokens) => {
                let added = (took - self.quiet.value).max(0.0) / tokens as f64;
                // What the next token adds is more than the average of those before it, so old steps are soon forgotten.
                self.added = if self.chunk.is_some() { f64::midpoint(self.added, added) } else { added };
                self.mixed_in_a_row += 1;
                let chunk = self.chunk.unwrap_or(tokens as f64);
                // A step that took fewer says nothing of more, and a slow one may have been disturbed.
                let most = if tokens as f64 >= chunk.floor() { chunk * GROWTH } else { chunk };
                self.chunk = Some(self.fits(self.added).clamp(chunk / 2.0, most).max(LEAST as f64));
            }
        }
    }

    /// Prompt tokens for the next step, in which some generate: `most` at most, or none, to see what a step takes without.
    pub(super) fn prompt_tokens(&self, most: usize) -> usize {
        if self.quiet.seen == 0 || self.mixed_in_a_row >= QUIET_EVERY {
            return 0;
        }
        let first_guess = || if self.alone.seen > 0 { self.fits(self.alone.value) } else { LEAST as f64 };
        (self.chunk.unwrap_or_else(first_guess) as usize).clamp(LEAST.min(most), most)
    }

    /// Tokens that stretch a step as far as it may be, where each adds so much; infinitely many, where none does.
    fn fits(&self, added: f64) -> f64 {
        (STRETCH - 1.0) * self.quiet.value / added
    }
}

impl Average {
    fn observe(&mut self, value: f64) {
        let value = if self.seen < KNOWN { value } else { value.min(self.value * OUTLIER) };
        self.seen = self.seen.saturating_add(1);
        self.value += (value - self.value) * SHARE.max(1.0 / f64::from(self.seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 512;

    fn millis(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// Steps of a machine where a step takes `quiet` ms and a prompt token adds `added`; gives the last chunks.
    fn chunks(pace: &mut Pace, quiet: f64, added: f64, steps: usize) -> Vec<usize> {
        let step = |_| {
            let tokens = pace.prompt_tokens(MOST);
            pace.observe(8, tokens, millis(quiet + added * tokens as f64));
            tokens
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn a_step_without_prompts_is_seen_before_the_first_with_them_and_now_and_then() {
        let chunks = chunks(&mut Pace::default(), 40.0, 1.0, 100);
        let quiet: Vec<_> = (0..100).filter(|step| chunks[*step] == 0).collect();
        assert_eq!(quiet, [0, 33, 66, 99]);
        assert_eq!(chunks[1], LEAST, "nothing is known of what they add");
    }

    #[test]
    fn chunks_stretch_a_step_as_far_as_it_may_be() {
        for (quiet, added, expected) in
            [(40.0, 1.0, 24), (40.0, 0.1, 240), (10.0, 2.0, LEAST), (40.0, 0.001, MOST)]
        {
            let chunk = chunks(&mut Pace::default(), quiet, added, 60)[59];
            assert!(chunk.abs_diff(expected) <= 1, "{quiet} ms and {added} ms a token: {chunk}");
        }
    }

    #[test]
    fn the_first_guess_is_what_prompts_take_alone() {
        let mut pace = Pace::default();
        pace.observe(0, 500, millis(500.0));
        pace.observe(8, 0, millis(40.0));
        assert!(pace.prompt_tokens(MOST).abs_diff(24) <= 1);
    }

    #[test]
    fn it_follows_what_changes_but_not_a_single_disturbance() {
        let mut pace = Pace::default();
        chunks(&mut pace, 40.0, 1.0, 60);
        pace.observe(8, 24, millis(5_000.0));
        let after = pace.prompt_tokens(MOST);
        assert_eq!(after, 12, "half");
        let again = chunks(&mut pace, 40.0, 1.0, 20)[19];
        assert!(again.abs_diff(24) <= 1, "{again}");
        let slower = chunks(&mut pace, 40.0, 1.5, 60)[59];
        assert!(slower.abs_diff(16) <= 1, "{slower}");
    }

    /// A step is bound by reading weights up to so many rows, and by computing from there on.
    #[test]
    fn tokens_that_cost_nothing_do_not_promise_that_more_do_not_either() {
        let (mut pace, mut longest) = (Pace::default(), 0.0_f64);
        for _ in 0..200 {
            let tokens = pace.prompt_tokens(MOST);
            let took = 40.0 + 3.0 * (tokens as f64 - 11.0).max(0.0);
            longest = longest.max(took);
            pace.observe(1, tokens, millis(took));
        }
        assert!((60.0..80.0).contains(&longest), "the longest took {longest:.1} ms");
    }

    #[test]
    fn a_limit_below_the_least_holds() {
        let mut pace = Pace::default();
        pace.observe(1, 0, millis(1.0));
        assert_eq!(pace.prompt_tokens(2), 2);
        pace.observe(1, 2, millis(100.0));
        assert_eq!(pace.prompt_tokens(2), 2);
    }
}
