//! When single requests and sessions begin.

use std::time::Duration;

use super::{MAX_REQUESTS, PlanError};
use crate::{
    plan::Start,
    workload::{Load, Workload},
};

/// A closed loop that runs for a time is planned for servers that answer at most so many requests a second in each place.
const CLOSED_LOOP_RATE: f64 = 20.0;

/// Starts of requests or first turns, in order.
pub(super) fn slots(workload: &Workload) -> Result<Box<dyn Iterator<Item = Start> + '_>, PlanError> {
    match (&workload.load, workload.requests, workload.duration) {
        (Load::Closed { .. }, Some(_), _) => Ok(Box::new(std::iter::repeat(Start::WhenFree))),
        (Load::Closed { concurrency }, None, Some(duration)) => {
            let needed = duration.as_secs_f64() * CLOSED_LOOP_RATE * f64::from(concurrency.get());
            let planned = (needed.ceil() as usize).clamp(1, MAX_REQUESTS as usize);
            Ok(Box::new(std::iter::repeat_n(Start::WhenFree, planned)))
        }
        (Load::Open { profile, spacing, .. }, requests, duration) => {
            if requests.is_none() && duration.is_none() && profile.length().is_none() {
                return Err(PlanError::Endless);
            }
            let end = duration.unwrap_or(Duration::MAX);
            let times = profile.arrivals(*spacing, workload.seed).take_while(move |&at| at < end);
            Ok(Box::new(times.map(Start::At)))
        }
        (Load::AtOnce { .. }, Some(_), _) => Ok(Box::new(std::iter::repeat(Start::At(Duration::ZERO)))),
        (Load::Closed { .. }, None, None) | (Load::AtOnce { .. }, None, _) => Err(PlanError::Endless),
    }
}
