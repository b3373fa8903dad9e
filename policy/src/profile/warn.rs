//! Weights that change nothing: said when a profile is read, and when decisions have shown it.

use super::{Disaggregate, Profile};
use crate::{
    estimate::Term,
    record::{Record, what_if},
};

/// Decisions after which a term that never mattered is named.
const ENOUGH: u64 = 1_000;

/// What in `profile` can have no effect.
#[must_use]
pub fn warnings(profile: &Profile) -> Vec<String> {
    let mut warnings = Vec::new();
    let weight = |term: Term| profile.weights.get(term);
    let points = Term::ALL.into_iter().filter(|term| !Term::ESTIMATE.contains(term));
    let used: Vec<_> = points.filter(|&term| weight(term) > 0.0).collect();
    let has_estimate = Term::ESTIMATE.into_iter().any(|term| weight(term) > 0.0);
    if !has_estimate && used.is_empty() {
        warnings.push("no scorer has a weight: workers take turns, whatever they have to do".to_owned());
    }
    if let ([only], false) = (&used[..], has_estimate) {
        warnings.push(format!("{} is the only scorer: its weight changes nothing", only.name()));
    }
    if !has_estimate && profile.disaggregate == Disaggregate::Estimate {
        warnings.push(
            "disaggregate: estimate compares nothing without the scorer estimate; use a threshold".to_owned(),
        );
    }
    if weight(Term::Topology) > 0.0 && profile.disaggregate == Disaggregate::Never {
        warnings.push("topology is about pairs, and disaggregate: never makes none".to_owned());
    }
    warnings
}

/// Counts for each term whether it ever made a difference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Influence {
    decisions: u64,
    changed: [u64; Term::COUNT],
}

impl Influence {
    /// Looks at a decision: would another candidate have won without the term? Costs some microseconds; a sample of the decisions will do.
    pub fn note(&mut self, record: &Record) {
        self.decisions += 1;
        for term in Term::ALL {
            if record.weights.get(term) > 0.0 && what_if(record, &[(term, 0.0)]).is_changed {
                self.changed[term as usize] += 1;
            }
        }
    }

    /// Share of the decisions in which `term` mattered; `None` before the first.
    #[must_use]
    pub fn share(&self, term: Term) -> Option<f64> {
        (self.decisions > 0).then(|| self.changed[term as usize] as f64 / self.decisions as f64)
    }

    /// Scorers of `profile` beside the estimate that have never changed a decision.
    #[must_use]
    pub fn idle(&self, profile: &Profile) -> Vec<Term> {
        let points = Term::ALL.into_iter().filter(|term| !Term::ESTIMATE.contains(term));
        points
            .filter(|&term| self.decisions >= ENOUGH && profile.weights.get(term) > 0.0)
            .filter(|&term| self.changed[term as usize] == 0)
            .collect()
    }
}
