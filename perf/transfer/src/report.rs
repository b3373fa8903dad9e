//! The table.

use std::io::Write as _;

use anyhow::Result;

use super::Args;
use super::protocol::Scenario;
use super::sender::{Measured, Operations};

pub(super) fn begin(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} layers, {} MiB a round, median of {} rounds, checksums {:?}\n",
        args.fabric, args.layers, args.size, args.rounds, args.checksums
    )?;
    writeln!(
        out,
        "| piece | blocks in a run | GB/s | memcpy GB/s | ratio | raw fabric GB/s | ratio | latency p50, p99 µs (bytes) | CPU s/GB sender, receiver |"
    )?;
    Ok(writeln!(out, "|---|---|---|---|---|---|---|---|---|")?)
}

pub(super) fn row(scenario: &Scenario, measured: &Measured) -> Result<()> {
    let Measured { bytes_per_second, memcpy_bytes_per_second, latencies, .. } = measured;
    let raw = match measured.raw_bytes_per_second {
        Some(raw) => format!("{:.2} | {:.2}", raw / 1e9, bytes_per_second / raw),
        None => "– | –".to_owned(),
    };
    Ok(writeln!(
        std::io::stdout(),
        "| {} KiB | {} | {:.2} | {:.2} | {:.2} | {raw} | {:.0}, {:.0} ({} KiB) | {:.3}, {:.3} |",
        scenario.piece_bytes >> 10,
        scenario.run,
        bytes_per_second / 1e9,
        memcpy_bytes_per_second / 1e9,
        bytes_per_second / memcpy_bytes_per_second,
        percentile(latencies, 50),
        percentile(latencies, 99),
        measured.latency_bytes >> 10,
        measured.sender_cpu,
        measured.receiver_cpu,
    )?)
}

/// Below the table: many small transfers at once.
pub(super) fn crowd(scenario: &Scenario, times: &[f64]) -> Result<()> {
    let (half, most) = (percentile(times, 50), percentile(times, 99));
    Ok(writeln!(
        std::io::stdout(),
        "\n{} transfers of one block ({} layers of {} KiB) at once: p50 {half:.0} µs, p99 {most:.0} µs, p99/p50 {:.1}",
        times.len(),
        scenario.layers,
        scenario.piece_bytes >> 10,
        most / half
    )?)
}

/// Below that: what a write costs beyond its bytes.
pub(super) fn operations(operations: &Operations) -> Result<()> {
    let Operations { writes, planning_ms, posting_ns } = operations;
    Ok(writeln!(
        std::io::stdout(),
        "\n{writes} writes of {} bytes: planned in {planning_ms:.1} ms, then {posting_ns:.0} ns each until done",
        super::protocol::SMALL_PIECE_BYTES
    )?)
}

pub(super) fn note(note: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "| {note} | | | | | | | | |")?)
}

/// Of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}
