//! When single requests and sessions begin.

use std::{
    iter::{repeat, repeat_n},
    time::Duration,
};

use super::{MAX_REQUESTS, PlanError};
use crate::{
    plan::Start,
    workload::{Load, Workload},
};

/// A closed loop that runs for a time is planned for servers that answer at most so many requests a second in each place.
const CLOSED_LOOP_RATE: f64 = 20.0;

/// Starts of requests or first turns, in order. `sources`: for how many there is something to say, where that is a number.
pub(super) fn slots(
    workload: &Workload,
    sources: Option<usize>,
) -> Result<Box<dyn Iterator<Item = Start> + '_>, PlanError> {
    let has_end = sources.is_some() || workload.requests.is_some();
    let end = workload.duration.unwrap_or(Duration::MAX);
    let starts: Box<dyn Iterator<Item = Start>> = match (&workload.load, workload.duration) {
        (Load::Closed { .. }, _) if has_end => Box::new(repeat(Start::WhenFree)),
        (Load::Closed { concurrency }, Some(duration)) => {
            let planned = duration.as_secs_f64() * CLOSED_LOOP_RATE * f64::from(concurrency.get());
            let planned = (planned.ceil() as usize).clamp(1, MAX_REQUESTS as usize);
            Box::new(repeat_n(Start::WhenFree, planned))
        }
        (Load::AtOnce { .. }, _) if has_end => Box::new(repeat(Start::At(Duration::ZERO))),
        (Load::Open { profile, spacing, .. }, duration)
            if has_end || duration.is_some() || profile.length().is_some() =>
        {
            let times = profile.arrivals(*spacing, workload.seed);
            Box::new(times.take_while(move |&at| at < end).map(Start::At))
        }
        (Load::Recorded { .. }, _) => return Err(PlanError::NoTimes { path: "a synthetic workload".into() }),
        _ => return Err(PlanError::Endless),
    };
    Ok(starts)
}
