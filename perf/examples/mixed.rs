//! What those who generate notice of a long prompt beside them:
//! `cargo run --release -p baton-perf --example mixed -- MODEL_DIR`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use baton_engine::{
    Engine, EngineConfig, KvMemory, LoadOptions, Model, SamplingParams, SequenceEvent, SequenceHandle,
    SequenceRequest, Shutdown, WeightFormat, physical_cores,
};
use clap::Parser;

/// Gaps between tokens of sequences that generate: alone, and while a long prompt is computed in chunks beside them.
#[derive(Parser)]
struct Args {
    /// Model folder in Hugging Face format.
    model: PathBuf,
    /// Compute threads [default: one for each physical core].
    #[arg(long)]
    threads: Option<usize>,
    /// Sequences that generate.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    streams: Vec<usize>,
    /// Tokens of each before they generate.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Tokens of the long prompt.
    #[arg(long, default_value_t = 2000)]
    prompt: usize,
    /// Prompt tokens a step beside those who generate [default: as the engine paces itself].
    #[arg(long)]
    chunk: Option<usize>,
    /// Long prompts, one after the other.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Weights: none, int8.
    #[arg(long, default_value = "none")]
    quantization: WeightFormat,
}

/// Tokens that each stream generates alone, before and between the long prompts.
const QUIET_TOKENS: usize = 60;
const BLOCK_TOKENS: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = args.threads.unwrap_or_else(physical_cores);
    let options = LoadOptions { threads, weights: args.quantization, ..LoadOptions::default() };
    let model = Model::load(&args.model, &options).with_context(|| args.model.display().to_string())?;
    println!("| streams | | tokens | p50 | p99 | longest | TTFT of {} tokens |", args.prompt);
    println!("|---|---|---|---|---|---|---|");
    for &streams in &args.streams {
        measure(&args, &model, threads, streams).await?;
    }
    Ok(())
}

async fn measure(args: &Args, model: &Model, threads: usize, streams: usize) -> anyhow::Result<()> {
    let layout = model.kv_layout(BLOCK_TOKENS);
    let most = args.context + args.rounds * (args.prompt + QUIET_TOKENS) + QUIET_TOKENS;
    let blocks = (streams * most + 2 * args.prompt).div_ceil(BLOCK_TOKENS);
    let memory = KvMemory::allocate(&layout, blocks);
    let forward = model.bind(memory, &layout, blocks, threads)?;
    let config =
        EngineConfig { mixed_prompt_tokens: args.chunk, prefix_cache: false, ..EngineConfig::default() };
    let engine = Engine::start(Box::new(forward), vec![], config);
    let mut seed = 0;
    let mut submit = |tokens: usize, max_tokens: usize| {
        seed += 1;
        let vocab = model.config().vocab;
        let prompt = (0..tokens).map(|i| ((i * 7919 + seed * 31) % vocab) as u32).collect();
        let sampling = SamplingParams { ignore_eos: true, ..SamplingParams::greedy(max_tokens as u32) };
        engine.submit(SequenceRequest::new("measured", prompt, sampling))
    };
    let start = Instant::now();
    next_token(&mut submit(args.prompt, 1)?).await?;
    let alone = start.elapsed();

    let mut handles = (0..streams).map(|_| submit(args.context, most)).collect::<Result<Vec<_>, _>>()?;
    for handle in &mut handles {
        next_token(handle).await?;
    }
    let (mut quiet, mut mixed, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    gaps(&mut handles, 10).await?;
    for _ in 0..args.rounds {
        quiet.extend(gaps(&mut handles, QUIET_TOKENS).await?);
        let start = Instant::now();
        let mut long = submit(args.prompt, 1)?;
        let mut last = start;
        loop {
            mixed.extend(gaps_since(&mut handles, 1, &mut last).await?);
            if let Some(event) = long.try_recv() {
                check(event)?;
                break;
            }
        }
        waits.push(start.elapsed());
    }
    let wait = waits.iter().sum::<Duration>() / args.rounds as u32;
    let quiet = row(streams, "alone", quiet, &format!("{:.0} ms (nothing beside it)", millis(alone)));
    let mixed = row(streams, "beside a prompt", mixed, &format!("{:.0} ms", millis(wait)));
    println!(
        "| {streams} | ratio | | {:.2} | {:.2} | {:.2} | |",
        mixed[0] / quiet[0],
        mixed[1] / quiet[1],
        mixed[2] / quiet[2]
    );
    drop(handles);
    engine.shutdown(Shutdown::Abort).await;
    Ok(())
}

/// Prints a row; gives p50, p99 and the longest in milliseconds.
fn row(streams: usize, what: &str, mut gaps: Vec<Duration>, wait: &str) -> [f64; 3] {
    gaps.sort_unstable();
    let at = |share: f64| millis(gaps[((gaps.len() - 1) as f64 * share).round() as usize]);
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(at);
    println!("| {streams} | {what} | {} | {p50:.1} | {p99:.1} | {longest:.1} ms | {wait} |", gaps.len());
    [p50, p99, longest]
}

/// The next `count` gaps of all streams, which get their tokens in the same steps.
async fn gaps(handles: &mut [SequenceHandle], count: usize) -> anyhow::Result<Vec<Duration>> {
    for handle in &mut *handles {
        next_token(handle).await?;
    }
    gaps_since(handles, count, &mut Instant::now()).await
}

async fn gaps_since(
    handles: &mut [SequenceHandle],
    count: usize,
    last: &mut Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut gaps = Vec::new();
    for _ in 0..count {
        for handle in &mut *handles {
            next_token(handle).await?;
        }
        let now = Instant::now();
        gaps.push(now - *last);
        *last = now;
    }
    Ok(gaps)
}

/// Waits for a token.
async fn next_token(handle: &mut SequenceHandle) -> anyhow::Result<()> {
    while !check(handle.recv().await.context("the engine ended")?)? {}
    Ok(())
}

/// Whether it is a token.
fn check(event: SequenceEvent) -> anyhow::Result<bool> {
    match event {
        SequenceEvent::Token(_) => Ok(true),
        SequenceEvent::Failed(failure) => bail!("{failure}"),
        _ => Ok(false),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
