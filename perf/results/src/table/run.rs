use std::fmt::Write as _;

use super::grid::Grid;
use super::number::{decimals, load, number};
use crate::{Calibration, Client, Document, Origin, Requests, Slo, Stats, Summary};

pub(super) fn table(document: &Document) -> String {
    let (measured, summary) = (&document.measured, &document.summary);
    let run = &measured.run;
    let mut text = format!("{} · {} · {}\n", run.name, run.model, load(&run.load));
    // Into a string, writing cannot fail.
    let _ = writeln!(text, "{}{} · seed {} · plan {}", run.target, run.endpoint, run.seed, run.plan_sha256);
    if !measured.validity.is_valid() {
        let _ = writeln!(text, "\n{}", measured.validity);
    }
    for (title, rows) in ["latency", "in the server"].iter().zip(distributions(summary)) {
        let grid = distribution(title, &rows);
        if !grid.is_empty() {
            let _ = write!(text, "\n{grid}");
        }
    }
    let _ = write!(text, "\n{}", facts(document));
    for error in &summary.errors {
        let status = error.status.map(|status| format!("{status} ")).unwrap_or_default();
        let _ = writeln!(text, "error: {status}{} ({} ×)", error.message, error.count);
    }
    for warning in &summary.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// Names, units and statistics of a run's latencies, and of the server's phases.
pub(crate) fn distributions(summary: &Summary) -> [Vec<(&'static str, &'static str, Option<Stats>)>; 2] {
    let (latency, phases) = (&summary.latency, &summary.phases);
    let latencies = vec![
        ("TTFT", "ms", latency.ttft_ms),
        ("  from actual send", "ms", latency.ttft_from_sent_ms),
        ("TPOT", "ms", latency.tpot_ms),
        ("ITL", "ms", latency.itl_ms),
        ("chunk gap", "ms", latency.chunk_gap_ms),
        ("stall", "ms", latency.stall_ms),
        ("E2E", "ms", latency.e2e_ms),
        ("  from actual send", "ms", latency.e2e_from_sent_ms),
        ("normalised", "ms/token", latency.normalised_ms),
        ("send lag", "ms", latency.send_lag_ms),
        ("input", "tokens", latency.input_tokens),
        ("output", "tokens", latency.output_tokens),
    ];
    let phases = vec![
        ("queue", "ms", phases.queue_ms),
        ("prefill", "ms", phases.prefill_ms),
        ("transfer", "ms", phases.transfer_ms),
        ("decode wait", "ms", phases.decode_wait_ms),
        ("first token", "ms", phases.first_token_ms),
        ("decode", "ms", phases.decode_ms),
    ];
    [latencies, phases]
}

fn distribution(title: &str, rows: &[(&str, &str, Option<Stats>)]) -> Grid {
    let mut grid = Grid::new(2, [title, "unit", "mean", "std", "min", "p50", "p90", "p95", "p99", "max"]);
    for (name, unit, stats) in rows {
        let Some(stats) = stats else { continue };
        // As many places for the whole row as its largest but one percentile bears.
        let places = decimals(stats.p95);
        let figures =
            [stats.mean, stats.std, stats.min, stats.p50, stats.p90, stats.p95, stats.p99, stats.max];
        let names = [(*name).to_owned(), (*unit).to_owned()];
        grid.row(names.into_iter().chain(figures.map(|figure| format!("{figure:.places$}"))));
    }
    grid
}

fn facts(document: &Document) -> Grid {
    let (measured, summary) = (&document.measured, &document.summary);
    let throughput = &summary.throughput;
    let mut grid = Grid::new(2, ["requests", &requests(&summary.requests)]);
    grid.row([
        "window",
        &format!(
            "{} s, from {} s",
            number(summary.window.seconds()),
            number(summary.window.start_us.seconds())
        ),
    ]);
    grid.row([
        "throughput",
        &format!(
            "{} requests/s of {} offered, {} input tokens/s, {} output tokens/s",
            number(throughput.requests_per_s),
            number(throughput.offered_requests_per_s),
            number(throughput.input_tokens_per_s),
            number(throughput.output_tokens_per_s)
        ),
    ]);
    if let Some(share) = throughput.cached_share {
        grid.row(["cached", &format!("{:.1} % of input tokens", share * 100.0)]);
    }
    if let Some(goodput) = &summary.goodput {
        let per_second = number(goodput.requests_per_s);
        let (share, slo) = (goodput.share * 100.0, slo(&goodput.slo));
        grid.row(["goodput", &format!("{per_second} requests/s, {share:.1} % of requests within {slo}")]);
    }
    match &measured.origin {
        Origin::Simulated { profile } => {
            grid.row(["origin", &format!("simulated from the profile {profile}")])
        }
        Origin::Measured { client, calibration } => {
            grid.row(["client", &cost(client)]);
            let floor = calibration.as_ref().map_or("none".to_owned(), floor);
            grid.row(["calibration", &floor]);
        }
    }
    grid
}

pub(crate) fn requests(requests: &Requests) -> String {
    let mut text = format!("{}: {} complete", requests.total, requests.complete);
    for (count, name) in [
        (requests.failed, "failed"),
        (requests.cancelled, "cancelled"),
        (requests.unfinished, "unfinished"),
        (requests.left_out, "outside the window"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {name}");
        }
    }
    text
}

pub(crate) fn cost(client: &Client) -> String {
    let stolen = client.stolen_share.map(|share| format!(", {:.1} % of the machine stolen", share * 100.0));
    format!(
        "{:.0} % of {} core{}, send lag p50 {:.3} ms and p99 {:.3} ms{}",
        client.cpu_share * 100.0,
        client.cores,
        if client.cores == 1.0 { "" } else { "s" },
        client.send_lag_p50_us.millis(),
        client.send_lag_p99_us.millis(),
        stolen.unwrap_or_default()
    )
}

/// How far the client was off before the run.
pub(crate) fn floor(calibration: &Calibration) -> String {
    let (ttft, itl) = (calibration.ttft_error, calibration.itl_error);
    format!(
        "with {} streams, p50 and p99 of the error: TTFT {:+.3} and {:+.3} ms, ITL {:+.3} and {:+.3} ms",
        calibration.truth.streams,
        ttft.p50_us / 1e3,
        ttft.p99_us / 1e3,
        itl.p50_us / 1e3,
        itl.p99_us / 1e3
    )
}

/// What is asked, in a few words.
pub(crate) fn slo(slo: &Slo) -> String {
    let asked = [("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("E2E", slo.e2e_ms)];
    let named: Vec<String> =
        asked.iter().filter_map(|(name, limit)| Some(format!("{name} {} ms", (*limit)?))).collect();
    named.join(", ")
}
