//! How many tokens to draft: by how often drafts were right, and what one more costs.

/// Weight of what is believed before a sequence has drafts of its own, in drafted tokens.
const PRIOR_WEIGHT: f64 = 2.0;
/// What is believed of the first drafts of an engine.
const FIRST_BELIEF: f64 = 0.7;
/// A sequence for which drafting does not pay gets a draft of one token after so many steps, as its text may have changed; then
/// after twice as many, and so on.
const PROBE_STEPS: u32 = 32;
/// Most steps between such drafts.
const RAREST_PROBE_STEPS: u32 = 1024;
/// How much faster than plain steps drafts must promise to be: not all that they cost is measured, such as threads that fall
/// asleep meanwhile.
const WORTH_IT: f64 = 1.1;

/// How often drafts were right, recent ones counting more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acceptance {
    accepted: f64,
    refused: f64,
    /// What is left of an observation when the next one comes.
    decay: f64,
    steps_without: u32,
    probe_after: u32,
}

impl Acceptance {
    /// That of one sequence, which remembers some ten drafts.
    pub(super) fn of_sequence() -> Self {
        Self { accepted: 0.0, refused: 0.0, decay: 0.9, steps_without: 0, probe_after: PROBE_STEPS }
    }

    /// That of all sequences, which remembers some hundred.
    pub(super) fn of_all() -> Self {
        Self { decay: 0.99, ..Self::of_sequence() }
    }

    /// Of `drafted` tokens the first `accepted` were right. What came after the first wrong one was not put to the test.
    pub(super) fn note(&mut self, drafted: usize, accepted: usize) {
        self.accepted = self.accepted * self.decay + accepted as f64;
        self.refused = self.refused * self.decay + f64::from(u8::from(accepted < drafted));
        if self.steps_without >= self.probe_after {
            self.probe_after = (2 * self.probe_after).min(RAREST_PROBE_STEPS);
        }
        self.steps_without = 0;
    }

    /// The chance that a drafted token is right when those before it are, for a sequence of which nothing else is known.
    pub(super) fn belief(&self) -> f64 {
        self.chance(FIRST_BELIEF)
    }

    /// The same for a sequence of its own, with `belief` about those it knows nothing of.
    pub(super) fn chance(&self, belief: f64) -> f64 {
        (self.accepted + PRIOR_WEIGHT * belief) / (self.accepted + self.refused + PRIOR_WEIGHT)
    }

    /// Tokens to draft now, at most `most`, when one more for everybody makes a step longer by the fraction `extra`.
    pub(super) fn depth(&mut self, belief: f64, extra: f64, most: usize) -> usize {
        let depth = best_depth(self.chance(belief), extra, most);
        if depth > 0 {
            (self.steps_without, self.probe_after) = (0, PROBE_STEPS);
            return depth;
        }
        self.steps_without += 1;
        // Where drafts cost too much even if all were right, how often they are right is of no interest.
        let could_pay = self.steps_without >= self.probe_after && best_depth(1.0, extra, most) > 0;
        usize::from(could_pay)
    }
}

/// The depth with the most tokens in the time of a plain step: `1 + chance + chance² + …` over `1 + extra · depth`.
fn best_depth(chance: f64, extra: f64, most: usize) -> usize {
    let (mut depth, mut best) = (0, WORTH_IT);
    let (mut tokens, mut all_right) = (1.0, 1.0);
    for deeper in 1..=most {
        all_right *= chance;
        tokens += all_right;
        let rate = tokens / (1.0 + extra * deeper as f64);
        if rate > best {
            (depth, best) = (deeper, rate);
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_and_cheap_drafts_go_deep_and_others_do_not() {
        assert_eq!(best_depth(0.9, 0.02, 8), 8);
        assert_eq!(best_depth(0.8, 0.3, 8), 3);
        assert_eq!(best_depth(0.5, 0.3, 8), 1);
        assert_eq!(best_depth(0.35, 0.3, 8), 0, "next to nothing to win");
        assert_eq!(best_depth(0.2, 0.3, 8), 0, "a token that costs more than it is likely to give");
        assert_eq!(best_depth(1.0, 1.0, 8), 0, "when rows cost as much as steps there is nothing to win");
        assert_eq!(best_depth(1.0, 0.0, 0), 0);
    }

    #[test]
    fn a_sequence_that_is_guessed_badly_is_left_alone_and_asked_again_later() {
        let mut acceptance = Acceptance::of_sequence();
        assert_eq!(acceptance.depth(0.7, 0.1, 4), 4);
        (0..10).for_each(|_| acceptance.note(4, 0));
        // Each probe comes after twice as many steps as the one before.
        for steps in [PROBE_STEPS, 2 * PROBE_STEPS, 4 * PROBE_STEPS] {
            let depths: Vec<_> = (0..steps).map(|_| acceptance.depth(0.7, 0.4, 4)).collect();
            assert_eq!((depths.iter().sum::<usize>(), depths.last()), (1, Some(&1)));
            acceptance.note(1, 0);
        }
        let too_dear: usize = (0..2000).map(|_| acceptance.depth(0.7, 1.0, 4)).sum();
        assert_eq!(too_dear, 0, "a probe could not change anything");
        (0..10).for_each(|_| acceptance.note(1, 1));
        assert!(acceptance.depth(0.7, 0.1, 4) > 1);
    }

    #[test]
    fn what_others_taught_is_believed_at_first() {
        let mut all = Acceptance::of_all();
        (0..100).for_each(|_| all.note(4, 0));
        assert!(Acceptance::of_sequence().chance(all.belief()) < 0.1);
        (0..300).for_each(|_| all.note(4, 4));
        assert!(Acceptance::of_sequence().chance(all.belief()) > 0.9);
    }
}
