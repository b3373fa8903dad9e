//! Two systems compared.

use std::fmt::Write as _;

use super::overview::VERSUS;
use super::table;
use crate::chart::escape;
use crate::table::{load, number, verdict};
use crate::{Comparison, Effect, Metric, Pair, Verdict};

/// A comparison: what is worse stands as plainly as what is better.
pub(in crate::report) fn comparison(comparison: &Comparison) -> String {
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
