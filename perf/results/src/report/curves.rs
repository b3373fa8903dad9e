//! Latency, throughput and goodput over the load.

use super::pick;
use crate::chart::{Lines, Point, Series, Shape};
use crate::{Chart, Document, Load, Metric, Slo};

/// A chart over the load: its name, its title, what is drawn solid and what dashed.
struct Kind {
    name: &'static str,
    title: &'static str,
    solid: Metric,
    dashed: Option<Metric>,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "ttft",
        title: "Time to first token",
        solid: Metric::TtftP50,
        dashed: Some(Metric::TtftP99),
    },
    Kind {
        name: "tpot",
        title: "Time per output token",
        solid: Metric::TpotP50,
        dashed: Some(Metric::TpotP99),
    },
    Kind { name: "e2e", title: "End-to-end latency", solid: Metric::E2eP50, dashed: Some(Metric::E2eP99) },
    Kind {
        name: "output-tokens",
        title: "Output tokens per second",
        solid: Metric::OutputTokens,
        dashed: None,
    },
    Kind { name: "goodput", title: "Goodput", solid: Metric::Goodput, dashed: None },
];

/// Charts over the rate and over the concurrency, as far as there are two runs of either.
pub(super) fn charts(runs: &[Document]) -> Vec<Chart> {
    let open = |run: &&Document| matches!(run.measured.run.load, Load::Open { .. });
    let (by_rate, by_concurrency): (Vec<&Document>, Vec<&Document>) = runs.iter().partition(open);
    let mut charts = Vec::new();
    for (group, by, axis) in [
        (by_rate, "rate", "offered load, requests/s"),
        (by_concurrency, "concurrency", "concurrent requests"),
    ] {
        if group.len() < 2 {
            continue;
        }
        charts.extend(KINDS.iter().filter_map(|kind| kind.chart(runs, &group, by, axis)));
    }
    charts
}

impl Kind {
    fn chart(&self, all: &[Document], group: &[&Document], by: &str, axis: &str) -> Option<Chart> {
        let names = pick::names(all);
        let mut series = Vec::new();
        for (colour, name) in names.iter().enumerate() {
            let of: Vec<&Document> =
                group.iter().copied().filter(|run| run.measured.run.name == *name).collect();
            for (metric, shape) in [(Some(self.solid), Shape::Marked), (self.dashed, Shape::MarkedDashed)] {
                series.extend(
                    metric.and_then(|metric| line(&of, metric, colour, shape, self.dashed.is_some())),
                );
            }
        }
        if series.is_empty() {
            return None;
        }
        if self.solid == Metric::Goodput && by == "rate" {
            series.push(offered(group, names.len()));
        }
        let lines = Lines {
            name: format!("{}-by-{by}", self.name),
            title: format!("{} by {by}", self.title),
            subtitle: self.subtitle(group),
            invalid: pick::invalid(group.iter().copied()),
            x: axis.to_owned(),
            y: format!("{}, {}", self.axis(), self.solid.unit()),
            y_range: None,
            x_fitting: by == "concurrency",
            series,
        };
        Some(lines.draw())
    }

    fn axis(&self) -> &'static str {
        match self.solid {
            Metric::TtftP50 => "TTFT",
            Metric::TpotP50 => "TPOT",
            Metric::E2eP50 => "latency",
            metric => metric.name(),
        }
    }

    fn subtitle(&self, group: &[&Document]) -> String {
        let from = "from the intended send time";
        match self.solid {
            Metric::TtftP50 | Metric::E2eP50 => {
                format!("Median and 99th percentile, {from}; lower is better")
            }
            Metric::TpotP50 => "Median and 99th percentile; lower is better".into(),
            Metric::Goodput => format!("Requests per second within {}; higher is better", slos(group)),
            _ => "Tokens that clients received; higher is better".into(),
        }
    }
}

fn line(of: &[&Document], metric: Metric, colour: usize, shape: Shape, percentile: bool) -> Option<Series> {
    let point = |run: &&Document| {
        let y = metric.of(&run.summary)?;
        Some(Point { x: run.measured.run.load.size(), y, valid: run.measured.validity.is_valid() })
    };
    let points: Vec<Point> = of.iter().filter_map(point).collect();
    let name = &of.first()?.measured.run.name;
    let which = metric.name().rsplit(' ').next().unwrap_or_default();
    let name = if percentile { format!("{name}, {which}") } else { name.clone() };
    (!points.is_empty()).then_some(Series { name, colour, shape, points })
}

/// What would be reached if every request were good.
fn offered(group: &[&Document], colour: usize) -> Series {
    let most = group.iter().map(|run| run.measured.run.load.size()).fold(0.0, f64::max);
    let points = [0.0, most].map(|rate| Point { x: rate, y: rate, valid: true });
    Series { name: "offered".into(), colour: colour.max(6), shape: Shape::Plain(2), points: points.into() }
}

fn slos(group: &[&Document]) -> String {
    let mut all: Vec<Slo> = Vec::new();
    for run in group {
        if !all.contains(&run.measured.slo) {
            all.push(run.measured.slo);
        }
    }
    match &all[..] {
        [one] => crate::table::slo(one),
        _ => "SLOs that DIFFER between the runs, see the tables".into(),
    }
}
