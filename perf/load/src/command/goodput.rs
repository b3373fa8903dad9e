//! `baton bench goodput`.

use std::{fmt::Write as _, io::Write as _};

use baton_results::table;

use super::{CommandError, CommonArgs, TargetArgs, output::print};
use crate::{
    SearchSpec,
    modes::{self, Goodput},
};

/// Options of `baton bench goodput`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The rate is doubled or halved until one is found that the server can serve and one that it can't, and then the interval between them is
cut until it is small enough. Requests that fail or do not finish miss the SLO.

Examples:
  baton bench goodput --slo-ttft 500ms --slo-tpot 50ms --duration 1m --warm-up 10s
  baton bench goodput --slo-ttft 2s --share 0.99 --first-rate 8 --precision 0.02 -n 500")]
pub struct GoodputArgs {
    /// Share of requests that must meet the SLO
    #[arg(long, default_value_t = 0.9, value_name = "SHARE", value_parser = parse_share)]
    share: f64,

    /// The rate to try first, in requests a second
    #[arg(long, default_value_t = 1.0, value_name = "RATE", value_parser = parse_rate)]
    first_rate: f64,

    /// Search until the rate is known to this share of it
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", value_parser = parse_share)]
    precision: f64,

    /// Runs at most
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    most_runs: u32,

    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// Searches, and prints a table of the runs and what they say.
///
/// # Errors
/// [`CommandError`]; also when nothing is asked of requests.
pub fn goodput(args: &GoodputArgs) -> Result<(), CommandError> {
    let CommonArgs { workload, measure, output, .. } = &args.common;
    if measure.slo_ttft.or(measure.slo_tpot).or(measure.slo_e2e).is_none() {
        let message = "goodput of what? Say what requests must meet: --slo-ttft, --slo-tpot, --slo-e2e";
        return Err(CommandError::Other(message.to_owned()));
    }
    let prepared = args.common.prepare(&args.target.endpoint, workload.workload()?)?;
    let spec = SearchSpec {
        first_rate: args.first_rate,
        share: args.share,
        precision: args.precision,
        most_trials: args.most_runs,
    };
    let (bench, measure) = prepared.open(&args.target.url)?;
    let (mut number, mut written) = (0, Ok(()));
    let goodput = modes::goodput(&bench, &prepared.workload, spec, &measure, |document, trial| {
        number += 1;
        let result = output.write_one_of_several(document, number);
        written = std::mem::replace(&mut written, Ok(())).and(result);
        let share = trial.share() * 100.0;
        // Who closed standard error does not want to know.
        let _ = writeln!(std::io::stderr(), "{:.3} requests/s: {share:.1} % met the SLO", trial.rate);
    })?;
    print(&table::sweep(&goodput.documents))?;
    print(&verdict(&goodput, spec.share))?;
    written?;
    output.export(&goodput.documents)
}

fn verdict(goodput: &Goodput, share: f64) -> String {
    let found = goodput.found;
    let percent = share * 100.0;
    let mut text = match (found.rate, found.fails_at) {
        (Some(rate), Some(fails)) => {
            format!(
                "goodput: {rate:.3} requests/s ({percent:.0} % met the SLO there, and fewer at {fails:.3})"
            )
        }
        (Some(rate), None) => {
            format!("goodput: at least {rate:.3} requests/s; no rate that was tried was too high")
        }
        (None, Some(fails)) => {
            format!("goodput: below {fails:.3} requests/s; no rate that was tried was low enough")
        }
        (None, None) => "goodput: unknown; no run was completed".to_owned(),
    };
    if let Some((low, high)) = found.share_between {
        let _ = write!(
            text,
            "\nat that rate {:.1} to {:.1} % of requests meet it, with 95 % confidence",
            low * 100.0,
            high * 100.0
        );
    }
    if found.doubtful > 0 {
        let _ = write!(
            text,
            "\n{} runs were too close to {percent:.0} % to be sure on which side they are: longer runs (--duration, -n) tell",
            found.doubtful
        );
    }
    if goodput.has_invalid_runs {
        text.push_str("\nINVALID: at least one run measured the client; see the table");
    }
    text
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("a share is over 0 and at most 1".to_owned()) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("a rate is over 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Found;

    fn said(rate: Option<f64>, fails_at: Option<f64>, doubtful: u32) -> String {
        let share_between = rate.map(|_| (0.88, 0.94));
        let found = Found { rate, fails_at, share_between, doubtful };
        verdict(&Goodput { found, documents: Vec::new(), has_invalid_runs: false }, 0.9)
    }

    #[test]
    fn a_verdict_says_what_is_known_and_what_is_not() {
        assert_eq!(
            said(Some(4.0), Some(4.2), 0),
            "goodput: 4.000 requests/s (90 % met the SLO there, and fewer at 4.200)\n\
             at that rate 88.0 to 94.0 % of requests meet it, with 95 % confidence"
        );
        assert!(said(Some(4.0), None, 0).starts_with("goodput: at least 4.000"));
        assert!(said(None, Some(0.5), 0).starts_with("goodput: below 0.500"));
        assert!(said(Some(4.0), Some(4.2), 2).contains("2 runs were too close to 90 %"));
    }
}
