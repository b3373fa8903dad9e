//! All runs, and systems against each other.

use super::table;
use crate::report::pick;
use crate::table::{load, number};
use crate::{Document, Metric};

/// Columns of the overview.
const OVERVIEW: [Metric; 9] = [
    Metric::Requests,
    Metric::OutputTokens,
    Metric::TtftP50,
    Metric::TtftP99,
    Metric::TpotP50,
    Metric::TpotP99,
    Metric::StallP99,
    Metric::E2eP99,
    Metric::Goodput,
];

/// Figures by which systems are set against each other.
pub(super) const VERSUS: [Metric; 5] =
    [Metric::TtftP99, Metric::TpotP99, Metric::E2eP99, Metric::OutputTokens, Metric::Goodput];

/// A single run that differs by less from another is not called better or worse.
const ALIKE: f64 = 0.02;

/// A row for each run.
pub(in crate::report) fn overview(runs: &[Document]) -> String {
    let named = OVERVIEW.map(|metric| format!("{}, {}", metric.name(), metric.unit()));
    let mut header = vec!["system".to_owned(), "load".to_owned(), "validity".to_owned()];
    header.extend(named);
    header.push("within SLO, %".into());
    let row = |document: &Document| {
        let valid = if document.measured.validity.is_valid() { "valid" } else { "INVALID" };
        let mut row =
            vec![document.measured.run.name.clone(), load(&document.measured.run.load), valid.to_owned()];
        row.extend(OVERVIEW.map(|metric| metric.of(&document.summary).map_or("–".into(), number)));
        let share = document.summary.goodput.map(|goodput| format!("{:.1}", goodput.share * 100.0));
        row.push(share.unwrap_or_else(|| "–".into()));
        row
    };
    table("All runs", header, &runs.iter().map(row).collect::<Vec<_>>())
}

/// Each further system against the first, where both ran the same load.
pub(in crate::report) fn versus(runs: &[Document]) -> Option<String> {
    let names = pick::names(runs);
    let (first, others) = names.split_first()?;
    let mut rows = Vec::new();
    for other in others {
        for run in runs.iter().filter(|run| run.measured.run.name == *other) {
            let same = |base: &&Document| {
                base.measured.run.name == *first && base.measured.run.load == run.measured.run.load
            };
            let Some(base) = runs.iter().find(same) else { continue };
            let valid = base.measured.validity.is_valid() && run.measured.validity.is_valid();
            let mut row = vec![
                (*other).to_owned(),
                load(&run.measured.run.load),
                if valid { "valid" } else { "INVALID" }.to_owned(),
            ];
            row.extend(VERSUS.map(|metric| against(metric, base, run)));
            rows.push(row);
        }
    }
    let mut header = vec!["system".to_owned(), "load".to_owned(), "validity".to_owned()];
    header.extend(VERSUS.map(|metric| metric.name().to_owned()));
    let caption = format!(
        "Against {first} at the same load: ratio (of single runs, so without an interval; under {:.0} % it is \
         not called a difference)",
        ALIKE * 100.0
    );
    (!rows.is_empty()).then(|| table(&caption, header, &rows))
}

fn against(metric: Metric, base: &Document, run: &Document) -> String {
    let (Some(a), Some(b)) = (metric.of(&base.summary), metric.of(&run.summary)) else { return "–".into() };
    if a <= 0.0 || b <= 0.0 {
        return format!("{} to {}", number(a), number(b));
    }
    let better = (b < a) == (metric.better() == crate::Better::Lower);
    let word = if (b / a - 1.0).abs() < ALIKE {
        "alike"
    } else if better {
        "better"
    } else {
        "worse"
    };
    format!("{:.3} {word}", b / a)
}
