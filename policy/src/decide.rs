//! One decision: filter, score, pick.

mod eligible;

pub use eligible::{Eligible, Refused};

use crate::{
    dice::Dice,
    estimate::{Candidate, KEPT, Search, Sides, Span, Term, Terms},
    profile::{Disaggregate, Picker, Profile},
    view::{FleetView, Ms, RequestView},
};

/// Prefill workers that a decision names in order: a second choice, not the whole fleet.
pub const MOST_PREFILL_CHOICES: usize = 4;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Who computes the prompt; `None`: the decode worker.
    pub prefill: Option<usize>,
    /// Who generates.
    pub decode: usize,
    /// Prefill workers for this decode worker, best first; empty: it prefills for itself.
    pub prefill_choices: Vec<usize>,
    /// The parts of the winner's cost.
    pub terms: Terms,
    /// Tokens of the prompt that are cached where it is computed.
    pub cached_tokens: u64,
    /// Time that the prompt will take to compute, for [`InFlight`](crate::view::InFlight).
    pub compute_ms: Ms,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens that it will probably generate, at least 1.
    pub output_tokens: f64,
    /// The cheapest candidates, cheapest first; the winner is among them.
    pub candidates: Vec<Candidate>,
    /// Which of them won.
    pub winner: usize,
    /// Prefill workers that were eligible.
    pub prefill_workers: usize,
}

impl Decision {
    /// KV tokens at its end, as far as can be told.
    #[must_use]
    pub fn growth_tokens(&self) -> u64 {
        self.prompt_tokens + self.output_tokens as u64
    }
}

/// Makes decisions by a profile. Keeps nothing from one to the next but buffers.
#[derive(Clone, Debug, Default)]
pub struct Decider {
    profile: Profile,
    eligible: Eligible,
    search: Search,
}

impl Decider {
    /// By `profile`.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self { profile, eligible: Eligible::default(), search: Search::default() }
    }

    /// What it decides by.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Where `request` goes on `fleet` as it is `now`.
    ///
    /// # Errors
    /// [`Refused`]: nobody could serve it.
    pub fn decide(
        &mut self,
        fleet: &FleetView,
        request: &RequestView<'_>,
        now: Ms,
    ) -> Result<Decision, Refused> {
        let mut dice = Dice::new(request.dice);
        self.eligible.find(fleet, request, &self.profile, now, &mut dice)?;
        let prefill_workers = self.eligible.prefill.len();
        if self.profile.picker == Picker::PowerOfTwo {
            self.eligible.draw_two(&mut dice);
        }
        self.choose_kind(request);
        let sides = Sides::new(fleet, request, prefill_workers, now);
        let candidates: Vec<_> =
            self.search.run(fleet, &sides, self.eligible.span(), &self.profile.weights).collect();
        let Some(winner) = self.profile.picker.pick(&candidates, &mut dice) else {
            return self.unconnected(fleet, request, &sides, prefill_workers);
        };
        Ok(Decision { prefill_workers, ..self.decision(fleet, request, &sides, candidates, winner) })
    }

    // "Never" and "threshold" take places away; the estimate compares all of them.
    fn choose_kind(&mut self, request: &RequestView<'_>) {
        match self.profile.disaggregate {
            Disaggregate::Estimate => {}
            Disaggregate::Never => self.eligible.prefill.clear(),
            Disaggregate::Always => {
                if !self.eligible.prefill.is_empty() {
                    self.eligible.local.clear();
                }
            }
            Disaggregate::Threshold { uncached_tokens } => {
                let is_short = |index: &usize| {
                    request.prompt_tokens - request.cached_at(*index).tokens() < uncached_tokens
                };
                if self.eligible.prefill.is_empty() {
                    return;
                }
                self.eligible.local.retain(is_short);
                if !self.eligible.local.is_empty() {
                    self.eligible.prefill.clear();
                }
            }
        }
    }

    // Whoever generates can always compute the prompt, too: better than to refuse.
    fn unconnected(
        &mut self,
        fleet: &FleetView,
        request: &RequestView<'_>,
        sides: &Sides<'_>,
        prefill_workers: usize,
    ) -> Result<Decision, Refused> {
        let span = Span { prefill: &[], decode: &[], local: &self.eligible.decode };
        let candidates: Vec<_> = self.search.run(fleet, sides, span, &self.profile.weights).collect();
        if candidates.is_empty() {
            return Err(self.eligible.refused(fleet));
        }
        Ok(Decision { prefill_workers, ..self.decision(fleet, request, sides, candidates, 0) })
    }

    fn decision(
        &self,
        fleet: &FleetView,
        request: &RequestView<'_>,
        sides: &Sides<'_>,
        candidates: Vec<Candidate>,
        winner: usize,
    ) -> Decision {
        debug_assert!(candidates.len() <= KEPT);
        let Candidate { prefill, decode, .. } = candidates[winner];
        let prefill_choices = prefill.map_or_else(Vec::new, |first| {
            let others = self.search.rank_prefill(fleet, sides, (first, decode), &self.profile.weights);
            std::iter::once(first).chain(others).take(MOST_PREFILL_CHOICES).collect()
        });
        let terms = sides.all(prefill, decode);
        let compute_ms = terms.get(Term::Prefill);
        let cached_tokens = sides.cached_tokens(prefill.unwrap_or(decode));
        Decision {
            prefill,
            decode,
            prefill_choices,
            terms,
            cached_tokens,
            compute_ms,
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.expected_output_tokens.max(1.0),
            candidates,
            winner,
            prefill_workers: 0,
        }
    }
}
