//! The same requests at several rates, or with several clients.

use std::num::NonZeroU32;

use baton_results::Document;
use baton_workload::{Load, Workload};

use super::{Measure, ModeError, run_at, with_rate};
use crate::Bench;

/// What is varied.
#[derive(Clone, Debug, PartialEq)]
pub enum Axis {
    /// Requests a second.
    Rates(Vec<f64>),
    /// Clients, each of which sends when it has its answer.
    Concurrencies(Vec<NonZeroU32>),
}

/// Runs `workload` at each point of `axis`, one after the other; `done` is told of each run. Blocks.
///
/// # Errors
/// [`ModeError`]; what was told to `done` before stays.
pub fn sweep(
    bench: &Bench,
    workload: &Workload,
    axis: &Axis,
    measure: &Measure,
    mut done: impl FnMut(&Document),
) -> Result<Vec<Document>, ModeError> {
    let points: Vec<(Workload, Option<f64>)> = match axis {
        Axis::Rates(rates) => {
            let at = |rate: &f64| Ok((with_rate(workload, *rate)?, Some(*rate)));
            rates.iter().map(at).collect::<Result<_, ModeError>>()?
        }
        Axis::Concurrencies(concurrencies) => {
            let with = |concurrency: &NonZeroU32| Workload {
                load: Load::Closed { concurrency: *concurrency },
                ..workload.clone()
            };
            concurrencies.iter().map(|concurrency| (with(concurrency), None)).collect()
        }
    };
    let mut documents = Vec::new();
    for ((workload, rate), round) in points.into_iter().zip(0..) {
        if measure.interrupt.is_cancelled() {
            break;
        }
        let document = run_at(bench, &workload, measure, rate, round)?;
        done(&document);
        documents.push(document);
    }
    Ok(documents)
}
