//! Which runs of many are shown where all would be too many.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::{Document, Load, Validity};

/// Reasons that a chart's heading lists.
const REASONS: usize = 3;

/// The systems' names in the order of the runs.
pub(super) fn names<D: Borrow<Document>>(runs: &[D]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        let name = run.borrow().measured.run.name.as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The place of a run's system among `names`, which is its colour.
pub(super) fn colour(names: &[&str], run: &Document) -> usize {
    names.iter().position(|name| *name == run.measured.run.name).unwrap_or(0)
}

/// Of each system the runs with the lowest, a middle and the highest load, if all are more than `limit`; else of each system the
/// one with the highest; else the first systems of those.
pub(super) fn spread<D: Borrow<Document>>(runs: &[D], limit: usize) -> Vec<&Document> {
    if runs.len() <= limit {
        return runs.iter().map(Borrow::borrow).collect();
    }
    let mut systems: BTreeMap<usize, Vec<&Document>> = BTreeMap::new();
    let names = names(runs);
    for run in runs.iter().map(Borrow::borrow) {
        systems.entry(colour(&names, run)).or_default().push(run);
    }
    let three = systems.values().flat_map(|of| {
        let mut chosen = vec![0, of.len() / 2, of.len() - 1];
        chosen.dedup();
        chosen.into_iter().map(|n| of[n])
    });
    let three: Vec<&Document> = three.collect();
    if three.len() <= limit {
        return three;
    }
    systems.values().filter_map(|of| of.last().copied()).take(limit).collect()
}

/// A run in a legend.
pub(super) fn title(run: &Document) -> String {
    let load = match &run.measured.run.load {
        Load::Closed { concurrency } => format!("{concurrency} at once"),
        Load::Open { requests_per_second, .. } => {
            format!("{} requests/s", crate::table::plain(*requests_per_second))
        }
    };
    format!("{}, {load}", run.measured.run.name)
}

/// What a heading says of runs that may not be believed; empty if all may.
pub(super) fn invalid<'a>(runs: impl IntoIterator<Item = &'a Document>) -> String {
    let runs: Vec<&Document> = runs.into_iter().collect();
    let all = Validity::of_all(runs.iter().map(|run| (title(run), &run.measured.validity)));
    if all.is_valid() {
        return String::new();
    }
    let more = all.reasons.len().saturating_sub(REASONS);
    let shown = Validity { reasons: all.reasons.into_iter().take(REASONS).collect() };
    if more > 0 { format!("{shown}; and {more} more reasons, see the tables") } else { shown.to_string() }
}
