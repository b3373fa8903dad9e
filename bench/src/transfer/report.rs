//! The table.

use std::io::Write as _;

use anyhow::Result;

use super::Args;
use super::protocol::Scenario;
use super::sender::Measured;

/// Prints rows as they are known.
pub(super) struct Report {
    layers: u32,
}

impl Report {
    pub(super) fn begin(args: &Args) -> Result<Self> {
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
        writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
        Ok(Self { layers: args.layers })
    }

    pub(super) fn row(&mut self, scenario: &Scenario, measured: &Measured) -> Result<()> {
        let Measured { bytes_per_second, memcpy_bytes_per_second, latencies, .. } = measured;
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        debug_assert_eq!(scenario.layers, self.layers, "one table, one pool");
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
            percentile(50),
            percentile(99),
            measured.latency_bytes >> 10,
            measured.sender_cpu,
            measured.receiver_cpu,
        )?)
    }

    /// Below the table: many small transfers at once.
    pub(super) fn crowd(&mut self, scenario: &Scenario, times: &[f64]) -> Result<()> {
        let percentile = |percent: usize| times[(times.len() - 1) * percent / 100];
        let (half, most) = (percentile(50), percentile(99));
        Ok(writeln!(
            std::io::stdout(),
            "\n{} transfers of one block ({} layers of {} KiB) at once: p50 {half:.0} µs, p99 {most:.0} µs, p99/p50 {:.1}",
            times.len(),
            self.layers,
            scenario.piece_bytes >> 10,
            most / half
        )?)
    }

    pub(super) fn note(&mut self, note: &str) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "| {note} | | | | | | | | |")?)
    }
}
