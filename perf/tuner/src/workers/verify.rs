//! Splits that run for real, beside what is simulated for them: the same requests, at the same times.

use std::{io::Write as _, num::NonZeroU32, path::PathBuf};

use baton_results::{Document, Slo, Sorted, Stats};
use baton_simulator::{Ending, Served, SimRequest};
use baton_workload::{Estimate, Load, RateProfile, Spacing, Workload};
use serde::Serialize;

use super::{
    Client, Fleet, Request, WorkersError,
    each::each,
    past::Past,
    steps::{Told, Worker},
};
use crate::{Bound, Objective, Sample, Search, Split, TuneError, args::sample};

/// What is compared, and for how long.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The splits.
    pub splits: Vec<Split>,
    /// Times are compared at this share of the simulated goodput.
    pub load: f64,
    /// Each run sends requests for so long, seconds.
    pub seconds: f64,
    /// Runs that look for the live goodput, each halving where it may be; 0: it is not looked for.
    pub probes: u32,
    /// Workers are told to take as long for each step as this profile says, which is the search's.
    pub pace: Option<PathBuf>,
    /// Options of `baton up`.
    pub words: Vec<String>,
}

/// A figure, simulated and live.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Both {
    /// By the simulator.
    pub simulated: f64,
    /// By real workers.
    pub live: f64,
}

/// A split, simulated and live.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// Which.
    pub split: Split,
    /// Requests a second at which times were compared.
    pub per_second: f64,
    /// Requests of that run.
    pub requests: usize,
    /// Those of them that did not complete, live.
    pub failed: u64,
    /// Time to first token, ms: median.
    pub ttft_p50_ms: Both,
    /// Its 99th percentile.
    pub ttft_p99_ms: Both,
    /// Mean time per output token, ms.
    pub tpot_ms: Both,
    /// Share of requests that met the objective.
    pub attained: Both,
    /// Simulated goodput of many requests, requests a second: by this a split is chosen.
    pub lasting: f64,
    /// The highest rate at which runs of this length met the objective, requests a second, if it was looked for. It is more than what lasts, as a queue takes time to
    /// grow.
    pub goodput: Both,
    /// What live steps took by what the profile says: median.
    pub steps_p50: f64,
    /// The same at p90.
    pub steps_p90: f64,
    /// How the workers differ from the profile's, if they do.
    pub unlike: Option<String>,
    /// Every request of the run whose times were compared.
    pub each: Vec<Request>,
}

/// Live goodput is looked for from this to that share of the simulated one.
const RANGE: (f64, f64) = (0.65, 1.5);
/// Requests that simulated goodput is found with.
const SIMULATED: u32 = 2_000;
/// A run has at least so many requests.
const LEAST: f64 = 60.0;

impl Both {
    /// Simulated by live, less 1.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.simulated / self.live - 1.0
    }
}

/// Runs every split, one after the other.
///
/// # Errors
/// [`TuneError`].
pub fn verify(search: &Search, workload: &Workload, what: &Verification) -> Result<Vec<Verified>, TuneError> {
    // As many requests as make a rate that lasts.
    let many = at_rate(workload, 1.0, SIMULATED, 0)?;
    let sample = sample(&many.plan(&Estimate::default())?, SIMULATED);
    let one = |&split: &Split| Trial { search, workload, what, split }.run(&sample);
    what.splits.iter().map(one).collect()
}

/// The share of goodput that is lost by taking the split with the best simulated goodput, rather than the best live one; none, if live ones are not known.
#[must_use]
pub fn regret(verified: &[Verified]) -> Option<f64> {
    let by =
        |figure: fn(&Verified) -> f64| verified.iter().max_by(move |a, b| figure(a).total_cmp(&figure(b)));
    let (chosen, best) = (by(|verified| verified.lasting)?, by(|verified| verified.goodput.live)?);
    let share = 1.0 - chosen.goodput.live / best.goodput.live;
    share.is_finite().then_some(share)
}

struct Trial<'a> {
    search: &'a Search,
    workload: &'a Workload,
    what: &'a Verification,
    split: Split,
}

impl Trial<'_> {
    fn run(&self, sample: &Sample) -> Result<Verified, TuneError> {
        let bound = Bound::new(sample, &self.search.profile, &self.search.objective);
        let guess = bound.per_second_apart(self.split) * 0.7;
        let lasting = self.search.goodput(self.split, sample, 0, guess)?.per_second;
        if lasting <= 0.0 {
            return Err(TuneError::NeverMet);
        }
        let fleet = Fleet::up(self.split, &self.words()).map_err(WorkersError::from)?;
        let client = Client::open(&fleet.server())?;
        let rate = lasting * self.what.load;
        // Schedulers learn what workers take: the first requests are placed by guesses.
        let mut past = Past::new(self.search, self.split);
        let warm_up = self.requests(rate, 1)?;
        past.run(planned(&warm_up)?)?;
        self.live(&client, &warm_up, "warm-up")?;
        let requests = self.requests(rate, 0)?;
        let simulated = past.run(planned(&requests)?)?;
        let document = self.live(&client, &requests, &format!("{rate:.2} requests/s"))?;
        let told = client.steps()?;
        let goodput = Both {
            simulated: self.goodput(lasting, |requests, _| {
                Ok(self.search.objective.attained(past.run(planned(requests)?)?.into_iter()))
            })?,
            live: self.goodput(lasting, |requests, rate| {
                let name = format!("goodput: {rate:.2} requests/s");
                let share = attained(&self.live(&client, requests, &name)?);
                let _ = writeln!(std::io::stderr(), "{name}: {:.1} % in time", share * 100.0);
                Ok(share)
            })?,
        };
        Ok(self.compared(lasting, goodput, &document, &simulated, &told))
    }

    /// Options of `baton up`: the scheduler promises what the simulated one does.
    fn words(&self) -> Vec<String> {
        let Objective { ttft_ms, tpot_ms, .. } = self.search.objective;
        let promised =
            [format!("--slo-ttft-ms={:.0}", ttft_ms.ceil()), format!("--slo-tpot-ms={:.0}", tpot_ms.ceil())];
        let pace = self.what.pace.iter().map(|path| format!("--pace={}", path.display()));
        self.what.words.iter().cloned().chain(promised).chain(pace).collect()
    }

    /// Of one run.
    fn requests(&self, rate: f64, seed: u64) -> Result<Workload, TuneError> {
        at_rate(self.workload, rate, (rate * self.what.seconds).max(LEAST) as u32, seed)
    }

    fn live(&self, client: &Client, requests: &Workload, name: &str) -> Result<Document, TuneError> {
        let Objective { ttft_ms, tpot_ms, .. } = self.search.objective;
        let slo = Slo { ttft_ms: Some(ttft_ms), tpot_ms: Some(tpot_ms), e2e_ms: None };
        Ok(client.run(requests, slo, Some(format!("{}, {name}", self.split)))?)
    }

    /// By halving, in runs that are as long and of the same requests where the rates are the same; what is right at the range's end stands for all beyond. `try_it` gives the share that was in time.
    fn goodput(
        &self,
        lasting: f64,
        mut try_it: impl FnMut(&Workload, f64) -> Result<f64, TuneError>,
    ) -> Result<f64, TuneError> {
        if self.what.probes == 0 {
            return Ok(f64::NAN);
        }
        let (mut good, mut bad) = (lasting * RANGE.0, lasting * RANGE.1);
        for probe in 0..self.what.probes {
            let rate = (good * bad).sqrt();
            let share = try_it(&self.requests(rate, 2 + u64::from(probe))?, rate)?;
            if share >= self.search.objective.share { good = rate } else { bad = rate }
        }
        Ok((good * bad).sqrt())
    }

    fn compared(
        &self,
        lasting: f64,
        goodput: Both,
        document: &Document,
        simulated: &[Served],
        told: &Told,
    ) -> Verified {
        let profile = &self.search.profile;
        let records = told.workers.iter().flat_map(Worker::records);
        let steps = Sorted::new(
            records.map(|record| record.seconds * 1e3 / profile.step_ms(&record.shape)).collect(),
        );
        let served: Vec<_> = simulated.iter().filter(|served| served.ending == Ending::Complete).collect();
        let latency = &document.summary.latency;
        let (ttft, tpot) = (latency.ttft_ms, latency.tpot_ms);
        let ttfts = Sorted::new(served.iter().filter_map(|served| served.ttft_ms).collect()).stats();
        let tpots = Sorted::new(served.iter().filter_map(|served| served.tpot_ms).collect()).stats();
        let both = |simulated: Option<Stats>, live: Option<Stats>, figure: fn(Stats) -> f64| Both {
            simulated: simulated.map_or(f64::NAN, figure),
            live: live.map_or(f64::NAN, figure),
        };
        let requests = document.summary.requests;
        Verified {
            split: self.split,
            per_second: lasting * self.what.load,
            requests: requests.total as usize,
            failed: requests.total - requests.complete,
            ttft_p50_ms: both(ttfts, ttft, |stats| stats.p50),
            ttft_p99_ms: both(ttfts, ttft, |stats| stats.p99),
            tpot_ms: both(tpots, tpot, |stats| stats.mean),
            attained: Both {
                simulated: self.search.objective.attained(simulated.iter().copied()),
                live: attained(document),
            },
            lasting,
            goodput,
            steps_p50: steps.percentile(0.5).unwrap_or(f64::NAN),
            steps_p90: steps.percentile(0.9).unwrap_or(f64::NAN),
            unlike: told.workers.iter().find_map(|worker| worker.unlike(profile)),
            each: each(simulated, document),
        }
    }
}

/// Share of the requests that met the objective.
fn attained(document: &Document) -> f64 {
    document.summary.goodput.map_or(0.0, |goodput| goodput.share)
}

fn planned(requests: &Workload) -> Result<Vec<SimRequest>, TuneError> {
    Ok(SimRequest::of_plan(&requests.plan(&Estimate::default())?))
}

/// `workload`'s requests at this rate, as irregular as it says, or independent of each other.
fn at_rate(workload: &Workload, rate: f64, requests: u32, seed: u64) -> Result<Workload, TuneError> {
    let spacing = match &workload.load {
        Load::Open { spacing, .. } => *spacing,
        Load::AtOnce { .. } | Load::Recorded { .. } | Load::Closed { .. } => Spacing::POISSON,
    };
    Ok(Workload {
        seed: workload.seed.wrapping_add(seed),
        load: Load::Open { profile: RateProfile::constant(rate)?, spacing, max_in_flight: None },
        requests: NonZeroU32::new(requests),
        duration: None,
        ..workload.clone()
    })
}
