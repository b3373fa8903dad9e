//! Whether the endpoint picker's memory stays as it is: the same hour of a trace again and again in compressed time, each time with other words.
//! `cargo run --release -p baton-perf --example picker_soak -- BATON MODEL_DIR TRACE.jsonl`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

#[path = "../picker_load/gateway.rs"]
mod gateway;
#[path = "../picker_load/pool.rs"]
mod pool;
#[path = "../common/scheduler.rs"]
mod scheduler;

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::Context as _;
use baton_workload::{
    Distribution, Estimate, Load, Plan, Planned, Source, Start, Tokens, Trace, TraceOutput, Workload,
};
use clap::Parser;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use gateway::Ask;
use pool::Pool;
use scheduler::Scheduler;

/// Memory of an endpoint picker over hours of a trace.
#[derive(Parser)]
struct Args {
    /// The `baton` binary.
    baton: PathBuf,
    /// Model folder: its tokenizer.
    model: PathBuf,
    /// Requests, as Mooncake's traces have them.
    trace: PathBuf,
    /// Servers in the pool.
    #[arg(long, default_value_t = 100)]
    workers: usize,
    /// What the trace's times are multiplied by.
    #[arg(long, default_value_t = 0.025)]
    time_scale: f64,
    /// How often the trace is played.
    #[arg(long, default_value_t = 8)]
    rounds: u64,
    /// Options for the scheduler, such as --kv-index-bytes.
    #[arg(last = true)]
    options: Vec<String>,
}

/// Bytes of text for a token.
const TOKEN_BYTES: usize = 4;

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let trace = Trace {
        path: args.trace.clone(),
        format: None,
        output: TraceOutput::Recorded { otherwise: "fixed:1".parse::<Distribution<Tokens>>()? },
        token_scale: 1.0,
        max_context_tokens: None,
        skip: Duration::ZERO,
        max_turns: NonZeroU32::MIN,
    };
    let load = Load::Recorded { time_scale: args.time_scale, is_spread: true, max_in_flight: None };
    let source = Source::Trace(trace);
    let workload = Workload { seed: 1, load, requests: None, duration: None, source, cancel: None };
    Ok(workload.plan(&Estimate::default())?)
}

/// The words of a planned prompt; each round has its own.
fn ask(planned: &Planned, round: u64) -> Ask {
    let pieces = &planned.prompt.pieces;
    Ask::of(pieces.iter().map(|piece| (piece.id ^ (round << 48), piece.tokens as usize * TOKEN_BYTES)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let plan = plan(&args)?;
    let pool = Pool::start(args.workers).await?;
    let file = pool.file().display().to_string();
    let mut options = vec!["--picker-listen", "127.0.0.1:0", "--max-queued", "100000", "--servers", &file];
    options.extend(args.options.iter().map(String::as_str));
    let scheduler = Scheduler::start(&args.baton, &args.model, &options, None)?;
    let client = gateway::connect(scheduler.address("picker")?).await.context("no picker")?;
    println!("| round | requests | minutes | cores | resident MB at its half | at its end |");
    println!("|---|---|---|---|---|---|");
    for round in 0..args.rounds {
        let (cpu, began) = (scheduler.cpu()?, Instant::now());
        let mut open = JoinSet::new();
        let mut half_mb = 0.0;
        for (number, planned) in plan.requests().iter().enumerate() {
            let Start::At(at) = planned.start else { continue };
            sleep_until(began + at).await;
            let (client, ask) = (client.clone(), ask(planned, round));
            open.spawn(async move { gateway::exchange(client, &ask).await });
            while let Some(done) = open.try_join_next() {
                done??;
            }
            if number == plan.requests().len() / 2 {
                half_mb = scheduler.resident_mb()?;
            }
        }
        while let Some(done) = open.join_next().await {
            done??;
        }
        let took = began.elapsed().as_secs_f64();
        println!(
            "| {} | {} | {:.1} | {:.2} | {half_mb:.0} | {:.0} |",
            round + 1,
            plan.requests().len(),
            took / 60.0,
            (scheduler.cpu()? - cpu) / took,
            scheduler.resident_mb()?
        );
    }
    Ok(())
}
