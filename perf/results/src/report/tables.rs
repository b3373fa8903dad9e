//! The report's tables as HTML.

use std::fmt::Write as _;

use super::pick;
use crate::chart::escape;
use crate::table::{cost, distributions, load, number, requests, slo, verdict};
use crate::{Comparison, Document, Effect, Metric, Origin, Pair, Verdict};

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
const VERSUS: [Metric; 5] =
    [Metric::TtftP99, Metric::TpotP99, Metric::E2eP99, Metric::OutputTokens, Metric::Goodput];

/// A single run that differs by less from another is not called better or worse.
const ALIKE: f64 = 0.02;

/// A table of a header (`name` or `name, unit`) and rows; the first column is text, the others are figures.
fn table(caption: &str, header: Vec<String>, rows: &[Vec<String>]) -> String {
    let mut html = format!("<div class=\"wide\"><table><caption>{}</caption>\n<thead><tr>", escape(caption));
    for cell in header {
        // Into a string, writing cannot fail.
        let _ = match cell.split_once(", ") {
            Some((name, unit)) => {
                write!(html, "<th scope=\"col\">{}<small>{}</small></th>", escape(name), escape(unit))
            }
            None => write!(html, "<th scope=\"col\">{}</th>", escape(&cell)),
        };
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        for (n, cell) in row.iter().enumerate() {
            let class = if cell.contains("INVALID") { " class=\"alarm\"" } else { "" };
            let _ = match n {
                0 => write!(html, "<th scope=\"row\"{class}>{}</th>", escape(cell)),
                _ => write!(html, "<td{class}>{}</td>", escape(cell)),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

/// A row for each run.
pub(super) fn overview(runs: &[Document]) -> String {
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
pub(super) fn versus(runs: &[Document]) -> Option<String> {
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

/// A run's distributions.
pub(super) fn run(document: &Document) -> String {
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
pub(super) fn how(document: &Document) -> String {
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
            rows.push(("calibration", calibration.as_ref().map_or("none".into(), crate::table::floor)));
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

/// A comparison: what is worse stands as plainly as what is better.
pub(super) fn comparison(comparison: &Comparison) -> String {
    let header = ["metric", "unit", "A", "B", "B ÷ A", "95 % interval", "would have seen", "B is"];
    let row = |effect: &Effect| {
        let ratio = effect.ratio.map(|ratio| {
            [format!("{:.3}", ratio.geometric_mean), format!("{:.3} to {:.3}", ratio.low, ratio.high)]
        });
        let [mean, interval] = ratio.unwrap_or_else(|| ["–".into(), "–".into()]);
        let visible =
            effect.smallest_visible.map_or("–".into(), |visible| format!("{:.1} %", visible * 100.0));
        vec![
            effect.metric.name().to_owned(),
            effect.metric.unit().to_owned(),
            number(effect.a),
            number(effect.b),
            mean,
            interval,
            visible,
            verdict(effect.verdict).to_lowercase(),
        ]
    };
    let rows: Vec<Vec<String>> = comparison.effects.iter().map(row).collect();
    let caption = format!("{} (B) against {} (A)", comparison.b.name, comparison.a.name);
    let mut html = sentences(comparison) + &table(&caption, header.map(str::to_owned).into(), &rows);
    html += &pairs(comparison);
    if !comparison.validity.is_valid() {
        html = format!("<p class=\"alarm\">{}</p>\n{html}", escape(&comparison.validity.to_string()));
    }
    html
}

/// The pairs as they were run, and how to run them again.
fn pairs(comparison: &Comparison) -> String {
    let mut header = vec!["pair".to_owned(), "first".to_owned()];
    let sides =
        |metric: Metric| ["A", "B"].map(|side| format!("{} {side}, {}", metric.name(), metric.unit()));
    header.extend(VERSUS.into_iter().flat_map(sides));
    let row = |(n, pair): (usize, &Pair)| {
        let first = if pair.a.started_at <= pair.b.started_at { "A" } else { "B" };
        let mut row = vec![(n + 1).to_string(), first.to_owned()];
        let told = |metric: Metric| {
            [&pair.a, &pair.b].map(|half| metric.of(&half.summary).map_or("–".into(), number))
        };
        row.extend(VERSUS.into_iter().flat_map(told));
        row
    };
    let rows: Vec<Vec<String>> = comparison.pairs.iter().enumerate().map(row).collect();
    let mut html = "<details><summary>The pairs, and how they were run</summary>\n<dl>\n".to_owned();
    for (side, run) in [("A", &comparison.a), ("B", &comparison.b)] {
        let notes: String = run.notes.iter().map(|(name, note)| format!("; {name}: {note}")).collect();
        let text = format!(
            "{}: {} ({}{}, {}, seed {}, plan {}){notes}",
            run.name,
            run.command.join(" "),
            run.target,
            run.endpoint,
            load(&run.load),
            run.seed,
            run.plan_sha256
        );
        // Into a string, writing cannot fail.
        let _ = writeln!(html, "<dt>{side}</dt><dd>{}</dd>", escape(&text));
    }
    html + "</dl>\n" + &table("Each pair", header, &rows) + "</details>\n"
}

fn sentences(comparison: &Comparison) -> String {
    let mut html = "<div class=\"verdicts\">\n".to_owned();
    for (title, of) in [
        ("Where B is better", Verdict::Better),
        ("Where B is worse", Verdict::Worse),
        ("No difference seen", Verdict::NoDifference),
    ] {
        let told: Vec<&Effect> = comparison.effects.iter().filter(|effect| effect.verdict == of).collect();
        let _ = write!(html, "<section><h4>{title}</h4><ul>");
        if told.is_empty() {
            html += "<li>nowhere</li>";
        }
        for effect in told {
            let _ = write!(html, "<li>{}</li>", escape(&effect.to_string()));
        }
        html += "</ul></section>\n";
    }
    html + "</div>\n"
}
