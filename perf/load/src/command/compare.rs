//! `baton bench compare`.

use std::io::Write as _;

use baton_results::table;

use super::{CommandError, CommonArgs, EndpointArgs, output::print};
use crate::{Target, modes};

/// Options of `baton bench compare`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The same requests are sent to both in pairs of runs, A B, B A, A B, …, so that what changes slowly is in both alike. For each metric the
ratio of B to A is given with its 95 % interval, and the smallest difference that so many pairs would have shown.

Examples:
  baton bench compare http://127.0.0.1:8000 http://127.0.0.1:9000 --pairs 10 --concurrency 8 -n 100
  baton bench compare URL URL --rate 2 --duration 30s          A/A: how much runs differ by themselves")]
pub struct CompareArgs {
    /// The server that is compared with
    #[arg(value_name = "A")]
    a: Target,

    /// The server that is compared
    #[arg(value_name = "B")]
    b: Target,

    /// What tables call A [default: its URL]
    #[arg(long, value_name = "NAME")]
    name_a: Option<String>,

    /// What tables call B [default: its URL]
    #[arg(long, value_name = "NAME")]
    name_b: Option<String>,

    /// Pairs of runs
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    pairs: u32,

    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// Measures both, and prints what differs.
///
/// # Errors
/// [`CommandError`].
pub fn compare(args: &CompareArgs) -> Result<(), CommandError> {
    let prepared = args.common.prepare(&args.endpoint, args.common.workload.workload()?)?;
    let open = |target: &Target, name: &Option<String>| {
        let (bench, mut measure) = prepared.open(target)?;
        measure.name = name.clone().unwrap_or_else(|| target.to_string());
        Ok::<_, CommandError>((bench, measure))
    };
    let (a, b) = (open(&args.a, &args.name_a)?, open(&args.b, &args.name_b)?);
    let mut runs = 0;
    let comparison =
        modes::compare([(&a.0, &a.1), (&b.0, &b.1)], &prepared.workload, args.pairs, |document| {
            runs += 1;
            let (name, validity) = (&document.measured.run.name, &document.measured.validity);
            // Who closed standard error does not want to know.
            let _ = writeln!(std::io::stderr(), "run {runs} of {}: {name}: {validity}", args.pairs * 2);
        })?;
    print(&table::comparison(&comparison))?;
    match args.common.output.path() {
        Some(path) => Ok(comparison.write(path)?),
        None => Ok(()),
    }
}
