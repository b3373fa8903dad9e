//! `baton bench run` and `replay`.

use baton_results::table;
use baton_workload::{Source, Workload};

use super::{CommandError, CommonArgs, TargetArgs, output::print};
use crate::modes;

/// Options of `baton bench run`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Latencies count from when requests were to be sent. First the client itself is measured against a built-in server of known latencies,
at the same load: that is the floor of the figures, and a run whose client was too slow says INVALID.

Examples:
  baton bench run --concurrency 16 -n 200 --input-tokens 512 --output-tokens 128
  baton bench run --rate 4 --duration 2m --warm-up 20s --slo-ttft 500ms --slo-tpot 50ms
  baton bench run --url https://host/v1 --api-key KEY --endpoint completions --tokenizer ./model -o run.json")]
pub struct RunArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// Options of `baton bench replay`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Requests are sent when the trace says, and share prefixes as it says; --time-scale 0.5 sends them twice as fast. With --rate or
--concurrency only the requests are the trace's, not their times.

Examples:
  baton bench replay --trace conversation_trace.jsonl --time-scale 2 --duration 10m
  baton bench replay --trace azure.csv --rate 3 -n 500")]
pub struct ReplayArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// Measures, and prints a table.
///
/// # Errors
/// [`CommandError`].
pub fn run(args: &RunArgs) -> Result<(), CommandError> {
    measure(args, args.common.workload.workload()?)
}

/// Replays a trace, and prints a table.
///
/// # Errors
/// [`CommandError`]; also when there is no trace.
pub fn replay(args: &ReplayArgs) -> Result<(), CommandError> {
    let workload = args.run.common.workload.workload()?;
    if !matches!(workload.source, Source::Trace(_)) {
        return Err(CommandError::Other("there is nothing to replay: name a file with --trace".to_owned()));
    }
    measure(&args.run, workload)
}

fn measure(args: &RunArgs, workload: Workload) -> Result<(), CommandError> {
    let prepared = args.common.prepare(&args.target.endpoint, workload)?;
    let (bench, measure) = prepared.open(&args.target.url)?;
    let document = modes::run(&bench, &prepared.workload, &measure)?;
    print(&table::run(&document))?;
    args.common.output.write(&document)
}
