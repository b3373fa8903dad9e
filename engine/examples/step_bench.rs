//! Tokens a second of a model folder: prefill, and decode at several batch sizes.
//!
//! `cargo run --release -p baton-engine --example step_bench -- MODEL_DIR [--threads N] [--prefill 512,2048]
//! [--batch 1,8,32] [--context 128] [--repeat 3] [--isa portable|avx2|avx512-bf16] [--f32] [--int8] [--adapters DIR,DIR]`
//!
//! With adapters everything is measured twice in turn: without, and with one for each sequence, which take turns.
//! Prints the best and the median of the repeats. With `--threads 1` time is the thread's own CPU time, which says
//! something on a busy machine too.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use baton_engine::{
    BlockId, BoundModel, Dtype, Forward, Isa, KvMemory, LoadOptions, LoraAdapter, Model, StepSequence,
    WeightFormat, physical_cores,
};
use rustix::time::{ClockId, clock_gettime};

const BLOCK_TOKENS: usize = 16;

fn main() -> anyhow::Result<()> {
    let (folder, options) = arguments()?;
    let number = |name: &str, default: usize| options.get(name).map_or(Ok(default), |v| v.parse::<usize>());
    let list = |name: &str, default: &str| -> anyhow::Result<Vec<usize>> {
        let text = options.get(name).map_or(default, String::as_str);
        text.split(',').map(|n| n.parse().with_context(|| format!("--{name} {text}"))).collect()
    };
    let threads = number("threads", physical_cores())?;
    let repeat = number("repeat", 3)?;
    let context = number("context", 128)?;
    let isa = options.get("isa").map(|name| {
        Isa::available()
            .into_iter()
            .find(|isa| isa.to_string() == *name)
            .context("no such instruction set here")
    });
    let dtype = if options.contains_key("f32") { Dtype::F32 } else { Dtype::Bf16 };
    let weights = if options.contains_key("int8") { WeightFormat::Int8 } else { WeightFormat::Full };
    let start = Instant::now();
    let model = Model::load(
        Path::new(&folder),
        &LoadOptions { dtype, weights, threads, isa: isa.transpose()?, ..LoadOptions::default() },
    )?;
    let config = model.config();
    println!(
        "{folder}: {} {} on {}, {threads} threads, {:.0} MB of weights, loaded in {:.2} s",
        config.architecture,
        model.dtype(),
        model.isa(),
        model.weights_bytes() as f64 / 1e6,
        start.elapsed().as_secs_f64(),
    );
    let folders =
        options.get("adapters").map_or("", String::as_str).split(',').filter(|folder| !folder.is_empty());
    let adapter = |folder| model.load_adapter(folder, Path::new(folder), threads);
    let adapters = folders.map(adapter).collect::<Result<Vec<_>, _>>()?;
    let variants = if adapters.is_empty() { vec![""] } else { vec!["", " with adapters"] };
    let (prefills, batches) = (list("prefill", "512")?, list("batch", "1,8,32")?);
    let longest = prefills.iter().copied().max().unwrap_or(0);
    let decode_blocks = batches.iter().max().unwrap_or(&1) * (context + 64).div_ceil(BLOCK_TOKENS);
    let blocks = decode_blocks.max(longest.div_ceil(BLOCK_TOKENS));
    let layout = model.kv_layout(BLOCK_TOKENS);
    let memory = KvMemory::allocate(&layout, blocks);
    let mut forward = model.bind(memory, &layout, blocks, threads)?;
    for tokens in prefills {
        let mut measure =
            |variant: usize| prefill(&mut forward, tokens, &adapters[..variant * adapters.len()]);
        for (variant, seconds) in variants.iter().zip(in_turn(repeat, variants.len(), &mut measure)) {
            report(&format!("prefill {tokens}{variant}"), seconds, tokens);
        }
    }
    for batch in batches {
        let mut measure =
            |variant: usize| decode(&mut forward, batch, context, &adapters[..variant * adapters.len()]);
        for (variant, seconds) in variants.iter().zip(in_turn(repeat, variants.len(), &mut measure)) {
            report(&format!("decode batch {batch}, context {context}{variant}"), seconds, batch);
        }
    }
    Ok(())
}

/// Seconds of each repeat, by variant; what is compared is measured in turn.
fn in_turn(repeat: usize, variants: usize, measure: &mut dyn FnMut(usize) -> f64) -> Vec<Vec<f64>> {
    let mut seconds = vec![Vec::new(); variants];
    for _ in 0..repeat {
        seconds.iter_mut().enumerate().for_each(|(variant, seconds)| seconds.push(measure(variant)));
    }
    seconds
}

/// Seconds of one prompt in one step.
fn prefill(forward: &mut BoundModel, tokens: usize, adapters: &[LoraAdapter]) -> f64 {
    let prompt = some_tokens(forward, tokens);
    let block_table = blocks(0, tokens);
    let clock = Clock::start(forward);
    let sequence = StepSequence {
        tokens: &prompt,
        position: 0,
        block_table: &block_table,
        adapter: adapters.first(),
        wanted_logits: 1,
    };
    forward.step(&[sequence], &mut |_| {});
    clock.seconds()
}

/// Seconds of one decode step (median of 16), `batch` sequences with `context` tokens each.
fn decode(forward: &mut BoundModel, batch: usize, context: usize, adapters: &[LoraAdapter]) -> f64 {
    const STEPS: usize = 16;
    let per_sequence = (context + STEPS).div_ceil(BLOCK_TOKENS);
    let tables: Vec<_> = (0..batch).map(|s| blocks(s * per_sequence, context + STEPS)).collect();
    let prompt = some_tokens(forward, context);
    for table in &tables {
        let sequence = StepSequence {
            tokens: &prompt,
            position: 0,
            block_table: table,
            adapter: None,
            wanted_logits: 0,
        };
        forward.step(&[sequence], &mut |_| {});
    }
    let mut seconds: Vec<f64> = (0..STEPS)
        .map(|step| {
            let tokens = [prompt[step % prompt.len()]];
            let share = |(index, table): (usize, _)| StepSequence {
                tokens: &tokens,
                position: context + step,
                block_table: table,
                adapter: adapters.get(index % adapters.len().max(1)),
                wanted_logits: 1,
            };
            let sequences: Vec<_> =
                tables.iter().enumerate().map(|(index, table)| share((index, table))).collect();
            let clock = Clock::start(forward);
            forward.step(&sequences, &mut |_| {});
            clock.seconds()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[STEPS / 2]
}

/// Time since a moment: of the wall, or of this thread on a CPU when it does all the work.
struct Clock {
    wall: Instant,
    cpu: Option<Duration>,
}

impl Clock {
    fn start(forward: &BoundModel) -> Self {
        let alone = forward.threads() == 1;
        Self { wall: Instant::now(), cpu: alone.then(cpu_time) }
    }

    fn seconds(&self) -> f64 {
        let took = self.cpu.map_or_else(|| self.wall.elapsed(), |start| cpu_time() - start);
        took.as_secs_f64()
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn some_tokens(forward: &BoundModel, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13) % forward.vocab_size()) as u32).collect()
}

fn blocks(first: usize, tokens: usize) -> Vec<BlockId> {
    (first..first + tokens.div_ceil(BLOCK_TOKENS)).map(|id| BlockId(id as u32)).collect()
}

fn report(label: &str, mut seconds: Vec<f64>, tokens: usize) {
    seconds.sort_by(f64::total_cmp);
    let (best, median) = (seconds[0], seconds[seconds.len() / 2]);
    let rate = |s: f64| tokens as f64 / s;
    println!(
        "{label}: {:.1} tokens/s (best), {:.1} (median), {:.2} ms a step",
        rate(best),
        rate(median),
        best * 1e3
    );
}

fn arguments() -> anyhow::Result<(String, HashMap<String, String>)> {
    let mut arguments = std::env::args().skip(1).peekable();
    let folder = arguments.next().context("usage: step_bench MODEL_DIR [--option value]…")?;
    let mut options = HashMap::new();
    while let Some(name) = arguments.next() {
        let Some(name) = name.strip_prefix("--") else { bail!("unexpected argument {name}") };
        let value = if ["f32", "int8"].contains(&name) { None } else { arguments.next() };
        options.insert(name.to_owned(), value.unwrap_or_default());
    }
    Ok((folder, options))
}
