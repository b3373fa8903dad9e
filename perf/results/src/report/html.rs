use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{Report, pick, tables};
use crate::Chart;
use crate::chart::escape;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What the figures mean, for readers who have nothing but this file.
const DEFINITIONS: &str = "\
<p>Latencies count from the <em>intended</em> send time, so that requests which had to wait for a busy client or server show it.
TTFT: to the first chunk with tokens. TPOT: from the first chunk to the last token ÷ the tokens after the first chunk. ITL: a gap between
two chunks ÷ the tokens of the later one. Stall: a request's longest gap. E2E: to the end. Goodput: requests per second within the SLO;
who failed or did not finish missed it. Percentiles are interpolated linearly. Only complete requests have latencies; cancelled ones
count for nothing but throughput.</p>\n";

/// The whole report.
pub(super) fn page(report: &Report, charts: &[Chart]) -> String {
    let title = title(report);
    let mut html = format!(
        concat!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
            "<meta http-equiv=\"Content-Security-Policy\" ",
            "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:\">\n",
            "<link rel=\"icon\" href=\"data:,\">\n",
            "<title>{title}</title>\n<style>\n{font}\n{style}</style>\n</head>\n<body>\n",
            "<header><h1>{title}</h1><button id=\"theme\" type=\"button\" hidden>light or dark</button></header>\n<main>\n"
        ),
        title = escape(&title),
        font = font(),
        style = STYLE
    );
    html += &warnings(report);
    for (n, comparison) in report.comparisons.iter().enumerate() {
        // Into a string, writing cannot fail.
        let _ = writeln!(html, "<h2>Comparison {}</h2>", n + 1);
        html += &tables::comparison(comparison);
    }
    if !report.runs.is_empty() {
        html += "<h2>Runs</h2>\n";
        html += &tables::overview(&report.runs);
        html += &tables::versus(&report.runs).unwrap_or_default();
    }
    html += "<h2>Charts</h2>\n<div class=\"charts\">\n";
    for chart in charts {
        let _ = writeln!(html, "<figure id=\"{}\">\n{}</figure>", escape(&chart.name), chart.svg);
    }
    html += "</div>\n";
    html += "<h2>What the figures mean</h2>\n";
    html += DEFINITIONS;
    html += &details(report);
    let _ = write!(html, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    html
}

/// The charts' font, with which their texts have the widths that they were laid out for.
fn font() -> String {
    let data = BASE64_STANDARD.encode(super::png::FONT);
    format!(
        "@font-face {{ font-family: Roboto; src: url(data:font/ttf;base64,{data}) format(\"truetype\"); }}"
    )
}

fn title(report: &Report) -> String {
    let runs = pick::names(&report.runs).into_iter().map(str::to_owned);
    let compared = report
        .comparisons
        .iter()
        .flat_map(|comparison| [comparison.a.name.clone(), comparison.b.name.clone()]);
    let mut names: Vec<String> = Vec::new();
    for name in runs.chain(compared) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    format!("Benchmark: {}", names.join(", "))
}

/// Runs that may not be believed, before anything else.
fn warnings(report: &Report) -> String {
    let mut html = String::new();
    for run in report.runs.iter().filter(|run| !run.measured.validity.is_valid()) {
        let text = format!("{}: {}", pick::title(run), run.measured.validity);
        let _ = writeln!(html, "<li>{}</li>", escape(&text));
    }
    for comparison in report.comparisons.iter().filter(|comparison| !comparison.validity.is_valid()) {
        let text = format!("{} against {}: {}", comparison.b.name, comparison.a.name, comparison.validity);
        let _ = writeln!(html, "<li>{}</li>", escape(&text));
    }
    if html.is_empty() {
        return html;
    }
    format!(
        "<section class=\"invalid\" role=\"alert\"><h2>Some of these figures are INVALID</h2><ul>\n{html}</ul></section>\n"
    )
}

fn details(report: &Report) -> String {
    if report.runs.is_empty() {
        return String::new();
    }
    let mut html = "<h2>Each run, and how it was measured</h2>\n".to_owned();
    let open = if report.runs.len() == 1 { " open" } else { "" };
    for run in &report.runs {
        let _ = writeln!(
            html,
            "<details{open}><summary>{}</summary>\n{}{}</details>",
            escape(&pick::title(run)),
            tables::how(run),
            tables::run(run)
        );
    }
    html
}
