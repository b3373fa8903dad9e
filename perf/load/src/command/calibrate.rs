//! `baton bench calibrate`.

use std::num::NonZeroU32;

use baton_results::{Calibration, Validity};

use super::{CommandError, interrupt, output::print};
use crate::{ApiShape, Intensity, Limits, calibrate as measure, modes::ModeError};

/// Options of `baton bench calibrate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
What this machine's client adds to every figure, at this load, now. Each run measures it for itself; this shows it alone.

Examples:
  baton bench calibrate --streams 256
  baton bench calibrate --at-rate 100 --threads 2")]
pub struct CalibrateArgs {
    /// Streams at once
    #[arg(long, default_value = "64", value_name = "N")]
    streams: NonZeroU32,

    /// Requests a second instead
    #[arg(long, value_name = "RATE", conflicts_with = "streams")]
    at_rate: Option<f64>,

    /// Threads of the client, one core each
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

/// Measures the client, and prints what it adds.
///
/// # Errors
/// [`CommandError`].
pub fn calibrate(args: &CalibrateArgs) -> Result<(), CommandError> {
    let intensity = args.at_rate.map_or(Intensity::Streams(args.streams.get()), Intensity::Rate);
    let limits = Limits { threads: usize::from(args.threads), ..Limits::default() };
    let interrupt = interrupt::on_ctrl_c()?;
    let calibration = measure(intensity, ApiShape::Chat, limits, &interrupt).map_err(ModeError::from)?;
    Ok(print(&told(&calibration))?)
}

fn told(calibration: &Calibration) -> String {
    let Calibration { truth, ttft_error, itl_error, client } = calibration;
    let millis = |us: f64| us / 1e3;
    let stolen = client.stolen_share.map_or("unknown".to_owned(), |share| format!("{:.1} %", share * 100.0));
    format!(
        "null server: {} streams, TTFT {} ms, ITL {} ms\n\
         TTFT error   p50 {:.3} ms   p99 {:.3} ms\n\
         ITL error    p50 {:.3} ms   p99 {:.3} ms\n\
         send lag     p50 {:.3} ms   p99 {:.3} ms\n\
         client CPU   {:.1} % of {} cores; time stolen from the machine {stolen}\n\
         {}",
        truth.streams,
        truth.ttft_us.millis(),
        truth.itl_us.millis(),
        millis(ttft_error.p50_us),
        millis(ttft_error.p99_us),
        millis(itl_error.p50_us),
        millis(itl_error.p99_us),
        client.send_lag_p50_us.millis(),
        client.send_lag_p99_us.millis(),
        client.cpu_share * 100.0,
        client.cores,
        Validity::of_client(client)
    )
}
