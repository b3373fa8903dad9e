//! Options of `baton tune profile` and `baton tune verify`.

use std::path::PathBuf;

use baton_load::Target;
use baton_workload::WorkloadArgs;

use super::{Server, Thoroughness, Verification, measure, observe, report, verify};
use crate::{
    FleetArgs, Split, TuneError,
    args::{self, positive},
};
use baton_profile::Profile;

/// Options of `baton tune profile`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Starts a prefill and a decode worker on this machine, then a worker that does both, puts loads of every kind on them, and writes down
what their steps, their hand-overs and calls took. What follows -- are options of `baton up`; workers should have what those of the fleet
will have. On a shared machine more rounds make up for disturbances.

Examples:
  baton tune profile -o worker.json
  baton tune profile -o worker.json --live http://scheduler:8000
  baton tune profile -o worker.json --rounds 3 -- --model ./my-model --threads 4 --kv-memory 2GiB --fabric libfabric:tcp")]
pub struct MeasureArgs {
    /// Where the profile goes
    #[arg(long, short, value_name = "FILE", default_value = "profile.json")]
    output: PathBuf,

    /// What the profile is called [default: the model's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Times that all loads are repeated, with other prompts
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// Seed of what prompts say
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Start nothing, and put no load on anything: take what the workers of this Baton scheduler have done lately. They should have had batches
    /// of all sizes
    #[arg(long, value_name = "URL", conflicts_with_all = ["rounds", "seed", "up"])]
    live: Option<Target>,

    /// An operator's key, where the scheduler asks for one
    #[arg(long, env = "BATON_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Certificates that the scheduler's is checked against [default: the system's]
    #[arg(long, env = "BATON_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Options of `baton up` for the workers
    #[arg(last = true, value_name = "UP_OPTIONS")]
    up: Vec<String>,
}

/// Options of `baton tune verify`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Starts each split on this machine, one after the other, sends the same requests that are simulated, and says how far the simulation is
off. With --probes it also looks for the highest rate at which the real workers meet the objective, and so for the best split.
What follows -- are options of `baton up`: those with which the profile was measured.

Examples:
  baton tune verify --profile worker.json --workers 3 --rate 1 --input-tokens 400 --output-tokens 60
  baton tune verify --profile h200.json --paced --workers 3 --trace requests.jsonl
  baton tune verify --profile worker.json --split 1:2 --split 0:3 --probes 5 --trace requests.jsonl -- --model ./my-model --threads 4")]
pub struct VerifyArgs {
    /// The profile of the workers, from `baton tune profile`
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,

    #[command(flatten)]
    fleet: FleetArgs,

    /// Workers to be divided in every way, if no --split is named
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// A split to run, such as 1:3; 0:4 for four workers that do both. Several may follow
    #[arg(long = "split", value_name = "PREFILL:DECODE")]
    splits: Vec<Split>,

    /// Times are compared at this share of the simulated goodput
    #[arg(long, value_name = "SHARE", default_value_t = 0.85, value_parser = positive)]
    load: f64,

    /// How long each run sends requests, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = positive)]
    seconds: f64,

    /// Runs that look for each split's goodput; 0: only times are compared
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20))]
    probes: u32,

    /// Workers take as long for each step as the profile says (--pace), so what is held against the simulation is all but the times of
    /// steps: for profiles of other hardware, and for machines whose own times vary
    #[arg(long)]
    paced: bool,

    /// Write all that was found here, as JSON: each request of the compared runs too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    workload: WorkloadArgs,

    /// Options of `baton up` for the workers
    #[arg(last = true, value_name = "UP_OPTIONS")]
    up: Vec<String>,
}

impl MeasureArgs {
    /// Measures, writes the profile, and says how well it explains what was measured.
    ///
    /// # Errors
    /// Workers that do not come up or do not serve, or a file that can't be written.
    pub fn run(&self) -> Result<String, TuneError> {
        let how = Thoroughness { rounds: self.rounds, seed: self.seed };
        let mut measured = match &self.live {
            Some(target) => {
                let (api_key, ca) = (self.api_key.clone(), self.tls_ca.clone());
                observe(&Server { target: target.clone(), api_key, ca })?
            }
            None => measure(&self.up, &how)?,
        };
        if let Some(name) = &self.name {
            measured.profile.name.clone_from(name);
        }
        args::write(&self.output, &measured.profile.to_json())?;
        Ok(report::profile(&measured, &self.output))
    }
}

impl VerifyArgs {
    /// Runs the splits, and compares them with their simulations.
    ///
    /// # Errors
    /// [`TuneError`].
    pub fn run(&self) -> Result<String, TuneError> {
        let search = self.fleet.search(Profile::read(&self.profile)?).promising();
        let all = || Split::all(self.workers.into()).collect();
        let what = Verification {
            splits: if self.splits.is_empty() { all() } else { self.splits.clone() },
            load: self.load,
            seconds: self.seconds,
            probes: self.probes,
            pace: self.paced.then(|| self.profile.clone()),
            words: self.up.clone(),
        };
        let verified = verify(&search, &self.workload.workload()?, &what)?;
        if let Some(path) = &self.json {
            args::write(path, &(serde_json::to_string_pretty(&verified).unwrap_or_default() + "\n"))?;
        }
        Ok(report::verification(&verified))
    }
}
