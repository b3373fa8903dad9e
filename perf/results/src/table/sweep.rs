use std::borrow::Borrow;
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
    let mut sorted: Vec<&Document> = documents.iter().collect();
    sort(&mut sorted);
    for document in &sorted {
        grid.row(row(document));
    }
    let mut text = grid.to_string();
    for document in sorted.into_iter().filter(|document| !document.measured.validity.is_valid()) {
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

/// Sorts by name, in the order in which names first come, then by load.
pub(crate) fn sort<D: Borrow<Document>>(documents: &mut [D]) {
    let mut names: Vec<String> = Vec::new();
    for document in documents.iter() {
        let name = &document.borrow().measured.run.name;
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    documents.sort_by(|a, b| {
        let (a, b) = (&a.borrow().measured.run, &b.borrow().measured.run);
        let place = |name: &str| names.iter().position(|other| other == name);
        place(&a.name).cmp(&place(&b.name)).then_with(|| a.load.size().total_cmp(&b.load.size()))
    });
}
