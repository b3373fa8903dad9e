//! Comparisons as ratios with their intervals.

use crate::chart::{Forest, Ratio};
use crate::{Chart, Comparison, Verdict};

/// A chart for each comparison.
pub(super) fn charts(comparisons: &[Comparison]) -> Vec<Chart> {
    comparisons.iter().enumerate().map(|(n, comparison)| chart(n, comparison)).collect()
}

fn chart(n: usize, comparison: &Comparison) -> Chart {
    let ratio = |effect: &crate::Effect| {
        let interval = effect.ratio?;
        Some(Ratio {
            label: format!("{}, {}", effect.metric.name(), effect.metric.unit()),
            mean: interval.geometric_mean,
            low: interval.low,
            high: interval.high,
            better: match effect.verdict {
                Verdict::Better => Some(true),
                Verdict::Worse => Some(false),
                Verdict::NoDifference | Verdict::Unknown => None,
            },
        })
    };
    let forest = Forest {
        name: format!("comparison-{}", n + 1),
        title: format!("{} (B) against {} (A)", comparison.b.name, comparison.a.name),
        subtitle: format!(
            "{} interleaved pairs, {}; of latencies less is better, of the others more",
            comparison.pairs.len(),
            crate::table::load(&comparison.a.load)
        ),
        invalid: if comparison.validity.is_valid() { String::new() } else { comparison.validity.to_string() },
        ratios: comparison.effects.iter().filter_map(ratio).collect(),
    };
    forest.draw()
}
