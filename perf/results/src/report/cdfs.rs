//! How latencies are distributed.

use super::pick;
use crate::chart::{Lines, Point, Series, Shape};
use crate::{Chart, Document, Samples, Sorted};

/// Curves that can be told apart.
const CURVES: usize = 8;

/// Points of a curve: more are not seen.
const POINTS: usize = 400;

/// A distribution: its chart's name, title and axis, and which samples it is of.
struct Kind {
    name: &'static str,
    title: &'static str,
    axis: &'static str,
    of: fn(&Samples) -> &Sorted,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "cdf-ttft",
        title: "Distribution of the time to first token",
        axis: "TTFT, ms",
        of: |samples| &samples.ttft,
    },
    Kind {
        name: "cdf-itl",
        title: "Distribution of the inter-token latency",
        axis: "ITL, ms",
        of: |samples| &samples.itl,
    },
    Kind {
        name: "cdf-tpot",
        title: "Distribution of the time per output token",
        axis: "TPOT, ms",
        of: |samples| &samples.tpot,
    },
    Kind {
        name: "cdf-e2e",
        title: "Distribution of the end-to-end latency",
        axis: "latency, ms",
        of: |samples| &samples.e2e,
    },
];

/// A distribution of each run.
pub(super) fn charts(runs: &[Document]) -> Vec<Chart> {
    let shown = pick::spread(runs, CURVES);
    let samples: Vec<Samples> =
        shown.iter().map(|run| Samples::of(&run.measured, run.summary.window)).collect();
    let names = pick::names(runs);
    let mut charts = Vec::new();
    for Kind { name, title, axis, of } in KINDS {
        let series: Vec<Series> = shown
            .iter()
            .zip(&samples)
            .filter(|(_, samples)| !of(samples).as_slice().is_empty())
            .map(|(run, samples)| series(run, of(samples), &names, &shown))
            .collect();
        if series.is_empty() {
            continue;
        }
        let lines = Lines {
            name: name.into(),
            title: title.into(),
            subtitle: subtitle(runs.len(), shown.len(), name),
            invalid: pick::invalid(shown.iter().copied()),
            x: axis.into(),
            y: "share, %".into(),
            y_range: Some((0.0, 100.0)),
            x_fitting: true,
            series,
        };
        charts.push(lines.draw());
    }
    charts
}

fn subtitle(all: usize, shown: usize, name: &str) -> String {
    let what = if name == "cdf-itl" { "gaps between chunks" } else { "complete requests" };
    let which = match all > shown {
        true => format!(
            "; {shown} of {all} runs: of each system the lowest, a middle and the highest load, or the highest alone"
        ),
        false => String::new(),
    };
    format!("Share of {what} that took at most so long{which}")
}

fn series(run: &Document, sorted: &Sorted, names: &[&str], shown: &[&Document]) -> Series {
    // The n-th load of a system is told by its dashes.
    let same = shown.iter().filter(|other| other.measured.run.name == run.measured.run.name);
    let dash = same.take_while(|other| **other != run).count();
    let points = (0..=POINTS).filter_map(|n| {
        let share = n as f64 / POINTS as f64;
        Some(Point { x: sorted.percentile(share)?, y: share * 100.0, valid: true })
    });
    Series {
        name: pick::title(run),
        colour: pick::colour(names, run),
        shape: Shape::Plain(dash),
        points: points.collect(),
    }
}
