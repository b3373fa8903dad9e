use std::fmt::Write as _;

use super::grid::Grid;
use super::number::number;
use crate::{Comparison, Effect, Verdict};

pub(super) fn table(comparison: &Comparison) -> String {
    let mut text = format!(
        "A: {}\nB: {}\n{} pairs in turn, {}, plan {}\n",
        comparison.a.name,
        comparison.b.name,
        comparison.pairs.len(),
        super::load(&comparison.a.load),
        comparison.a.plan_sha256
    );
    // Into a string, writing cannot fail.
    if !comparison.validity.is_valid() {
        let _ = writeln!(text, "\n{}", comparison.validity);
    }
    let mut grid = Grid::new(2, ["metric", "unit", "A", "B", "B / A", "95 % interval", "would see", "B is"]);
    for effect in &comparison.effects {
        grid.row(row(effect));
    }
    let _ = write!(text, "\n{grid}");
    let _ = writeln!(
        text,
        "\nRatios are geometric means over the pairs. A change of the size under \"would see\" would have shown in four of five \
         cases;\nof {} metrics, one in twenty differs by chance.",
        comparison.effects.len()
    );
    text
}

fn row(effect: &Effect) -> Vec<String> {
    let (ratio, interval) = effect.ratio.map_or(("-".to_owned(), "-".to_owned()), |ratio| {
        (format!("{:.3}", ratio.geometric_mean), format!("{:.3} to {:.3}", ratio.low, ratio.high))
    });
    vec![
        effect.metric.name().to_owned(),
        effect.metric.unit().to_owned(),
        number(effect.a),
        number(effect.b),
        ratio,
        interval,
        effect.smallest_visible.map_or("-".to_owned(), |visible| format!("{:.1} %", visible * 100.0)),
        verdict(effect.verdict).to_owned(),
    ]
}

/// What B is.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifference => "the same, as far as seen",
        Verdict::Unknown => "unknown",
    }
}
