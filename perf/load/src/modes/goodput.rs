//! The highest rate at which enough requests meet what is asked.

use baton_results::Document;
use baton_workload::Workload;

use super::{Measure, ModeError, run_at, with_rate};
use crate::{Bench, Found, Search, SearchSpec, Trial};

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Goodput {
    /// The rate, and how sure it is.
    pub found: Found,
    /// Each run, in the order in which they were made.
    pub documents: Vec<Document>,
    /// At least one run measured the client, so that the rate may be the client's.
    pub has_invalid_runs: bool,
}

/// Searches; `done` is told of each run and what came of it. Requests that failed or did not finish missed the SLO. Blocks.
///
/// # Errors
/// [`ModeError`]; what was told to `done` before stays.
pub fn goodput(
    bench: &Bench,
    workload: &Workload,
    spec: SearchSpec,
    measure: &Measure,
    mut done: impl FnMut(&Document, &Trial),
) -> Result<Goodput, ModeError> {
    let mut search = Search::new(spec);
    let mut documents = Vec::new();
    while let Some(rate) = search.next_rate().filter(|_| !measure.interrupt.is_cancelled()) {
        let round = documents.len() as u64;
        let document = run_at(bench, &with_rate(workload, rate)?, measure, Some(rate), round)?;
        if measure.interrupt.is_cancelled() {
            // Half a run says nothing about its rate.
            break;
        }
        let trial = trial(rate, &document);
        done(&document, &trial);
        search.tried(trial);
        documents.push(document);
    }
    let has_invalid_runs = documents.iter().any(|document| !document.measured.validity.is_valid());
    Ok(Goodput { found: search.found(), documents, has_invalid_runs })
}

fn trial(rate: f64, document: &Document) -> Trial {
    let requests = document.summary.requests;
    let good = document.summary.goodput.map_or(requests.complete, |goodput| goodput.requests);
    Trial { rate, good, total: requests.total - requests.cancelled }
}
