//! What the built-in front adds to streams: a scheduler process between a made-up decode worker that gives each stream a token at fixed times, and
//! clients that note when it came. `cargo run --release -p baton-perf --example front_load -- BATON MODEL_DIR`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

mod client;
mod floor;
#[path = "../common/scheduler.rs"]
mod scheduler;
mod times;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use tokio::time::Instant;

use scheduler::Scheduler;
use times::{Pace, Times};

/// Added inter-token latency and cores of the front.
#[derive(Parser)]
struct Args {
    /// The `baton` binary.
    baton: PathBuf,
    /// Model folder: its tokenizer.
    model: PathBuf,
    /// Streams at a time.
    #[arg(long, default_value_t = 256)]
    streams: usize,
    /// Tokens a second in each.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Seconds of load.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The core that the scheduler has, and no other [default: all]
    #[arg(long)]
    core: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let tokens = (args.rate * args.seconds) as usize;
    let pace = Pace { each: Duration::from_secs_f64(1.0 / args.rate), tokens };

    let times = Arc::new(Times::new(args.streams, tokens));
    let server = floor::start(times.clone(), pace).await?;
    client::run(&server, args.streams, &times).await?;
    times.report("harness alone");

    let times = Arc::new(Times::new(args.streams, tokens));
    let scheduler = Scheduler::start(&args.baton, &args.model, &["--aggregated"], args.core)?;
    worker::start(scheduler.address("registry")?, &args.model, times.clone(), pace).await?;
    let front = scheduler.address("http")?;
    client::wait_until_ready(front).await?;
    let (cpu, began) = (scheduler.cpu()?, Instant::now());
    client::run(front, args.streams, &times).await?;
    let cores = (scheduler.cpu()? - cpu) / began.elapsed().as_secs_f64();
    times.report("with the front");
    println!(
        "{} streams, {} tokens/s each: {cores:.2} cores, {:.0} MB resident",
        args.streams,
        args.rate,
        scheduler.resident_mb()?
    );
    Ok(())
}
