use std::fmt::Write as _;

use super::grid::Grid;
use super::number::{number, plain};
use crate::{Document, Load, Metric};

/// Columns of a sweep, with their places after the point.
const COLUMNS: [Metric; 8] = [
    Metric::Requests,
    Metric::OutputTokens,
    Metric::TtftP50,
    Metric::TtftP99,
    Metric::TpotP50,
    Metric::TpotP99,
    Metric::E2eP99,
    Metric::Goodput,
];

/// Several runs, a row each, by name and load. Ends in a line feed.
pub fn sweep(documents: &[Document]) -> String {
    let mut header = vec!["system".to_owned(), String::new(), "load".to_owned()];
    header.extend(COLUMNS.map(|metric| metric.name().to_owned()));
    header.push("within SLO".into());
    let mut units = vec![String::new(), String::new(), String::new()];
    units.extend(COLUMNS.map(|metric| metric.unit().to_owned()));
    units.push("%".into());
    let mut grid = Grid::new(2, header);
    grid.row(units);
    for document in sorted(documents) {
        grid.row(row(document));
    }
    let mut text = grid.to_string();
    for document in sorted(documents).into_iter().filter(|document| !document.measured.validity.is_valid()) {
        let run = &document.measured.run;
        let _ = writeln!(text, "\n{}, {}: {}", run.name, super::load(&run.load), document.measured.validity);
    }
    text
}

fn row(document: &Document) -> Vec<String> {
    let run = &document.measured.run;
    let mark = if document.measured.validity.is_valid() { "" } else { "INVALID" };
    let load = match &run.load {
        Load::Closed { concurrency } => format!("{concurrency} at once"),
        Load::Open { requests_per_second, .. } => format!("{}/s", plain(*requests_per_second)),
    };
    let mut cells = vec![run.name.clone(), mark.to_owned(), load];
    let of = |metric: Metric| metric.of(&document.summary).map_or("-".to_owned(), number);
    cells.extend(COLUMNS.map(of));
    let goodput = document.summary.goodput;
    cells.push(goodput.map_or("-".to_owned(), |goodput| format!("{:.1}", goodput.share * 100.0)));
    cells
}

/// By name, in the order in which names first come, then by load.
pub(crate) fn sorted(documents: &[Document]) -> Vec<&Document> {
    let mut names: Vec<&str> = Vec::new();
    for document in documents {
        let name = document.measured.run.name.as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let place = |document: &Document| names.iter().position(|name| *name == document.measured.run.name);
    let mut sorted: Vec<&Document> = documents.iter().collect();
    sorted.sort_by(|a, b| {
        let load = |document: &Document| document.measured.run.load.size();
        place(a).cmp(&place(b)).then_with(|| load(a).total_cmp(&load(b)))
    });
    sorted
}
