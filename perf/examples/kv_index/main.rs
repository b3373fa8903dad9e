//! What the index of prefixes costs, as tables in Markdown: `cargo run --release -p baton-perf --example kv_index`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

mod fleet;
mod writing;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use baton_kv_index::{
    BatchReader, Index, IndexLimits, IndexReader, Matches, PromptKeys, Scope, TierWeights, WorkerId,
    WorkerSpec, share,
};
use clap::Parser;
use fleet::{Draws, Prompt, stored, worker};
use writing::{Taken, Timed, stream, thread_cpu};

/// Time of a decision, rate of ingestion, memory.
#[derive(Parser)]
struct Args {
    /// Blocks in the index.
    #[arg(long, default_value_t = 10_000_000)]
    blocks: usize,
    /// Workers.
    #[arg(long, default_value_t = 1000)]
    workers: u64,
    /// Decisions that are timed, of each kind.
    #[arg(long, default_value_t = 3000)]
    decisions: usize,
    /// Block sizes, in tokens.
    #[arg(long, value_delimiter = ',', default_value = "16,64,256")]
    block_tokens: Vec<usize>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory,decisions,ingestion")]
    parts: Vec<Part>,
    /// Of a row: workers that hold each block.
    #[arg(long, default_value_t = 1)]
    holders: u64,
    /// Of a row: whether workers give blocks the same hashes.
    #[arg(long)]
    same_hashes: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Memory,
    /// One row of it, in a process of its own, as memory that was given back counts for later rows.
    MemoryRow,
    Decisions,
    Ingestion,
}

const SCOPE: Scope<'_> = Scope { model: "m", adapter: None, salt: None };
const LONG: usize = 100_000;
const SHORT: usize = 1000;

fn new_index(workers: u64, block_tokens: usize, same_hashes: bool) -> Index {
    let mut index = Index::new(IndexLimits { bytes: 6 << 30, guess_seconds: 60 });
    for number in 0..workers {
        let same_hashes = same_hashes.then(|| "all".to_owned());
        let spec = WorkerSpec { model: "m".to_owned(), block_tokens: block_tokens as u32, same_hashes };
        index.add(worker(number), &spec).expect("there is room");
    }
    index
}

/// Prompts until they are that many blocks: three quarters of them in long ones. Beginnings are shared: 2,000 tokens among some 60 long prompts,
/// 512 among some thousand short ones.
fn prompts(blocks: usize, block_tokens: usize) -> (Vec<Prompt>, Vec<Prompt>) {
    let (long, short) = (LONG / block_tokens, SHORT / block_tokens);
    let longs = (blocks * 3 / 4).div_ceil(long) as u64;
    let shorts = (blocks / 4).div_ceil(short) as u64;
    let long = |n| Prompt { shared: 1 + n % 20, shared_tokens: 2048, own: 1 << 32 | n, tokens: LONG };
    let short = |n| Prompt { shared: 100 + n % 40, shared_tokens: 512, own: 2 << 32 | n, tokens: SHORT };
    ((0..longs).map(long).collect(), (0..shorts).map(short).collect())
}

/// Each prompt on one worker, drawn; of the long ones the first eight on 300.
fn fill(index: &mut Index, longs: &[Prompt], shorts: &[Prompt], workers: u64, block_tokens: usize) {
    let (mut reader, mut tokens, mut draws) = (BatchReader::default(), Vec::new(), Draws::new(7));
    for (at, prompt) in longs.iter().chain(shorts).enumerate() {
        let holders = if at < 8 { 300.min(workers) } else { 1 };
        for _ in 0..holders {
            let id = draws.below(workers);
            let batch = stored(prompt, block_tokens, id, &mut tokens);
            reader.apply(&mut *index, worker(id), &batch).expect("a batch");
        }
    }
}

/// In microseconds: those that such parts of the times are not above.
fn percentiles<const N: usize>(times: &mut [Duration], parts: [f64; N]) -> [f64; N] {
    times.sort_unstable();
    parts.map(|part| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6)
}

/// The worker for a prompt: hashing, look-up, and an estimate for each of the workers.
fn decide(reader: &IndexReader, tokens: &[u32], block_tokens: usize, state: &mut Decision) -> usize {
    state.keys.compute(&SCOPE, block_tokens as u32, tokens);
    state.matches.clear();
    reader.read(|index| index.query(&state.keys, &mut state.matches));
    let weights = TierWeights::default();
    state.cached.fill(0.0);
    for found in state.matches.found() {
        state.cached[found.worker.0 as usize] = found.weighted_tokens(&weights);
    }
    let costs = state
        .cached
        .iter()
        .zip(&state.loads)
        .map(|(cached, load)| load + (tokens.len() as f32 - cached) * 0.1);
    let best = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    best.map_or(0, |(worker, _)| worker)
}

#[derive(Default)]
struct Decision {
    keys: PromptKeys,
    matches: Matches,
    cached: Vec<f32>,
    loads: Vec<f32>,
}

fn time_decisions(
    reader: &IndexReader,
    prompts: &[Prompt],
    block_tokens: usize,
    workers: u64,
    count: usize,
) -> Decided {
    let mut draws = Draws::new(99);
    let mut state = Decision { cached: vec![0.0; workers as usize], ..Decision::default() };
    state.loads = (0..workers).map(|_| draws.below(1000) as f32).collect();
    let (mut tokens, mut decided) = (Vec::new(), Decided::default());
    for _ in 0..count {
        prompts[draws.below(prompts.len() as u64) as usize].write(&mut tokens);
        let (begin, cpu) = (Instant::now(), thread_cpu());
        std::hint::black_box(decide(reader, &tokens, block_tokens, &mut state));
        decided.cpu.push(thread_cpu() - cpu);
        decided.wall.push(begin.elapsed());
        let most = state.matches.found().iter().map(|found| found.prefix_tokens() as usize).max();
        decided.hits += usize::from(most == Some(tokens.len() / block_tokens * block_tokens));
    }
    decided
}

/// Decisions, one after the other.
#[derive(Default)]
struct Decided {
    /// Processor time of each, which leaves out waiting for the lock, and for the core while other programs have it.
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
    /// Those that found the whole prompt.
    hits: usize,
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

fn decisions(args: &Args) {
    println!(
        "| block | prompt | blocks in the index | processor time p50, p99 µs | of it hashing, p50 | while ingesting: p50, p99 | a slice has the lock: p99, p99.9 | by the clock, alone: p50, p99 | while ingesting: p50, p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for &block_tokens in &args.block_tokens {
        let (longs, shorts) = prompts(args.blocks, block_tokens);
        let mut index = new_index(args.workers, block_tokens, false);
        fill(&mut index, &longs, &shorts, args.workers, block_tokens);
        let blocks = index.stats().blocks;
        let stream = stream(args.workers.min(128), block_tokens, 400_000, 2000);
        for number in 0..128 {
            let spec =
                WorkerSpec { model: "m".to_owned(), block_tokens: block_tokens as u32, same_hashes: None };
            index.add(WorkerId(5000 + number), &spec).expect("there is room");
        }
        let (mut writer, reader) = share(index);
        for (name, prompts) in [("100,000 tokens", &longs), ("1,000 tokens", &shorts)] {
            let times = || time_decisions(&reader, prompts, block_tokens, args.workers, args.decisions);
            let mut alone = times();
            assert_eq!(alone.hits, args.decisions, "each prompt is held whole by somebody");
            let hashing = time_hashing(&prompts[0], block_tokens);
            let (end, mut slices) = (AtomicBool::new(false), Vec::new());
            let mut busy = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut batches = BatchReader::default();
                    let mut timed = Timed { writer: &mut writer, slices: &mut slices };
                    while !end.load(Ordering::Relaxed) {
                        for (id, batch) in stream.iter().take_while(|_| !end.load(Ordering::Relaxed)) {
                            let id = WorkerId(id.0 + 5000);
                            batches.take(&mut timed, id, batch).expect("a batch");
                        }
                    }
                });
                let decided = times();
                end.store(true, Ordering::Relaxed);
                decided
            });
            let show = |times: &mut [Duration], parts| {
                let [low, high] = percentiles(times, parts);
                format!("{low:.1}, {high:.1}")
            };
            let middle = [0.5, 0.99];
            println!(
                "| {block_tokens} | {name} | {blocks} | {} | {hashing:.1} | {} | {} | {} | {} |",
                show(&mut alone.cpu, middle),
                show(&mut busy.cpu, middle),
                show(&mut slices, [0.99, 0.999]),
                show(&mut alone.wall, middle),
                show(&mut busy.wall, middle),
            );
        }
    }
}

fn time_hashing(prompt: &Prompt, block_tokens: usize) -> f64 {
    let (mut tokens, mut keys) = (Vec::new(), PromptKeys::default());
    prompt.write(&mut tokens);
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let begin = Instant::now();
            keys.compute(&SCOPE, block_tokens as u32, std::hint::black_box(&tokens));
            begin.elapsed()
        })
        .collect();
    let [p50] = percentiles(&mut times, [0.5]);
    p50
}

fn ingestion(args: &Args) {
    println!(
        "\n| block | stream | of bytes to applied, million blocks/s | best twentieth | reading and hashing alone | best twentieth | MB/s | a slice has the lock: p50, p99, p99.9 µs |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &block_tokens in &args.block_tokens {
        let blocks = 8_000_000.min(args.blocks).min(400_000_000 / block_tokens);
        let (longs, shorts) = prompts(args.blocks, block_tokens);
        let mut index = new_index(args.workers, block_tokens, false);
        fill(&mut index, &longs, &shorts, args.workers, block_tokens);
        let (mut writer, _) = share(index);
        for (name, chain) in [("stores", usize::MAX / 4), ("stores and removals", 2000)] {
            let batches = stream(128, block_tokens, blocks, chain);
            // Nothing comes of what workers say that are not known.
            let reading = Taken::new(&mut writer, &batches, 1_000_000);
            let mut all = Taken::new(&mut writer, &batches, 0);
            let bytes: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
            let [p50, p99, p999] = percentiles(&mut all.slices, [0.5, 0.99, 0.999]);
            println!(
                "| {block_tokens} | {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {p50:.0}, {p99:.0}, {p999:.0} |",
                all.rate(),
                all.best,
                reading.rate(),
                reading.best,
                bytes as f64 / 1e6 / all.seconds
            );
        }
    }
}

fn memory(args: &Args) {
    println!(
        "\n| holders of each block | hashes | blocks | resident bytes for a block | by the index's own count |"
    );
    println!("|---|---|---|---|---|");
    for (holders, same_hashes) in [(1, false), (1, true), (100, true), (100, false)] {
        let program = std::env::current_exe().expect("this program");
        let mut row = std::process::Command::new(program);
        row.args(["--parts", "memory-row", "--holders", &holders.to_string()]);
        row.args(["--blocks", &args.blocks.to_string(), "--workers", &args.workers.to_string()]);
        row.args(same_hashes.then_some("--same-hashes"));
        assert!(row.status().expect("it runs").success());
    }
}

fn memory_row(args: &Args) {
    let Args { holders, same_hashes, workers, .. } = *args;
    let (block_tokens, blocks) = (16, if holders == 1 { args.blocks } else { args.blocks / 10 });
    let before = resident_bytes();
    let mut index = new_index(workers, block_tokens, same_hashes);
    let (longs, _) = prompts(blocks * 4 / 3, block_tokens);
    let (mut reader, mut tokens, mut draws) = (BatchReader::default(), Vec::new(), Draws::new(7));
    for prompt in &longs {
        let first = draws.below(workers);
        for holder in 0..holders {
            let id = (first + holder) % workers;
            let batch = stored(prompt, block_tokens, if same_hashes { 0 } else { id }, &mut tokens);
            reader.apply(&mut index, worker(id), &batch).expect("a batch");
        }
    }
    let stats = index.stats();
    let name = if same_hashes { "the same everywhere" } else { "each worker's own" };
    println!(
        "| {holders} | {name} | {} | {:.1} | {:.1} |",
        stats.blocks,
        (resident_bytes() - before) / stats.blocks as f64,
        stats.bytes as f64 / stats.blocks as f64
    );
}

fn main() {
    let args = Args::parse();
    for part in &args.parts {
        match part {
            Part::Memory => memory(&args),
            Part::MemoryRow => memory_row(&args),
            Part::Decisions => decisions(&args),
            Part::Ingestion => ingestion(&args),
        }
    }
}
