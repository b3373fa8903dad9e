//! How well requests are placed, on a real trace and a simulated cluster with a stated cost model (`model.rs`):
//! `cargo run --release -p baton-perf --example route_quality -- TRACE.jsonl`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

mod cache;
mod cluster;
mod decoder;
mod model;
mod peers;
mod prefiller;
mod router;
mod trace;

use std::path::PathBuf;

use baton_policy::profile::Profile;
use clap::Parser;
use cluster::{Served, Shape};
use peers::Peer;
use router::Router;
use trace::Request;

/// Compares placement policies on a trace in Mooncake's format.
#[derive(Parser)]
struct Args {
    /// The trace.
    trace: PathBuf,
    /// Prefill workers' load, in percent of what they can do with an oracle's cache hits.
    #[arg(long, value_delimiter = ',', default_value = "60,80,95")]
    load: Vec<f64>,
    /// Prefill workers.
    #[arg(long, default_value_t = 8)]
    prefill: usize,
    /// Decode workers.
    #[arg(long, default_value_t = 4)]
    decode: usize,
    /// Tokens of each prefill worker's prefix cache, in host memory too.
    #[arg(long, default_value_t = 3_000_000)]
    cache_tokens: u64,
    /// Schedulers, which do not know of each other.
    #[arg(long, default_value_t = 1)]
    schedulers: usize,
    /// Name of Baton's picker: best, near-best or power-of-two.
    #[arg(long)]
    picker: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cache_blocks = (args.cache_tokens / trace::BLOCK_TOKENS) as usize;
    let shape = Shape { prefill: args.prefill, decode: args.decode, cache_blocks };
    let requests = trace::read(&args.trace)?;
    let oracle = cache::oracle(&requests, cache_blocks * args.prefill);
    let prompt_tokens: u64 = requests.iter().map(|request| request.prompt_tokens).sum();
    let oracle_rate = oracle.iter().sum::<u64>() as f64 / prompt_tokens as f64;
    let work_ms: f64 = requests
        .iter()
        .zip(&oracle)
        .map(|(request, &cached)| model::PREFILL.predict(request.prompt_tokens - cached, cached))
        .sum();
    println!("oracle's hit rate: {:.1} %", oracle_rate * 100.0);
    println!(
        "| load | policy | TTFT ms p50 | p90 | p99 | mean | TPOT ms p50 | p90 | p99 | hit rate | where it decodes |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let profile = match &args.picker {
        None => Profile::default(),
        Some(name) => baton_policy::profile::parse(&format!("picker: {{name: {name}}}"))?,
    };
    for load in args.load {
        let scaled = scale(&requests, work_ms / args.prefill as f64 / (load / 100.0));
        let peers = [Peer::RoundRobin, Peer::LeastLoaded, Peer::PrefixAffinity, Peer::Dynamo, Peer::Mooncake];
        for peer in peers {
            let mut routers: Vec<_> = (0..args.schedulers).map(|_| Router::peer(peer, shape)).collect();
            let served = cluster::serve(&scaled, shape, &mut routers);
            print_row(load, peer.name(), &served, prompt_tokens);
        }
        let mut routers: Vec<_> =
            (0..args.schedulers).map(|number| Router::ours(profile.clone(), shape, number)).collect();
        let served = cluster::serve(&scaled, shape, &mut routers);
        print_row(load, "**Baton**", &served, prompt_tokens);
        let learner = &routers[0].learner;
        if let (Some(p50), Some(p90)) = (learner.ttft_ratio.quantile(0.5), learner.ttft_ratio.quantile(0.9)) {
            println!("<!-- actual by predicted TTFT: p50 {p50:.2}, p90 {p90:.2} -->");
        }
    }
    Ok(())
}

// So that all of it takes `duration_ms`.
fn scale(requests: &[Request], duration_ms: f64) -> Vec<Request> {
    let last = requests.last().map_or(1.0, |request| request.at.max(1.0));
    let mut scaled = requests.to_vec();
    scaled.iter_mut().for_each(|request| request.at *= duration_ms / last);
    scaled
}

fn print_row(load: f64, name: &str, served: &[Served], prompt_tokens: u64) {
    let ttft = sorted(served.iter().map(|served| served.ttft_ms));
    let tpot = sorted(served.iter().map(|served| served.tpot_ms).filter(|&ms| ms > 0.0));
    let at = |values: &[f64], q: f64| values[((values.len() - 1) as f64 * q) as usize];
    let hits = served.iter().map(|served| served.cached_tokens).sum::<u64>() as f64 / prompt_tokens as f64;
    let local = served.iter().filter(|served| served.is_local).count() as f64 / served.len() as f64;
    println!(
        "| {load} % | {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} % | {:.1} % |",
        at(&ttft, 0.5),
        at(&ttft, 0.9),
        at(&ttft, 0.99),
        ttft.iter().sum::<f64>() / ttft.len() as f64,
        at(&tpot, 0.5),
        at(&tpot, 0.9),
        at(&tpot, 0.99),
        hits * 100.0,
        local * 100.0,
    );
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
