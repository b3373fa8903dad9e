//! The command line.

use baton_load::{
    command::{CalibrateArgs, CompareArgs, GoodputArgs, ReplayArgs, RunArgs, SweepArgs},
    null::NullServerArgs,
};
use baton_process::{LogArgs, TraceArgs};
use baton_results::ReportArgs;
use baton_tuner::{
    RecommendArgs, SimulateArgs,
    workers::{MeasureArgs, VerifyArgs},
};
use clap::{Parser, Subcommand};

use crate::{
    dev_ca::DevCaArgs, doctor::DoctorArgs, explain::ExplainArgs, key::KeyCommand, pull::PullArgs, up::UpArgs,
};

/// Set by the build script: the version, and the git commit if there is one.
const VERSION: &str = env!("BATON_VERSION");

/// Serves large language models with prefill and decode on different workers
#[derive(Parser, Debug)]
#[command(name = "baton", version = VERSION, propagate_version = true, max_term_width = 110)]
#[command(after_help = "\
Examples:
  baton up                                 serve the bundled model on http://127.0.0.1:8000
  baton up --model Qwen/Qwen3-0.6B         download a model once, then serve it
  baton up --prefill 2 --decode 1          two prefill workers, one decode worker
  baton pull Qwen/Qwen3-0.6B               download only
  baton explain REQUEST_ID                 where a request went, and why
  baton doctor                             what this machine can do
  baton bench run --concurrency 16         put a load on the server that is running, and measure it
  baton tune recommend --help              how many prefill and how many decode workers

`baton COMMAND --help` explains a command and shows more examples.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logs: LogArgs,

    #[command(flatten)]
    pub(crate) traces: TraceArgs,

    /// Process that started this one: report failures to it, and end when it ends
    #[arg(long, value_name = "PID", hide = true, global = true)]
    pub(crate) supervisor: Option<u32>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Put a load on a server with OpenAI's API: latencies, throughput, goodput
    Run(Box<RunArgs>),
    /// The same requests at several rates, or with several clients
    Sweep(Box<SweepArgs>),
    /// The highest rate at which enough requests meet an SLO
    Goodput(Box<GoodputArgs>),
    /// Two servers in turn, and what the difference is worth
    Compare(Box<CompareArgs>),
    /// A trace's requests at the trace's times
    Replay(Box<ReplayArgs>),
    /// What the client itself adds to figures on this machine
    Calibrate(CalibrateArgs),
    /// Run a server of known latencies, to try clients on
    NullServer(NullServerArgs),
    /// Make tables, charts and other tools' formats of results
    Report(ReportArgs),
    /// KV blocks between two processes: GB/s and latency, beside memcpy in the same run
    Transfer(baton_transfer_bench::Args),
}

/// What to find out.
#[derive(Subcommand, Debug)]
pub(crate) enum Tune {
    /// The best split of some workers for a workload, or none
    Recommend(Box<RecommendArgs>),
    /// What a fleet would give a workload
    Simulate(Box<SimulateArgs>),
    /// What work takes the workers of this machine: a profile for the other commands
    Profile(Box<MeasureArgs>),
    /// Splits of workers on this machine, run for real beside their simulation
    Verify(Box<VerifyArgs>),
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start everything on this machine: front, sidecars and workers, as separate processes
    Up(Box<UpArgs>),
    /// Download a model from the hub into the standard cache
    Pull(PullArgs),
    /// Say what this machine can do, what would be chosen, and why the rest is passed over
    Doctor(DoctorArgs),
    /// Say where a request went and why, and where it would have gone with other weights
    Explain(ExplainArgs),
    /// Make API keys for the front
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make a certificate authority to try TLS with, and a certificate for all components
    DevCa(DevCaArgs),
    /// Measure servers and fabrics, and report what came of it
    #[command(subcommand)]
    Bench(Bench),
    /// Say how many prefill and how many decode workers a traffic needs: by simulation, from what workers were measured to take
    #[command(subcommand)]
    Tune(Tune),
    #[command(flatten)]
    Role(Role),
}

impl Role {
    /// What spans call it.
    pub(crate) fn service_name(&self) -> &'static str {
        match self {
            Self::Scheduler(_) => "baton-scheduler",
            Self::Sidecar(_) => "baton-sidecar",
            Self::PrefillWorker(_) => "baton-prefill-worker",
            Self::DecodeWorker(_) => "baton-decode-worker",
        }
    }
}

/// The parts of a deployment, a process each.
#[derive(Subcommand, Debug)]
pub(crate) enum Role {
    /// Run the OpenAI HTTP front with the worker registry and placement
    Scheduler(Box<baton_scheduler::SchedulerArgs>),
    /// Run the sidecar of one decode worker
    Sidecar(Box<baton_sidecar::Args>),
    /// Run a worker that computes prompts and pushes their KV blocks to decode workers
    PrefillWorker(Box<baton_prefill_worker::Args>),
    /// Run a worker that receives KV blocks and generates tokens, behind a sidecar
    DecodeWorker(Box<baton_decode_worker::Args>),
}
