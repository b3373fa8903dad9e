//! How well a model foretells text in some format of its weights:
//! `cargo run --release -p baton-perf --example perplexity -- MODEL_DIR TEXTS`, with texts from `perf/held_out.py`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use baton_engine::{
    BlockId, BoundModel, Forward, KvMemory, LoadOptions, Model, StepSequence, WeightFormat, physical_cores,
};
use clap::Parser;
use serde::Deserialize;

/// Perplexity over the scored tokens of some texts, with weights in full and in eight bits.
#[derive(Parser)]
struct Args {
    /// Model folder in Hugging Face format.
    model: PathBuf,
    /// A text a line: {"tokens": [ids], "scored": [whether each counts]}.
    texts: PathBuf,
    /// Compute threads [default: one for each physical core].
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Deserialize)]
struct Text {
    tokens: Vec<u32>,
    scored: Vec<bool>,
}

/// Sums over scored tokens.
#[derive(Default)]
struct Score {
    tokens: usize,
    /// Of -ln p.
    loss: f64,
    /// Tokens that the model would have chosen itself.
    foreseen: usize,
}

const BLOCK_TOKENS: usize = 16;
/// Tokens of a step, for all of which there are logits.
const STEP_TOKENS: usize = 128;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = args.threads.unwrap_or_else(physical_cores);
    let lines = std::fs::read_to_string(&args.texts).with_context(|| args.texts.display().to_string())?;
    let texts: Vec<Text> = lines
        .lines()
        .map(|line| serde_json::from_str(line).context("a line with tokens and scored"))
        .collect::<anyhow::Result<_>>()?;
    println!("| weights | scored tokens | perplexity | foreseen |\n|---|---|---|---|");
    let mut perplexities = Vec::new();
    for (name, format) in [("bf16", WeightFormat::Full), ("int8", WeightFormat::Int8)] {
        let score = score(&args.model, format, threads, &texts)?;
        let perplexity = (score.loss / score.tokens as f64).exp();
        let foreseen = 100.0 * score.foreseen as f64 / score.tokens as f64;
        println!("| {name} | {} | {perplexity:.4} | {foreseen:.2} % |", score.tokens);
        perplexities.push(perplexity);
    }
    println!("\nint8 changes perplexity by {:+.2} %", 100.0 * (perplexities[1] / perplexities[0] - 1.0));
    Ok(())
}

fn score(folder: &Path, weights: WeightFormat, threads: usize, texts: &[Text]) -> anyhow::Result<Score> {
    let options = LoadOptions { threads, weights, ..LoadOptions::default() };
    let model = Model::load(folder, &options).with_context(|| folder.display().to_string())?;
    let longest = texts.iter().map(|text| text.tokens.len()).max().unwrap_or(1);
    let (layout, blocks) = (model.kv_layout(BLOCK_TOKENS), longest.div_ceil(BLOCK_TOKENS));
    let mut forward = model.bind(KvMemory::allocate(&layout, blocks), &layout, blocks, threads)?;
    let mut score = Score::default();
    texts.iter().for_each(|text| read(&mut forward, text, &mut score));
    Ok(score)
}

/// Has one text foretold, token by token.
fn read(forward: &mut BoundModel, text: &Text, score: &mut Score) {
    let vocab = forward.vocab_size();
    let table: Vec<_> = (0..forward.num_blocks() as u32).map(BlockId).collect();
    for first in (0..text.tokens.len()).step_by(STEP_TOKENS) {
        let tokens = &text.tokens[first..text.tokens.len().min(first + STEP_TOKENS)];
        let sequence = StepSequence {
            tokens,
            position: first,
            block_table: &table,
            adapter: None,
            wanted_logits: tokens.len(),
        };
        let logits = forward.step(&[sequence], &mut |_| {});
        for (index, row) in logits.chunks_exact(vocab).enumerate() {
            let next = first + index + 1;
            let Some(&token) = text.tokens.get(next).filter(|_| text.scored[next]) else { continue };
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|logit| f64::from(logit - highest).exp()).sum();
            score.tokens += 1;
            score.loss += total.ln() - f64::from(row[token as usize] - highest);
            score.foreseen += usize::from(row[token as usize] == highest);
        }
    }
}
