//! How busy prefill and decode workers were.

use std::collections::BTreeMap;

use super::pick;
use crate::chart::{Lines, Point, Series, Shape};
use crate::{Chart, Document, Role};

/// Runs that are shown.
const RUNS: usize = 4;

/// Workers of a run that have a line each; of more, the roles' means are drawn.
const WORKERS: usize = 8;

/// Of the shown runs whose servers told.
pub(super) fn charts(runs: &[Document]) -> Vec<Chart> {
    let told: Vec<&Document> = runs.iter().filter(|run| !run.measured.utilisation.is_empty()).collect();
    pick::spread(&told, RUNS).into_iter().enumerate().map(|(n, run)| chart(n, run)).collect()
}

fn chart(n: usize, run: &Document) -> Chart {
    let mut workers: BTreeMap<(Role, &str), Vec<Point>> = BTreeMap::new();
    for sample in &run.measured.utilisation {
        let point = Point { x: sample.at_us.seconds(), y: sample.busy * 100.0, valid: true };
        workers.entry((sample.role, &sample.worker)).or_default().push(point);
    }
    let series = if workers.len() > WORKERS { roles(run) } else { each(workers) };
    let lines = Lines {
        name: format!("utilisation-{}", n + 1),
        title: format!("Prefill and decode over time: {}", pick::title(run)),
        subtitle: "Share of the time in which workers computed".into(),
        invalid: pick::invalid([run]),
        x: "time since the start of the run, s".into(),
        y: "busy, %".into(),
        y_range: Some((0.0, 100.0)),
        x_fitting: false,
        series,
    };
    lines.draw()
}

fn each(workers: BTreeMap<(Role, &str), Vec<Point>>) -> Vec<Series> {
    let mut of_role: BTreeMap<Role, usize> = BTreeMap::new();
    let named = workers.into_iter().map(|((role, worker), points)| {
        let place = of_role.entry(role).or_default();
        *place += 1;
        Series {
            name: format!("{worker} ({})", name(role)),
            colour: role as usize,
            shape: Shape::Plain(*place - 1),
            points,
        }
    });
    named.collect()
}

/// The mean of a role's workers at each instant.
fn roles(run: &Document) -> Vec<Series> {
    let mut roles: BTreeMap<Role, BTreeMap<u64, (f64, u32)>> = BTreeMap::new();
    for sample in &run.measured.utilisation {
        let (sum, count) = roles.entry(sample.role).or_default().entry(sample.at_us.0).or_default();
        *sum += sample.busy;
        *count += 1;
    }
    let drawn = roles.into_iter().map(|(role, instants)| Series {
        name: format!("mean of {} workers", name(role)),
        colour: role as usize,
        shape: Shape::Plain(0),
        points: instants
            .into_iter()
            .map(|(at, (sum, count))| Point {
                x: at as f64 / 1e6,
                y: sum / f64::from(count) * 100.0,
                valid: true,
            })
            .collect(),
    });
    drawn.collect()
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Prefill => "prefill",
        Role::Decode => "decode",
        Role::Both => "prefill and decode",
    }
}
