//! What steps took: of every kind that a worker computes some, so that rare ones are known, too.

use std::collections::{HashMap, VecDeque};

use baton_proto::v1::Step;

/// Steps of a kind that are kept: the last ones.
const OF_A_KIND: usize = 8;
/// Kinds that are kept. Sizes are told apart by factors of two, so that a worker has some dozens.
const KINDS: usize = 256;

/// Of one worker; 80 KiB at most.
#[derive(Debug, Default)]
pub(super) struct StepSamples(HashMap<Kind, VecDeque<Step>>);

/// Tokens of prompts, tokens that those look back at on average, sequences, tokens that those have on average: each by its highest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind([u8; 4]);

impl StepSamples {
    pub(super) fn add(&mut self, step: Step) {
        let kind = Kind::of(&step);
        if self.0.len() == KINDS && !self.0.contains_key(&kind) {
            return;
        }
        let kept = self.0.entry(kind).or_default();
        if kept.len() == OF_A_KIND {
            kept.pop_front();
        }
        kept.push_back(step);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.0.values().flatten()
    }
}

impl Kind {
    fn of(step: &Step) -> Self {
        let looked_back = (step.pairs / f64::from(step.prompt_tokens.max(1))) as u64;
        let context = step.context_tokens / u64::from(step.sequences.max(1));
        let bits = |n: u64| (u64::BITS - n.leading_zeros()) as u8;
        Self([bits(step.prompt_tokens.into()), bits(looked_back), bits(step.sequences.into()), bits(context)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_kinds_stay_and_of_common_ones_the_last() {
        let mut samples = StepSamples::default();
        let prompt = Step { prompt_tokens: 512, pairs: 131_072.0, us: 9_000, ..Step::default() };
        samples.add(prompt);
        for us in 0..1_000 {
            samples.add(Step { sequences: 3, context_tokens: 300, us, ..Step::default() });
        }
        let mut kept: Vec<u64> = samples.iter().map(|step| step.us).collect();
        kept.sort_unstable();
        assert_eq!(kept, [992, 993, 994, 995, 996, 997, 998, 999, 9_000]);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut samples = StepSamples::default();
        for (tokens, sequences) in (0..32).flat_map(|a| (0..32).map(move |b| (1 << a, 1 << b))) {
            for _ in 0..20 {
                samples.add(Step { prompt_tokens: tokens, sequences, ..Step::default() });
            }
        }
        assert_eq!(samples.iter().count(), OF_A_KIND * KINDS);
    }
}
