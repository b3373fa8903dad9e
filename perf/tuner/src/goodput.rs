//! The highest rate at which a fleet keeps its objectives.

use std::sync::Arc;

use baton_policy::view;
use baton_profile::Profile;
use baton_simulator::{Routing, Simulated, System, Traffic, simulate};
use serde::Serialize;

use crate::{Objective, Sample, Split, TuneError, highest::highest};

/// How fleets are simulated.
#[derive(Clone, Debug)]
pub struct Search {
    /// What a worker is like.
    pub profile: Arc<Profile>,
    /// Who places requests.
    pub routing: Routing,
    /// What is promised.
    pub objective: Objective,
    /// Tokens that clients allow for an answer; none: as many as it has.
    pub max_tokens: Option<u32>,
}

/// A goodput that was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goodput {
    /// Requests a second, to 2 %.
    pub per_second: f64,
    /// The objective is never met, however low the rate.
    pub is_never: bool,
}

impl Search {
    /// The same, and the scheduler promises the times of the objective: it places requests so that they are kept, and refuses at once what can't keep them.
    #[must_use]
    pub fn promising(mut self) -> Self {
        let Objective { ttft_ms, tpot_ms, .. } = self.objective;
        let promised = view::Objective { ttft_ms: Some(ttft_ms), tpot_ms: Some(tpot_ms) };
        self.routing = self.routing.promising(promised);
        self
    }

    /// Simulates `traffic` on `split`.
    ///
    /// # Errors
    /// [`TuneError`].
    pub fn simulate(&self, split: Split, traffic: &Traffic, seed: u64) -> Result<Simulated, TuneError> {
        let system = System {
            max_tokens: self.max_tokens,
            seed,
            ..System::of(&self.profile, split.prefill, split.decode).with_routing(self.routing.clone())
        };
        Ok(simulate(&system, traffic)?)
    }

    /// The highest rate at which `split` meets the objective, near `guess` at first, though it may miss it at some that are lower; the order
    /// and the relative times of the requests stay.
    ///
    /// # Errors
    /// [`TuneError`]: also when the requests have no times.
    pub fn goodput(
        &self,
        split: Split,
        sample: &Sample,
        seed: u64,
        guess: f64,
    ) -> Result<Goodput, TuneError> {
        let own = sample.per_second().ok_or(TuneError::NoTimes)?;
        let base = sample.traffic()?;
        let is_good = |rate: f64| -> Result<bool, TuneError> {
            let simulated = self.simulate(split, &base.scaled(own / rate), seed)?;
            Ok(self.objective.attained(simulated.served()) >= self.objective.share)
        };
        Ok(match highest(guess, is_good)? {
            Some(per_second) => Goodput { per_second, is_never: false },
            None => Goodput { per_second: 0.0, is_never: true },
        })
    }
}
