//! `baton bench sweep`.

use std::{num::NonZeroU32, sync::Arc};

use baton_results::table;
use baton_workload::{ContentArgs, WorkloadArgs};

use super::{CommandError, MeasureArgs, OutputArgs, TargetArgs, interrupt, output::print, run::token_ends};
use crate::{
    Bench,
    modes::{self, Axis},
};

/// Options of `baton bench sweep`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  baton bench sweep --concurrencies 1,2,4,8,16 -n 100
  baton bench sweep --rates 1,2,4,8 --duration 1m --warm-up 10s -o sweep.json")]
pub struct SweepArgs {
    /// Rates to run at, in requests a second, one after the other
    #[arg(long, value_delimiter = ',', value_name = "RATE,…", required_unless_present = "concurrencies", conflicts_with_all = ["concurrencies", "rate", "concurrency", "rate_ramp", "rate_steps"])]
    rates: Vec<f64>,

    /// Numbers of clients to run with, one after the other
    #[arg(long, value_delimiter = ',', value_name = "N,…", conflicts_with_all = ["rate", "concurrency", "rate_ramp", "rate_steps", "max_in_flight"])]
    concurrencies: Vec<NonZeroU32>,

    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    content: ContentArgs,
    #[command(flatten)]
    measure: MeasureArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Measures at each point, and prints a table of them.
///
/// # Errors
/// [`CommandError`].
pub fn sweep(args: &SweepArgs) -> Result<(), CommandError> {
    let endpoint = &args.target.endpoint;
    let workload = args.workload.workload()?;
    let form = endpoint.form().map_err(CommandError::Other)?;
    let made = Arc::new(args.content.content(workload.seed)?);
    let interrupt = interrupt::on_ctrl_c()?;
    let measure = args.measure.measure(args.target.url.to_string(), form, made.clone(), &interrupt);
    let axis = match args.rates.is_empty() {
        true => Axis::Concurrencies(args.concurrencies.clone()),
        false => Axis::Rates(args.rates.clone()),
    };
    let bench = Bench::open(endpoint.setup(args.target.url.clone(), token_ends(&made)))?;
    let (mut number, mut written) = (0, Ok(()));
    let documents = modes::sweep(&bench, &workload, &axis, &measure, |document| {
        number += 1;
        // What is written is there, should a later run fail.
        let result = args.output.write_one_of_several(document, number);
        written = std::mem::replace(&mut written, Ok(())).and(result);
    })?;
    print(&table::sweep(&documents))?;
    written?;
    args.output.export(&documents)
}
