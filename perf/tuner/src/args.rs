//! Options of `baton tune simulate` and `baton tune recommend`.

use std::{path::PathBuf, sync::Arc};

use baton_profile::{
    ACCELERATORS, Accelerator, Assumptions, Estimate, EstimateError, MODELS, ModelShape, Profile,
    ProfileError,
};
use baton_simulator::{Routing, SimRequest, SystemError, Traffic, TrafficError};
use baton_workload::{
    Estimate as CountByLength, OptionsInvalid, Plan, PlanError, RateInvalid, Source, Workload, WorkloadArgs,
};
use clap::builder::PossibleValuesParser;

use crate::{
    LiveArgs, LiveError, Objective, Options, Sample, Search, Split, page, recommend, summary, table, values,
    workers::WorkersError,
};

/// What a worker is like.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Worker")]
pub struct ProfileArgs {
    /// A profile of a worker pair: JSON, measured or written by --write-profile (docs/tuning.md)
    #[arg(long, value_name = "FILE", required_unless_present = "hardware", conflicts_with_all = ["hardware", "served_model", "accelerators"])]
    profile: Option<PathBuf>,

    /// Estimate a worker on this machine of AWS from data sheets: tens of percent may be missing
    #[arg(long, value_name = "MACHINE", requires = "served_model", value_parser = PossibleValuesParser::new(ACCELERATORS.map(|accelerator| accelerator.name)))]
    hardware: Option<String>,

    /// The model that the estimated worker serves, in bf16
    #[arg(long, value_name = "MODEL", requires = "hardware", value_parser = PossibleValuesParser::new(MODELS.map(|model| model.name)))]
    served_model: Option<String>,

    /// Accelerators of an estimated worker, which share the model (tensor parallel)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    accelerators: u32,

    /// Write the estimated profile here, to be read, changed and used with --profile
    #[arg(long, value_name = "FILE", requires = "hardware")]
    write_profile: Option<PathBuf>,
}

/// How the fleet serves, and what is promised.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Fleet and objective")]
pub struct FleetArgs {
    /// Who places requests: baton (the scheduler's own code, which may also refuse), least-loaded or round-robin (both quicker to
    /// simulate; they hand every prompt over)
    #[arg(long, value_name = "NAME", default_value = "baton", value_parser = PossibleValuesParser::new(["baton", "least-loaded", "round-robin"]))]
    routing: String,

    /// Tokens that clients allow for an answer, which routing sees [default: as many as the answer has]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,

    /// First token within this time, ms
    #[arg(long, value_name = "MS", default_value_t = 2_000.0, value_parser = positive)]
    slo_ttft_ms: f64,

    /// Mean time between the tokens of a request at most, ms
    #[arg(long, value_name = "MS", default_value_t = 100.0, value_parser = positive)]
    slo_tpot_ms: f64,

    /// Percentage of the requests that must meet both; refused ones do not
    #[arg(long, value_name = "PERCENT", default_value_t = 90.0, value_parser = percent)]
    slo_percent: f64,
}

/// Options of `baton tune simulate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  baton tune simulate --hardware p5 --served-model llama-3.1-8b --prefill 1 --decode 3 --trace requests.jsonl
  baton tune simulate --profile worker.json --prefill 0 --decode 4 --rate 12 --input-tokens lognormal:median=1000,p99=9000 -n 5000")]
pub struct SimulateArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    fleet: FleetArgs,

    /// Prefill workers; 0: every worker does both
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=1024))]
    prefill: u16,

    /// Decode workers, or those that do both
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    decode: u16,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    live: LiveArgs,

    #[command(flatten)]
    workload: WorkloadArgs,
}

/// Options of `baton tune recommend`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Says how many of --workers should prefill and how many decode, or that all should do both, with the rate that keeps the objective,
the curve around it, what changes in the traffic would do, and what one worker more would buy. The workload's lengths, prefixes
and the pattern of its times count; its rate is varied.

Examples:
  baton tune recommend --hardware p5en --served-model llama-3.1-70b --accelerators 4 --workers 8 --trace requests.jsonl
  baton tune recommend --profile worker.json --workers 6 --live http://scheduler:8000
  baton tune recommend --profile worker.json --workers 6 --rate 10 --input-tokens 4000 --output-tokens 200 -n 4000 --values values.yaml")]
pub struct RecommendArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    fleet: FleetArgs,

    /// Workers to be divided
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,

    /// Samples on which the best splits are compared: synthetic requests are drawn anew, a trace's windows are put in another order
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    samples: u16,

    /// Requests that are simulated at most each time: the first ones
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    most_requests: u32,

    /// Lengths are changed by so many percent to see what that does
    #[arg(long, value_name = "PERCENT", default_value_t = 25.0, value_parser = positive)]
    shift_percent: f64,

    /// Write all that was found here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write values for the Helm chart here: mode and replicas
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,

    #[command(flatten)]
    live: LiveArgs,

    #[command(flatten)]
    workload: WorkloadArgs,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// Of the profile's file.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Of the estimate.
    #[error(transparent)]
    Estimate(#[from] EstimateError),
    /// Options that contradict each other.
    #[error(transparent)]
    Workload(#[from] OptionsInvalid),
    /// Of the trace, or what else the plan is made from.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Of the traffic of a scheduler.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// Requests that can't be simulated.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// A system that can't be simulated.
    #[error(transparent)]
    System(#[from] SystemError),
    /// There is no rate to vary.
    #[error(
        "the workload has no rate that could be varied: give --rate (what counts is the pattern, so 1 will do) or a trace with times, \
         and at least two requests"
    )]
    NoTimes,
    /// Nobody to be divided.
    #[error("there must be at least one worker")]
    NoWorkers,
    /// No split is good enough.
    #[error(
        "no split of so many workers ever meets the objective, not even for one request at a time: allow more time (--slo-ttft-ms, \
         --slo-tpot-ms), or take workers that are faster or have more memory"
    )]
    NeverMet,
    /// Real workers.
    #[error(transparent)]
    Workers(#[from] WorkersError),
    /// A rate at which nobody can be put under load.
    #[error(transparent)]
    Rate(#[from] RateInvalid),
    /// A file that can't be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ProfileArgs {
    /// The profile, read or estimated.
    ///
    /// # Errors
    /// [`TuneError`].
    pub fn profile(&self) -> Result<Profile, TuneError> {
        if let Some(path) = &self.profile {
            return Ok(Profile::read(path)?);
        }
        // Clap has seen to it that both are known names.
        let accelerator = self.hardware.as_deref().and_then(Accelerator::by_name).unwrap_or(ACCELERATORS[0]);
        let model = self.served_model.as_deref().and_then(ModelShape::by_name).unwrap_or(MODELS[0]);
        let assumptions = Assumptions::default();
        let profile =
            Estimate { accelerator, accelerators: self.accelerators, model, assumptions }.profile()?;
        if let Some(path) = &self.write_profile {
            write(path, &profile.to_json())?;
        }
        Ok(profile)
    }
}

impl FleetArgs {
    pub(crate) fn search(&self, profile: Profile) -> Search {
        Search {
            profile: Arc::new(profile),
            routing: match self.routing.as_str() {
                "round-robin" => Routing::RoundRobin,
                "least-loaded" => Routing::LeastLoaded,
                _ => Routing::baton(),
            },
            objective: Objective {
                ttft_ms: self.slo_ttft_ms,
                tpot_ms: self.slo_tpot_ms,
                share: self.slo_percent / 100.0,
            },
            max_tokens: self.max_tokens,
        }
    }
}

impl SimulateArgs {
    /// Simulates, and says how the fleet served.
    ///
    /// # Errors
    /// [`TuneError`].
    pub fn run(&self) -> Result<String, TuneError> {
        let search = self.fleet.search(self.profile.profile()?).promising();
        let source = self.live.source(&self.workload)?;
        let plan = source.workload.plan(&CountByLength::default())?;
        let split = Split { prefill: self.prefill.into(), decode: self.decode.into() };
        let simulated = search.simulate(split, &Traffic::of_plan(&plan)?, plan.seed())?;
        let summary = summary(&simulated, &search.objective);
        if self.json {
            return Ok(serde_json::to_string_pretty(&summary).unwrap_or_default() + "\n");
        }
        let head = format!("{split} of {}, {} routing\n\n", search.profile.name, search.routing.name());
        Ok(source.head + &head + &table(&summary, &search.objective))
    }
}

impl RecommendArgs {
    /// Finds the best split, writes what is to be written, and gives the page.
    ///
    /// # Errors
    /// [`TuneError`].
    pub fn run(&self) -> Result<String, TuneError> {
        let search = self.fleet.search(self.profile.profile()?).promising();
        let options = Options { workers: self.workers.into(), shift: self.shift_percent / 100.0 };
        let source = self.live.source(&self.workload)?;
        let told = recommend(&search, &self.samples(source.workload)?, &options)?;
        if let Some(path) = &self.json {
            write(path, &(serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"))?;
        }
        if let Some(path) = &self.values {
            write(path, &values(told.split))?;
        }
        Ok(source.head + &page(&told, &search.profile, &search.objective))
    }

    fn samples(&self, mut workload: Workload) -> Result<Vec<Sample>, TuneError> {
        let first = sample(&workload.plan(&CountByLength::default())?, self.most_requests);
        let is_drawn = matches!(workload.source, Source::Synthetic(_));
        let mut samples = vec![first];
        for number in 1..u64::from(self.samples) {
            samples.push(if is_drawn {
                workload.seed = workload.seed.wrapping_add(1);
                sample(&workload.plan(&CountByLength::default())?, self.most_requests)
            } else {
                samples[0].shuffled(number)
            });
        }
        Ok(samples)
    }
}

/// The first requests of a plan.
pub(crate) fn sample(plan: &Plan, most_requests: u32) -> Sample {
    let concurrency = plan.pacing().concurrency.unwrap_or(1) as usize;
    Sample::new(SimRequest::of_plan(plan), concurrency).first(most_requests as usize)
}

pub(crate) fn write(path: &PathBuf, text: &str) -> Result<(), TuneError> {
    std::fs::write(path, text).map_err(|source| TuneError::Write { path: path.clone(), source })
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a number above 0");
    text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0).ok_or_else(wrong)
}

fn percent(text: &str) -> Result<f64, String> {
    positive(text)
        .ok()
        .filter(|value| *value <= 100.0)
        .ok_or_else(|| format!("{text:?} is not a percentage above 0 and at most 100"))
}
