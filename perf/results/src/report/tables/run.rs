//! One run.

use std::fmt::Write as _;

use super::table;
use crate::chart::escape;
use crate::table::{cost, distributions, floor, load, number, requests, slo};
use crate::{Document, Origin};

/// A run's distributions.
pub(in crate::report) fn run(document: &Document) -> String {
    let mut html = String::new();
    for (caption, rows) in
        ["Latencies", "The server's own account"].iter().zip(distributions(&document.summary))
    {
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .filter_map(|(name, unit, stats)| {
                let stats = stats?;
                let figures =
                    [stats.mean, stats.std, stats.min, stats.p50, stats.p90, stats.p95, stats.p99, stats.max];
                let mut row = vec![name.trim_start().to_owned(), unit.to_owned(), stats.count.to_string()];
                row.extend(figures.map(number));
                Some(row)
            })
            .collect();
        let header = ["", "unit", "samples", "mean", "std", "min", "p50", "p90", "p95", "p99", "max"];
        if !rows.is_empty() {
            html += &table(caption, header.map(str::to_owned).into(), &rows);
        }
    }
    html
}

/// How a run was made, and what came of its requests.
pub(in crate::report) fn how(document: &Document) -> String {
    let (measured, summary) = (&document.measured, &document.summary);
    let run = &measured.run;
    let mut rows = vec![
        ("validity", measured.validity.to_string()),
        ("requests", requests(&summary.requests)),
        (
            "window",
            format!(
                "{} s, from {} s",
                number(summary.window.seconds()),
                number(summary.window.start_us.seconds())
            ),
        ),
        ("load", load(&run.load)),
        ("SLO", slo(&measured.slo)),
        ("command", run.command.join(" ")),
        ("target", format!("{}{}, model {}", run.target, run.endpoint, run.model)),
        ("seed, plan", format!("{}, SHA-256 {}", run.seed, run.plan_sha256)),
        ("started", format!("{}, by {}", humantime::format_rfc3339_seconds(run.started_at), run.tool)),
    ];
    match &measured.origin {
        Origin::Simulated { profile } => {
            rows.push(("origin", format!("simulated from the profile {profile}, not measured")))
        }
        Origin::Measured { client, calibration } => {
            rows.push(("client", cost(client)));
            rows.push(("calibration", calibration.as_ref().map_or("none".into(), floor)));
        }
    }
    rows.extend(run.notes.iter().map(|(name, note)| (name.as_str(), note.clone())));
    let status = |status: Option<u16>| status.map(|status| format!("{status} ")).unwrap_or_default();
    rows.extend(
        summary
            .errors
            .iter()
            .map(|error| ("error", format!("{}{} ({} ×)", status(error.status), error.message, error.count))),
    );
    rows.extend(summary.warnings.iter().map(|warning| ("warning", warning.clone())));
    let mut html = "<dl>\n".to_owned();
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        let class = if value.starts_with("INVALID") { " class=\"alarm\"" } else { "" };
        let _ = writeln!(html, "<dt>{}</dt><dd{class}>{}</dd>", escape(name), escape(&value));
    }
    html + "</dl>\n"
}
