//! How much of prompts a step takes, by what steps took of late.
//!
//! Beside those who generate, a chunk of a prompt costs next to nothing while a step is bound by reading weights, and its full share once arithmetic bounds it.
//! Where that turns depends on model, device and batch, so it is not configured but seen: by what steps without prompts would take, and what each prompt
//! token added to them. In steps of nothing but prompts, what is learned says how many of them belong together.

use std::time::Duration;

use baton_profile::{
    Regression, StepShape,
    batching::{LEAST_TOKENS, QUIET_EVERY, STRETCH},
};

use super::schedule::PromptCosts;

/// Chunks grow so fast at most: a few tokens may add nothing, and some more a lot.
const GROWTH: f64 = 1.25;

/// So many steps without prompts ago is what the last ones are known by; before that, by how many sequences there were, to a factor of two.
const REMEMBERED: u64 = 30;

/// What steps take, until some were seen, in any unit: one that only reads weights, a sequence more, a token of context more. More than on most machines: what is
/// less than expected shows at once, what is more hides behind what is larger.
const QUIET: [f64; 3] = [1.0, 0.25, 5e-4];
/// The same of prompts: a step, a token, a pair of tokens.
const PROMPTS: [f64; 3] = [50.0, 1.0, 3e-4];

/// What steps took of late, in seconds.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Steps of those who generate, by how many there are and their context.
    quiet: Regression<3>,
    /// The last of those with 2^n sequences or more, by their number from 1; 0: there was none.
    quiet_seen: [u64; u32::BITS as usize],
    /// Steps of prompts alone, by tokens and pairs.
    prompts: Regression<3>,
    /// What a prompt token added to the former in the last steps, without its pairs.
    added: f64,
    /// Prompt tokens of the next step, once some were computed beside others, if there are none before them, and it takes as long without them as the last one would
    /// have.
    chunk: Option<f64>,
    /// What the last one would have taken.
    without: f64,
    mixed_in_a_row: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            quiet: Regression::in_proportion(QUIET),
            quiet_seen: [0; u32::BITS as usize],
            prompts: Regression::in_proportion(PROMPTS),
            added: 0.0,
            chunk: None,
            without: 0.0,
            mixed_in_a_row: 0,
        }
    }
}

impl Pace {
    /// A step of this took so long, with so many drafted tokens beside.
    pub(super) fn observe(&mut self, step: &StepShape, drafted: usize, took: Duration) {
        let took = took.as_secs_f64();
        match (step.sequences, step.prompt_tokens as f64) {
            (0, 0.0) => {}
            (0, tokens) => self.prompts.observe(&[1.0, tokens, step.pairs], took),
            (_, 0.0) => {
                self.quiet.observe(&quiet(step, drafted), took);
                self.quiet_seen[step.sequences.ilog2() as usize] = self.quiet.observations();
                self.mixed_in_a_row = 0;
            }
            (_, tokens) => {
                let without = self.quiet.predict(&quiet(step, drafted));
                self.without = without;
                let weighed = tokens + self.pair_weight() * step.pairs;
                let added = (took - without).max(0.0) / weighed;
                // What the next token adds is more than the average of those before it, so old steps are soon forgotten.
                self.added = if self.chunk.is_some() { f64::midpoint(self.added, added) } else { added };
                self.mixed_in_a_row += 1;
                let chunk = self.chunk.unwrap_or(weighed);
                // A step that took fewer says nothing of more, and a slow one may have been disturbed.
                let before = step.pairs / tokens - tokens / 2.0;
                let is_full = tokens >= self.tokens_of(chunk, before).floor();
                let most = if is_full { chunk * GROWTH } else { chunk };
                self.chunk =
                    Some(fits(self.added, without).clamp(chunk / 2.0, most).max(f64::from(LEAST_TOKENS)));
            }
        }
    }

    /// Prompt tokens for the next step, of a prompt with so many computed, beside these who generate: `most` at most, or none, to see what a step takes without.
    pub(super) fn prompt_tokens(&self, generating: &StepShape, computed: usize, most: usize) -> usize {
        if !self.is_known(generating.sequences) || self.mixed_in_a_row >= QUIET_EVERY {
            return 0;
        }
        let least = LEAST_TOKENS as usize;
        let without = self.quiet.predict(&quiet(generating, 0));
        let weighed = match self.chunk {
            // Some of those who generated may have ended. If there are more, growth goes its way.
            Some(chunk) => chunk * (without / self.without).min(1.0),
            None if self.prompts.observations() > 0 => fits(self.prompts.coefficients()[1], without),
            None => 0.0,
        };
        (self.tokens_of(weighed, computed as f64) as usize).clamp(least.min(most), most)
    }

    /// Whether a step without prompts was seen lately of about so many.
    fn is_known(&self, sequences: u32) -> bool {
        let seen = sequences.checked_ilog2().map_or(0, |at| self.quiet_seen[at as usize]);
        seen > 0 && self.quiet.observations() - seen < REMEMBERED
    }

    /// What a pair takes by what a token takes.
    fn pair_weight(&self) -> f64 {
        let [_, per_token, per_pair] = match self.prompts.observations() {
            0 => PROMPTS,
            _ => self.prompts.coefficients(),
        };
        if per_token > 0.0 { per_pair / per_token } else { 0.0 }
    }

    /// Tokens after so many others that take as long as `weighed` tokens do without pairs: the root of a quadratic, in a form that loses no digits.
    fn tokens_of(&self, weighed: f64, before: f64) -> f64 {
        let weight = self.pair_weight();
        let linear = 1.0 + weight * before.max(0.0);
        if weighed.is_infinite() {
            return weighed;
        }
        2.0 * weighed / (linear + (linear * linear + 2.0 * weight * weighed).sqrt())
    }

    /// What steps of nothing but prompts take.
    pub(super) fn prompt_costs(&self) -> PromptCosts {
        match self.prompts.observations() {
            0 => PromptCosts::default(),
            _ => {
                let [fixed, per_token, per_pair] = self.prompts.coefficients();
                PromptCosts { fixed, per_token, per_pair }
            }
        }
    }
}

fn quiet(step: &StepShape, drafted: usize) -> [f64; 3] {
    [1.0, f64::from(step.sequences) + drafted as f64, step.context_tokens as f64]
}

/// Tokens that stretch a step as far as it may be, where each adds so much; infinitely many, where none does.
fn fits(added: f64, without: f64) -> f64 {
    (STRETCH - 1.0) * without / added
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 512;

    fn millis(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// Beside so many who generate.
    fn step(sequences: u32, prompt_tokens: usize) -> StepShape {
        let mut step = StepShape { sequences, ..StepShape::default() };
        step.prompt(prompt_tokens as u64, 0);
        step
    }

    /// Steps of a machine where a step takes `quiet` ms and a prompt token adds `added`; gives the chunks.
    fn chunks(pace: &mut Pace, quiet: f64, added: f64, steps: usize) -> Vec<usize> {
        let one = |_| {
            let tokens = pace.prompt_tokens(&step(8, 0), 0, MOST);
            pace.observe(&step(8, tokens), 0, millis(quiet + added * tokens as f64));
            tokens
        };
        (0..steps).map(one).collect()
    }

    #[test]
    fn a_step_without_prompts_is_seen_before_the_first_with_them_and_now_and_then() {
        let chunks = chunks(&mut Pace::default(), 40.0, 1.0, 100);
        let quiet: Vec<_> = (0..100).filter(|step| chunks[*step] == 0).collect();
        assert_eq!(quiet, [0, 33, 66, 99]);
        assert_eq!(chunks[1], LEAST_TOKENS as usize, "nothing is known of what they add");
    }

    #[test]
    fn chunks_stretch_a_step_as_far_as_it_may_be() {
        for (quiet, added, expected) in
            [(40.0, 1.0, 24), (40.0, 0.1, 240), (10.0, 2.0, LEAST_TOKENS as usize), (40.0, 0.001, MOST)]
        {
            let chunk = chunks(&mut Pace::default(), quiet, added, 60)[59];
            assert!(chunk.abs_diff(expected) <= 1, "{quiet} ms and {added} ms a token: {chunk}");
        }
    }

    #[test]
    fn the_first_guess_is_what_prompts_take_alone() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.observe(&step(0, 500), 0, millis(500.0));
            pace.observe(&step(0, 100), 0, millis(100.0));
        }
        pace.observe(&step(8, 0), 0, millis(40.0));
        let guess = pace.prompt_tokens(&step(8, 0), 0, MOST);
        assert!((20..=28).contains(&guess), "{guess}");
    }

    #[test]
    fn it_follows_what_changes_but_not_a_single_disturbance() {
        let mut pace = Pace::default();
        chunks(&mut pace, 40.0, 1.0, 60);
        pace.observe(&step(8, 24), 0, millis(5_000.0));
        let after = pace.prompt_tokens(&step(8, 0), 0, MOST);
        assert!((11..=12).contains(&after), "half: {after}");
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
            let tokens = pace.prompt_tokens(&step(1, 0), 0, MOST);
            let took = 40.0 + 3.0 * (tokens as f64 - 11.0).max(0.0);
            longest = longest.max(took);
            pace.observe(&step(1, tokens), 0, millis(took));
        }
        assert!((60.0..80.0).contains(&longest), "the longest took {longest:.1} ms");
    }

    #[test]
    fn a_limit_below_the_least_holds() {
        let mut pace = Pace::default();
        pace.observe(&step(1, 0), 0, millis(1.0));
        assert_eq!(pace.prompt_tokens(&step(1, 0), 0, 2), 2);
        pace.observe(&step(1, 2), 0, millis(100.0));
        assert_eq!(pace.prompt_tokens(&step(1, 0), 0, 2), 2);
    }

    /// Requests come and go, and each adds to a step without prompts, of which one in 33 is seen.
    #[test]
    fn chunks_are_right_for_who_generates_now() {
        let mut pace = Pace::default();
        let stretch = |at: usize| {
            let sequences = 4 + (at / 10 % 24) as u32;
            let quiet = 20.0 + 2.0 * f64::from(sequences);
            let tokens = pace.prompt_tokens(&step(sequences, 0), 0, MOST);
            pace.observe(&step(sequences, tokens), 0, millis(quiet + tokens as f64));
            (tokens > 0).then_some(1.0 + tokens as f64 / quiet)
        };
        let late: Vec<f64> = (0..2_000).map(stretch).skip(500).flatten().collect();
        let (most, mean) =
            (late.iter().fold(0.0, |a: f64, b| a.max(*b)), late.iter().sum::<f64>() / late.len() as f64);
        assert!((1.55..1.65).contains(&mean) && most < 1.8, "{mean:.2}, at most {most:.2}");
    }

    /// Attention makes the tokens of a long prompt several times as dear as those of the next one, which begins.
    #[test]
    fn chunks_are_right_for_what_is_computed_already() {
        let took = |step: &StepShape| {
            let prompts = step.prompt_tokens as f64 + 1e-3 * step.pairs;
            millis(if step.sequences > 0 { 40.0 + prompts } else { 5.0 + prompts })
        };
        let mut pace = Pace::default();
        for at in 0..60 {
            let mut alone = StepShape::default();
            alone.prompt(100 + at % 5 * 100, at % 3 * 1_000);
            pace.observe(&alone, 0, took(&alone));
        }
        let (mut computed, mut late) = (0, Vec::new());
        for at in 0..2_000 {
            let mut beside = step(8, 0);
            let tokens = pace.prompt_tokens(&beside, computed, MOST);
            beside.prompt(tokens as u64, computed as u64);
            pace.observe(&beside, 0, took(&beside));
            if at > 200 && tokens > 0 {
                late.push(took(&beside).as_secs_f64() / 0.04);
            }
            computed = if computed > 4_000 { 0 } else { computed + tokens };
        }
        let (least, most) = late.iter().fold((f64::MAX, 0.0_f64), |(a, b), c| (a.min(*c), b.max(*c)));
        assert!(least > 1.45 && most < 1.75, "from {least:.2} to {most:.2}");
    }

    #[test]
    fn twice_as_many_are_seen_without_prompts_first_drafts_or_not() {
        let mut pace = Pace::default();
        pace.observe(&step(1, 0), 0, millis(10.0));
        assert!(pace.prompt_tokens(&step(1, 0), 0, MOST) > 0);
        assert_eq!(pace.prompt_tokens(&step(4, 0), 0, MOST), 0);
        pace.observe(&step(4, 0), 12, millis(40.0));
        assert!(pace.prompt_tokens(&step(5, 0), 0, MOST) > 0);
        for _ in 0..REMEMBERED {
            pace.observe(&step(1, 0), 0, millis(10.0));
        }
        assert_eq!(pace.prompt_tokens(&step(4, 0), 0, MOST), 0, "it was long ago");
    }

    #[test]
    fn what_prompts_take_alone_is_learned() {
        let mut pace = Pace::default();
        assert_eq!(pace.prompt_costs(), PromptCosts::default());
        for tokens in (0..100).map(|at| 50 + at * 37 % 400) {
            pace.observe(&step(0, tokens), 0, millis(30.0 + 0.5 * tokens as f64));
        }
        let PromptCosts { fixed, per_token, .. } = pace.prompt_costs();
        assert!((0.025..0.035).contains(&fixed), "{fixed}");
        assert!((0.000_45..0.000_55).contains(&per_token), "{per_token}");
    }
}
