//! What the whole endpoint picker costs behind ext_proc: a scheduler process, a fleet from a file with metrics pages, and a gateway's side of many
//! requests at a fixed rate. `cargo run --release -p baton-perf --example picker_load -- BATON MODEL_DIR`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

mod gateway;
mod pool;
#[path = "../common/scheduler.rs"]
mod scheduler;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::transport::Channel;

use gateway::Ask;
use pool::Pool;
use scheduler::Scheduler;

/// Added latency and cores of an endpoint picker under load.
#[derive(Parser)]
struct Args {
    /// The `baton` binary.
    baton: PathBuf,
    /// Model folder: its tokenizer.
    model: PathBuf,
    /// Servers in the pool.
    #[arg(long, default_value_t = 100)]
    workers: usize,
    /// Requests a second.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Bytes of a request's prompt; about 4 a token.
    #[arg(long, default_value_t = 400_000)]
    bytes: usize,
    /// Share of a prompt that it has in common with others: one of fifty beginnings.
    #[arg(long, default_value_t = 0.5)]
    shared: f64,
    /// Seconds of load; as long again is run before, unmeasured.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The core that the scheduler has, and no other [default: all]
    #[arg(long)]
    core: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let pool = Pool::start(args.workers).await?;
    let file = pool.file().display().to_string();
    let options = ["--picker-listen", "127.0.0.1:0", "--max-queued", "100000", "--servers", &file];
    let scheduler = Scheduler::start(&args.baton, &args.model, &options, args.core)?;
    let client = gateway::connect(scheduler.address("picker")?).await.context("no picker")?;
    let common = (args.bytes as f64 * args.shared) as usize;
    let own = args.bytes - common.min(args.bytes);
    let ask = |number: u64| Ask::of([(number % 50, common), (1_000 + number, own)]);
    let asks: Vec<Ask> = (0..64).map(ask).collect();
    let asks = Arc::new(asks);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let idle = scheduler.cpu()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = (scheduler.cpu()? - idle) / 3.0;

    load(&client, &asks, args.rate, args.seconds).await?;
    let (cpu, began) = (scheduler.cpu()?, Instant::now());
    let mut latencies = load(&client, &asks, args.rate, args.seconds).await?;
    let (cores, rate) = (
        (scheduler.cpu()? - cpu) / began.elapsed().as_secs_f64(),
        latencies.len() as f64 / began.elapsed().as_secs_f64(),
    );
    latencies.sort_by(f64::total_cmp);
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "{} workers, prompts of {} bytes: {rate:.0} requests/s, {cores:.2} cores ({idle:.3} when idle, scraping), {:.1} ms of CPU a request; \
         added latency p50 {:.2} p90 {:.2} p99 {:.2} ms; {:.0} MB resident",
        args.workers,
        args.bytes,
        (cores - idle) / rate * 1e3,
        at(0.5),
        at(0.9),
        at(0.99),
        scheduler.resident_mb()?
    );
    Ok(())
}

/// Sends at `rate`, whether or not answers come; the added latency of each in ms.
async fn load(channel: &Channel, asks: &Arc<Vec<Ask>>, rate: f64, seconds: f64) -> anyhow::Result<Vec<f64>> {
    let mut tick = interval(Duration::from_secs_f64(1.0 / rate));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = JoinSet::new();
    for number in 0..(rate * seconds) as usize {
        tick.tick().await;
        let (channel, asks) = (channel.clone(), asks.clone());
        open.spawn(async move { gateway::exchange(channel, &asks[number % asks.len()]).await });
    }
    let mut latencies = Vec::new();
    while let Some(done) = open.join_next().await {
        latencies.push(done??);
    }
    Ok(latencies)
}
