//! `baton bench sweep`.

use std::num::NonZeroU32;

use baton_results::table;

use super::{CommandError, CommonArgs, TargetArgs, output::print};
use crate::modes::{self, Axis};

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
    common: CommonArgs,
}

/// Measures at each point, and prints a table of them.
///
/// # Errors
/// [`CommandError`].
pub fn sweep(args: &SweepArgs) -> Result<(), CommandError> {
    let CommonArgs { workload, output, .. } = &args.common;
    let prepared = args.common.prepare(&args.target.endpoint, workload.workload()?)?;
    let axis = match args.rates.is_empty() {
        true => Axis::Concurrencies(args.concurrencies.clone()),
        false => Axis::Rates(args.rates.clone()),
    };
    let (bench, measure) = prepared.open(&args.target.url)?;
    let (mut number, mut written) = (0, Ok(()));
    let documents = modes::sweep(&bench, &prepared.workload, &axis, &measure, |document| {
        number += 1;
        // What is written is there, should a later run fail.
        let result = output.write_one_of_several(document, number);
        written = std::mem::replace(&mut written, Ok(())).and(result);
    })?;
    print(&table::sweep(&documents))?;
    written?;
    output.export(&documents)
}
