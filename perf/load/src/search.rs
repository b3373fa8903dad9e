//! The search for the highest rate at which enough requests meet what is asked. Pure: it says which rate to try, and is told what came.

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchSpec {
    /// The rate that is tried first, in requests a second.
    pub first_rate: f64,
    /// Share of requests that must meet the SLO.
    pub share: f64,
    /// It ends when the highest rate that did and the lowest that did not are this close, as a share of the former.
    pub precision: f64,
    /// Runs at most.
    pub most_trials: u32,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Requests a second.
    pub rate: f64,
    /// Requests that met the SLO.
    pub good: u64,
    /// Requests that could have.
    pub total: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The highest rate at which enough requests met the SLO; `None`: at none that was tried.
    pub rate: Option<f64>,
    /// The lowest rate at which too few did; `None`: at all that were tried enough did.
    pub fails_at: Option<f64>,
    /// The true share at `rate`, with 95 % confidence.
    pub share_between: Option<(f64, f64)>,
    /// Runs at rates above `rate` and below `fails_at` do not exist, but some verdicts could as well have been the other one: their
    /// share's interval contains the one that is asked for.
    pub doubtful: u32,
}

/// Bracketing by factors of two, then bisection (of the rate's logarithm, as what matters is the ratio).
#[derive(Clone, Debug)]
pub struct Search {
    spec: SearchSpec,
    trials: Vec<Trial>,
}

impl Trial {
    /// Of no requests none is good.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.good as f64 / self.total as f64 }
    }

    /// Wilson's interval of the true share at 95 % (Wilson 1927).
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        const Z: f64 = 1.959_963_984_540_054;
        let n = self.total as f64;
        if self.total == 0 {
            return (0.0, 1.0);
        }
        let (p, z2) = (self.share(), Z * Z);
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }
}

impl Search {
    /// Nothing is tried yet.
    #[must_use]
    pub fn new(spec: SearchSpec) -> Self {
        Self { spec, trials: Vec::new() }
    }

    /// Which rate to try next; `None`: enough is known.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        if self.trials.len() >= self.spec.most_trials as usize {
            return None;
        }
        match (self.passes_at(), self.fails_at()) {
            (None, None) => Some(self.spec.first_rate),
            (Some(passes), None) => Some(passes * 2.0),
            (None, Some(fails)) => Some(fails / 2.0),
            (Some(passes), Some(fails)) if fails / passes <= 1.0 + self.spec.precision => None,
            (Some(passes), Some(fails)) => Some((passes * fails).sqrt()),
        }
    }

    /// What came of the rate that was to be tried.
    pub fn tried(&mut self, trial: Trial) {
        self.trials.push(trial);
    }

    /// All runs so far.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// What is known.
    #[must_use]
    pub fn found(&self) -> Found {
        let rate = self.passes_at();
        let at_rate = self.trials.iter().find(|trial| Some(trial.rate) == rate);
        let is_doubtful = |trial: &&Trial| {
            let (low, high) = trial.interval();
            low < self.spec.share && self.spec.share < high
        };
        Found {
            rate,
            fails_at: self.fails_at(),
            share_between: at_rate.map(Trial::interval),
            doubtful: self.trials.iter().filter(is_doubtful).count() as u32,
        }
    }

    /// The lowest rate that failed: what passed above it passed by luck.
    fn fails_at(&self) -> Option<f64> {
        let failed = self.trials.iter().filter(|trial| trial.share() < self.spec.share);
        failed.map(|trial| trial.rate).reduce(f64::min)
    }

    /// The highest rate that passed below all that failed.
    fn passes_at(&self) -> Option<f64> {
        let fails = self.fails_at().unwrap_or(f64::INFINITY);
        let passed =
            self.trials.iter().filter(|trial| trial.share() >= self.spec.share && trial.rate < fails);
        passed.map(|trial| trial.rate).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: SearchSpec = SearchSpec { first_rate: 1.0, share: 0.9, precision: 0.05, most_trials: 30 };

    /// Searches on a server that keeps the SLO up to `capacity` requests a second.
    fn search(capacity: f64, spec: SearchSpec) -> Search {
        let mut search = Search::new(spec);
        while let Some(rate) = search.next_rate() {
            let good = if rate <= capacity { 100 } else { 50 };
            search.tried(Trial { rate, good, total: 100 });
        }
        search
    }

    #[test]
    fn the_capacity_is_found_from_either_side() {
        for capacity in [0.013, 0.9, 1.0, 7.3, 900.0] {
            let found = search(capacity, SPEC).found();
            let (rate, fails) = (found.rate.unwrap(), found.fails_at.unwrap());
            assert!(rate <= capacity && capacity < fails && fails / rate <= 1.05, "{capacity}: {found:?}");
        }
        assert!(search(7.3, SPEC).trials().len() <= 9, "3 to get above, 5 to come close");
    }

    #[test]
    fn it_ends_after_so_many_runs_and_says_what_it_knows() {
        let spec = SearchSpec { most_trials: 3, ..SPEC };
        assert_eq!((search(1e9, spec).found().rate, search(1e9, spec).found().fails_at), (Some(4.0), None));
        assert_eq!((search(0.0, spec).found().rate, search(0.0, spec).found().fails_at), (None, Some(0.25)));
    }

    #[test]
    fn a_rate_that_passes_above_one_that_failed_does_not_count() {
        let mut search = Search::new(SPEC);
        for (rate, good) in [(1.0, 95), (2.0, 95), (4.0, 80), (3.0, 99), (1.5, 80)] {
            search.tried(Trial { rate, good, total: 100 });
        }
        let found = search.found();
        assert_eq!((found.rate, found.fails_at), (Some(1.0), Some(1.5)));
        assert_eq!(found.doubtful, 2, "95 of 100 may well be 90 %");
    }

    #[test]
    fn shares_have_the_intervals_of_the_literature() {
        // Wilson's interval of 8 in 10 is 0.4902 to 0.9433; of 90 in 100, 0.8256 to 0.9448.
        for (good, total, low, high) in [(8, 10, 0.4902, 0.9433), (90, 100, 0.8256, 0.9448), (0, 0, 0.0, 1.0)]
        {
            let (found_low, found_high) = Trial { rate: 1.0, good, total }.interval();
            assert!((found_low - low).abs() < 5e-5 && (found_high - high).abs() < 5e-5, "{good} of {total}");
        }
    }
}
