//! Two systems, run in turn: how much the one differs from the other, and how sure that is.

mod effect;
mod student;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{Document, Metric, Run, Summary, Validity};

pub use self::effect::{Effect, Interval, Verdict};

/// Runs of two systems in interleaved pairs (ABBA), and what they say. The ratio is always that of B to A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The system that is compared with.
    pub a: Run,
    /// The system that is compared.
    pub b: Run,
    /// Whether all runs may be believed; one that may not spoils the whole.
    pub validity: Validity,
    /// The pairs in the order in which they were run.
    pub pairs: Vec<Pair>,
    /// What each metric says.
    pub effects: Vec<Effect>,
}

/// Two runs, one right after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// That of A.
    pub a: Half,
    /// That of B.
    pub b: Half,
}

/// What is kept of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Half {
    /// When it began; says which of a pair came first.
    #[serde(with = "crate::run::rfc3339")]
    pub started_at: SystemTime,
    /// Whether it may be believed.
    pub validity: Validity,
    /// What it came to.
    pub summary: Summary,
}

/// Pairs that say nothing about each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotComparable {
    /// One pair shows no spread.
    #[error(
        "{0} pairs can't be compared: at least 2 are needed to see how much runs differ by themselves, better 8 or more"
    )]
    TooFew(usize),
    /// The two were asked for different things.
    #[error(
        "pair {pair} compares different requests (plan {a} and {b}): give both sides the same workload and seed"
    )]
    OtherPlan {
        /// From 1.
        pair: usize,
        /// A's plan.
        a: String,
        /// B's plan.
        b: String,
    },
    /// The two are judged by different goals.
    #[error("pair {0} is judged by different SLOs: give both sides the same")]
    OtherSlo(usize),
}

impl Comparison {
    /// Compares pairs of runs, A's first in each.
    ///
    /// # Errors
    /// Fewer than two pairs, or a pair of different plans or SLOs.
    pub fn new(pairs: &[(Document, Document)]) -> Result<Self, NotComparable> {
        let [(a, b), _, ..] = pairs else { return Err(NotComparable::TooFew(pairs.len())) };
        for (n, (a, b)) in pairs.iter().enumerate() {
            if a.measured.slo != b.measured.slo {
                return Err(NotComparable::OtherSlo(n + 1));
            }
            let (a, b) = (&a.measured.run.plan_sha256, &b.measured.run.plan_sha256);
            if a != b {
                return Err(NotComparable::OtherPlan { pair: n + 1, a: a.clone(), b: b.clone() });
            }
        }
        let (a, b) = (a.measured.run.clone(), b.measured.run.clone());
        let pairs: Vec<Pair> = pairs.iter().map(|(a, b)| Pair { a: Half::of(a), b: Half::of(b) }).collect();
        let effects = Metric::ALL.into_iter().filter_map(|metric| Effect::of(metric, &pairs)).collect();
        let named = pairs.iter().enumerate().flat_map(|(n, pair)| {
            [(format!("A{}", n + 1), &pair.a.validity), (format!("B{}", n + 1), &pair.b.validity)]
        });
        Ok(Self { a, b, validity: Validity::of_all(named), pairs, effects })
    }
}

impl Half {
    fn of(document: &Document) -> Self {
        Self {
            started_at: document.measured.run.started_at,
            validity: document.measured.validity.clone(),
            summary: document.summary.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{measured, steady};
    use crate::{Better, Micros};

    /// A run whose latencies are `factor` times those of another of the same plan.
    fn run(name: &str, factor: f64) -> Document {
        let mut records = steady(30);
        for record in &mut records {
            let start = record.intended_us.0;
            let scale = |at: u64| start + ((at - start) as f64 * factor) as u64;
            for chunk in &mut record.chunks {
                chunk.at = Micros(scale(chunk.at.0));
            }
            record.end_us = record.end_us.map(|at| Micros(scale(at.0)));
        }
        let mut measured = measured(records);
        measured.run.name = name.into();
        Document::new(measured)
    }

    #[test]
    fn a_difference_that_is_there_is_seen_in_each_latency() {
        // B takes 0.8 of A's time; both vary by ±2 % together, and B by ±1 % on its own.
        let drift = [1.00, 1.02, 0.98, 1.01, 0.99, 1.02];
        let noise = [0.99, 1.01, 1.00, 0.99, 1.01, 1.00];
        let pairs: Vec<_> =
            drift.iter().zip(noise).map(|(d, n)| (run("a", *d), run("b", 0.8 * d * n))).collect();
        let comparison = Comparison::new(&pairs).expect("pairs of one plan");
        for metric in [Metric::TtftP50, Metric::TpotP50, Metric::E2eP99] {
            let found = comparison.effects.iter().find(|effect| effect.metric == metric);
            let Some(Effect { ratio: Some(ratio), verdict, .. }) = found else {
                panic!("{metric:?}: {found:?}")
            };
            assert!((ratio.geometric_mean - 0.8).abs() < 0.002, "{metric:?}: {ratio:?}");
            assert!(ratio.low < 0.8 && 0.8 < ratio.high && ratio.high < 0.82, "{metric:?}: {ratio:?}");
            assert_eq!(*verdict, Verdict::Better, "{metric:?}");
            assert_eq!(metric.better(), Better::Lower);
        }
        assert!(comparison.validity.is_valid());
    }

    #[test]
    fn one_invalid_run_spoils_the_comparison_and_is_named() {
        let mut pairs = vec![(run("a", 1.0), run("b", 1.0)), (run("a", 1.0), run("b", 1.0))];
        pairs[1].1.measured.validity.reasons.push(crate::Invalid::NotCalibrated);
        let comparison = Comparison::new(&pairs).expect("pairs of one plan");
        assert_eq!(comparison.validity.to_string(), "INVALID: B2: the client was not calibrated");
    }

    #[test]
    fn different_plans_and_lone_pairs_are_refused() {
        assert_eq!(Comparison::new(&[(run("a", 1.0), run("b", 1.0))]), Err(NotComparable::TooFew(1)));
        let mut pairs = vec![(run("a", 1.0), run("b", 1.0)), (run("a", 1.0), run("b", 1.0))];
        pairs[0].1.measured.run.plan_sha256 = "00".repeat(32);
        let found = Comparison::new(&pairs).expect_err("other plan");
        assert!(matches!(found, NotComparable::OtherPlan { pair: 1, .. }), "{found}");
        let mut pairs = vec![(run("a", 1.0), run("b", 1.0)), (run("a", 1.0), run("b", 1.0))];
        pairs[1].0.measured.slo.ttft_ms = Some(200.0);
        assert_eq!(Comparison::new(&pairs), Err(NotComparable::OtherSlo(2)));
    }
}
