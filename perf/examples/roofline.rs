//! How near each operator of a step comes to what the machine allows, as a table in Markdown:
//! `cargo run --release -p baton-perf --example roofline -- MODEL_DIR`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

use std::path::PathBuf;

use anyhow::Context as _;
use baton_engine::{
    LoadOptions, WeightFormat, physical_cores,
    roofline::{Limits, OperatorRow, Roofline, StepShape},
};
use clap::Parser;

/// Time, bytes and operations of each operator, and the part of the machine's limit that it reaches.
///
/// The limit is the longer of two times: of its bytes at the rate at which this machine reads memory, and of its operations at
/// the rate of its dot products. Bytes are weights, KV cache and activations, each moved once; what comes from a cache can be faster.
#[derive(Parser)]
struct Args {
    /// Model folder in Hugging Face format.
    model: PathBuf,
    /// Compute threads [default: one for each physical core].
    #[arg(long)]
    threads: Option<usize>,
    /// Prompt lengths.
    #[arg(long, value_delimiter = ',', default_value = "512,2048")]
    prefill: Vec<usize>,
    /// Sequences that decode together.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Tokens of each of them.
    #[arg(long, value_delimiter = ',', default_value = "128,1024")]
    context: Vec<usize>,
    /// Steps that are measured, of which the median counts.
    #[arg(long, default_value_t = 9)]
    steps: usize,
    /// Weights: none, int8.
    #[arg(long, default_value = "none")]
    quantization: WeightFormat,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = args.threads.unwrap_or_else(physical_cores);
    let options = LoadOptions { threads, weights: args.quantization, ..LoadOptions::default() };
    let roofline = Roofline::load(&args.model, &options).with_context(|| args.model.display().to_string())?;
    let Limits { read_bytes, f32_operations, bf16_operations, int8_operations } = *roofline.limits();
    println!(
        "{threads} threads: reads {:.1} GB/s; computes {:.0} GFLOP/s of f32, {:.0} of bf16, {:.0} GOP/s of int8.",
        read_bytes / 1e9,
        f32_operations / 1e9,
        bf16_operations / 1e9,
        int8_operations / 1e9,
    );
    let prefill = args.prefill.iter().map(|tokens| StepShape::Prefill(*tokens));
    let decode = args
        .batch
        .iter()
        .flat_map(|&batch| args.context.iter().map(move |&context| StepShape::Decode { batch, context }));
    for shape in prefill.chain(decode) {
        let name = match shape {
            StepShape::Prefill(tokens) => format!("Prefill of {tokens}"),
            StepShape::Decode { batch, context } => format!("Decoding {batch} with contexts of {context}"),
        };
        table(&name, &roofline.measure(shape, args.steps));
    }
    Ok(())
}

fn table(name: &str, rows: &[OperatorRow]) {
    println!("\n| {name} | calls | ms | of the step | MB | GFLOP | GB/s | GFLOP/s | of the limit |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let seconds: f64 = rows.iter().map(|row| row.time.as_secs_f64()).sum();
    for row in rows {
        line(&row.operator, row, seconds);
    }
    let total = OperatorRow {
        operator: String::new(),
        calls: rows.iter().map(|row| row.calls).sum(),
        time: rows.iter().map(|row| row.time).sum(),
        bytes: rows.iter().map(|row| row.bytes).sum(),
        operations: rows.iter().map(|row| row.operations).sum(),
        least: rows.iter().map(|row| row.least).sum(),
    };
    line("all", &total, seconds);
}

fn line(operator: &str, row: &OperatorRow, step_seconds: f64) {
    let seconds = row.time.as_secs_f64();
    println!(
        "| {operator} | {} | {:.2} | {:.1} % | {:.1} | {:.2} | {:.1} | {:.0} | {:.2} |",
        row.calls,
        1e3 * seconds,
        100.0 * seconds / step_seconds,
        row.bytes as f64 / 1e6,
        row.operations as f64 / 1e9,
        row.bytes as f64 / 1e9 / seconds,
        row.operations as f64 / 1e9 / seconds,
        row.reached(),
    );
}
