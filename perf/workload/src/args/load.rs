//! When requests start, and when they end.

use std::{num::NonZeroU32, time::Duration};

use super::{OptionsInvalid, SourceArgs};
use crate::{
    arrivals::{RateProfile, RateStep, Spacing},
    distribution::parse_time,
    workload::Load,
};

/// When requests start.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Closed loop: keep so many requests (or sessions) in flight, each followed by the next as soon as it ends [default: 1,
    /// unless there is a rate or a trace with times]
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "rate_ramp", "rate_steps"])]
    concurrency: Option<NonZeroU32>,

    /// Open loop: start so many requests (or sessions) a second, whatever the server does; inf: all at once
    #[arg(long, visible_alias = "request-rate", value_name = "PER_SECOND", value_parser = parse_rate, conflicts_with_all = ["rate_ramp", "rate_steps"])]
    rate: Option<Rate>,

    /// Open loop: let the rate rise (or fall) evenly, as FROM-TO:TIME, such as 1-20:5m
    #[arg(long, value_name = "RAMP", value_parser = parse_ramp, conflicts_with = "rate_steps")]
    rate_ramp: Option<RateProfile>,

    /// Open loop: one rate after the other, as RATExTIME,…, such as 2x60s,5x60s,2x60s
    #[arg(long, value_name = "STEPS", value_parser = parse_steps)]
    rate_steps: Option<RateProfile>,

    /// How a rate's requests are spaced: poisson (they know nothing of each other) or constant (evenly)
    #[arg(long, value_name = "PROCESS", default_value = "poisson", value_parser = parse_arrivals)]
    arrivals: Spacing,

    /// Space a rate's requests by gamma-distributed gaps of this shape: 1 is Poisson, less comes in bursts, more is more even
    #[arg(long, value_name = "SHAPE", value_parser = parse_positive, conflicts_with = "arrivals")]
    burstiness: Option<f64>,

    /// Open loop: let requests wait while so many are in flight; their latency counts from when they should have started
    #[arg(long, visible_alias = "max-concurrency", value_name = "N", conflicts_with = "concurrency")]
    max_in_flight: Option<NonZeroU32>,
}

/// How many requests are sent.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Length of the run")]
pub struct LimitArgs {
    /// End after so many requests, each turn of a session counted [default: the trace's end, the rate's end, or 100 where there
    /// is no --duration either]
    #[arg(short = 'n', long, visible_aliases = ["num-prompts", "request-count"], value_name = "N")]
    num_requests: Option<NonZeroU32>,

    /// Start no request after this time, such as 60s or 5m. (A closed loop without --num-requests is planned for at most 20 requests
    /// a second in each place.)
    #[arg(long, value_name = "TIME", value_parser = parse_length)]
    duration: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rate {
    AtOnce,
    PerSecond(f64),
}

impl LimitArgs {
    /// Requests and time; `has_end`: something else ends the plan.
    pub(super) fn limit(&self, has_end: bool) -> (Option<NonZeroU32>, Option<Duration>) {
        let otherwise = if has_end || self.duration.is_some() { None } else { NonZeroU32::new(100) };
        (self.num_requests.or(otherwise), self.duration)
    }
}

impl LoadArgs {
    /// The load that was asked for; a trace's own times when nothing was.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn load(&self, source: &SourceArgs) -> Result<Load, OptionsInvalid> {
        let max_in_flight = self.max_in_flight;
        let spacing = self.burstiness.map_or(self.arrivals, |shape| Spacing::Gamma { shape });
        let profile = match (self.rate, &self.rate_ramp, &self.rate_steps) {
            (Some(Rate::PerSecond(rate)), ..) => Some(RateProfile::constant(rate)),
            (_, Some(profile), _) | (_, _, Some(profile)) => Some(Ok(profile.clone())),
            _ => None,
        };
        let profile = profile.transpose().map_err(|error| OptionsInvalid(error.to_string()))?;
        let load = match (profile, self.rate, self.concurrency) {
            (Some(profile), ..) => Load::Open { profile, spacing, max_in_flight },
            (None, Some(_), _) => Load::AtOnce { max_in_flight },
            (None, None, None) if source.is_trace() => return Ok(source.recorded(max_in_flight)),
            (None, None, _) if max_in_flight.is_some() => {
                return Err(OptionsInvalid(
                    "--max-in-flight is for open loops: give --rate, or --concurrency alone".into(),
                ));
            }
            (None, None, concurrency) => Load::Closed { concurrency: concurrency.unwrap_or(NonZeroU32::MIN) },
        };
        source.check_no_replay()?;
        Ok(load)
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "inf" {
        return Ok(Rate::AtOnce);
    }
    let rate = parse_positive(text)?;
    RateProfile::constant(rate).map_err(|error| error.to_string())?;
    Ok(Rate::PerSecond(rate))
}

pub(super) fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("it must be a number over 0".into()),
    }
}

fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        Duration::ZERO => Err("it must be over 0".into()),
        time => Ok(time),
    }
}

fn parse_arrivals(text: &str) -> Result<Spacing, String> {
    match text {
        "poisson" => Ok(Spacing::POISSON),
        "constant" => Ok(Spacing::Constant),
        _ => Err("it must be poisson or constant; for gamma-distributed gaps there is --burstiness".into()),
    }
}

fn parse_ramp(text: &str) -> Result<RateProfile, String> {
    let parts = text.split_once(':').and_then(|(rates, over)| Some((rates.split_once('-')?, over)));
    let ((from, to), over) = parts.ok_or("it must be FROM-TO:TIME, such as 1-20:5m")?;
    let step = RateStep { from: number(from)?, to: number(to)?, over: parse_time(over)? };
    RateProfile::try_new([step]).map_err(|error| error.to_string())
}

fn parse_steps(text: &str) -> Result<RateProfile, String> {
    let step = |text: &str| {
        let (rate, over) =
            text.split_once('x').ok_or_else(|| format!("`{text}` is not RATExTIME, such as 2x60s"))?;
        let rate = number(rate)?;
        Ok(RateStep { from: rate, to: rate, over: parse_time(over)? })
    };
    let steps: Vec<RateStep> = text.split(',').map(step).collect::<Result<_, String>>()?;
    RateProfile::try_new(steps).map_err(|error| error.to_string())
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}
